"""How a site says yes: the file, the program, and what the socket takes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters import rootfile
from rdvtwisted.adapters.consent import ConsentFile, ConsentProgram, perform
from rdvtwisted.adapters.hooks import Hooks
from rdvtwisted.consent import Consent, Refusal, Visit
from rdvtwisted.errors import ConfigError, HookFailed, RDVError
from rdvtwisted.testing.programs import MemoryProgram, MemoryPrograms

NOBODY = 65534


class FolderCase(SynchronousTestCase):
    """A directory of root's."""

    def setUp(self) -> None:
        """It is empty."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to have files of root's and of others")
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.folder.chmod(0o755)
        self.clock = Clock()
        self.programs = MemoryPrograms()

    def write(self, name: str) -> Path:
        """A program of root's."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        self.programs.installed[name] = str(path)
        return path


class RequireTests(FolderCase):
    """Which files nobody but root can have chosen."""

    def test_way(self) -> None:
        """Every directory and link on the way counts, not just the file."""
        inner = self.folder / "a" / "b"
        inner.mkdir(parents=True)
        path = self.write("a/b/hook") if inner.exists() else inner
        self.assertTrue(rootfile.require(path).st_size)
        link = self.folder / "link"
        link.symlink_to("a/../a/b")
        rootfile.require(link / "hook")
        for bad in (inner, inner.parent, self.folder):
            bad.chmod(0o777)
            self.assertRaises(ConfigError, rootfile.require, path)
            self.assertRaises(ConfigError, rootfile.require, link / "hook")
            bad.chmod(0o755)
            os.chown(bad, NOBODY, 0)
            self.assertRaises(ConfigError, rootfile.require, path)
            os.chown(bad, 0, 0)
        rootfile.require(path)

    def test_file(self) -> None:
        """A file that others can write or own, a directory, a pipe and a loop of links are none."""
        path = self.write("hook")
        path.chmod(0o775)
        self.assertRaises(ConfigError, rootfile.require, path)
        path.chmod(0o755)
        os.chown(path, NOBODY, 0)
        self.assertRaises(ConfigError, rootfile.require, path)
        rootfile.require(path, {0, NOBODY})
        self.assertRaises(ConfigError, rootfile.require, self.folder)
        os.mkfifo(self.folder / "pipe")
        self.assertRaises(ConfigError, rootfile.require, self.folder / "pipe")
        (self.folder / "loop").symlink_to("loop")
        self.assertRaises(ConfigError, rootfile.require, self.folder / "loop")
        self.assertRaises(FileNotFoundError, rootfile.require, self.folder / "none")


class FileTests(FolderCase):
    """The consent file."""

    def test_left(self) -> None:
        """It holds from its last change on, whatever becomes of the clock; not there is not too old."""
        path, now = self.folder / "consent", 1_000_000.0
        file = ConsentFile(path, 60.0, lambda: now)
        self.assertIsNone(file.left())
        path.touch(0o600)
        for age, left in ((0, 60.0), (50, 10.0), (61, 0.0), (-500, 60.0)):
            os.utime(path, (now - age, now - age))
            self.assertEqual(file.left(), left)

    def test_somebody_elses(self) -> None:
        """What somebody else can have made, or removed, is no consent."""
        path = self.folder / "consent"
        path.touch(0o600)
        file = ConsentFile(path, 60.0, lambda: path.stat().st_mtime)
        self.assertEqual(file.left(), 60.0)
        os.chown(path, NOBODY, 0)
        self.assertIsNone(file.left())
        os.chown(path, 0, 0)
        self.folder.chmod(0o777)
        self.assertIsNone(file.left())

    def test_lure(self) -> None:
        """In a directory such as C{/tmp} anybody can make a link to a file of root's, which is not root's word."""
        self.folder.chmod(0o1777)
        path = self.folder / "consent"
        path.symlink_to("/proc/version")
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        self.assertIsNone(ConsentFile(path, 60.0, lambda: 0.0).left())
        program = self.folder / "pre-up"
        program.symlink_to("/bin/true")
        os.chown(program, NOBODY, NOBODY, follow_symlinks=False)
        hooks = Hooks(self.programs, self.clock, self.folder, 10.0)
        refused = Deferred.fromCoroutine(hooks.require("pre-up", {}))
        self.assertIn("does not belong to root", str(self.failureResultOf(refused, HookFailed).value))
        self.assertEqual(self.programs.started, [])


