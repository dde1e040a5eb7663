"""The access rules at work: who sees whom, what a session may do, and when to look at the rules again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from rdvtwisted.access import Grant
from rdvtwisted.errors import ModeNotGranted, OnsiteNotRegistered
from rdvtwisted.interfaces import IInventory
from rdvtwisted.values import Mode, Presence

#: Seconds between two looks as long as there is a grant that will end: the wall clock, by which it does, may be set.
LOOK_SECONDS = 60.0


@define(eq=False)
class Entitlements:
    """
    What the inventory's access rules come to now.

    @ivar now: the wall clock, in seconds since the epoch.
    @ivar review: called when some grant may have become another one.
    """

    inventory: IInventory
    clock: IReactorTime
    now: Callable[[], float]
    review: Callable[[], object]
    _call: IDelayedCall | None = field(default=None, init=False)

    def visible(self, master: str, onsites: Iterable[Presence]) -> tuple[Presence, ...]:
        """Those onsites of which this master may know."""
        policy, now = self.inventory.policy(), self.now()
        return tuple(onsite for onsite in onsites if policy.sees(master, onsite.id, now))

    def require(self, master: str, onsite: str, mode: Mode) -> Grant:
        """
        What this master may do at this onsite.

        @raise OnsiteNotRegistered: nothing. Whether there is such an onsite is not told.
        @raise ModeNotGranted: nothing in this mode.
        """
        grant = self.grant(master, onsite, mode)
        if grant is not None:
            return grant
        if self.inventory.policy().sees(master, onsite, self.now()):
            raise ModeNotGranted(onsite, mode.value)
        raise OnsiteNotRegistered(onsite)

    def grant(self, master: str, onsite: str, mode: Mode) -> Grant | None:
        """What this master may do at this onsite; C{None}: nothing."""
        found: Grant | None = self.inventory.policy().decide(master, onsite, mode, self.now())
        return found

    def left(self, grant: Grant) -> float | None:
        """Seconds until a session by this grant must be over; C{None} if it need not be."""
        return None if grant.ends_at is None else max(0.0, grant.ends_at - self.now())

    def look_again(self, grants: Iterable[Grant]) -> None:
        """Have C{review} called when one of C{grants} may change by the passing of time."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        moments = [grant.changes_at for grant in grants if grant.changes_at is not None]
        if moments:
            wait = max(0.0, min(moments) - self.now())
            self._call = self.clock.callLater(min(wait, LOOK_SECONDS), self._look)

    def _look(self) -> None:
        self._call = None
        self.review()
