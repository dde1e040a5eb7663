"""How often something may be done: so many times at once, and so many times a second in the long run."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Allowance:
    """
    Counts what is done, by whatever clock its user has.

    @ivar burst: times in a row.
    @ivar rate: times a second.
    """

    burst: float
    rate: float
    _left: float = field(init=False)
    _at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def take(self, now: float) -> float:
        """
        Once more, at the time C{now} in seconds.

        @return: after how many seconds that may be done; 0 for at once.
        """
        self._left = min(self.burst, self._left + (now - self._at) * self.rate) - 1
        self._at = now
        return max(0.0, -self._left / self.rate)
