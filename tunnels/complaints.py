"""What is logged of those who are turned away: a line each, but no flood."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Lines that may come at once, and seconds until one more may.
LINES_AT_ONCE = 8
SECONDS_PER_LINE = 10.0
#: Seconds until a reason that was told is told again.
REPEAT_SECONDS = 60.0


class Complaints:
    """
    The complaints of one tunnel. What there is no line for is counted, and told with the next line.

    The same again and again makes a line now and then; different things make as many as there may be.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, subject: str) -> None:
        """
        @param subject: who complains, first in each line.
        """
        self._clock = clock
        self._subject = subject
        self._lines = float(LINES_AT_ONCE)
        self._then = clock.seconds()
        #: When each reason was told that need not be told again now; the rate of lines bounds them.
        self._told: dict[str, float] = {}
        self._untold = 0

    def add(self, reason: object) -> None:
        """Somebody was turned away."""
        text, now = str(reason), self._clock.seconds()
        # A clock that jumps back takes nothing away.
        self._lines = min(self._lines + max(now - self._then, 0.0) / SECONDS_PER_LINE, LINES_AT_ONCE)
        self._then = now
        self._told = {told: at for told, at in self._told.items() if 0.0 <= now - at < REPEAT_SECONDS}
        if self._lines < 1.0 or text in self._told:
            self._untold += 1
            return
        self._lines -= 1.0
        self._told[text] = now
        self._log.info("{subject}: {reason}", subject=self._subject, reason=text)
        self.flush()

    def flush(self) -> None:
        """Tell how many there were without a line, if any."""
        untold, self._untold = self._untold, 0
        if untold:
            self._log.info("{subject}: {count} more times before", subject=self._subject, count=untold)
