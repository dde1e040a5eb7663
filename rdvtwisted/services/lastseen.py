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
from rdvtwisted.services import memorandum
from rdvtwisted.sightings import Sightings

#: In the state directory.
FILE_NAME = "sightings.json"
#: Seconds between two times that the file is written, if there is something new; that much is lost by a crash.
SAVE_SECONDS = 30.0
#: Bytes of the largest file that is read: some 300 for each of 30,000 devices.
LARGEST_FILE = 10_000_000


def recall(sightings: Sightings, path: Path) -> str:
    """
    Have C{sightings} know what stands in a file, as far as it can be understood: it is of use, but no more.

    @return: what is wrong with the file, in one line; empty if nothing is, or if there is none.
    """
    noted = memorandum.read(path, LARGEST_FILE)
    if noted.problem or noted.saved is None:
        return noted.problem
    return memorandum.left_out(path, sightings.recall(noted.entries, noted.saved), len(noted.entries))


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
        problem = recall(self.sightings, self.path)
        if problem:
            self._log.warn("When devices were seen last is not known, or not of all: {problem}", problem=problem)
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
