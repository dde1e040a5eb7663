"""Where connections are that have not shown yet whose they are: how many there may be, and who has to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from rdvtwisted.origin import origin

#: Seconds between two reports of connections turned away for want of room.
CROWDED_SECONDS = 10.0


@frozen
class _Stranger:
    door: str
    host: str
    origin: str
    put_out: Callable[[], None]


@define(eq=False)
class Vestibule:
    """
    Counts strangers, all together and by L{origin}.

    When all places are taken, whoever has been here longest of the origin
    that takes the most has to leave: who comes to be let in is that within a
    few round trips, and no number of silent connections keeps it out.

    @ivar complaint: what is reported of those for whom there is no room; many such make one report, lest a flood
        fills the log as well.
    @ivar refused: C{refused(door, host, account, reason)} is told of them.
    """

    places: int
    places_per_origin: int
    complaint: str
    clock: IReactorTime
    refused: Callable[[str, str, str, str], object]
    #: The oldest first.
    _strangers: dict[object, _Stranger] = field(factory=dict, init=False)
    _origins: Counter[str] = field(factory=Counter, init=False)
    _turned_away: int = field(default=0, init=False)
    _told_at: float = field(default=float("-inf"), init=False)

    def __len__(self) -> int:
        return len(self._strangers)

    def enter(self, stranger: object, door: str, host: str, put_out: Callable[[], None]) -> bool:
        """
        Somebody has come to C{door} from C{host}. If need be another one is put out for it.

        @param put_out: called if C{stranger} has to make room; it has left then.
        @return: False if too many have come from there already.
        """
        place = origin(host)
        if self._origins[place] >= self.places_per_origin:
            self._report(door, host)
            return False
        if len(self._strangers) >= self.places:
            self._make_room()
        self._strangers[stranger] = _Stranger(door, host, place, put_out)
        self._origins[place] += 1
        return True

    def leave(self, stranger: object) -> None:
        """A stranger is let in, or gone. Idempotent."""
        left = self._strangers.pop(stranger, None)
        if left is not None:
            self._origins[left.origin] -= 1
            if not self._origins[left.origin]:
                del self._origins[left.origin]

    def _make_room(self) -> None:
        busiest, _ = self._origins.most_common(1)[0]
        oldest, left = next((each, left) for each, left in self._strangers.items() if left.origin == busiest)
        self.leave(oldest)
        self._report(left.door, left.host)
        left.put_out()

    def _report(self, door: str, host: str) -> None:
        self._turned_away += 1
        now = self.clock.seconds()
        if now - self._told_at < CROWDED_SECONDS:
            return
        self._told_at = now
        count, self._turned_away = self._turned_away, 0
        others = f", {count - 1} others were turned away before" if count > 1 else ""
        self.refused(door, host, "", f"{self.complaint}{others}")
