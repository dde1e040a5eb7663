"""How a command refuses: one line on standard error, and its exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rdvtwisted
from rdvtwisted.errors import RDVError


def show_version() -> None:
    """Print the version of rdvtwisted, and exit: what C{--version} of every command does."""
    print(f"rdvtwisted {rdvtwisted.__version__}")
    sys.exit(0)


@contextmanager
def refusing(command: str) -> Iterator[None]:
    """
    Turn an L{RDVError} into the end of the program, with its text and its exit status.

    To be used while C{twistd} has not gone into the background yet, so that the operator sees it.
    """
    try:
        yield
    except RDVError as error:
        print(f"{command}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_status)
