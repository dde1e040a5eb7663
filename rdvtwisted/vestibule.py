"""Where connections are that have not shown yet whose they are: how many there may be, and who has to make room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from rdvtwisted.origin import origin

#: Seconds between two reports of connections turned away for want of room.
CROWDED_SECONDS = 10.0
#: Seconds from one stage to the next for which somebody counts as getting on: a slow round trip.
PROGRESS_SECONDS = 1.0
#: Origins that are remembered for having been let in: bounds the memory.
MAX_REGULARS = 4096


@define(eq=False)
class Regulars:
    """The origins from which somebody was let in, the latest L{MAX_REGULARS} of them."""

    #: The least recent first.
    _origins: dict[str, None] = field(factory=dict, init=False)

    def welcome(self, host: str) -> None:
        """Somebody from C{host} has been let in."""
        place = origin(host)
        self._origins.pop(place, None)
        self._origins[place] = None
        if len(self._origins) > MAX_REGULARS:
            del self._origins[next(iter(self._origins))]

    def __contains__(self, place: object) -> bool:
        return place in self._origins


@define(eq=False)
class _Stranger:
    door: str
    host: str
    origin: str
    put_out: Callable[[], None]
    #: Stages that are behind it, and when the last one was.
    stages: int = 0
    advanced_at: float = 0.0

    def gets_on(self, now: float) -> bool:
        """Whether it has done its part until a moment ago."""
        return self.stages > 0 and now - self.advanced_at < PROGRESS_SECONDS


@define(eq=False)
class Vestibule:
    """
    Counts strangers, all together and by L{origin}.

    When all places are taken somebody has to leave: not from where others
    were let in before, as long as there is anybody else; not who is getting
    on; then of the origin that takes the most; then who has got least far; and
    whoever has been here longest. If all are getting on, the newcomer is
    turned away, before anything is spent on it, unless others were let in
    before from where it comes. So no number of connections that say nothing,
    or little, keeps out who comes to be let in; hardly anything keeps out a
    device that was here before; and when all come at once, those in progress
    get through.

    @ivar regulars: where others were let in before; doors may share it.
    @ivar complaint: what is reported of those for whom there is no room; many such make one report, lest a flood
        fills the log as well.
    @ivar refused: C{refused(door, host, account, reason)} is told of them.
    """

    places: int
    places_per_origin: int
    complaint: str
    clock: IReactorTime
    refused: Callable[[str, str, str, str], object]
    regulars: Regulars = field(factory=Regulars)
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
        @return: False if too many have come from there already, or all others get on better.
        """
        place = origin(host)
        full = self._origins[place] >= self.places_per_origin
        if full or (len(self._strangers) >= self.places and not self._make_room(place)):
            self._report(door, host)
            return False
        self._strangers[stranger] = _Stranger(door, host, place, put_out)
        self._origins[place] += 1
        return True

    def advance(self, stranger: object) -> None:
        """A stranger has come one stage nearer to being let in. Nothing to those who are not here any more."""
        if (here := self._strangers.get(stranger)) is not None:
            here.stages += 1
            here.advanced_at = self.clock.seconds()

    def leave(self, stranger: object) -> None:
        """A stranger is let in, or gone. Idempotent."""
        left = self._strangers.pop(stranger, None)
        if left is not None:
            self._origins[left.origin] -= 1
            if not self._origins[left.origin]:
                del self._origins[left.origin]

    def _make_room(self, newcomer: str) -> bool:
        """Whether somebody has left for one who comes from this origin."""
        now = self.clock.seconds()

        def worth(place: tuple[object, _Stranger]) -> tuple[bool, bool, int, int]:
            here = place[1]
            return here.origin in self.regulars, here.gets_on(now), -self._origins[here.origin], here.stages

        # Of several that are worth as little this is the first, hence the oldest.
        least, left = min(self._strangers.items(), key=worth)
        if left.gets_on(now) and (left.origin in self.regulars or newcomer not in self.regulars):
            return False
        self.leave(least)
        self._report(left.door, left.host)
        left.put_out()
        return True

    def _report(self, door: str, host: str) -> None:
        self._turned_away += 1
        now = self.clock.seconds()
        if now - self._told_at < CROWDED_SECONDS:
            return
        self._told_at = now
        count, self._turned_away = self._turned_away, 0
        others = f", {count - 1} others were turned away before" if count > 1 else ""
        self.refused(door, host, "", f"{self.complaint}{others}")
