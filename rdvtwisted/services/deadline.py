"""When a session must be over that is up: by this device's settings, its site's consent, and the server's word."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from rdvtwisted.consent import Stay
from rdvtwisted.services.boundary import Boundary
from rdvtwisted.services.pace import LINES, Turns
from rdvtwisted.shell.inquiries import MOST_SESSION_SECONDS

#: Seconds by which two moments may differ that are told as one.
SAME_SECONDS = 1.0


@define(eq=False)
class Deadline:
    """
    The hard end of one session; the earliest of all that there are counts.

    The server's word has in it what the other device has told the server, so that each end keeps to both.

    @ivar seconds: counted from when the session is up; C{None} for none of this device's own.
    @ivar boundary: what the server says.
    @ivar stay: the site's consent.
    @ivar limited: called with the seconds that are left, whenever the end is another one.
    @ivar reached: fires with L{None} at the end.
    """

    clock: IReactorTime
    seconds: float | None
    boundary: Boundary | None
    stay: Stay | None
    limited: Callable[[float], None]
    reached: Deferred[None] = field(factory=Deferred, init=False)
    _latest: float | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _up: bool = field(default=False, init=False)
    _told: float | None = field(default=None, init=False)
    _reported: float | None = field(default=None, init=False)
    _lines: Turns = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = Turns(self.clock, *LINES)

    def count(self) -> None:
        """The session is up, as somebody has learned: its time counts from the first call on."""
        if self._latest is None and self.seconds is not None:
            self._latest = self.clock.seconds() + self.seconds

    def begin(self) -> None:
        """The session is up, and ends in time from now on."""
        self.count()
        self._up = True
        self.review()

    def review(self) -> None:
        """Look again when it ends."""
        self._cancel()
        end = _earliest(self._own(), None if self.boundary is None else self.boundary.ends_at)
        if not self._up or end is None:
            return
        left = max(0.0, end - self.clock.seconds())
        self._call = self.clock.callLater(left, self._reach)
        # What is not told now, because it was told too often, is told at a later look if it is so still.
        if (self._told is None or abs(end - self._told) > SAME_SECONDS) and self._lines.may():
            self._told = end
            self.limited(left)

    def stop(self) -> None:
        """The session is over. Idempotent."""
        self._up = False
        self._cancel()

    def news(self) -> float | None:
        """Seconds in which this device will end the session, if the server is to be told; then it counts as told."""
        end = self._own()
        if end is None or (self._reported is not None and abs(end - self._reported) <= SAME_SECONDS):
            return None
        left = max(0.0, end - self.clock.seconds())
        if left > MOST_SESSION_SECONDS:
            return None
        self._reported = end
        return left

    def _own(self) -> float | None:
        return _earliest(self._latest, None if self.stay is None else self.stay.ends_at)

    def _reach(self) -> None:
        self._call = None
        self._up = False
        self.reached.callback(None)

    def _cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


def _earliest(*moments: float | None) -> float | None:
    return min((each for each in moments if each is not None), default=None)
