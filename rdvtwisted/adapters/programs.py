"""Stock programs as children of this process: each in a directory of its own, none of them outliving its owner."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import MissingProgram
from rdvtwisted.interfaces import IProgram, IPrograms
from rdvtwisted.shell.printout import printable

#: Where programs are looked for: PATH of a service often lacks the last three.
PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))
#: Seconds that a program gets to end when it is asked to, after which it is killed.
END_SECONDS = 2.0
#: Lines of a program's output that are kept, and characters of the longest of them.
MOST_LINES = 100
LONGEST_LINE = 300

#: Bytes read from a program at a time; as many as a pipe holds (pipe(7)).
_READ = 65_536
#: Seconds until a new process is looked at again that is not a program yet; it takes some milliseconds.
_BIRTH_SECONDS = 0.02
_PREFIX = "program-"
#: Dies with its parent, who is the one that it is told: otherwise that has died already, before this could be said.
_LEASH = 'test "$PPID" = "$0" && exec "$@"'
_STARTERS = {"setsid": "util-linux", "setpriv": "util-linux", "sh": "dash"}


class Output:
    """The end of what a program says, as lines that a terminal can take; bounded."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._begun = b""

    def receive(self, data: bytes) -> None:
        """Bytes that it said, cut anywhere."""
        *complete, begun = (self._begun + data).split(b"\n")
        for line in complete:
            self._keep(line)
        # What is beyond the longest line is not shown anyway; UTF-8 has four bytes a character at most.
        self._begun = begun[: 4 * LONGEST_LINE]

    @property
    def lines(self) -> list[str]:
        """The lines, the oldest first; the last may be one that it has not finished."""
        begun = _shown(self._begun)
        return [*self._lines, begun][-MOST_LINES:] if begun else list(self._lines)

    def _keep(self, line: bytes) -> None:
        text = _shown(line)
        if text:
            self._lines.append(text)


def _shown(line: bytes) -> str:
    return printable(line[: 4 * LONGEST_LINE].decode("utf-8", "replace").strip())[:LONGEST_LINE]


@implementer(IReadDescriptor)
class _Ear:
    """The reading end of the pipe into which a program speaks."""

    def __init__(self, reactor: Any, descriptor: int, output: Output) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._output = output
        os.set_blocking(descriptor, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor, or -1 when it is closed."""
        return self._descriptor

    def doRead(self) -> None:
        """It says something."""
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        if data:
            self._output.receive(data)
        else:
            self.close()

    def close(self) -> None:
        """Take what is in the pipe still, and close it, whoever else holds its other end. Idempotent."""
        if self._descriptor == -1:
            return
        self._reactor.removeReader(self)
        with suppress(BlockingIOError):
            self._output.receive(os.read(self._descriptor, _READ))
        os.close(self._descriptor)
        self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self.close()

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "program"


@implementer(IProgram)
class Program(ProcessProtocol):
    """A child of this process, and whatever it starts itself: one process group."""

    _log = Logger()

    def __init__(self, reactor: Any, name: str, home: _Home) -> None:
        """
        @param name: for the sentence that says how it ended.
        @param home: its directory, removed when it has ended.
        """
        self._reactor = reactor
        self._name = name
        self._home = home
        self._output = Output()
        self._ear: _Ear | None = None
        self._pid: int | None = None
        self._patience: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        self.ended: Deferred[str] = Deferred()
        self.status: int | None = None

    @property
    def pid(self) -> int | None:
        """Its number; L{None} when it has ended."""
        return self._pid

    def output(self) -> list[str]:
        return self._output.lines

    def listen(self) -> int:
        """
        Hear what it will say.

        @return: a descriptor for it to say that to, to be closed here once it has it.
        """
        ours, its = os.pipe2(os.O_CLOEXEC)
        self._ear = _Ear(self._reactor, ours, self._output)
        return its

    def deafen(self) -> None:
        """Hear no more; what it has said is kept. Idempotent."""
        if self._ear is not None:
            self._ear.close()

    def makeConnection(self, transport: Any) -> None:
        """It runs."""
        self._pid = transport.pid

    def end(self) -> Deferred[None]:
        if self._pid is None:
            return succeed(None)
        if self._patience is None:
            self._patience = self._reactor.callLater(END_SECONDS, self._kill)
            self._ask()
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _ask(self) -> None:
        if self._pid is None:
            return
        try:
            os.killpg(self._pid, signal.SIGTERM)
        except ProcessLookupError:
            # It has no group of its own yet, and is still this process's twin, which would not mind the signal.
            self._again = self._reactor.callLater(_BIRTH_SECONDS, self._ask)

    def _kill(self) -> None:
        if self._pid is not None:
            self._log.warn("{name} does not end when it is asked to: it is killed", name=self._name)
            os.kill(self._pid, signal.SIGKILL)  # what it has started follows when it has ended

    def processExited(self, reason: Failure) -> None:
        """It has ended; its own children, which may hold its pipes, end now."""
        pid, self._pid = self._pid, None
        if pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        for call in (self._patience, self._again):
            if call is not None and call.active():
                call.cancel()
        self.deafen()
        self._home.remove()
        self.status = _status(reason.value)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        self.ended.callback(f"{self._name} {_manner(reason.value)}")


def _status(reason: BaseException | None) -> int | None:
    if not isinstance(reason, ProcessTerminated):
        return 0
    status: int | None = reason.exitCode if reason.signal is None else None
    return status


def _manner(reason: BaseException | None) -> str:
    if not isinstance(reason, ProcessTerminated):
        return "ended with status 0"
    if reason.signal is None:
        return f"ended with status {reason.exitCode}"
    try:
        return f"was ended by {signal.Signals(reason.signal).name}"
    except ValueError:
        return f"was ended by signal {reason.signal}"


class _Home:
    """A program's directory, locked for as long as its owner lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def furnish(self, files: Mapping[str, str]) -> None:
        """Write these files, each readable by its user alone."""
        for name, text in files.items():
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)

    def remove(self) -> None:
        """Remove it with all that is in it. Idempotent."""
        if self._lock != -1:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


