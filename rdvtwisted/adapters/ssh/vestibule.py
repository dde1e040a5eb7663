"""Where connections are that have not logged in yet: how many there may be, and who has to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field

from rdvtwisted.origin import origin


@define(eq=False)
class Vestibule:
    """
    Counts strangers, all together and by L{origin}.

    When all places are taken, whoever has been here longest of the origin
    that takes the most has to leave: who comes to log in does so within two
    round trips, and no number of silent connections keeps it out.
    """

    places: int
    places_per_origin: int
    #: Each stranger, the oldest first: where it comes from, and how it is put out.
    _strangers: dict[object, tuple[str, Callable[[], None]]] = field(factory=dict, init=False)
    _origins: Counter[str] = field(factory=Counter, init=False)

    def __len__(self) -> int:
        return len(self._strangers)

    def enter(self, stranger: object, host: str, put_out: Callable[[], None]) -> bool:
        """
        Somebody has come from C{host}. If need be another one is put out for it.

        @param put_out: called if C{stranger} has to make room; it has left then.
        @return: False if too many have come from there already.
        """
        place = origin(host)
        if self._origins[place] >= self.places_per_origin:
            return False
        if len(self._strangers) >= self.places:
            self._make_room()
        self._strangers[stranger] = (place, put_out)
        self._origins[place] += 1
        return True

    def leave(self, stranger: object) -> None:
        """A stranger has logged in, or gone. Idempotent."""
        place, _ = self._strangers.pop(stranger, ("", None))
        if place:
            self._origins[place] -= 1
            if not self._origins[place]:
                del self._origins[place]

    def _make_room(self) -> None:
        busiest, _ = self._origins.most_common(1)[0]
        stranger, put_out = next((each, out) for each, (place, out) in self._strangers.items() if place == busiest)
        self.leave(stranger)
        put_out()
