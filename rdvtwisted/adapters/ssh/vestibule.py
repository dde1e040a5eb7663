"""Where connections are that have not logged in yet: how many there may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field


@define(eq=False)
class Vestibule:
    """
    Counts strangers, all together and by address.

    C{crowded}, if set, is called with True when the last place is taken and
    with False when one is free again, so that whoever listens can stop
    accepting meanwhile.
    """

    places: int
    places_per_address: int
    crowded: Callable[[bool], None] | None = None
    _present: Counter[str] = field(factory=Counter, init=False)
    _count: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self._count

    def enter(self, host: str) -> bool:
        """
        Somebody has come from C{host}.

        @return: whether there is room; then L{leave} must follow.
        """
        if self._count >= self.places or self._present[host] >= self.places_per_address:
            return False
        self._present[host] += 1
        self._count += 1
        if self._count == self.places and self.crowded is not None:
            self.crowded(True)
        return True

    def leave(self, host: str) -> None:
        """Somebody from C{host} has logged in, or gone."""
        self._present[host] -= 1
        if not self._present[host]:
            del self._present[host]
        self._count -= 1
        if self._count == self.places - 1 and self.crowded is not None:
            self.crowded(False)
