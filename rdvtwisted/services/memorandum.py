"""What a server has noted down for the next one: a list in a file of JSON, of use but no more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attrs import frozen


@frozen
class Memorandum:
    """
    What stands in such a file.

    @ivar entries: as JSON has them; none, if there is no file or it is of no use.
    @ivar saved: when it was written, by the wall clock; C{None} where it could not be read.
    @ivar problem: what is wrong with the file, in one line; empty if nothing is, or if there is none.
    """

    entries: list[Any]
    saved: float | None
    problem: str = ""


def read(path: Path, largest: int) -> Memorandum:
    """
    Read a file.

    @param largest: bytes of the largest one that is taken.
    """
    saved: float | None = None
    try:
        with open(path, "rb") as file:
            data = file.read(largest + 1)
            saved = os.fstat(file.fileno()).st_mtime
        document = json.loads(data) if len(data) <= largest else None
    except FileNotFoundError:
        return Memorandum([], None)
    except OSError as error:
        return Memorandum([], None, f"cannot read {path}: {(error.strerror or str(error)).lower()}")
    except (ValueError, RecursionError):
        return Memorandum([], saved, f"{path} is damaged: it is not JSON")
    if len(data) > largest:
        return Memorandum([], saved, f"{path} is damaged: it is larger than {largest} bytes")
    if not isinstance(document, list):
        return Memorandum([], saved, f"{path} is damaged: it is no list")
    return Memorandum(document, saved)


def left_out(path: Path, count: int, of: int) -> str:
    """What is wrong with a file of whose entries so many can't be understood, as L{Memorandum} has it."""
    return f"{path} is damaged: {count} of its {of} entries cannot be understood" if count else ""
