"""What running a command comes to: something said, something asked of the server, or the end of the shell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

from attrs import frozen

from rdvtwisted.errors import RDVError
from rdvtwisted.requests import Request
from rdvtwisted.shell.printout import printable


@frozen
class Say:
    """The command is done: lines for standard output and for standard error, each ended by a newline."""

    output: str = ""
    errors: str = ""


@frozen
class Leave:
    """The shell is over: lines for standard error, and the exit status."""

    status: int = 0
    errors: str = ""


@frozen
class Ask:
    """
    The server must answer first.

    @ivar said: what an answer comes to.
    @ivar fatal: a refusal ends the shell. Old scripts carry on after a prompt as if nothing had been refused.
    """

    request: Request
    said: Callable[[Any], Say]
    fatal: bool = False

    def refused(self, error: RDVError) -> Say | Leave:
        """What an error instead of an answer comes to."""
        return refusal(error, fatal=self.fatal)


Step = Union[Say, Leave, Ask]


def refusal(error: RDVError, *, fatal: bool) -> Say | Leave:
    """One line that tells an error, and the end of the shell if it is fatal."""
    line = f"Error: {printable(str(error))}\n"
    return Leave(1, line) if fatal else Say(errors=line)


def done(_: object = None) -> Say:
    """The command has succeeded, and there is nothing to say."""
    return Say()