@implementer(IPrograms)
class Programs:
    """
    Starts programs as children of this process, by its main thread; the kernel kills them when that ends.

    A program is in a session and process group of its own, so that a Ctrl-C
    meant for its owner leaves it alone, and runs in its directory, so that
    its arguments can name its files as they are. Of the environment it gets C{PATH} only, and what its owner gives it.
    """

    _log = Logger()

    def __init__(self, reactor: Any, directory: Path) -> None:
        """
        @param reactor: IReactorProcess, IReactorFDSet and IReactorTime.
        @param directory: where the programs' directories are; made if need be. Under C{/run} if possible: what is
            in there is secret, and of no use after a reboot.
        """
        self._reactor = reactor
        self._directory = directory

    def find(self, name: str) -> str | None:
        return shutil.which(name, path=PLACES)

    def sweep(self) -> int:
        """
        Remove the directories of programs whose owners have been killed; never of others.

        @return: how many there were.
        """
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            return 0
        count = 0
        with self._alone():
            for path in self._directory.glob(f"{_PREFIX}*"):
                with suppress(OSError):
                    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(path)
                        count += 1
                    finally:
                        os.close(descriptor)
        return count

    def start(
        self,
        arguments: Sequence[str],
        files: Mapping[str, str],
        stdin: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None else stdin
        try:
            return self._start(arguments, files, source, environment or {})
        finally:
            os.close(source)

    def _start(
        self, arguments: Sequence[str], files: Mapping[str, str], stdin: int, environment: Mapping[str, str]
    ) -> Program:
        path = arguments[0]
        if not os.path.isabs(path) or not os.access(path, os.X_OK) or not os.path.isfile(path):
            raise MissingProgram(f"there is no program {path}")
        leash = self._leash()
        name = os.path.basename(path)
        try:
            home = self._home()
        except OSError as error:
            raise MissingProgram(f"{name} cannot be started: {self._directory}: {error.strerror}") from None
        try:
            home.furnish(files)
            program = Program(self._reactor, name, home)
            its = program.listen()
            try:
                self._reactor.spawnProcess(
                    program,
                    leash[0],
                    [*leash, *arguments],
                    env={**environment, "PATH": PLACES, "LC_ALL": "C"},
                    path=str(home.path),
                    childFDs={0: stdin, 1: its, 2: its},
                )
            except BaseException:
                program.deafen()
                raise
            finally:
                os.close(its)
        except OSError as error:
            home.remove()
            raise MissingProgram(f"{name} cannot be started: {error.strerror}") from None
        except BaseException:
            home.remove()
            raise
        self._log.debug("{name} is process {pid}", name=name, pid=program.pid)
        return program

    def _leash(self) -> list[str]:
        """The words before a program's own by which it gets a group of its own, and ends with this process."""
        found = {name: self.find(name) for name in _STARTERS}
        for name, path in found.items():
            if path is None:
                raise MissingProgram(f"{name} is not installed: install the package {_STARTERS[name]}")
        words = (found["setsid"], found["setpriv"], "--pdeathsig", "KILL", found["sh"], "-c", _LEASH, str(os.getpid()))
        return [str(word) for word in words]

    def _home(self) -> _Home:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            return _Home(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._directory)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Between the making of a directory and its lock, nobody may take it for one that is left over."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
