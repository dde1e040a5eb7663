"""What a device gets for a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from rdvtwisted.errors import RequestRefused
from rdvtwisted.shell.printout import printable

#: How a line begins by which the server tells that it does not know a command.
UNKNOWN_SYNTAX = "*** Unknown syntax:"

#: How the line begins by which a command is refused. Other lines on standard
#: error mean nothing: old servers log there, and may be late with it.
_REFUSALS = ("Error: ", "Invalid ", "Unsupported ")

#: Characters of a refusal that are passed on.
_REASON_LENGTH = 300


@frozen
class Reply:
    """
    The answer to what was asked, complete.

    @ivar output: standard output without echo, prompt and last line end; lines end with LF.
    @ivar errors: standard error, in the same form. On a terminal it is part of the output.
    @ivar read: makes the value.
    """

    output: str
    errors: str = ""
    read: Callable[[Reply], Any] = field(default=lambda reply: reply.output, repr=False, eq=False)

    @property
    def unknown_syntax(self) -> bool:
        """The server does not know a command that it was given."""
        return self._unknown() is not None

    @property
    def value(self) -> Any:
        """
        What the answer says, of the type that the request's class names.

        @raise RequestRefused: the server will not do it, or does not know the command.
        @raise ProtocolError: the answer cannot be what it should be.
        """
        return self.read(self)

    def check(self) -> None:
        """
        Make sure that the command was neither unknown nor refused.

        @raise RequestRefused: it was.
        """
        unknown = self._unknown()
        if unknown is not None:
            raise RequestRefused(f"the server does not know the command {printable(unknown)[:_REASON_LENGTH]!r}")
        reason = refusal(self.errors) or refusal(self.output)
        if reason is not None:
            raise RequestRefused(reason)

    def _unknown(self) -> str | None:
        for line in self.output.split("\n"):
            if line.startswith(UNKNOWN_SYNTAX):
                return line.removeprefix(UNKNOWN_SYNTAX).strip()
        return None


def refusal(text: str) -> str | None:
    """The reason that the first refusing line of C{text} gives."""
    for line in text.split("\n"):
        if line.startswith(_REFUSALS):
            return printable(line.removeprefix("Error: "))[:_REASON_LENGTH]
    return None
