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

    @property
    def quiet(self) -> float:
        """Seconds since the last sign of life."""
        return self._clock.seconds() - self._last

    def ask(self, answer: float) -> None:
        """Ask for a sign of life now, and give the peer up if none comes in so many seconds; or sooner, as agreed."""
        call = self._call
        if call is None:
            return
        now = self._clock.seconds()
        if self._probed_at is not None and call.getTime() <= now + answer:
            return
        call.cancel()
        self._probed_at = now
        self._call = self._clock.callLater(answer, self._look)
        self._probe()

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
        if self.quiet < self._idle:
            self._call = self._clock.callLater(self._idle - self.quiet, self._look)
            return
        self._probed_at = self._clock.seconds()
        self._call = self._clock.callLater(self._answer, self._look)
        self._probe()
