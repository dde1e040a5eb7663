"""What is logged of those who are turned away: a line each, but no flood."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Lines that may come at once, and seconds until one more may.
LINES_AT_ONCE = 8
SECONDS_PER_LINE = 10.0


class Complaints:
    """The complaints of one tunnel. What there is no line for is counted, and told with the next line."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, subject: str) -> None:
        """
        @param subject: who complains, first in each line.
        """
        self._clock = clock
        self._subject = subject
        self._lines = float(LINES_AT_ONCE)
        self._then = clock.seconds()
        self._untold = 0

    def add(self, reason: object) -> None:
        """Somebody was turned away."""
        now = self._clock.seconds()
        # A clock that jumps back takes nothing away.
        self._lines = min(self._lines + max(now - self._then, 0.0) / SECONDS_PER_LINE, LINES_AT_ONCE)
        self._then = now
        if self._lines < 1.0:
            self._untold += 1
            return
        self._lines -= 1.0
        self._log.info("{subject}: {reason}", subject=self._subject, reason=str(reason))
        self.flush()

    def flush(self) -> None:
        """Tell how many there were without a line, if any."""
        untold, self._untold = self._untold, 0
        if untold:
            self._log.info("{subject}: {count} more of this kind", subject=self._subject, count=untold)
