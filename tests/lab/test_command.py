"""C{script/lab}: what it does, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import Lab, built_for, command, obstacles

SCRIPT = Path(__file__).parent.parent.parent / "script" / "lab"


class CommandTests(SynchronousTestCase):
    """C{script/lab}."""

    skip = obstacles()

    def script(self, lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as a user does."""
        return subprocess.run(
            [str(SCRIPT), "--prefix", lab.prefix, *arguments], capture_output=True, text=True, check=False
        )

    def test_life(self) -> None:
        """Up shows the lab, status says what is there, exec has the command's exit status, down leaves nothing."""
        lab = Lab(f"rdvc{os.getpid()}")  # not a private one: its builder ends before it does
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
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "onsite\n", ""))
        self.assertEqual(self.script(lab, "cut", "onsite").returncode, 0)
        self.assertIn("NO-CARRIER", self.script(lab, "exec", "onsite", "ip", "link").stdout)
        self.assertEqual(self.script(lab, "mend", "onsite").returncode, 0)
        down = self.script(lab, "down")
        self.assertEqual((down.returncode, down.stdout, down.stderr), (0, "the lab is down\n", ""))
        self.assertEqual(lab.leftovers(), [])
        self.assertEqual(self.script(lab, "down").stdout, "there was no lab\n")

    def test_parts(self) -> None:
        """What is left of a lab whose builder was killed is shown, as is the way to get rid of it."""
        lab = built_for(self)
        subprocess.run(["ip", "netns", "del", f"{lab.prefix}-web"], check=True)
        status = self.script(lab, "status")
        self.assertEqual(status.returncode, command.EXIT_BROKEN)
        self.assertIn(f"namespace {lab.prefix}-pc", status.stdout)
        self.assertIn("script/lab down takes it away", status.stdout)

    def test_nonsense(self) -> None:
        """A host, prefix or LAN that cannot be is answered with one line."""
        lab = built_for(self)
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
