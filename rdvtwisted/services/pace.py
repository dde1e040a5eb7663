"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

#: Seconds before the first retry, and at most: a device is back within ten seconds of its server's return.
FIRST_SECONDS = 0.5
MAX_SECONDS = 8.0


@define
class Pace:
    """
    Waits that double from one failure to the next, each shortened by chance so
    that many devices do not come back in step.

    @ivar random: gives a number from 0 to 1.
    """

    random: Callable[[], float]
    first: float = FIRST_SECONDS
    longest: float = MAX_SECONDS
    _failures: int = field(default=0, init=False)

    def next(self, spread: float = 0.0, longest: float | None = None) -> float:
        """
        Seconds to wait now: between half and the whole of the doubled wait.

        @param spread: seconds over which this one and others who wait for the same are to spread besides.
        @param longest: what the wait doubles up to this time, if not as usual.
        """
        most = self.longest if longest is None else min(longest, self.longest)
        full: float = min(most, self.first * 2**self._failures)
        self._failures += 1 if full < most else 0
        return full * (0.5 + 0.5 * self.random()) + (spread * self.random() if spread else 0.0)

    def reset(self) -> None:
        """It has worked: the next wait is a short one again."""
        self._failures = 0
