"""Keeps what a server knows of devices that are not here over its restarts, in a file that rdvctl can read, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.services import memorandum
from rdvtwisted.services.memorandum import Notebook
from rdvtwisted.sightings import Sightings

#: In the state directory.
FILE_NAME = "sightings.json"
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
    notebook: Notebook = field(init=False)

    def __attrs_post_init__(self) -> None:
        complaint = "When devices were seen last is not kept"
        self.notebook = Notebook(self.path, self.clock, self._entries, complaint)

    def start(self) -> None:
        """Recall what there is, and write from now on."""
        problem = recall(self.sightings, self.path)
        if problem:
            self._log.warn("When devices were seen last is not known, or not of all: {problem}", problem=problem)
        self.notebook.start()

    def stop(self) -> None:
        """Write for the last time: nobody is here any more."""
        self.notebook.stop()

    def _entries(self) -> list[dict[str, object]]:
        self.sightings.keep(self.devices())
        return self.sightings.document()
