"""Whether, when and for how long a session that was lost is sought again."""

from __future__ import annotations

import random

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from rdvtwisted.errors import (
    ConnectionLost,
    NoSession,
    OnsiteBusy,
    OnsiteNotRegistered,
    RDVError,
    RequestRefused,
    TunnelFailed,
)
from rdvtwisted.registry import SUPERSEDED
from rdvtwisted.services.pace import Pace
from rdvtwisted.values import EndReason

#: Seconds for which a session is sought again that was lost.
RESUME_SECONDS = 120.0
#: Seconds between two tries, at first and at most.
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 4.0

#: Ends of a session that may be had again: somebody or something has gone, and may be back.
_LOSSES = frozenset(
    {
        EndReason.ONSITE_LEFT,
        EndReason.SERVER_STOPPED,
        EndReason.TUNNEL_LOST,
        EndReason.TUNNEL_FAILED,
        EndReason.BUILD_TIMEOUT,
    }
)
#: What may be over in a moment: there is no way to the server, the onsite has not come back, its old session lingers.
_PASSING = (ConnectionLost, TunnelFailed, OnsiteNotRegistered, OnsiteBusy, NoSession)


@define
class Resumption:
    """
    What a master knows of its tries to have its session again.

    @ivar seconds: for how long after a loss it tries; 0 for not at all.
    @ivar loss: the error with which the session was lost; C{None} as long as it is not.
    """

    _clock: IReactorTime
    seconds: float
    _pace: Pace = field(factory=lambda: Pace(random.random, FIRST_SECONDS, LONGEST_SECONDS))
    loss: RDVError | None = field(default=None, init=False)
    _lost_at: float = field(default=0.0, init=False)
    _first_up: float | None = field(default=None, init=False)
    _end: EndReason | None = field(default=None, init=False)

    def up(self) -> None:
        """The session is up, for the first time or again."""
        if self._first_up is None:
            self._first_up = self._clock.seconds()
        self.loss = self._end = None
        self._pace.reset()

    def over(self, reason: EndReason) -> None:
        """This is how it has ended."""
        self._end = reason

    @property
    def patience(self) -> float:
        """Seconds for which a session that is lost is still to be sought."""
        return max(0.0, self.seconds - (self._clock.seconds() - self._lost_at))

    def left(self, seconds: float | None) -> float | None:
        """
        What is left of the session's time, which runs from when it was up first; C{None} for no limit.

        @param seconds: how long it may take in all.
        """
        if seconds is None or self._first_up is None:
            return seconds
        return max(0.0, seconds - (self._clock.seconds() - self._first_up))

    def wait(self, error: RDVError) -> float | None:
        """
        How long to wait before the next try.

        @param error: why there is no session.
        @return: seconds; C{None} if there is to be none.
        """
        if self._first_up is None or not self.seconds or SUPERSEDED in str(error):
            return None
        if self.loss is None:
            if self._end is not None and self._end not in _LOSSES:
                return None
            self.loss, self._lost_at = error, self._clock.seconds()
        return self._pace.next() if _passes(error) and self.patience else None

    def verdict(self, error: RDVError) -> RDVError:
        """What the operator is told in the end: the loss; or C{error}, if that would not pass with time."""
        return self.loss if self.loss is not None and _passes(error) else error


def _passes(error: RDVError) -> bool:
    # An order refused in words that are no class of their own is about the moment, such as an old session that lingers.
    return isinstance(error, _PASSING) or type(error) is RequestRefused
