"""Keeps what a server knows of devices that are not here over its restarts, in a file that rdvctl can read, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import RDVError
from rdvtwisted.sightings import Sightings

#: In the state directory.
FILE_NAME = "sightings.json"
#: Seconds between two times that the file is written, if there is something new; that much is lost by a crash.
SAVE_SECONDS = 30.0
#: Bytes of the largest file that is read: some 300 for each of 30,000 devices.
LARGEST_FILE = 10_000_000


def read(path: Path) -> tuple[object, float]:
    """What stands in a file, and when it was written; nothing, if it cannot be read: it is of use, but no more."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        return (json.loads(data) if len(data) <= LARGEST_FILE else None), path.stat().st_mtime
    except (OSError, ValueError, RecursionError):
        return None, 0.0


@define(eq=False)
class LastSeen:
    """
    Writes a server's sightings now and then.

    @ivar devices: tells the ids of all devices that there are; what is known of others is forgotten.
    """

    _log = Logger()

    sightings: Sightings
    path: Path
    clock: IReactorTime
    devices: Callable[[], Iterable[str]]
    _loop: LoopingCall | None = field(default=None, init=False)
    _written: Any = field(default=None, init=False)
    _trouble: str = field(default="", init=False)

    def start(self) -> None:
        """Recall what there is, and write from now on."""
        self.sightings.recall(*read(self.path))
        self._loop = LoopingCall(self.save)
        self._loop.clock = self.clock
        self._loop.start(SAVE_SECONDS, now=False)

    def stop(self) -> None:
        """Write for the last time: nobody is here any more."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()
            self.save()

    def save(self) -> None:
        """Write, if there is something new; that it cannot be written is logged once."""
        self.sightings.keep(self.devices())
        document = self.sightings.document()
        if document == self._written:
            return
        try:
            write_whole(self.path, json.dumps(document).encode("ascii"))
            self._written, self._trouble = document, ""
        except RDVError as error:
            if str(error) != self._trouble:
                self._log.warn("When devices were seen last is not kept: {error}", error=str(error))
            self._trouble = str(error)
