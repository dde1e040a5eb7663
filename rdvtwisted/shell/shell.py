"""The server's side of the restricted shell, without I/O: bytes in, requests and bytes out."""

from __future__ import annotations

import codecs
from typing import Any, Union

from attrs import define, field, frozen

from rdvtwisted.errors import RDVError
from rdvtwisted.requests import Request
from rdvtwisted.shell.commands import candidates, run
from rdvtwisted.shell.grammar import parse_line
from rdvtwisted.shell.lines import INTERRUPT, LINE_LIMIT, Entry, LineDiscipline, PlainLines, TerminalLines
from rdvtwisted.shell.printout import Printout, Stream
from rdvtwisted.shell.settings import Settings
from rdvtwisted.shell.steps import Ask, Leave, Say, Step
from rdvtwisted.values import Role

#: Characters typed ahead, and printed and not yet taken, from which on no more input is wanted.
TYPE_AHEAD_LIMIT = 4096
OUTPUT_LIMIT = 16384

#: Characters typed ahead that end the shell: somebody does not heed L{TYPE_AHEAD_LIMIT}. It
#: exceeds what an SSH channel's window lets through after reading has stopped.
TYPE_AHEAD_CAP = 1 << 18


@frozen
class Interrupt:
    """The device wants the request that is being performed to be answered now."""


Action = Union[Request, Interrupt]


@define(eq=False)
class _Asked:
    """A request that is being performed."""

    ask: Ask
    interrupted: bool = False


@define(eq=False, init=False)
class Shell:
    """
    One shell of one device.

    Each input returns what the desk is to do now, in order: at most one
    L{Request} until it has been answered by L{answer} or L{fail}. After each
    input L{take_output} has something to send, after which L{resume} goes on
    with lines that waited for the output to be taken.

    Lines that come while a request is being performed are kept, and echoed
    and run after it, so that what is printed does not depend on timing.

    @ivar exit_status: once it is not C{None} the shell is over: send what is left, then close with it.
    """

    exit_status: int | None
    _settings: Settings
    _printout: Printout
    _lines: LineDiscipline
    _decoder: codecs.IncrementalDecoder = field(repr=False)
    _typed: str
    _position: int
    _ended: bool
    _asked: _Asked | None

    def __init__(self, device_id: str, role: Role, *, terminal: bool) -> None:
        """
        @param terminal: a pty was asked for: echo, edit lines, print all to one stream.
        """
        self.exit_status = None
        self._settings = Settings(device_id, role)
        self._printout = Printout(f"{device_id}$ ", terminal)
        self._lines = TerminalLines(self._printout, lambda line: candidates(role, line)) if terminal else PlainLines()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._typed = ""
        self._position = 0
        self._ended = False
        self._asked = None

    def start(self) -> None:
        """Print the first prompt."""
        self._printout.invite()

    def receive(self, data: bytes) -> list[Action]:
        """Bytes from the device, in any pieces."""
        return self._type(self._decoder.decode(data))

    def end_of_input(self) -> list[Action]:
        """The device sends no more: after what it typed ahead, the shell ends as with C{exit}."""
        self._ended = True
        return self._type(self._decoder.decode(b"", final=True))

    def answer(self, result: Any) -> list[Action]:
        """The request was performed; C{result} is what its class in L{rdvtwisted.requests} says."""
        if self.exit_status is not None:
            return []
        asked = self._performed()
        self._take(asked.ask.said(result))
        return self.resume()

    def fail(self, error: RDVError) -> list[Action]:
        """The request was refused."""
        if self.exit_status is not None:
            return []
        asked = self._performed()
        self._take(asked.ask.refused(error))
        return self.resume()

    def take_output(self) -> list[tuple[Stream, bytes]]:
        """What is to be sent now, in order."""
        return self._printout.take()

    @property
    def wants_input(self) -> bool:
        """Whether to read on from the device; if not, look again after the next answer, or when output was taken."""
        return (
            self.exit_status is None
            and not self._ended
            and len(self._typed) - self._position < TYPE_AHEAD_LIMIT
            and self._printout.size < OUTPUT_LIMIT
        )

    def resume(self) -> list[Action]:
        """Go on with what was typed, as far as a request or too much output does not hold it up."""
        actions: list[Action] = []
        while self.exit_status is None and self._asked is None and self._printout.size < OUTPUT_LIMIT:
            if self._position < len(self._typed):
                entry = self._lines.press(self._typed[self._position])
                self._position += 1
            elif self._ended:
                entry = self._lines.finish()
            else:
                break
            if entry is not None:
                actions += self._enter(entry)
        self._forget_read()
        if self._asked is not None and self._break_in(self._asked):
            actions.append(Interrupt())
        return actions

    def _type(self, text: str) -> list[Action]:
        if self.exit_status is not None:
            return []
        if len(self._typed) - self._position + len(text) > TYPE_AHEAD_CAP:
            return self._take(Leave(1, "Error: too much input at once\n"))
        self._typed += text
        return self.resume()

    def _forget_read(self) -> None:
        """Drop what was read from what was typed, but not for each single line: that would copy the rest each time."""
        if self._position >= min(len(self._typed), TYPE_AHEAD_LIMIT):
            self._typed, self._position = self._typed[self._position :], 0

    def _break_in(self, asked: _Asked) -> bool:
        """Look for Ctrl-C in what was typed ahead; what stands before it is void. True for the first one."""
        last = self._typed.rfind(INTERRUPT, self._position)
        if last < 0:
            return False
        self._position = last + 1
        self._forget_read()
        self._lines.interrupted()
        first, asked.interrupted = not asked.interrupted, True
        return first

    def _performed(self) -> _Asked:
        asked, self._asked = self._asked, None
        if asked is None:
            raise RuntimeError("nothing was asked")
        return asked

    def _enter(self, entry: str | Entry) -> list[Action]:
        if entry is Entry.END:
            return self._take(Leave())
        if entry is Entry.TOO_LONG:
            return self._take(Say(errors=f"Error: a line has at most {LINE_LIMIT} characters\n"))
        if isinstance(entry, str) and (line := parse_line(entry)) is not None:
            return self._take(run(self._settings, line))
        self._printout.invite()
        return []

    def _take(self, step: Step) -> list[Action]:
        if isinstance(step, Ask):
            self._asked = _Asked(step)
            if self._settings.debug and not self._printout.terminal:
                # On a terminal it would be taken for part of the answer.
                self._printout.complain(f"DEBUG asking {type(step.request).__name__}\n")
            return [step.request]
        if isinstance(step, Leave):
            self.exit_status = step.status
            self._typed, self._position = "", 0
            self._printout.complain(step.errors)
        else:
            self._printout.say(step.output)
            self._printout.complain(step.errors)
            self._printout.invite()
        return []
