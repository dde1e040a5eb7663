"""L{tests.lab}: who reaches whom in the lab, and what each host is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import LabError, built_for, namespaces, obstacles
from tests.lab.topology import outgoing_rules
from tests.lab.website import PAGE

HERE = Path(__file__).parent
SITE, SUPPORT = "198.51.100.6", "198.51.100.130"

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


class ReachTests(SynchronousTestCase):
    """Who reaches whom."""

    skip = obstacles()

    def test_devices_reach_the_server(self) -> None:
        """Both devices and both routers reach the RDV server; it sees their routers' addresses."""
        lab = built_for(self)
        lab.start("server", [sys.executable, "-B", str(HERE / "website.py")]).wait_listening(80)
        server = lab.addresses["server"]
        self.assertEqual(lab.probe("onsite", "get", f"http://{server}/client"), f"{SITE}\n")
        self.assertEqual(lab.probe("master", "get", f"http://{server}/client"), f"{SUPPORT}\n")
        self.assertTrue(lab.pings("site-router", server))
        self.assertTrue(lab.pings("support-router", server))

    def test_lan_only(self) -> None:
        """The machine on the customer's LAN answers ping, HTTP, UDP and TCP there, and nobody elsewhere."""
        lab = built_for(self)
        lab.services()
        web = lab.addresses["web"]
        self.assertTrue(lab.pings("onsite", web))
        self.assertEqual(lab.probe("onsite", "get", f"http://{web}/").encode(), PAGE)
        self.assertEqual(lab.probe("onsite", "get", f"http://{web}/client"), lab.addresses["onsite"] + "\n")
        self.assertEqual(lab.probe("onsite", "udp", web, "hello"), "hello")
        self.assertEqual(lab.probe("onsite", "send", web, "3000000").split()[0], "3000000")
        self.assertEqual(len(lab.probe("onsite", "get", f"http://{web}/bytes/3000000")), 3000000)
        for host in ("server", "master", "pc", "inet"):
            self.assertFalse(lab.pings(host, web), host)

    def test_nothing_gets_in(self) -> None:
        """From the Internet, nothing gets an answer from a router or past it, even for one who knows the way."""
        lab = built_for(self)
        web = lab.addresses["web"]
        lab.run("inet", ["ip", "route", "add", "192.168.1.0/24", "via", SITE], check=True)
        self.assertFalse(lab.pings("inet", web))
        self.assertFalse(lab.pings("server", SITE))
        self.assertEqual(lab.probe("server", "connect", SITE, "22"), "silence")
        self.assertFalse(lab.pings("server", SUPPORT))
        lab.run("site-router", ["nft", "flush ruleset"], check=True)
        self.assertTrue(lab.pings("inet", web), "it was not the router that kept us out")
        self.assertTrue(lab.pings("server", SITE))

    def test_pc_reaches_the_master_only(self) -> None:
        """The engineer's PC reaches the master device, which passes nothing on."""
        lab = built_for(self)
        self.assertTrue(lab.pings("pc", "192.168.38.225"))
        self.assertFalse(lab.pings("pc", lab.addresses["server"]))
        self.assertFalse(lab.pings("pc", "192.168.50.1"))

    def test_same_lan_twice(self) -> None:
        """Two customers have the same addresses inside, and each device reaches its own LAN and the server."""
        lab = built_for(self, sites=2)
        lab.services()
        for number, public in (("", SITE), ("2", "198.51.100.10")):
            onsite, web = f"onsite{number}", f"web{number}"
            self.assertEqual(lab.addresses[onsite], "192.168.1.10")
            lab.run(web, ["ip", "link", "set", "eth0", "alias", web], check=True)
            self.assertEqual(lab.probe(onsite, "get", f"http://{lab.addresses[web]}/").encode(), PAGE)
            self.assertTrue(lab.pings(onsite, lab.addresses["server"]))
            self.assertIn(f"{public}/30", lab.snapshot(f"site-router{number}").only("address")[1])
        lab.cut("web2")
        self.assertTrue(lab.pings("onsite", lab.addresses["web"]))
        self.assertFalse(lab.pings("onsite2", lab.addresses["web"]))

    def test_only_one_port_out(self) -> None:
        """A router can be told to let out one TCP port only, and to let out everything again."""
        lab = built_for(self)
        server = lab.addresses["server"]
        lab.allow_only("site-router", 443)
        self.assertEqual(lab.probe("onsite", "connect", server, "443"), "refused")
        self.assertEqual(lab.probe("onsite", "connect", server, "22"), "silence")
        self.assertFalse(lab.pings("onsite", server))
        lab.allow_all("site-router")
        self.assertEqual(lab.probe("onsite", "connect", server, "22"), "refused")
        self.assertIn("drop", outgoing_rules(frozenset()))