class ProgramTests(FolderCase):
    """The program that is asked."""

    def ask(self) -> Deferred[bool]:
        """Ask it."""
        program = ConsentProgram(self.programs, self.clock, self.folder / "ask", "rpi1100", 30.0)
        return program.ask(Visit("s1", "rpi2200"))

    @property
    def running(self) -> MemoryProgram:
        """What was started last."""
        return self.programs.started[-1]

    def test_answers(self) -> None:
        """Status 0 is yes, any other is no; it learns from its environment what it is about."""
        self.write("ask")
        for manner, answer in (("ended with status 0", True), ("ended with status 1", False)):
            asked = self.ask()
            environment = self.running.environment
            self.assertEqual((environment["RDV_MASTER"], environment["RDV_SECONDS"]), ("rpi2200", "30"))
            self.running.exit(manner)
            self.assertIs(self.successResultOf(asked), answer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """One that takes too long, or is killed, has not answered; one that is not wanted any more is ended."""
        self.write("ask")
        asked = self.ask()
        self.clock.advance(30)
        self.assertIn("was killed", str(self.failureResultOf(asked, HookFailed).value))
        self.assertTrue(self.running.asked)
        asked = self.ask()
        self.running.exit("was ended by SIGSEGV")
        self.failureResultOf(asked, HookFailed)
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertTrue(self.running.asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_run(self) -> None:
        """One that is not there, or may be somebody else's work, is not run."""
        self.failureResultOf(self.ask(), ConfigError)
        self.write("ask").chmod(0o777)
        self.failureResultOf(self.ask(), HookFailed)
        self.assertEqual(self.programs.started, [])


class HooksTests(FolderCase):
    """Hooks."""

    def setUp(self) -> None:
        """There is none."""
        super().setUp()
        self.hooks = Hooks(self.programs, self.clock, self.folder, 10.0)

    def run_hook(self, name: str = "pre-up") -> Deferred[None]:
        """Run one."""
        return Deferred.fromCoroutine(self.hooks.require(name, {"RDV_SESSION": "s1"}))

    def test_none(self) -> None:
        """None is no failure; a link that leads to none is one, and is known beforehand."""
        self.successResultOf(self.run_hook())
        self.assertEqual(self.hooks.problems(), [])
        (self.folder / "pre-up").symlink_to("gone")
        line = f"{self.folder}/pre-up leads to {self.folder}/gone, which is not there"
        self.assertIn(line, str(self.failureResultOf(self.run_hook(), HookFailed).value))
        self.assertEqual(self.hooks.problems(), [f"{self.folder}/pre-up will not be run: {line}"])

    def test_run(self) -> None:
        """It is told its name; its status is what counts, in one line."""
        path = self.write("pre-up")
        done = self.run_hook()
        [program] = self.programs.started
        self.assertEqual(program.environment, {"RDV_SESSION": "s1", "RDV_HOOK": "pre-up"})
        program.exit()
        self.successResultOf(done)
        done = self.run_hook()
        self.programs.started[1].exit("ended with status 3")
        self.assertEqual(str(self.failureResultOf(done, HookFailed).value), f"{path} failed with status 3")

    def test_hangs(self) -> None:
        """One that does not end is killed; C{pre-down}, for which the interface waits, sooner than the others."""
        for name, seconds in (("pre-up", 10.0), ("pre-down", 3.0)):
            self.write(name)
            done = self.run_hook(name)
            self.clock.advance(seconds - 0.1)
            self.assertNoResult(done)
            self.clock.advance(0.1)
            self.assertIn(f"after {seconds:g} s", str(self.failureResultOf(done, HookFailed).value))
            self.assertTrue(self.programs.started[-1].asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_at_a_time(self) -> None:
        """The next waits for the one before."""
        self.write("post-up")
        self.write("pre-down")
        first, second = self.run_hook("post-up"), self.run_hook("pre-down")
        self.assertEqual(len(self.programs.started), 1)
        self.programs.started[0].exit()
        self.successResultOf(first)
        self.programs.started[1].exit()
        self.successResultOf(second)

    def test_refused(self) -> None:
        """One that others can write is not run, and has failed; where that changes nothing it is logged."""
        self.write("pre-up").chmod(0o777)
        line = str(self.failureResultOf(self.run_hook(), HookFailed).value)
        self.assertIn("can be written by others than root", line)
        self.successResultOf(Deferred.fromCoroutine(self.hooks.notify("pre-up", {})))
        self.assertEqual(self.programs.started, [])


class RequestTests(SynchronousTestCase):
    """What the socket takes."""

    def test_requests(self) -> None:
        """Each verb does what it says, and whatever else comes is refused with one line."""
        consent = Consent(Clock(), required=True)

        def do(**request: object) -> object:
            return perform(consent, json.dumps(request).encode(), "admin:root (uid 0)")

        self.assertEqual(do(verb="grant", seconds=60), "Granted for 60 s")
        status = do(verb="status")
        assert isinstance(status, dict)
        self.assertEqual(status["window_left_s"], 60.0)
        self.assertEqual(do(verb="end"), "The window is closed")
        asked = consent.ask(Visit())
        self.assertEqual(do(verb="refuse"), "Refused to a master (L3)")
        self.failureResultOf(asked, Refusal)
        asked = consent.ask(Visit("s1", "rpi2200"))
        self.assertRaises(RDVError, do, verb="grant", session="s2")
        self.assertEqual(do(verb="grant", session="s1"), "Granted to rpi2200 (L3)")
        self.successResultOf(asked).close()
        for line in (b"", b"[]", b"{}", b"\xff", b'{"verb": "dance"}', b'{"verb": []}', b'{"verb": "refuse"}',
                     b'{"verb": "grant", "seconds": "x"}', b'{"verb": "grant", "session": 1}',
                     b'{"verb": "grant", "seconds": true}',
                     b'{"verb": "grant", "seconds": NaN}', b"[" * 3000):  # fmt: skip
            self.assertRaises(RDVError, perform, consent, line, "admin:root (uid 0)")
