"""L{tests.lab}: a lab comes up whole and leaves nothing behind, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import Lab, LabError, built_for, namespaces, obstacles, private_lab, processes
from tests.lab.private import abandoned
from tests.lab.processes import Record, eventually

CHECKOUT = Path(__file__).parent.parent.parent

DOOMED = f"rdvd{os.getpid()}"
"""The prefix of labs that look abandoned: no other test run clears them away, as it would private ones."""

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

ESCAPE = """
import os, subprocess, sys
subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
subprocess.run(["ip", "netns", "add", "inner"], check=True)
subprocess.Popen(["ip", "netns", "exec", "inner", "sleep", "601"], start_new_session=True)
"""
"""Leaves a daemon without the lab's mark, and one with it in another network namespace."""


class LifeTests(SynchronousTestCase):
    """Up, down and what happens in between."""

    skip = obstacles()

    def test_nothing_left(self) -> None:
        """A lab that has been up, with programs running in it, leaves no namespace, file or process."""
        lab = built_for(self)
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
        built_for(self)
        self.assertEqual(subprocess.run(own, capture_output=True, check=True).stdout, before)

    def test_daemons_end(self) -> None:
        """A program that left its session, its environment or its network namespace ends with the lab."""
        lab = built_for(self)
        process = lab.start("server", [sys.executable, "-c", ESCAPE])
        process.wait(timeout=5)
        eventually(lambda: len(lab.members()) == 2, 2, "both daemons run")
        self.assertEqual({member.command for member in lab.members()}, {"sleep 600", "sleep 601"})
        lab.down()
        self.assertEqual(lab.leftovers(), [])

    def test_stubborn_program(self) -> None:
        """A program that ignores every polite request ends with the lab nevertheless."""
        lab = built_for(self)
        process = lab.start("pc", ["sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 1; done"])
        process.wait_output("ready")
        lab.down(grace=0.05)
        self.assertEqual(process.poll(), -signal.SIGKILL)
        self.assertEqual(lab.leftovers(), [])

    def test_nohup(self) -> None:
        """What this process was told not to heed, by C{nohup} or as a job in the background, its programs do heed."""
        lab = built_for(self)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            former = signal.signal(number, signal.SIG_IGN)
            try:
                process = lab.start("pc", ["sh", "-c", "echo ready; exec sleep 600"])
            finally:
                signal.signal(number, former)
            process.wait_output("ready")
            process.send(number)
            self.assertEqual(process.wait(timeout=5), -number)

    def test_strangers_live(self) -> None:
        """A process that only has a recorded number, or another lab's mark, is not the lab's to end."""
        lab = built_for(self)
        stranger = subprocess.Popen(["sleep", "600"], env={**os.environ, processes.MARK: f"{lab.prefix}0"})
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        Record(stranger.pid, 1, "pc", "a process that had this number before").save(lab.directory / "processes")
        lab.down()
        self.assertIsNone(stranger.poll())

    def test_killed_while_building(self) -> None:
        """However far a builder gets before it is killed, taking down leaves nothing, and building works again."""
        lab = Lab(DOOMED)
        self.addCleanup(lab.down)
        for calls in range(STEPS):
            for share in (1, 99):
                code = DYING_BUILD.format(root=str(CHECKOUT), calls=calls, share=share, prefix=lab.prefix)
                dead = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
                self.assertEqual(dead.returncode, -signal.SIGKILL, dead.stderr)
                self.assertNotEqual(lab.leftovers(), [])
                lab.down()
                self.assertEqual(lab.leftovers(), [])
        code = DYING_BUILD.format(root=str(CHECKOUT), calls=STEPS - 1, share=1, prefix=lab.prefix)
        subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, check=False)
        lab.up()
        self.assertTrue(lab.pings("onsite", lab.addresses["server"]))

    def test_every_step_was_killed(self) -> None:
        """A build has as many steps as the test above kills it in."""
        real, steps = namespaces.commands, []
        self.patch(namespaces, "commands", lambda jobs: steps.append(1) or real(jobs))  # type: ignore[func-returns-value]
        built_for(self)
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
        lab, other = built_for(self), Lab(f"rdvo{os.getpid()}")
        self.addCleanup(other.down)
        other.up()
        self.assertTrue(other.pings("onsite", other.addresses["server"]))
        other.down()
        self.assertEqual(other.leftovers(), [])
        self.assertTrue(lab.pings("onsite", lab.addresses["server"]))

    def test_abandoned(self) -> None:
        """A lab whose builder has died is known as such; one whose builder lives is not."""
        lab = Lab(DOOMED)
        self.addCleanup(lab.down)
        lab.up()
        self.assertEqual(abandoned(DOOMED), [])
        state = json.loads((lab.directory / "lab.json").read_text())
        state["owner"]["start"] -= 1
        (lab.directory / "lab.json").write_text(json.dumps(state))
        self.assertEqual(abandoned(DOOMED), [DOOMED])

    def test_cleared_together(self) -> None:
        """Several processes that find the same abandoned lab take it down once, and none of them stumbles."""
        self.addCleanup(Lab(DOOMED).down)
        build = f"from tests.lab.lab import Lab; Lab({DOOMED!r}).up()"
        subprocess.run([sys.executable, "-c", build], cwd=CHECKOUT, check=True)
        self.assertEqual(abandoned(DOOMED), [DOOMED])
        clear = f"from tests.lab.private import clear_abandoned; clear_abandoned({DOOMED!r})"
        clearing = [subprocess.Popen([sys.executable, "-c", clear], cwd=CHECKOUT) for _ in range(4)]
        self.assertEqual([process.wait(60) for process in clearing], [0] * 4)
        self.assertEqual(Lab(DOOMED).leftovers(), [])

    def test_load(self) -> None:
        """Another process finds the lab by its prefix, unless a part of it is missing."""
        lab = built_for(self)
        found = Lab.load(lab.prefix)
        assert found is not None
        self.assertEqual(found.topology, lab.topology)
        self.assertTrue(found.pings("pc", "192.168.38.225"))
        subprocess.run(["ip", "netns", "del", f"{lab.prefix}-web"], check=True)
        self.assertIsNone(Lab.load(lab.prefix))
