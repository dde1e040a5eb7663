"""Frames on a transport of Twisted: the server's end of a stream that stays inside its TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice
from tunnels.carrier import FLUSH_LIMIT
from tunnels.conversation import explain
from tunnels.exchange import Exchange
from tunnels.hello import Hello
from tunnels.intake import Intake
from tunnels.packets import FrameReader, goodbye


@implementer(IPushProducer)
class FramedStream(Protocol):
    """
    Carries frames between a transport and a packet device, once the two
    hellos agree, until either end leaves or falls silent.

    While the transport is full the packet device is not read, and of frames
    of its own it keeps one of each type at most.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        device: IPacketDevice,
        hello: Hello,
        peer: str,
        pulse: tuple[float, float],
        opened: Callable[[], None],
        lost: Callable[[RDVError | None, str | None], None],
    ) -> None:
        """
        @param hello: what this end says of itself.
        @param peer: what the other end has to call itself.
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        @param opened: called once packets flow and the round trip is measured.
        @param lost: called once with the error, or L{None} if the other end left in order, and with the word to
            L{leave} with, if the other end is still there to be told.
        """
        self._reactor = reactor
        self._peer = peer
        self._lost = lost
        self._reader = FrameReader()
        self._intake = Intake(reactor, device, self)
        self._exchange = Exchange(reactor, device, hello, peer, pulse, self, opened)
        self._notes: dict[int, bytes] = {}
        self._reading = False
        self._paused = False
        self._cut: IDelayedCall | None = None
        self._gone: Deferred[None] = Deferred()

    def traffic(self) -> tuple[int, int]:
        """Bytes of packets so far: from the other end, to it."""
        return self._exchange.bytes, self._intake.bytes

    def connectionMade(self) -> None:
        """Say hello."""
        self.transport.registerProducer(self, True)
        self._exchange.start()

    def leave(self, word: str | None) -> Deferred[None]:
        """
        Carry nothing more. Called once.

        @param word: the goodbye, after which the other end has C{FLUSH_LIMIT} seconds to hang up as well; L{None}
            to hang up at once.
        @return: a Deferred that fires when the connection is gone.
        """
        self._end()
        if self._gone.called or self.transport is None:
            return succeed(None)
        self.transport.unregisterProducer()
        if word is None:
            self.transport.abortConnection()
        else:
            self.transport.write(goodbye(word))
            self._cut = self._reactor.callLater(FLUSH_LIMIT, self.transport.abortConnection)
            self.transport.loseConnection()
        return self._gone

    def _end(self) -> None:
        self._notes.clear()
        self._exchange.stop()
        self._intake.stop()

    def fail(self, error: RDVError | None, word: str | None) -> None:
        """It is over; see L{tunnels.exchange.Line}."""
        if not self._exchange.over:
            self._end()
            self._lost(error, word)

    def interface_lost(self, problem: object) -> None:
        """The interface is gone."""
        self.fail(TunnelFailed(f"the tunnel's network interface is gone: {problem}"), "interface-lost")

    # What comes in

    def dataReceived(self, data: bytes) -> None:
        """Something came in."""
        if self._exchange.over:
            return
        self._exchange.heard()
        self._reading = True
        try:
            self._receive(memoryview(data))
        except ProtocolError as error:
            self.fail(error, "protocol-error")
        except OSError as error:
            self.interface_lost(error)
        self._reading = False
        self._push()

    def _receive(self, data: memoryview) -> None:
        reader, take = self._reader, self._exchange.receive
        while data:
            room = reader.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            if not take(reader.filled(count)):
                return
            data = data[count:]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self._cut is not None and self._cut.active():
            self._cut.cancel()
        self._gone.callback(None)
        cause = reason.value
        assert cause is not None
        how = "it closed the connection" if isinstance(cause, ConnectionDone) else explain(cause).rstrip(".")
        self.fail(TunnelFailed(f"the tunnel to {self._peer} broke: {how}"), None)

    def agreed(self) -> None:
        """The hellos agree: packets may leave."""
        if not self._paused:
            self._intake.resume()

    # What goes out

    def note(self, kind: int, note: bytes) -> None:
        """Send a frame of our own; after this turn's reading, if it comes of that."""
        self._notes[kind] = note
        if not self._reading:
            self._push()

    def _push(self) -> None:
        if self._notes and not self._paused:
            notes, self._notes = b"".join(self._notes.values()), {}
            self.transport.write(notes)

    def transmit(self, frames: memoryview) -> bool:
        """Send these frames; L{False} if no more may come until the intake is resumed."""
        self.transport.write(bytes(frames))
        return not self._paused

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._paused = True
        self._intake.pause()

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._push()
        if self._exchange.agreed:
            self._intake.resume()

    def stopProducing(self) -> None:
        """The connection is lost, as L{connectionLost} will say."""
        self.pauseProducing()
