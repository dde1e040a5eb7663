"""L{tests.lab}: the lab is what it says it is, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import Lab, LabError, command, namespaces, obstacles, private_lab, processes
from tests.lab.private import abandoned
from tests.lab.processes import Record, eventually
from tests.lab.topology import outgoing_rules
from tests.lab.website import PAGE

HERE = Path(__file__).parent
SITE, SUPPORT = "198.51.100.6", "198.51.100.130"

DYING_BUILD = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.lab import Lab, namespaces
real, left = namespaces.commands, [{calls}]
def commands(jobs):
    if left[0] == 0:
        jobs = list(jobs)[: {share}]
    outputs = real(jobs)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return outputs
namespaces.commands = commands
Lab({prefix!r}).up()
"""
"""A builder that is killed half-way through one of its steps."""

STEPS = 7
"""How many times a build runs programs: namespaces, two mounts, machines, cables, addresses, carriers."""

KEPT_CONNECTION = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=1)
for line in sys.stdin:
    try:
        connection.request("GET", "/client")
        print(connection.getresponse().read().decode().strip(), flush=True)
    except TimeoutError:
        print("silence", flush=True)
"""
"""Asks again over the same connection for each line it reads."""

ESCAPE = """
import os, subprocess, sys
subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
subprocess.run(["ip", "netns", "add", "inner"], check=True)
subprocess.Popen(["ip", "netns", "exec", "inner", "sleep", "601"], start_new_session=True)
"""
"""Leaves a daemon without the lab's mark, and one with it in another network namespace."""


def build(case: SynchronousTestCase, sites: int = 1) -> Lab:
    """A lab that is down again when the test has ended."""
    lab = private_lab(sites)
    case.addCleanup(lab.down)
    return lab.up()


def probe(lab: Lab, host: str, *arguments: str) -> str:
    """What C{probe.py} says in a host: an answer, or the empty string."""
    return lab.run(host, [sys.executable, "-B", str(HERE / "probe.py"), *arguments]).stdout


def pings(lab: Lab, host: str, address: str) -> bool:
    """Whether a host gets an answer to one ping; on cables of this machine, one is enough."""
    return lab.run(host, ["ping", "-c", "1", "-W", "0.5", address]).returncode == 0


class ReachTests(SynchronousTestCase):
    """Who reaches whom."""

    skip = obstacles()

    def test_devices_reach_the_server(self) -> None:
        """Both devices and both routers reach the RDV server; it sees their routers' addresses."""
        lab = build(self)
        lab.start("server", [sys.executable, "-B", str(HERE / "website.py")]).wait_listening(80)
        server = lab.addresses["server"]
        self.assertEqual(probe(lab, "onsite", "get", f"http://{server}/client"), f"{SITE}\n")
        self.assertEqual(probe(lab, "master", "get", f"http://{server}/client"), f"{SUPPORT}\n")
        self.assertTrue(pings(lab, "site-router", server))
        self.assertTrue(pings(lab, "support-router", server))

    def test_lan_only(self) -> None:
        """The machine on the customer's LAN answers ping, HTTP, UDP and TCP there, and nobody elsewhere."""
        lab = build(self)
        lab.services()
        web = lab.addresses["web"]
        self.assertTrue(pings(lab, "onsite", web))
        self.assertEqual(probe(lab, "onsite", "get", f"http://{web}/").encode(), PAGE)
        self.assertEqual(probe(lab, "onsite", "get", f"http://{web}/client"), lab.addresses["onsite"] + "\n")
        self.assertEqual(probe(lab, "onsite", "udp", web, "hello"), "hello")
        self.assertEqual(probe(lab, "onsite", "send", web, "3000000").split()[0], "3000000")
        self.assertEqual(len(probe(lab, "onsite", "get", f"http://{web}/bytes/3000000")), 3000000)
        for host in ("server", "master", "pc", "inet"):
            self.assertFalse(pings(lab, host, web), host)

    def test_nothing_gets_in(self) -> None:
        """From the Internet, nothing gets an answer from a router or past it, even for one who knows the way."""
        lab = build(self)
        web = lab.addresses["web"]
        lab.run("inet", ["ip", "route", "add", "192.168.1.0/24", "via", SITE], check=True)
        self.assertFalse(pings(lab, "inet", web))
        self.assertFalse(pings(lab, "server", SITE))
        self.assertEqual(probe(lab, "server", "connect", SITE, "22"), "silence")
        self.assertFalse(pings(lab, "server", SUPPORT))
        lab.run("site-router", ["nft", "flush ruleset"], check=True)
        self.assertTrue(pings(lab, "inet", web), "it was not the router that kept us out")
        self.assertTrue(pings(lab, "server", SITE))

    def test_pc_reaches_the_master_only(self) -> None:
        """The engineer's PC reaches the master device, which passes nothing on."""
        lab = build(self)
        self.assertTrue(pings(lab, "pc", "192.168.38.225"))
        self.assertFalse(pings(lab, "pc", lab.addresses["server"]))
        self.assertFalse(pings(lab, "pc", "192.168.50.1"))

    def test_same_lan_twice(self) -> None:
        """Two customers have the same addresses inside, and each device reaches its own LAN and the server."""
        lab = build(self, sites=2)
        lab.services()
        for number, public in (("", SITE), ("2", "198.51.100.10")):
            onsite, web = f"onsite{number}", f"web{number}"
            self.assertEqual(lab.addresses[onsite], "192.168.1.10")
            lab.run(web, ["ip", "link", "set", "eth0", "alias", web], check=True)
            self.assertEqual(probe(lab, onsite, "get", f"http://{lab.addresses[web]}/").encode(), PAGE)
            self.assertTrue(pings(lab, onsite, lab.addresses["server"]))
            self.assertIn(f"{public}/30", lab.snapshot(f"site-router{number}").only("address")[1])
        lab.cut("web2")
        self.assertTrue(pings(lab, "onsite", lab.addresses["web"]))
        self.assertFalse(pings(lab, "onsite2", lab.addresses["web"]))

    def test_only_one_port_out(self) -> None:
        """A router can be told to let out one TCP port only, and to let out everything again."""
        lab = build(self)
        server = lab.addresses["server"]
        lab.allow_only("site-router", 443)
        self.assertEqual(probe(lab, "onsite", "connect", server, "443"), "refused")
        self.assertEqual(probe(lab, "onsite", "connect", server, "22"), "silence")
        self.assertFalse(pings(lab, "onsite", server))
        lab.allow_all("site-router")
        self.assertEqual(probe(lab, "onsite", "connect", server, "22"), "refused")
        self.assertIn("drop", outgoing_rules(frozenset()))


