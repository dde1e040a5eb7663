"""Stock programs as a backend sees them: started, heard, ended, and never left behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from textwrap import dedent
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.programs import LONGEST_LINE, MOST_LINES, Output, Program, Programs
from rdvtwisted.errors import MissingProgram
from rdvtwisted.interfaces import IProgram, IPrograms
from rdvtwisted.testing.programs import MemoryProgram, MemoryPrograms
from tests.readable import Readable
from tests.source import CHECKOUT

reactor: Any = global_reactor


def pipe_with(text: bytes) -> int:
    """A descriptor from which this, and then the end, can be read."""
    ours, its = os.pipe2(os.O_CLOEXEC)
    os.write(its, text)
    os.close(its)
    return ours


def name_of(descriptor: int) -> str:
    """What a descriptor of this process leads to."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def is_open(name: str) -> bool:
    """Whether a descriptor of this process leads to what has this name."""
    return any(os.path.islink(path) and os.readlink(path) == name for path in Path("/proc/self/fd").iterdir())


class ProgramsContract:
    """What every L{IPrograms} promises. Mix into a C{TestCase} that sets C{programs}."""

    programs: Any

    def start(self, behaviour: str, files: dict[str, str] | None = None, stdin: int | None = None) -> Any:
        """
        Start a program that behaves like this: C{says} says two lines and
        ends with status 3; C{reads} says what its file C{text} and then what
        its standard input holds; C{stays} says one line and stays until it is asked to end.
        """
        raise NotImplementedError

    def test_provides(self: Any) -> None:
        """They are programs."""
        self.assertTrue(verifyObject(IPrograms, self.programs))

    def test_find(self: Any) -> None:
        """Where an installed program is is told; of another, that there is none."""
        self.assertTrue(os.path.isabs(self.programs.find("sh")))
        self.assertIsNone(self.programs.find("no-such-program"))

    def test_missing(self: Any) -> None:
        """A program that is not there is refused, and its standard input is closed."""
        stdin = pipe_with(b"")
        name = name_of(stdin)
        self.assertRaises(MissingProgram, self.programs.start, ["/usr/sbin/no-such-program"], {}, stdin)
        self.assertFalse(is_open(name))

    async def test_end_of_its_own(self: Any) -> None:
        """A program that ends is heard to its last word, and how it ended is told."""
        program = self.start("says")
        self.assertTrue(verifyObject(IProgram, program))
        self.assertEqual(await program.ended, "sh ended with status 3")
        self.assertEqual(program.output(), ["one", "two"])
        await program.end()

    async def test_material(self: Any) -> None:
        """A program finds its files and its standard input, of which nothing stays open here."""
        stdin = pipe_with(b"from stdin\n")
        name = name_of(stdin)
        program = self.start("reads", {"text": "from a file\n"}, stdin)
        await program.ended
        self.assertEqual(program.output(), ["from a file", "from stdin"])
        self.assertFalse(is_open(name))

    async def test_end(self: Any) -> None:
        """A program that is asked to end does, however often it is asked."""
        program = self.start("stays")
        twice = [program.end(), program.end()]
        self.assertEqual(await program.ended, "sh was ended by SIGTERM")
        for each in twice:
            self.assertIsNone(await each)
        self.assertIsNone(await program.end())


def _in_memory(program: MemoryProgram) -> None:
    """Do what the scripts of the real ones do."""
    behaviour = program.arguments[-1]
    if behaviour == "says":
        program.say("one")
        program.say("two")
        program.exit("ended with status 3")
    elif behaviour == "reads":
        assert program.stdin is not None
        with open(program.stdin) as stdin:
            for line in (program.files["text"] + stdin.read()).splitlines():
                program.say(line)
        program.exit()
    else:
        program.say("here")


