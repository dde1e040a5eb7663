"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Seconds before the first retry, and at most: a device is back within ten seconds of its server's return.
FIRST_SECONDS = 0.5
MAX_SECONDS = 8.0
#: How many questions on one session may follow each other at once, and the seconds after which there is one more: an
#: honest server answers when something has changed, or after a while.
QUESTIONS = (10, 1.0)
#: How many lines on the same matter are told in a row, and the seconds after which there is one more.
LINES = (10, 30.0)


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


@define(eq=False)
class Turns:
    """
    What may be done so often in a row, and then once every so many seconds: somebody else decides how often there is
    a reason for it.

    @ivar most: times in a row.
    @ivar seconds: after which there is one more.
    """

    _clock: IReactorTime
    most: float
    seconds: float
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._left, self._at = self.most, self._clock.seconds()

    def take(self) -> float:
        """Take one, of those to come if there is none. Seconds until it is there."""
        self._fill()
        self._left -= 1
        return max(0.0, -self._left * self.seconds)

    def may(self) -> bool:
        """Take one if there is one."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Undo L{take}."""
        self._left += 1

    async def turn(self) -> None:
        """Take one, and wait until it is there."""
        seconds = self.take()
        if seconds:
            await deferLater(self._clock, seconds)

    def _fill(self) -> None:
        now = self._clock.seconds()
        self._left = min(self.most, self._left + (now - self._at) / self.seconds)
        self._at = now
