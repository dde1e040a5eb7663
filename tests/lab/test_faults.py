"""The fault suite: its judge finds what is planted, its sums are right, and some faults of each kind do no harm."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.deployment import onsite_id
from tests.lab.faults import arguments, planned, summary
from tests.lab.faults_judge import Judge, descendants, registry_faults, table
from tests.lab.faults_kinds import FAULTS, deck
from tests.lab.faults_play import PHASES, require_none
from tests.lab.faults_stage import ACCOUNTS, Stage
from tests.lab.processes import LabProcess, eventually
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles

CHECKOUT = Path(__file__).parent.parent.parent

PLANTED = {
    "link add planted type veth peer name planted2": "server: + link planted ",
    "address add 192.0.2.1/32 dev lo": "server: + address lo 192.0.2.1/32",
    "route add blackhole 192.0.2.0/24": "server: + route ",
    "rule add from 192.0.2.1 lookup 77": "server: + rule ",
    "netns add planted": "server: + namespace planted",
}
"""What a session could leave in a host's network, and how the judge is to begin its line about it."""

SEED = 4
"""Of the cycles that are played here."""

CYCLES = 24
"""How many of them."""


class RegistryTests(SynchronousTestCase):
    """What a server may have in its memory."""

    def test_at_rest(self) -> None:
        """One device that is expected, idle, and nothing else: nothing is wrong."""
        self.assertEqual(
            registry_faults({"leases": 0, "tickets": 0}, [{"id": "rpi1", "session": None}], [], ["rpi1"]), []
        )

    def test_wrong(self) -> None:
        """Whoever is missing, or here, or in a session, and whatever is held, has a line of its own."""
        self.assertEqual(
            registry_faults(
                {"leases": 2},
                [{"id": "rpi1", "session": "s1"}, {"id": "rpi3", "session": None}],
                [{"id": "s1", "state": "up"}],
                ["rpi1", "rpi2"],
            ),
            [
                "server: rpi2 is not listed",
                "server: rpi3 is listed",
                "server: rpi1 is listed in session s1",
                "server: there is session s1 (up)",
                "server: it holds 2 leases",
                "server: it does not say how many tickets it holds",
            ],
        )


class ArgumentsTests(SynchronousTestCase):
    """The command line."""

    def test_understood(self) -> None:
        """Kinds by name and pattern, in the table's order; numbers of cycles."""
        options = arguments().parse_args(["--kinds", "kill-server,term-*", "--only", "3,17", "--lanes", "8"])
        names = [fault.name for fault in options.kinds]
        self.assertEqual(names, ["term-master", "term-onsite", "term-server", "kill-server"])
        self.assertEqual((options.only, options.lanes), ([3, 17], 8))
        self.assertEqual(len(arguments().parse_args([]).kinds), len(FAULTS))

    def test_refused(self) -> None:
        """What can't be played is refused in one line, with status 2: a run of nothing would show nothing."""
        for option, value, words in (
            ("--cycles", "0", "'0' is not a number from 1"),
            ("--lanes", "99", "'99' is not a number from 1 to 8"),
            ("--only", "1,,2", "'' is not a number from 0"),
            ("--only", "x", "'x' is not"),
            ("--kinds", "kill-*,nope", "no kind is called 'nope'; see --list"),
        ):
            said = io.StringIO()
            with redirect_stderr(said):
                end = self.assertRaises(SystemExit, arguments().parse_args, [f"{option}={value}"])
            self.assertEqual(end.code, 2)
            self.assertIn(words, said.getvalue())


