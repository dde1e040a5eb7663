"""The pulse of a tunnel: tells a silent other end from an idle one, and measures the way there and back."""

from __future__ import annotations

import struct
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Heartbeats whose answers are still waited for: bounds how slow an answer may be and yet be measured.
OUTSTANDING = 4
_STAMP = struct.Struct("!Q")


class Heartbeat:
    """
    Sends a heartbeat every C{interval} seconds, and gives up when nothing at
    all was heard for C{limit}.

    Silence is counted in ticks of half an interval and not in differences of
    the clock, which jumps when a machine without a clock learns the time. So
    it is noticed after C{limit} seconds at most, and up to a tick earlier.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        limit: float,
        beat: Callable[[bytes], None],
        silent: Callable[[], None],
    ) -> None:
        """
        @param beat: sends a heartbeat of these 8 bytes.
        @param silent: called once, when the limit is reached.
        """
        self._clock = clock
        self._tick = interval / 2
        self._most = max(int(limit / self._tick), 3)
        self._beat = beat
        self._silent = silent
        self._quiet = 0
        self._ticks = 0
        self._sent: dict[bytes, float] = {}
        self._next: IDelayedCall | None = None
        #: Seconds to the other end and back, as last measured.
        self.round_trip: float | None = None

    def start(self) -> None:
        """Send the first heartbeat now."""
        self._next = self._clock.callLater(self._tick, self._ticked)
        self._send()

    def stop(self) -> None:
        """No more heartbeats. Idempotent."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def heard(self) -> None:
        """Something came from the other end."""
        self._quiet = 0

    def answered(self, stamp: bytes) -> None:
        """A heartbeat was answered; an answer to none is ignored."""
        sent = self._sent.pop(stamp, None)
        if sent is not None:
            self.round_trip = max(self._clock.seconds() - sent, 0.0)

    def _ticked(self) -> None:
        self._ticks += 1
        self._quiet += 1
        if self._quiet >= self._most:
            self._next = None
            self._silent()
            return
        self._next = self._clock.callLater(self._tick, self._ticked)
        if self._ticks % 2 == 0:
            self._send()

    def _send(self) -> None:
        stamp = _STAMP.pack(self._ticks)
        if len(self._sent) >= OUTSTANDING:
            del self._sent[next(iter(self._sent))]
        self._sent[stamp] = self._clock.seconds()
        self._beat(stamp)
