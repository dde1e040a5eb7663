"""One connection that a device has opened to its C{vtun} tunnel: drives L{VtunServer}, from greeting to farewell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol as Connection
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import RDVError
from tunnels.vtun_server import Authenticated, Closed, Event, Packets, VtunServer

#: Seconds that the last bytes may take to leave, and the other end to close in turn; then the connection is cut.
FAREWELL_LIMIT = 1.0


class House(Protocol):
    """Where guests are received; told of them by L{Guest}."""

    def proved(self, guest: Guest) -> None:
        """It knows the secret, and waits: L{Guest.admit} or L{Guest.dismiss} it."""

    def take(self, packets: list[memoryview]) -> None:
        """Packets came from a guest that was admitted."""

    def flowing(self, guest: Guest) -> None:
        """What an admitted guest's L{Guest.takes_packets} says may have changed."""

    def left(self, guest: Guest, error: RDVError | None) -> None:
        """It is over with it, unasked; L{None} if it said goodbye. Comes once at most, before L{gone}."""

    def gone(self, guest: Guest) -> None:
        """Nothing of it is held any more. Comes once, last."""


@implementer(IPushProducer)
class Guest(Connection):
    """
    Translates between a stream and L{VtunServer}, keeps its time, and holds
    what it would say back while the stream is full.
    """

    transport: Any

    def __init__(self, reactor: Any, core: VtunServer, house: House) -> None:
        """
        @param reactor: for its time.
        @param core: a fresh one.
        """
        self._reactor = reactor
        self._core = core
        self._house = house
        self._timer: IDelayedCall | None = None
        self._carrying = False
        self._paused = False
        self._leaving = False
        self._gone = False

    @property
    def takes_packets(self) -> bool:
        """Whether L{send} is welcome: the guest's interface is up, and its stream not full."""
        return self._core.carrying and not self._paused and not self._leaving

    def connectionMade(self) -> None:
        """Greet it."""
        if self._leaving:  # the tunnel has ended meanwhile
            self.transport.abortConnection()
            return
        self.transport.registerProducer(self, True)
        self._wait(self._core.wait, self._tick)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """It said something."""
        if not self._leaving:
            self._happened(self._core.receive(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if not self._leaving:
            self._leaving = True
            for event in self._core.lost():
                if isinstance(event, Closed):
                    self._house.left(self, event.error)
        self._vanish()

    def admit(self) -> None:
        """Let it in."""
        self._core.open()
        self._wait(self._core.wait, self._tick)
        self._flush()

    def send(self, frames: bytes) -> None:
        """Frames of packets for it; only while it L{takes_packets}."""
        self.transport.write(frames)

    def dismiss(self) -> None:
        """Say goodbye, or no to one that was not admitted, and close the connection. Idempotent."""
        self._core.close()
        self._leave()

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Packets):
                self._house.take(event.packets)
            elif isinstance(event, Authenticated):
                self._house.proved(self)
            elif not self._leaving:
                self._house.left(self, event.error)
                self._leave()
        if not self._leaving:
            self._flush()
        if self._core.carrying and not self._carrying:
            self._carrying = True
            self._house.flowing(self)

    def _tick(self) -> None:
        events = self._core.tick()
        if not events:
            self._wait(self._core.wait, self._tick)
        self._happened(events)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._timer = self._reactor.callLater(seconds, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _flush(self) -> None:
        # While the stream is full the core keeps what it would say: an answer at most to however many questions.
        if not self._paused:
            output = self._core.take_output()
            if output:
                self.transport.write(output)

    def _leave(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        self._paused = False
        if self.transport is None:
            self._vanish()
            return
        self._wait(FAREWELL_LIMIT, self._cut)
        self._flush()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _cut(self) -> None:
        self.transport.abortConnection()
        self._vanish()

    def _vanish(self) -> None:
        self._stop_waiting()
        if not self._gone:
            self._gone = True
            self._house.gone(self)

    # IPushProducer, asked by the transport

    def pauseProducing(self) -> None:
        """The stream is full."""
        self._paused = True
        self._house.flowing(self)

    def resumeProducing(self) -> None:
        """The stream takes more."""
        self._paused = False
        if not self._leaving:
            self._flush()
            self._house.flowing(self)

    def stopProducing(self) -> None:
        """The stream is over; C{connectionLost} follows."""
