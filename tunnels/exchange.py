"""What the two ends of a tunnel exchange in frames, whatever carries these: greetings, packets, pulse, goodbyes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed, TunnelSilent
from rdvtwisted.interfaces import IPacketDevice
from tunnels.heartbeat import Heartbeat
from tunnels.hello import Hello, disagreement
from tunnels.packets import (
    ANSWER,
    CLOSED,
    GOODBYE,
    HEARTBEAT,
    HELLO,
    LONGEST_GOODBYE,
    VNET_HEADER,
    frame,
    printable,
)


class Line(Protocol):
    """What carries frames to the other end."""

    def note(self, kind: int, note: bytes) -> None:
        """Send this frame, before any more packets; of one type only the newest, if they have to wait."""

    def agreed(self) -> None:
        """The hellos agree: packets may leave from now on."""

    def fail(self, error: RDVError | None, word: str | None) -> None:
        """It is over; with the word to leave with, if the other end is there to be told."""


class Exchange:
    """One end of the exchange of frames."""

    def __init__(
        self,
        clock: IReactorTime,
        device: IPacketDevice,
        hello: Hello,
        peer: str,
        pulse: tuple[float, float],
        line: Line,
        opened: Callable[[], None],
    ) -> None:
        """
        @param hello: what this end says of itself.
        @param peer: what the other end has to call itself.
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        @param opened: called once packets flow and the round trip is measured.
        """
        self._device = device
        self._hello = hello
        self._peer = peer
        self._line = line
        self._opened: Callable[[], None] | None = opened
        self._deliver: Callable[[memoryview], bool] = self._too_early
        self._heartbeat = Heartbeat(clock, *pulse, self._beat, self._fell_silent)
        #: Whether the hellos agree.
        self.agreed = False
        self.over = False
        #: What was handed to the interface, without tunnel headers.
        self.packets = 0
        self.bytes = 0

    @property
    def round_trip(self) -> float | None:
        """Seconds to the other end and back, as last measured."""
        return self._heartbeat.round_trip

    def start(self) -> None:
        """Say hello."""
        self._line.note(HELLO, self._hello.encode())
        if not self.over:
            self._heartbeat.start()

    def stop(self) -> None:
        """Nothing more is said, heard or expected. Idempotent."""
        self.over = True
        self._opened = None
        self._heartbeat.stop()

    def heard(self) -> None:
        """Something came from the other end."""
        self._heartbeat.heard()

    def receive(self, frames: Iterable[tuple[int, memoryview]]) -> bool:
        """
        Act on what came in.

        @return: L{False} if that was the end.
        @raise ProtocolError: the other end says what it must not.
        @raise OSError: the interface is gone.
        """
        for kind, payload in frames:
            if not kind:
                if self._deliver(payload):
                    self.packets += 1
                    self.bytes += len(payload) - VNET_HEADER
            elif not self._take(kind, payload):
                return False
        return True

    def _too_early(self, payload: memoryview) -> bool:
        raise ProtocolError(f"{self._peer} sent a packet before its hello")

    def _take(self, kind: int, payload: memoryview) -> bool:
        if kind == HEARTBEAT:
            # Waits for its turn, so that a flood of heartbeats gets one answer a turn.
            self._line.note(ANSWER, frame(ANSWER, bytes(payload)))
        elif kind == ANSWER:
            self._heartbeat.answered(bytes(payload))
            if self._opened is not None and self.agreed:
                opened, self._opened = self._opened, None
                opened()
        elif kind == HELLO:
            self._greeted(Hello.decode(payload))
        elif kind == GOODBYE:
            word = printable(payload, LONGEST_GOODBYE)
            error = None if word == CLOSED else TunnelFailed(f"{self._peer} left the tunnel: {word}")
            self._line.fail(error, CLOSED)
        return not self.over

    def _greeted(self, hello: Hello) -> None:
        if self.agreed:
            raise ProtocolError(f"{self._peer} said hello twice")
        conflict = disagreement(self._hello, hello, self._peer)
        if conflict is not None:
            word, sentence = conflict
            self._line.fail(TunnelFailed(sentence), word)
            return
        self._device.set_offloads(self._hello.offloads & hello.offloads)
        self.agreed = True
        self._deliver = self._device.write
        self._line.agreed()

    def _beat(self, stamp: bytes) -> None:
        self._line.note(HEARTBEAT, frame(HEARTBEAT, stamp))

    def _fell_silent(self) -> None:
        self._line.fail(TunnelSilent(f"the tunnel to {self._peer} fell silent"), None)
