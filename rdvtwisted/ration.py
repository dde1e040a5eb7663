"""How many lines of the log each subject gets: the first ones of an interval; of the others the number is told."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

#: Seconds of an interval.
INTERVAL_SECONDS = 60.0
#: Subjects that are counted at one time: bounds the memory, whoever makes up names.
MAX_SUBJECTS = 10_000


@define
class _Count:
    since: float
    lines: int = 0
    untold: int = 0


@define(eq=False)
class Ration:
    """
    So many lines for each subject in an interval.

    @ivar _seconds: the time, by a clock that nobody sets.
    @ivar _lines: that a subject has in L{INTERVAL_SECONDS}.
    """

    _seconds: Callable[[], float]
    _lines: int
    _counts: dict[str, _Count] = field(factory=dict, init=False)

    def take(self, subject: str) -> tuple[bool, int]:
        """
        Something is to be told of C{subject}.

        @return: whether it gets a line; and the number of those that got none in an interval that is over, to be told
            before it.
        """
        now = self._seconds()
        count = self._counts.get(subject)
        untold = 0
        if count is None or now - count.since >= INTERVAL_SECONDS:
            untold = 0 if count is None else count.untold
            if count is None and len(self._counts) >= MAX_SUBJECTS:
                self._forget(now)
            count = self._counts[subject] = _Count(now)
        if count.lines < self._lines:
            count.lines += 1
            return True, untold
        count.untold += 1
        return False, untold

    def _forget(self, now: float) -> None:
        """Keep those only that have had lines lately; none, if they are too many."""
        lately = {subject: count for subject, count in self._counts.items() if now - count.since < INTERVAL_SECONDS}
        self._counts = lately if len(lately) < MAX_SUBJECTS else {}
