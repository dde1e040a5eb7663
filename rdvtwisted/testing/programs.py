"""Stock programs in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from rdvtwisted.errors import MissingProgram
from rdvtwisted.interfaces import IProgram, IPrograms


@implementer(IProgram)
class MemoryProgram:
    """
    A program that runs until the test says L{exit}, or its owner L{end}s it.

    @ivar arguments: what it was started with.
    @ivar environment: the variables that it was given.
    @ivar files: the text of its files, by their names.
    @ivar stdin: the descriptor of its standard input; to be closed by who reads it. L{None} for an empty one.
    @ivar asked: whether it has been asked to end.
    @ivar stubborn: whether it goes on then, until L{exit}.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        files: Mapping[str, str],
        stdin: int | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.environment = dict(environment or {})
        self.status: int | None = None
        self.arguments = list(arguments)
        self.files = dict(files)
        self.stdin = stdin
        self.asked = False
        self.stubborn = False
        self.running = True
        self.ended: Deferred[str] = Deferred()
        self._lines: list[str] = []
        self._waiting: list[Deferred[None]] = []

    def say(self, line: str) -> None:
        """It says one line."""
        self._lines.append(line)

    def exit(self, manner: str = "ended with status 0") -> None:
        """It ends, in this manner."""
        self.running = False
        _, known, status = manner.partition("ended with status ")
        self.status = int(status) if known else None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        self.ended.callback(f"{os.path.basename(self.arguments[0])} {manner}")

    def output(self) -> list[str]:
        return list(self._lines)

    def end(self) -> Deferred[None]:
        if not self.running:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not self.asked:
            self.asked = True
            if not self.stubborn:
                self.exit("was ended by SIGTERM")
        return waiting


@implementer(IPrograms)
class MemoryPrograms:
    """Has the programs that the test installs, and remembers what was started."""

    def __init__(self, *installed: str) -> None:
        """
        @param installed: the names of programs, all in C{/usr/sbin}.
        """
        #: Paths of the programs that are here, by their names.
        self.installed = {name: f"/usr/sbin/{name}" for name in installed}
        #: What was started so far, the oldest first.
        self.started: list[MemoryProgram] = []
        #: What a program does as soon as it runs.
        self.behaviour: Callable[[MemoryProgram], object] = lambda program: None

    def find(self, name: str) -> str | None:
        return self.installed.get(name)

    def start(
        self,
        arguments: Sequence[str],
        files: Mapping[str, str],
        stdin: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> MemoryProgram:
        kept = None if stdin is None else os.dup(stdin)
        if stdin is not None:
            os.close(stdin)
        if arguments[0] not in self.installed.values():
            if kept is not None:
                os.close(kept)
            raise MissingProgram(f"there is no program {arguments[0]}")
        program = MemoryProgram(arguments, files, kept, environment)
        self.started.append(program)
        self.behaviour(program)
        return program