class MachineTests(SynchronousTestCase):
    """Each host is a machine of its own."""

    skip = obstacles()

    def test_own_names(self) -> None:
        """A host has its own host name, name server, interfaces in /sys and named network namespaces."""
        lab = build(self)
        self.assertEqual(lab.run("onsite", ["hostname"]).stdout, "onsite\n")
        self.assertEqual(lab.run("onsite", ["cat", "/etc/resolv.conf"]).stdout, "nameserver 192.168.1.1\n")
        self.assertEqual(lab.run("master", ["ls", "/sys/class/net"]).stdout.split(), ["eth0", "eth1", "lo"])
        self.assertIn("203.0.113.10", lab.run("master", ["getent", "hosts", "rdv.example.net"]).stdout)
        lab.run("server", ["ip", "netns", "add", "inner"], check=True)
        self.assertEqual(lab.snapshot("server").only("namespace"), ["inner"])
        self.assertEqual(lab.run("server", ["ip", "netns", "exec", "inner", "true"]).returncode, 0)
        self.assertFalse((namespaces.NETNS / "inner").exists())

    def test_ip_netns_exec(self) -> None:
        """Whoever knows C{ip netns exec} gets a host's network and name server that way, too."""
        lab = build(self)
        seen = subprocess.run(
            ["ip", "netns", "exec", f"{lab.prefix}-onsite", "cat", "/etc/resolv.conf"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(seen.stdout, "nameserver 192.168.1.1\n")

    def test_run(self) -> None:
        """Running a program gives its exit status, output and errors; one that takes too long is ended."""
        lab = build(self)
        result = lab.run("pc", ["sh", "-c", "cat; echo $EXTRA; echo oops >&2; exit 7"], input="in ", env={"EXTRA": "x"})
        self.assertEqual((result.returncode, result.stdout, result.stderr), (7, "in x\n", "oops\n"))
        error = self.assertRaises(LabError, lab.run, "pc", ["sleep", "60"], timeout=0.1)
        self.assertEqual(str(error), "in pc, sleep 60 takes more than 0.1 s")
        error = self.assertRaises(LabError, lab.run, "pc", ["sh", "-c", "echo oops >&2; exit 7"], check=True)
        self.assertIn("exits with 7: oops", str(error))
        error = self.assertRaises(LabError, lab.run, "nobody", ["true"])
        self.assertIn("no host 'nobody'", str(error))

    def test_started(self) -> None:
        """A started program runs on, its output can be waited for, and a signal ends it."""
        lab = build(self)
        process = lab.start(
            "pc", ["sh", "-c", "trap 'echo bye; exit 3' INT; echo hi $EXTRA; sleep 600 & wait"], {"EXTRA": "x"}
        )
        process.wait_output("hi x")
        self.assertIsNone(process.poll())
        self.assertEqual(process.stop(signal.SIGINT), 3)
        self.assertEqual(process.output(), "hi x\nbye\n")

    def test_started_in_vain(self) -> None:
        """Waiting for a program that has failed shows what it said."""
        lab = build(self)
        process = lab.start("pc", ["sh", "-c", "echo no such luck; exit 1"])
        error = self.assertRaises(LabError, process.wait_listening, 80)
        self.assertIn("ended with status 1\n    no such luck", str(error))

    def test_snapshot(self) -> None:
        """A snapshot stays the same while nothing changes, and names what does."""
        lab = build(self)
        before = lab.snapshot("master")
        pings(lab, "master", lab.addresses["server"])
        self.assertEqual(before.changes(lab.snapshot("master")), [])
        for line in (
            "ip tuntap add tun7 mode tun",
            "ip rule add iif eth1 table 77",
            "ip route add 10.0.0.0/8 dev eth0 table 77",
            "nft add table ip leak",
            "sysctl -qw net.ipv4.ip_forward=1",
        ):
            lab.run("master", line.split(), check=True)
        changes = "\n".join(before.changes(lab.snapshot("master")))
        for fact in ("+ link tun7 ", "iif eth1", "table 77", "+ nft table ip leak", "+ sysctl net/ipv4/ip_forward:1"):
            self.assertIn(fact, changes)

    def test_cut_and_mend(self) -> None:
        """An unplugged interface loses its carrier and nothing else; plugged in again, all is as before."""
        lab = build(self)
        for host, interface in (("onsite", "eth0"), ("master", "eth1"), ("site-router", "eth0"), ("server", "eth0")):
            far = lab.topology.opposite(host, interface)
            before = lab.snapshot(host), lab.snapshot(far.host)
            lab.cut(host, interface)
            cut = lab.snapshot(host)
            [link] = [line for line in cut.only("link") if line.startswith(f"{interface} ")]
            self.assertIn("NO-CARRIER", link)
            self.assertEqual(cut.only("address"), before[0].only("address"))
            lab.mend(host, interface)
            self.assertEqual(before[0].changes(lab.snapshot(host)), [])
            self.assertEqual(before[1].changes(lab.snapshot(far.host)), [])
        self.assertTrue(pings(lab, "onsite", lab.addresses["server"]))

    def test_flush_nat(self) -> None:
        """When a router forgets its connections, those that exist fall silent, and new ones work."""
        lab = build(self)
        lab.start("server", [sys.executable, "-B", str(HERE / "website.py")]).wait_listening(80)
        server = lab.addresses["server"]
        asking = subprocess.Popen(
            lab.command_line("onsite", [sys.executable, "-c", KEPT_CONNECTION, server]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(asking.communicate)
        assert asking.stdin is not None and asking.stdout is not None
        answers = []
        for flush in (False, False, True):
            if flush:
                lab.flush_nat("site-router")
            asking.stdin.write("\n")
            asking.stdin.flush()
            answers.append(asking.stdout.readline().strip())
        self.assertEqual(answers, [SITE, SITE, "silence"])
        self.assertEqual(probe(lab, "onsite", "get", f"http://{server}/client"), f"{SITE}\n")

    def test_capture(self) -> None:
        """A capture holds what passed the interface meanwhile."""
        lab = build(self)
        path = lab.directory / "ping.pcap"
        capture = lab.capture("onsite", "eth0", path)
        pings(lab, "onsite", lab.addresses["web"])
        capture.stop(signal.SIGINT)
        text = subprocess.run(["tcpdump", "-n", "-r", str(path)], capture_output=True, text=True, check=True).stdout
        self.assertIn("192.168.1.10 > 192.168.1.20: ICMP echo request", text)

    test_capture.skip = obstacles(["tcpdump"])  # type: ignore[attr-defined]


class LifeTests(SynchronousTestCase):
    """Up, down and what happens in between."""

    skip = obstacles()

    def test_nothing_left(self) -> None:
        """A lab that has been up, with programs running in it, leaves no namespace, file or process."""
        lab = build(self)
        lab.services()
        self.assertNotEqual(lab.leftovers(), [])
        inside = {member.pid for member in lab.members()}
        lab.down()
        self.assertEqual(lab.leftovers(), [])
        self.assertEqual([pid for pid in inside if Path(f"/proc/{pid}").exists()], [])
        lab.down()

    def test_machine_untouched(self) -> None:
        """While a lab is up, this machine's own rules, rule set and forwarding are what they were."""
        own = [
            *("sh", "-c"),
            "ip rule; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; hostname; cat /etc/resolv.conf",
        ]
        before = subprocess.run(own, capture_output=True, check=True).stdout
        build(self)
        self.assertEqual(subprocess.run(own, capture_output=True, check=True).stdout, before)

    def test_daemons_end(self) -> None:
        """A program that left its session, its environment or its network namespace ends with the lab."""
        lab = build(self)
        process = lab.start("server", [sys.executable, "-c", ESCAPE])
        process.wait(timeout=5)
        eventually(lambda: len(lab.members()) == 2, 2, "both daemons run")
        self.assertEqual({member.command for member in lab.members()}, {"sleep 600", "sleep 601"})
        lab.down()
        self.assertEqual(lab.leftovers(), [])

    def test_stubborn_program(self) -> None:
        """A program that ignores every polite request ends with the lab nevertheless."""
        lab = build(self)
        process = lab.start("pc", ["sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done"])
        process.wait_output("ready")
        lab.down(grace=0.05)
        self.assertEqual(process.poll(), -signal.SIGKILL)
        self.assertEqual(lab.leftovers(), [])

    def test_strangers_live(self) -> None:
        """A process that only has a recorded number, or another lab's mark, is not the lab's to end."""
        lab = build(self)
        stranger = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.MARK: f"{lab.prefix}0"})
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        Record(stranger.pid, 1, "pc", "a process that had this number before").save(lab.directory / "processes")
        lab.down()
        self.assertIsNone(stranger.poll())

    def test_killed_while_building(self) -> None:
        """However far a builder gets before it is killed, taking down leaves nothing, and building works again."""
        lab = private_lab()
        self.addCleanup(lab.down)
        for calls in range(STEPS):
            for share in (1, 99):
                code = DYING_BUILD.format(root=str(HERE.parent.parent), calls=calls, share=share, prefix=lab.prefix)
                dead = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
                self.assertEqual(dead.returncode, -signal.SIGKILL, dead.stderr)
                self.assertNotEqual(lab.leftovers(), [])
                lab.down()
                self.assertEqual(lab.leftovers(), [])
        code = DYING_BUILD.format(root=str(HERE.parent.parent), calls=STEPS - 1, share=1, prefix=lab.prefix)
        subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, check=False)
        lab.up()
        self.assertTrue(pings(lab, "onsite", lab.addresses["server"]))

    def test_every_step_was_killed(self) -> None:
        """A build has as many steps as the test above kills it in."""
        real, steps = namespaces.commands, []
        self.patch(namespaces, "commands", lambda jobs: steps.append(1) or real(jobs))  # type: ignore[func-returns-value]
        build(self)
        self.assertEqual(len(steps), STEPS)

    def test_failed_build(self) -> None:
        """A lab that cannot be built says why and leaves nothing."""
        lab = private_lab()
        self.addCleanup(lab.down)
        self.patch(type(lab.topology), "cable_batch", lambda topology: "link add nonsense\n")
        self.assertRaises(LabError, lab.up)
        self.assertEqual(lab.leftovers(), [])

    def test_side_by_side(self) -> None:
        """Two labs are up at once; taking one down does not disturb the other."""
        lab, other = build(self), Lab(f"rdvo{os.getpid()}")
        self.addCleanup(other.down)
        other.up()
        self.assertTrue(pings(other, "onsite", other.addresses["server"]))
        other.down()
        self.assertEqual(other.leftovers(), [])
        self.assertTrue(pings(lab, "onsite", lab.addresses["server"]))

    def test_abandoned(self) -> None:
        """A lab whose builder has died is known as such; one whose builder lives is not."""
        lab = build(self)
        self.assertNotIn(lab.prefix, abandoned("rdvt"))
        state = json.loads((lab.directory / "lab.json").read_text())
        state["owner"]["start"] -= 1
        (lab.directory / "lab.json").write_text(json.dumps(state))
        self.assertIn(lab.prefix, abandoned(lab.prefix))

    def test_load(self) -> None:
        """Another process finds the lab by its prefix, unless a part of it is missing."""
        lab = build(self)
        found = Lab.load(lab.prefix)
        assert found is not None
        self.assertEqual(found.topology, lab.topology)
        self.assertTrue(pings(found, "pc", "192.168.38.225"))
        subprocess.run(["ip", "netns", "del", f"{lab.prefix}-web"], check=True)
        self.assertIsNone(Lab.load(lab.prefix))


class CommandTests(SynchronousTestCase):
    """C{script/lab}."""

    skip = obstacles()

    def script(self, lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as a user does."""
        path = str(HERE.parent.parent / "script" / "lab")
        return subprocess.run([path, "--prefix", lab.prefix, *arguments], capture_output=True, text=True, check=False)

    def test_life(self) -> None:
        """Up shows the lab, status says what is there, exec has the command's exit status, down leaves nothing."""
        lab = private_lab()
        self.addCleanup(lab.down)
        self.assertEqual(self.script(lab, "status").returncode, command.EXIT_DOWN)
        self.assertIn("build it with", self.script(lab, "exec", "pc", "true").stderr)
        up = self.script(lab, "up")
        self.assertEqual((up.returncode, up.stderr), (0, ""))
        self.assertIn("pc  (engineer's PC)  eth0 192.168.38.226/29", up.stdout)
        self.assertIn("up already", self.script(lab, "up").stdout)
        status = json.loads(self.script(lab, "status", "--json").stdout)
        self.assertEqual(status["hosts"]["onsite"]["addresses"], {"eth0": "192.168.1.10/24"})
        [web] = status["hosts"]["web"]["processes"]
        self.assertIn("website.py", web["command"])
        done = self.script(lab, "exec", "onsite", "sh", "-c", "hostname; exit 7")
        self.assertEqual((done.returncode, done.stdout), (7, "onsite\n"))
        self.assertEqual(self.script(lab, "cut", "onsite").returncode, 0)
        self.assertIn("NO-CARRIER", self.script(lab, "exec", "onsite", "ip", "link").stdout)
        self.assertEqual(self.script(lab, "mend", "onsite").returncode, 0)
        down = self.script(lab, "down")
        self.assertEqual((down.returncode, down.stdout, down.stderr), (0, "the lab is down\n", ""))
        self.assertEqual(lab.leftovers(), [])
        self.assertEqual(self.script(lab, "down").stdout, "there was no lab\n")

    def test_parts(self) -> None:
        """What is left of a lab whose builder was killed is shown, as is the way to get rid of it."""
        lab = build(self)
        subprocess.run(["ip", "netns", "del", f"{lab.prefix}-web"], check=True)
        status = self.script(lab, "status")
        self.assertEqual(status.returncode, command.EXIT_BROKEN)
        self.assertIn(f"namespace {lab.prefix}-pc", status.stdout)
        self.assertIn("script/lab down takes it away", status.stdout)

    def test_nonsense(self) -> None:
        """A host, prefix or LAN that cannot be is answered with one line."""
        lab = build(self)
        for arguments, words in (
            (("exec", "printer", "true"), "no host 'printer'"),
            (("cut", "pc", "eth9"), "no cable ends in eth9 of pc"),
            (("--prefix", "a/b", "up"), "prefix 'a/b'"),
            (("up", "--lan", "10.0.0.1/8"), "10.0.0.1/8 has host bits set"),
            (("up", "--sites", "99"), "99 sites"),
        ):
            answer = self.script(lab, *arguments)
            self.assertEqual((answer.returncode, answer.stderr.count("\n")), (1, 1), answer.stderr)
            self.assertIn(words, answer.stderr)


class WithoutRootTests(SynchronousTestCase):
    """What somebody is told who may not or cannot build a lab."""

    def test_not_root(self) -> None:
        """Without root, script/lab says so, and tests have a reason to skip."""
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(obstacles(), "needs root (network namespaces)")
        said: list[str] = []
        self.patch(sys, "stderr", type("Err", (), {"write": staticmethod(said.append)}))
        self.assertEqual(command.main(["up"]), 1)
        self.assertEqual(said, ["lab: needs root, for network namespaces; try: sudo script/lab ...\n"])

    def test_missing_program(self) -> None:
        """A program that is not installed is named."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(obstacles(["sh", "no-such-program"]), "not installed: no-such-program")