class JudgeTests(SynchronousTestCase):
    """The judge is shown a lab at rest, then finds what is planted there."""

    skip = obstacles([*PROGRAMS, "ping"])

    def setUp(self) -> None:
        self.stage = Stage()
        self.addCleanup(self.stage.down)
        self.lab, self.deployment = self.stage.lab, self.stage.deployment
        states = [self.deployment.state(account) for account in ACCOUNTS]
        self.judge = Judge(self.lab, self.deployment, [onsite_id()], states)
        self.judge.learn()

    def finds(self, begin: str) -> None:
        """The judge has one line that begins so."""
        found = self.judge.wrong()
        self.assertTrue(any(line.startswith(begin) for line in found), f"{begin!r} is not in {found}")

    def start(self, *words: str) -> LabProcess:
        """A process on the server's host, which this test ends."""
        process = self.lab.start("server", words)
        self.addCleanup(process.stop)
        return process

    def test_everything(self) -> None:
        """At rest nothing is wrong; each thing that is planted is found, and nothing any more once it is gone."""
        # The last question at the control socket has a descriptor until the server looks at it again.
        require_none(self.judge.wrong, 5.0, "nothing to be wrong")
        self.network()
        self.processes()
        self.files()
        self.memory()
        require_none(self.judge.wrong, 5.0, "nothing to be wrong any more")
        self.silence()

    def network(self) -> None:
        """Links, addresses, routes, rules, namespaces, nft tables, settings."""
        for words, begin in PLANTED.items():
            self.lab.run("server", ["ip", *words.split()], check=True)
            self.finds(begin)
            undo = words.split(" type ")[0].replace(" add ", " del ")
            self.lab.run("server", ["ip", *undo.split()], check=True)
        self.lab.run("onsite", ["nft", "add", "table", "inet", "planted"], check=True)
        self.finds("onsite: + nft table inet planted")
        self.lab.run("onsite", ["nft", "delete", "table", "inet", "planted"], check=True)
        forwarding = ["tee", "/proc/sys/net/ipv4/ip_forward"]
        self.lab.run("master", forwarding, input="1", check=True)
        self.finds("master: + sysctl net/ipv4/ip_forward:1")
        self.lab.run("master", forwarding, input="0", check=True)
        self.lab.cut("onsite")
        self.finds("onsite: - link eth0")
        self.assertEqual(self.judge.network(cut=True), [])
        self.lab.mend("onsite")

    def processes(self) -> None:
        """Strangers, zombies, and services without what they need."""
        stranger = self.start("sleep", "600")
        self.finds(f"process {stranger.pid}: sleep 600")
        stranger.stop()
        parent = self.start("sh", "-c", "sleep 0.01 & exec sleep 600")
        server, self.deployment.server = self.deployment.server, parent
        eventually(lambda: any(each.dead for each in descendants(table(), parent.pid)), 5.0, "a zombie")
        self.finds("zombie ")
        self.finds("server: it has no ")
        self.finds("server: its processes have 0 network namespaces, not 1")
        parent.stop()
        self.finds("server: it does not run")
        self.deployment.server = server

    def files(self) -> None:
        """A journal, a draft in a state directory, the directory of a program."""
        run = self.lab.directory / "hosts" / "onsite" / "run" / "rdvtwisted"
        for path in (run / "planted.json", self.deployment.state("server") / "planted.new"):
            path.write_text("{}")
            self.finds(f"file {path}")
            path.unlink()
        directory = run / "program-planted"
        directory.mkdir()
        self.finds(f"file {directory}")
        shutil.rmtree(directory)

    def memory(self) -> None:
        """More descriptors, pipes, threads or memory than before; devices that are listed, or are not."""
        greedy = "import os, sys, threading, time; p = [os.pipe() for _ in range(99)]\n"
        greedy += "x = bytearray(200_000_000); f = [open('/dev/null') for _ in range(99)]\n"
        greedy += "for _ in range(99): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        process = self.start(sys.executable, "-c", greedy + "print('ready', flush=True); time.sleep(600)")
        process.wait_output("ready")
        onsite, self.deployment.onsites[1] = self.deployment.onsites[1], process
        for what in ("descriptors", "pipes", "threads", "bytes of memory"):
            self.assertTrue(
                any(f" {what}, not " in line for line in self.judge.sizes()), f"{what}: {self.judge.sizes()}"
            )
        self.deployment.onsites[1] = onsite
        process.stop()
        self.judge.expected = (onsite_id(), "rpi1")
        self.finds("server: rpi1 is not listed")
        self.judge.expected = ()
        self.finds(f"server: {onsite_id()} is listed")
        self.judge.expected = (onsite_id(),)

    def silence(self) -> None:
        """A server that does not run."""
        assert self.deployment.server is not None
        self.deployment.server.stop()
        self.finds("server: the server is not running")


class PlanTests(SynchronousTestCase):
    """What is left to chance is left to the seed."""

    def test_decided(self) -> None:
        """The same seed and number are the same cycle; another seed is not the same suite."""
        first, second, other = ([planned(seed, number, FAULTS)[0].name for number in range(99)] for seed in (1, 1, 2))
        self.assertEqual(first, second)
        self.assertNotEqual(first, other)
        self.assertEqual(planned(1, 7, FAULTS)[1].random(), planned(1, 7, FAULTS)[1].random())

    def test_all_kinds(self) -> None:
        """Each kind comes up as often as it weighs, wherever one begins to count."""
        cards = deck(FAULTS)
        names = [planned(3, number, FAULTS)[0].name for number in range(2 * len(cards))]
        for fault in FAULTS:
            self.assertEqual(names.count(fault.name), 2 * fault.weight, fault.name)
            self.assertLessEqual(set(fault.phases), set(PHASES))

    def test_summary(self) -> None:
        """What is printed at the end: counts, the seed, times, all of it also by kind."""
        results = [
            {"kind": "cut", "stuck": False, "recovery_s": float(number), "noticed_s": 7.0} for number in range(1, 101)
        ]
        results.append({"kind": "kill", "stuck": True, "error": "it is left"})
        found = summary(9, results, 12.34)
        self.assertEqual((found["cycles"], found["stuck"], found["seed"], found["seconds"]), (101, 1, 9, 12.3))
        self.assertEqual(found["recovery_s"], {"p50": 51.0, "p95": 96.0, "max": 100.0})
        self.assertEqual(found["faults"]["cut"], {"count": 100, "stuck": 0, **found["recovery_s"], "noticed_max": 7.0})
        self.assertEqual(found["faults"]["kill"], {"count": 1, "stuck": 1, "p50": 0.0, "p95": 0.0, "max": 0.0})


class SuiteTests(SynchronousTestCase):
    """The command itself."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    def test_some_of_each(self) -> None:
        """A few cycles: none is stuck, the last line is for programs, and nothing is left on this machine."""
        words = [sys.executable, "-m", "tests.lab.faults", "--json", "--seed", str(SEED), "--cycles", str(CYCLES)]
        ended = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        document = json.loads(ended.stdout.splitlines()[-1])
        self.assertEqual((document["cycles"], document["stuck"], document["seed"]), (CYCLES, 0, SEED))
        self.assertGreater(document["recovery_s"]["p50"], 0.0)
        left = [name for name in os.listdir("/var/tmp") if name.startswith("rdvdisk-")]
        self.assertEqual([name for name in left if not Path(f"/proc/{name.removeprefix('rdvdisk-rdvf')}").exists()], [])

    def test_list(self) -> None:
        """C{--list} names every kind; a kind that there is not is refused."""
        words = [sys.executable, "-m", "tests.lab.faults"]
        listed = subprocess.run([*words, "--list"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        self.assertEqual([line.split()[0] for line in listed.splitlines()], [fault.name for fault in FAULTS])
        refused = subprocess.run(
            [*words, "--kinds", "pigeons"], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no kind is called 'pigeons'", refused.stderr)
