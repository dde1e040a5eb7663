"""From keys to lines: what a pty's line discipline does, and what a plain stream needs of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from attrs import define, field

from rdvtwisted.shell.grammar import BLANKS
from rdvtwisted.shell.printout import Printout, columns

#: Characters that a line may have. The longest command of use is a hostname of
#: 255 bytes with each byte escaped, about 1,050 characters.
LINE_LIMIT = 2048

#: Ctrl-C: gives up the line, or what is being waited for.
INTERRUPT = "\x03"

_END_OF_INPUT = "\x04"
_TAB = "\t"
_KILL = "\x15"
_ERASE = ("\x7f", "\x08")


class Entry(Enum):
    """What can be entered besides a line."""

    #: A line longer than L{LINE_LIMIT}; what it said is forgotten.
    TOO_LONG = "too long"
    #: The line was given up.
    ABANDONED = "abandoned"
    #: There will be no more.
    END = "end"


class LineDiscipline(Protocol):
    """Makes lines of single keys."""

    def press(self, key: str) -> str | Entry | None:
        """Take one character. What it completes is returned: a line without its end, an L{Entry}, or nothing."""

    def finish(self) -> str | Entry:
        """There are no more keys: what is left, then L{Entry.END}."""

    def interrupted(self) -> None:
        """Keys were thrown away unseen."""


@define(eq=False)
class PlainLines:
    """Lines of a stream without a terminal: they end with LF or CR LF, and nothing is echoed."""

    _line: list[str] = field(factory=list, init=False)

    def press(self, key: str) -> str | Entry | None:
        """
        Take one character.

        Ctrl-C on an empty line does nothing at all: it came too late to
        interrupt, and another prompt would look like the answer to the next command.
        """
        if key == "\n":
            return self._enter()
        if key == INTERRUPT:
            abandoned = bool(self._line)
            self._line.clear()
            return Entry.ABANDONED if abandoned else None
        if len(self._line) <= LINE_LIMIT:
            self._line.append(key)
        return None

    def finish(self) -> str | Entry:
        """A last line needs no line end."""
        return self._enter() if self._line else Entry.END

    def interrupted(self) -> None:
        """Nothing depends on earlier keys: a command was being performed, so the line is empty."""

    def _enter(self) -> str | Entry:
        line = "".join(self._line)
        self._line.clear()
        return line if len(line) <= LINE_LIMIT else Entry.TOO_LONG


@define(eq=False)
class TerminalLines:
    """
    Lines of a terminal: echoed, and edited by Backspace, Ctrl-U, Ctrl-C,
    Ctrl-D and Tab. CR, LF and CR LF are one Enter each.

    @ivar printout: where the echo goes.
    @ivar candidates: the words that could stand at the end of a line.
    """

    printout: Printout
    candidates: Callable[[str], list[str]]
    _line: list[str] = field(factory=list, init=False)
    _too_long: bool = field(default=False, init=False)
    _previous: str = field(default="", init=False)

    def press(self, key: str) -> str | Entry | None:
        """Take one character and echo it."""
        previous, self._previous = self._previous, key
        if key == "\n" and previous == "\r":
            return None
        if key in ("\r", "\n"):
            return self._enter()
        if key == INTERRUPT:
            self._clear()
            self.printout.echo("^C")
            self.printout.end_line()
            return Entry.ABANDONED
        if key == _END_OF_INPUT:
            return None if self._line else Entry.END
        if key == _TAB:
            self._complete(again=previous == _TAB)
        elif key in _ERASE:
            if self._line and not self._too_long:
                self._line.pop()
                self.printout.rub_out(1)
        elif key == _KILL:
            self.printout.rub_out(len(self._line))
            self._clear()
        elif len(self._line) < LINE_LIMIT:
            self._insert(key)
        else:
            self._too_long = True
        return None

    def finish(self) -> str | Entry:
        """A line without Enter is nobody's wish any more."""
        return Entry.END

    def interrupted(self) -> None:
        """The next LF does not belong to a CR that was seen before."""
        self._previous = INTERRUPT

    def _enter(self) -> str | Entry:
        self.printout.end_line()
        entered = Entry.TOO_LONG if self._too_long else "".join(self._line)
        self._clear()
        return entered

    def _clear(self) -> None:
        self._line.clear()
        self._too_long = False

    def _insert(self, text: str) -> None:
        self._line.extend(text)
        self.printout.echo(text)

    def _complete(self, *, again: bool) -> None:
        """Add what all candidates have in common; if that is nothing, a second Tab lists them."""
        line = "".join(self._line)
        candidates = self.candidates(line)
        stem = line.lstrip(BLANKS).rpartition(" ")[2].lstrip("?")
        addition = common_prefix(candidates)[len(stem) :] + (" " if len(candidates) == 1 else "")
        if addition:
            self._insert(addition)
        elif candidates and again:
            self.printout.end_line()
            self.printout.say(columns(candidates))
            self.printout.invite()
            self.printout.echo(line)


def common_prefix(words: list[str]) -> str:
    """The longest text that all words begin with."""
    if not words:
        return ""
    first, last = min(words), max(words)
    for position, letter in enumerate(first):
        if not last.startswith(letter, position):
            return first[:position]
    return first
