"""What a server notes down for the next one: lists in files of JSON, of use but no more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import RDVError

#: Seconds between two times that a file is written, if there is something new; that much is lost by a crash.
SAVE_SECONDS = 30.0


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


@define(eq=False)
class Notebook:
    """
    Writes such a file now and then.

    @ivar entries: tells what is to stand in it, as JSON can have it.
    @ivar complaint: what it comes to that the file cannot be written, for the log, which has it once.
    @ivar signs: as long as there are entries, the file's time says until when they were true, also if nothing is new.
    """

    _log = Logger()

    path: Path
    clock: IReactorTime
    entries: Callable[[], list[Any]]
    complaint: str
    signs: bool = False
    _loop: LoopingCall | None = field(default=None, init=False)
    _written: list[Any] | None = field(default=None, init=False)
    _trouble: str = field(default="", init=False)

    def start(self) -> None:
        """Write from now on, for the first time in L{SAVE_SECONDS}."""
        self._loop = LoopingCall(self.save)
        self._loop.clock = self.clock
        self._loop.start(SAVE_SECONDS, now=False)

    def stop(self) -> None:
        """Write for the last time. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
            self.save()

    def save(self) -> None:
        """Write, if there is something new."""
        entries = self.entries()
        try:
            if entries != self._written:
                write_whole(self.path, json.dumps(entries).encode("ascii"))
                self._written = entries
            elif entries and self.signs:
                os.utime(self.path)
            self._trouble = ""
        except (RDVError, OSError) as error:
            self._written = None
            if str(error) != self._trouble:
                self._log.warn("{complaint}: {error}", complaint=self.complaint, error=str(error))
            self._trouble = str(error)
