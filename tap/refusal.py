"""How a command refuses: one line on standard error, and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rdvtwisted.errors import RDVError

#: Exit status for a command line that makes no sense, as wrappers know it.
BAD_USAGE = 2


def refuse(command: str, text: str, status: int) -> NoReturn:
    """End the program with a line, and this exit status."""
    print(f"{command}: {text}", file=sys.stderr, flush=True)
    sys.exit(status)


@contextmanager
def refusing(command: str) -> Iterator[None]:
    """
    Turn an L{RDVError} into the end of the program, with its text and its exit status.

    To be used while C{twistd} has not gone into the background yet, so that the operator sees it.
    """
    try:
        yield
    except RDVError as error:
        refuse(command, str(error), error.exit_status)
