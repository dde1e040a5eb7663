"""The suspicion that a path swallows large packets, and with them the routers' word on it."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.adapters.segments import SEGMENT_BYTES
from rdvtwisted.errors import FellSilent, TunnelSilent
from rdvtwisted.values import EndReason

#: Seconds for which it holds after the last connection that has ended by silence.
SUSPICION_SECONDS = 3600.0


@define(eq=False)
class Suspicion:
    """
    Begins when a connection or tunnel of this device ends because nothing came through it any more, or the other
    device has lost the tunnel between them: of two ends only that knows it which something large is on its way to.

    There are many reasons for that, and no means to tell them apart from
    here; small segments cost little, and cure one of them that nothing else
    does (RFC 4821, section 1; RFC 2923, section 2.1).
    """

    _log = Logger()

    _clock: IReactorTime
    _until: float | None = field(default=None, init=False)

    @property
    def holds(self) -> bool:
        """Whether connections that are made now are to have small segments."""
        return self._until is not None and self._clock.seconds() < self._until

    def heed(self, error: BaseException | None) -> None:
        """This is how a connection or a tunnel has ended, or why there is none."""
        if isinstance(error, (FellSilent, TunnelSilent)):
            self._begin(str(error))

    def heed_end(self, reason: EndReason) -> None:
        """This is how a session has ended."""
        if reason is EndReason.TUNNEL_LOST:
            self._begin("the tunnel was lost")

    def _begin(self, occasion: str) -> None:
        if not self.holds:
            self._log.info(
                "{occasion}. In case the path swallows large packets, connections are made with TCP segments of at most"
                " {bytes} bytes, for {minutes} minutes from the last time that this happens",
                occasion=occasion[:1].upper() + occasion[1:],
                bytes=SEGMENT_BYTES,
                minutes=int(SUSPICION_SECONDS // 60),
            )
        self._until = self._clock.seconds() + SUSPICION_SECONDS

    def heed_failure(self, failure: Failure) -> Failure:
        """As L{heed}, of a Deferred, whose failure it stays."""
        self.heed(failure.value)
        return failure