class MemoryProgramsTests(ProgramsContract, TestCase):
    """Programs in memory."""

    def setUp(self) -> None:
        """A machine with one program."""
        self.programs = MemoryPrograms("sh")
        self.programs.behaviour = _in_memory

    def start(self, behaviour: str, files: dict[str, str] | None = None, stdin: int | None = None) -> MemoryProgram:
        program: MemoryProgram = self.programs.start([str(self.programs.find("sh")), behaviour], files or {}, stdin)
        return program

    def test_stubborn(self) -> None:
        """A program that does not end when asked goes on until the test says so."""
        program = self.start("stays")
        program.stubborn = True
        ending = program.end()
        self.assertNoResult(ending)
        program.exit("was ended by SIGKILL")
        self.assertIsNone(self.successResultOf(ending))
        self.assertEqual(self.successResultOf(program.ended), "sh was ended by SIGKILL")


_SCRIPTS = {"says": "echo one; echo two >&2; exit 3", "reads": "cat text; cat", "stays": "echo here; exec sleep 600"}


class ProgramsTests(ProgramsContract, TestCase):
    """Programs of this machine."""

    timeout = 30

    def setUp(self) -> None:
        """A place for their directories."""
        self.directory = Path(self.mktemp()).absolute() / "programs"
        self.programs = Programs(reactor, self.directory)

    def start(self, behaviour: str, files: dict[str, str] | None = None, stdin: int | None = None) -> Program:
        return self.run_script(_SCRIPTS[behaviour], files, stdin)

    def run_script(self, script: str, files: dict[str, str] | None = None, stdin: int | None = None) -> Program:
        """Start a shell with this script, which ends with the test."""
        program: Program = self.programs.start([str(self.programs.find("sh")), "-c", script], files or {}, stdin)
        self.addCleanup(program.end)
        return program

    async def run_ready(self, script: str) -> Program:
        """Start a script, which writes to C{$READY} when it is ready."""
        signal_path = self.directory.parent / "ready"
        self.directory.parent.mkdir(exist_ok=True)
        os.mkfifo(signal_path)
        ready = Readable(os.open(signal_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        program = self.run_script(f"READY={signal_path}; {script}")
        await ready.ready
        return program

    async def test_environment(self) -> None:
        """A program gets the variables that it is given, and tells its status; one that a signal ends has none."""
        program = self.programs.start(
            [str(self.programs.find("sh")), "-c", 'echo "$WHAT $PATH"; exit 7'], {}, environment={"WHAT": "a b"}
        )
        self.assertIsNone(program.status)
        await program.ended
        self.assertEqual(program.status, 7)
        self.assertTrue(program.output()[0].startswith("a b /"))
        program = self.run_script("kill -9 $$")
        await program.ended
        self.assertIsNone(program.status)

    async def test_private(self) -> None:
        """Nobody else can read a program's directory or files, in which it runs; nothing of it stays."""
        program = self.run_script(
            "stat -c %a . secret; cat secret; pwd; cat /proc/self/environ", {"secret": "s3cret\n"}
        )
        await program.ended
        mode, of_file, text, place, environment = program.output()
        self.assertEqual((mode, of_file, text), ("700", "600", "s3cret"))
        self.assertEqual(os.path.dirname(place), str(self.directory))
        self.assertNotIn("HOME", environment)
        self.assertEqual(list(self.directory.iterdir()), [])
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)

    async def test_of_its_own(self) -> None:
        """A program has no descriptors of its owner, and a process group and session of its own."""
        program = self.run_script("ls /proc/self/fd; echo $$; ps -o pgid= -o sid= -p $$")
        pid = program.pid
        await program.ended
        *descriptors, own, group = program.output()
        self.assertEqual(descriptors, ["0", "1", "2", "3"])  # the fourth is what ls reads
        self.assertEqual(own, str(pid))
        self.assertEqual(group.split(), [str(pid)] * 2)

    async def test_deaf(self) -> None:
        """A program that does not end when it is asked to is killed."""
        self.patch(sys.modules["rdvtwisted.adapters.programs"], "END_SECONDS", 0.01)
        program = await self.run_ready("trap '' TERM; echo > $READY; while :; do sleep 600; done")
        await program.end()
        self.assertEqual(await program.ended, "sh was ended by SIGKILL")

    async def test_children(self) -> None:
        """A child of a program does not delay the news of its end by holding its output, and ends with it."""
        program = await self.run_ready("trap '' HUP; sleep 600 & echo $!; echo > $READY; exit 1")
        self.assertEqual(await program.ended, "sh ended with status 1")
        (child,) = program.output()
        try:
            watch = os.pidfd_open(int(child))
        except ProcessLookupError:
            return
        await Readable(watch).ready

    async def test_unwritable(self) -> None:
        """A program whose directory cannot be made is refused in one line."""
        self.directory.parent.mkdir()
        self.directory.write_text("in the way")
        error = self.assertRaises(MissingProgram, self.start, "says")
        self.assertIn("sh cannot be started", str(error))

    async def test_bad_file(self) -> None:
        """A start that fails leaves nothing."""
        self.assertRaises(MissingProgram, self.start, "says", {"no/such/place": ""})
        self.assertEqual(list(self.directory.iterdir()), [])

    async def test_sweep(self) -> None:
        """What a killed owner has left is removed; what a living one uses stays."""
        program = self.start("stays")
        left = self.directory / "program-left"
        left.mkdir()
        (left / "secret").write_text("s3cret")
        (self.directory / "program-file").write_text("none of ours")
        self.assertEqual(Programs(reactor, self.directory).sweep(), 1)
        self.assertFalse(left.exists())
        self.assertEqual(len([path for path in self.directory.iterdir() if path.is_dir()]), 1)
        await program.end()
        self.assertEqual(Programs(reactor, self.directory / "none").sweep(), 0)


class OrphanTests(TestCase):
    """What becomes of programs whose owner is killed."""

    SCRIPT = dedent(
        """
        import sys
        from pathlib import Path
        from twisted.internet import reactor
        from rdvtwisted.adapters.programs import Programs
        program = Programs(reactor, Path(sys.argv[1])).start(["/bin/sleep", "600"], {"secret": "s3cret"})
        print(program.pid, flush=True)
        reactor.run()
        """
    )

    async def test_killed(self) -> None:
        """A program ends with its owner, even with one that is killed; its directory goes at the next start."""
        directory = Path(self.mktemp()).absolute()
        owner = Popen([sys.executable, "-c", self.SCRIPT, str(directory)], cwd=CHECKOUT, stdin=DEVNULL, stdout=PIPE)
        self.addCleanup(owner.wait)
        self.addCleanup(owner.kill)
        assert owner.stdout is not None
        with owner.stdout:
            pid = int(owner.stdout.readline())
        ended = Readable(os.pidfd_open(pid))
        owner.send_signal(signal.SIGKILL)
        await ended.ready.addTimeout(20, reactor)
        self.assertEqual(len(list(directory.iterdir())), 1)
        owner.wait()
        self.assertEqual(Programs(reactor, directory).sweep(), 1)
        self.assertEqual(list(directory.iterdir()), [])


class OutputTests(SynchronousTestCase):
    """What is kept of a program's words."""

    def test_lines(self) -> None:
        """Lines are found however they are cut; empty ones are not kept; control characters do not get through."""
        output = Output()
        for piece in (b"fir", b"st\n\n  sec\x1b[1mond  \nunfin", b"ished"):
            output.receive(piece)
        self.assertEqual(output.lines, ["first", "sec?[1mond", "unfinished"])

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=3000), max_size=40))
    def test_bounded(self, pieces: list[bytes]) -> None:
        """Whatever a program says, few lines are kept, none of them long, all of them printable."""
        output = Output()
        for piece in pieces:
            output.receive(piece)
        self.assertLessEqual(len(output.lines), MOST_LINES)
        for line in output.lines:
            self.assertTrue(line.isprintable() and 0 < len(line) <= LONGEST_LINE)