class MachineTests(SynchronousTestCase):
    """Each host is a machine of its own."""

    skip = obstacles()

    def test_own_names(self) -> None:
        """A host has its own host name, name server, interfaces in /sys and named network namespaces."""
        lab = built_for(self)
        self.assertEqual(lab.run("onsite", ["hostname"]).stdout, "onsite\n")
        self.assertEqual(lab.run("onsite", ["cat", "/etc/resolv.conf"]).stdout, "nameserver 192.168.1.1\n")
        self.assertEqual(lab.run("master", ["ls", "/sys/class/net"]).stdout.split(), ["eth0", "eth1", "lo"])
        self.assertIn("203.0.113.10", lab.run("master", ["getent", "hosts", "rdv.example.net"]).stdout)
        lab.run("server", ["ip", "netns", "add", "inner"], check=True)
        self.assertEqual(lab.snapshot("server").only("namespace"), ["inner"])
        self.assertEqual(lab.run("server", ["ip", "netns", "exec", "inner", "true"]).returncode, 0)
        self.assertFalse((namespaces.NETNS / "inner").exists())

    def test_own_run(self) -> None:
        """What a program writes to /run is there for the host's other programs, and for nobody else."""
        lab = built_for(self)
        self.assertTrue(lab.run("onsite", ["sh", "-c", "mkdir /run/own; echo mine >/run/own/file"], check=True))
        self.assertEqual(lab.run("onsite", ["cat", "/var/run/own/file"]).stdout, "mine\n")
        self.assertNotEqual(lab.run("master", ["ls", "/run/own"]).returncode, 0)
        self.assertFalse(Path("/run/own").exists())
        self.assertEqual((lab.directory / "hosts/onsite/run/own/file").read_text(), "mine\n")

    def test_ip_netns_exec(self) -> None:
        """Whoever knows C{ip netns exec} gets a host's network and name server that way, too."""
        lab = built_for(self)
        seen = subprocess.run(
            ["ip", "netns", "exec", f"{lab.prefix}-onsite", "cat", "/etc/resolv.conf"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(seen.stdout, "nameserver 192.168.1.1\n")

    def test_run(self) -> None:
        """Running a program gives its exit status, output and errors; one that takes too long is ended."""
        lab = built_for(self)
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
        lab = built_for(self)
        process = lab.start(
            "pc", ["sh", "-c", "trap 'echo bye; exit 3' INT; echo hi $EXTRA; sleep 600 & wait"], {"EXTRA": "x"}
        )
        process.wait_output("hi x")
        self.assertIsNone(process.poll())
        self.assertEqual(process.stop(signal.SIGINT), 3)
        self.assertEqual(process.output(), "hi x\nbye\n")

    def test_interrupted(self) -> None:
        """A signal reaches a started program even if this process ignores it, as in the background of a shell."""
        lab = built_for(self)
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN))
        process = lab.start("pc", ["sh", "-c", "echo ready; exec sleep 600"])
        process.wait_output("ready")
        self.assertEqual(process.stop(signal.SIGINT), -signal.SIGINT)

    def test_started_in_vain(self) -> None:
        """Waiting for a program that has failed shows what it said."""
        lab = built_for(self)
        process = lab.start("pc", ["sh", "-c", "echo no such luck; exit 1"])
        error = self.assertRaises(LabError, process.wait_listening, 80)
        self.assertIn("ended with status 1\n    no such luck", str(error))

    def test_snapshot(self) -> None:
        """A snapshot stays the same while nothing changes, and names what does."""
        lab = built_for(self)
        before = lab.snapshot("master")
        lab.pings("master", lab.addresses["server"])
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
        lab = built_for(self)
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
        self.assertTrue(lab.pings("onsite", lab.addresses["server"]))

    def test_flush_nat(self) -> None:
        """When a router forgets its connections, those that exist fall silent, and new ones work."""
        lab = built_for(self)
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
        self.assertEqual(lab.probe("onsite", "get", f"http://{server}/client"), f"{SITE}\n")

    def test_capture(self) -> None:
        """A capture holds what passed the interface meanwhile."""
        lab = built_for(self)
        path = lab.directory / "ping.pcap"
        capture = lab.capture("onsite", "eth0", path)
        for _ in range(3):  # the last may still be on its way into the file when tcpdump ends
            lab.pings("onsite", lab.addresses["web"])
        capture.stop(signal.SIGINT)
        text = subprocess.run(["tcpdump", "-n", "-r", str(path)], capture_output=True, text=True, check=True).stdout
        self.assertIn("192.168.1.10 > 192.168.1.20: ICMP echo request", text)

    test_capture.skip = obstacles(["tcpdump"])  # type: ignore[attr-defined]
