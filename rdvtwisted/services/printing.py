"""How a command that says something and ends writes it to its standard output."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO


def printed(stdout: TextIO, lines: Iterable[str]) -> str:
    """
    Write lines, each with its newline, and see to it that they are written.

    @return: why they could not be, or nothing. That nobody reads any more is no reason: he has seen enough.
    """
    try:
        stdout.writelines(lines)
        stdout.flush()
        return ""
    except BrokenPipeError:
        problem = ""
    except OSError as error:
        problem = f"cannot write to standard output: {(error.strerror or str(error)).lower()}"
    # Python would try once more at its exit, and complain.
    with suppress(OSError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stdout.fileno())
    return problem
