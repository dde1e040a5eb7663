"""
Gives every session its end in the audit trail, also when the server ended without notice: the next one records it.

The end of the trail tells which sessions were open, but a trail may be very long, and so may a session. So the open
ones are noted down in a small file as well; and what has happened since that was written is certainly within the last
L{LOOK_BACK_BYTES} of the trail, of which no more is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.interfaces import IAuditTrail
from rdvtwisted.openings import Opening, remains
from rdvtwisted.services import memorandum
from rdvtwisted.services.memorandum import Notebook

#: In the state directory.
FILE_NAME = "open-sessions.json"
#: Bytes at the end of the trail that are looked at: far more than is written from one time that the file is written to
#: the next, and read in less than a second.
LOOK_BACK_BYTES = 32 << 20
#: Bytes of the largest file that is read: some 250 for each of 40,000 sessions.
LARGEST_FILE = 10_000_000


@define(eq=False)
class Reckoning:
    """
    Notes down a server's open sessions, and closes the former server's.

    @ivar trail: where their ends are recorded.
    @ivar lines_back: C{lines_back(n)} gives the lines of the trail's last C{n} bytes, the newest first.
    @ivar open: tells the sessions whose opening is in the trail, and whose end is not.
    @ivar wall: the wall clock.
    """

    _log = Logger()

    path: Path
    trail: IAuditTrail
    lines_back: Callable[[int], Iterable[bytes]]
    open: Callable[[], Sequence[Opening]]
    clock: IReactorTime
    wall: Callable[[], float]
    notebook: Notebook = field(init=False)

    def __attrs_post_init__(self) -> None:
        complaint = "Which sessions are open is not noted down"
        self.notebook = Notebook(self.path, self.clock, self._entries, complaint, signs=True)

    def settle(self) -> None:
        """Record the ends that a former server owes; before this one has recorded anything."""
        remembered, saved = self._read()
        left = remains(self._lines(), remembered)
        if not left.openings:
            return
        signs = [sign for sign in (left.last_sign, saved) if sign is not None]
        now = self.wall()
        last_sign = min(now, max(signs)) if signs else None
        for opening in left.openings:
            self.trail.record(opening.end(now, last_sign))
        self._log.warn(
            "The server before this one ended without notice; sessions that were open then: {count}. Their ends are"
            " recorded now",
            count=len(left.openings),
        )

    def start(self) -> None:
        """Note down what is open, from now on."""
        self.notebook.save()
        self.notebook.start()

    def stop(self) -> None:
        """For the last time. Idempotent."""
        self.notebook.stop()

    # Inside

    def _entries(self) -> list[dict[str, object]]:
        return [opening.document() for opening in self.open()]

    def _lines(self) -> Iterator[bytes]:
        try:
            yield from self.lines_back(LOOK_BACK_BYTES)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._log.error("The audit trail cannot be read for sessions without end: {reason}", reason=reason)

    def _read(self) -> tuple[list[Opening], float | None]:
        """What a former server has noted down, and when it did that; without what cannot be understood."""
        noted = memorandum.read(self.path, LARGEST_FILE)
        openings = [each for each in map(Opening.understood, noted.entries) if each is not None]
        lacking = len(noted.entries) - len(openings)
        problem = noted.problem or memorandum.left_out(self.path, lacking, len(noted.entries))
        if problem:
            self._log.warn("{problem}", problem=problem)
        return openings, noted.saved if openings else None
