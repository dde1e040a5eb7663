"""Whether the other end of a connection is still there."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Liveness:
    """
    Asks a silent peer for a sign of life, and gives it up if none comes.

    One timer a connection, which is not touched by what is heard.

    @param idle: seconds of silence after which C{probe} is called.
    @param answer: seconds of further silence after which C{silent} is called, once.
    """

    def __init__(
        self,
        clock: IReactorTime,
        idle: float,
        answer: float,
        probe: Callable[[], None],
        silent: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._idle = idle
        self._answer = answer
        self._probe = probe
        self._silent = silent
        self._last = clock.seconds()
        self._probed_at: float | None = None
        self._call: IDelayedCall | None = clock.callLater(idle, self._look)

    def heard(self) -> None:
        """The peer has given a sign of life."""
        self._last = self._clock.seconds()
        self._probed_at = None

    def stop(self) -> None:
        """The connection is over."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _look(self) -> None:
        if self._probed_at is not None:
            self._call = None
            self._silent()
            return
        quiet = self._clock.seconds() - self._last
        if quiet < self._idle:
            self._call = self._clock.callLater(self._idle - quiet, self._look)
            return
        self._probed_at = self._clock.seconds()
        self._call = self._clock.callLater(self._answer, self._look)
        self._probe()
