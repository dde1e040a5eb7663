"""The scripts that a newcomer runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.source import CHECKOUT

#: Seconds that one small run of trial may take on a slow machine before a test gives up.
PATIENCE = 120


class TallyTests(SynchronousTestCase):
    """C{script/tally} counts truly what trial has run, and fails where somebody should look."""

    def tally(self, *command: str) -> tuple[int, str]:
        """Exit status and last line of a tally of some command."""
        result = subprocess.run(
            [CHECKOUT / "script" / "tally", *command],
            cwd=self.mktemp_folder(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return result.returncode, result.stdout.splitlines()[-1]

    def mktemp_folder(self) -> Path:
        folder = Path(self.mktemp())
        folder.mkdir()
        return folder

    def trial(self, *methods: str) -> tuple[int, str]:
        """The tally of trial with a test case of these methods."""
        head = "from twisted.trial.unittest import TestCase\n\nclass SomeTests(TestCase):\n    x = 1\n"
        module = self.mktemp_folder() / "test_some.py"
        module.write_text(head + "".join(f"    {line}\n" for line in methods), encoding="utf-8")
        return self.tally(sys.executable, "-m", "twisted.trial", str(module.resolve()))

    def test_all_pass(self) -> None:
        """When all tests pass, it says so and succeeds."""
        self.assertEqual(self.trial("def test_a(self): pass", "def test_b(self): pass"), (0, "2 passed, 0 failed"))

    def test_mixed(self) -> None:
        """Failures and errors count as failed, expected failures as passed, skips apart; it fails."""
        outcome = self.trial(
            "def test_fail(self): self.fail()",
            "def test_error(self): 1 / 0",
            "def test_skip(self): pass",
            "test_skip.skip = 'for a reason'",
            "def test_todo(self): self.fail()",
            "test_todo.todo = 'some day'",
            "def test_pass(self): pass",
        )
        self.assertEqual(outcome, (1, "2 passed, 2 failed, 1 skipped"))

    def test_none(self) -> None:
        """No test at all is a failure."""
        self.assertEqual(self.trial(), (1, "0 passed, 0 failed"))

    def test_all_skipped(self) -> None:
        """When every test was skipped, none ran: a failure."""
        outcome = self.trial("def test_skip(self): pass", "test_skip.skip = 'for a reason'")
        self.assertEqual(outcome, (1, "0 passed, 0 failed, 1 skipped"))

    def test_broken_off(self) -> None:
        """A run that dies before its summary has failed, whatever it had counted."""
        self.assertEqual(self.trial("def test_a(self): __import__('os')._exit(7)"), (7, "0 passed, 1 failed"))
        self.assertEqual(self.trial("def test_a(self): __import__('os')._exit(0)"), (1, "0 passed, 1 failed"))

    def test_cannot_load(self) -> None:
        """A test module that cannot be imported is a failure."""
        self.assertEqual(self.tally(sys.executable, "-m", "twisted.trial", "no_such_module"), (1, "0 passed, 1 failed"))

    def test_word_in_output(self) -> None:
        """What a test prints is not taken for trial's last word."""
        text = "PASSED (successes=99)"
        outcome = self.trial(f"def test_a(self): print('\\n{text}'); self.fail()")
        self.assertEqual(outcome, (1, "0 passed, 1 failed"))


class LayoutTests(SynchronousTestCase):
    """What can be run is marked so."""

    def test_executable(self) -> None:
        """Each script with a first line that names an interpreter is executable, and no other is."""
        scripts = [path for path in [*(CHECKOUT / "script").iterdir(), *(CHECKOUT / ".ci").iterdir()] if path.is_file()]
        self.assertIn(CHECKOUT / "script" / "test", scripts)
        for path in scripts:
            named = path.read_bytes().startswith(b"#!")
            self.assertEqual(bool(path.stat().st_mode & 0o111), named, str(path))
