"""
One end of the connection between the two ends of a tunnel, past its handshake.

TLS runs straight on the socket. What one read returns is parsed where it lies
and handed to the interface from there; what the socket does not take stops
the reading of the interface, so that nothing piles up here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice
from tunnels.carrier import FLUSH_LIMIT
from tunnels.conversation import Socket, explain
from tunnels.exchange import Exchange
from tunnels.hello import Hello
from tunnels.intake import Intake
from tunnels.packets import GOODBYE, RECORD, FrameReader, goodbye

#: TLS records read in one turn of the reactor: bounds how long the other direction and timers wait.
RECORDS_PER_TURN = 32
#: A record below so many bytes is most likely the last one there is: the next read would find nothing.
SHORT_RECORD = 2_048


@implementer(IReadDescriptor, IWriteDescriptor)
class Link:
    """Carries frames both ways, once the two hellos agree, until either end leaves or falls silent."""

    def __init__(
        self,
        reactor: Any,
        sock: Socket,
        connection: SSL.Connection,
        device: IPacketDevice,
        hello: Hello,
        peer: str,
        pulse: tuple[float, float],
        opened: Callable[[], None],
        lost: Callable[[RDVError | None, str | None], None],
    ) -> None:
        """
        @param hello: what this end says of itself.
        @param peer: what the other end must say that it is, see L{tunnels.hello.Hello}.
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        @param opened: called once packets flow and the round trip is measured.
        @param lost: called once with the error, or L{None} if the other end
            left in order, and with the word to L{leave} with, if the other
            end is still there to be told.
        """
        self._reactor = reactor
        self._socket = sock
        self._connection = connection
        self._peer = peer
        self._lost = lost
        self._reader = FrameReader()
        self._intake = Intake(reactor, device, self)
        self._exchange = Exchange(reactor, device, hello, peer, pulse, self, opened)
        #: What OpenSSL wants to be called with again before anything else is sent.
        self._unsent: Callable[[], object] | None = None
        #: Frames of our own that wait for their turn, one of each type at most.
        self._notes: dict[int, bytes] = {}
        self._reading = False
        self._writing = False
        #: The TLS connection is being ended from this side.
        self._farewell = False
        self._left: Deferred[None] | None = None

    @property
    def sent_packets(self) -> int:
        """Packets of the interface that were sent."""
        return self._intake.packets

    @property
    def sent_bytes(self) -> int:
        """Bytes of those packets."""
        return self._intake.bytes

    @property
    def received_packets(self) -> int:
        """Packets that the interface took."""
        return self._exchange.packets

    @property
    def received_bytes(self) -> int:
        """Bytes of those packets."""
        return self._exchange.bytes

    @property
    def round_trip(self) -> float | None:
        """Seconds to the other end and back, as last measured."""
        return self._exchange.round_trip

    def start(self) -> None:
        """Say hello, and listen."""
        self._reactor.addReader(self)
        self._exchange.start()

    def leave(self, word: str) -> Deferred[None]:
        """
        Carry nothing more, say goodbye with C{word}, end the TLS connection,
        and wait until the other end has hung up.

        @return: a Deferred that fires then, or after C{FLUSH_LIMIT} seconds.
        """
        self._end()
        left: Deferred[None] = Deferred()
        self._left = left
        left.addTimeout(FLUSH_LIMIT, self._reactor)
        left.addErrback(lambda failure: failure.trap(CancelledError) and None)
        left.addBoth(self._unwatch)
        self._notes = {GOODBYE: goodbye(word)}
        self._reactor.addReader(self)
        self._push()
        return left

    def stop(self) -> None:
        """Leave everything alone from now on. Idempotent."""
        self._end()
        self._unwatch(None)

    def _end(self) -> None:
        self._exchange.stop()
        self._intake.stop()

    def _unwatch(self, result: object) -> None:
        self._writing = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    def fail(self, error: RDVError | None, word: str | None) -> None:
        """It is over; see L{tunnels.exchange.Line}."""
        if not self._exchange.over:
            self.stop()
            self._lost(error, word)
        elif self._left is not None and not self._left.called:
            self._left.callback(None)

    def _broken(self, error: BaseException) -> None:
        self.fail(TunnelFailed(f"the tunnel to {self._peer} broke: {explain(error)}"), None)

    # What comes in

    def doRead(self) -> None:
        """Something came in."""
        self._reading = True
        try:
            if self._exchange.over:
                self._drain()
            else:
                self._exchange.heard()
                self._receive()
        except (SSL.Error, ProtocolError, OSError) as error:
            self._interrupted(error)
        self._reading = False
        if self._notes or self._unsent is not None:
            self._push()

    def _receive(self) -> None:
        reader, recv_into, take = self._reader, self._connection.recv_into, self._exchange.receive
        for _ in range(RECORDS_PER_TURN):
            count = recv_into(reader.room(), RECORD)
            if not take(reader.filled(count)) or count < SHORT_RECORD:
                return

    def _drain(self) -> None:
        for _ in range(RECORDS_PER_TURN):
            self._connection.recv_into(self._reader.room(), RECORD)

    def _interrupted(self, error: Exception) -> None:
        if isinstance(error, SSL.WantReadError):
            return
        if isinstance(error, SSL.WantWriteError):
            self._watch_room()
        elif isinstance(error, ProtocolError):
            self.fail(error, "protocol-error")
        elif isinstance(error, SSL.Error):
            self._broken(error)
        else:
            self.interface_lost(error)

    def agreed(self) -> None:
        """The hellos agree: packets may leave."""
        if self._unsent is None and not self._writing:
            self._intake.resume()

    # What goes out

    def transmit(self, frames: memoryview) -> bool:
        """Send these frames; L{False} if they have to wait: they stay untouched until the intake is resumed."""
        try:
            self._connection.send(frames)
        except SSL.Error as error:
            # Whatever was wanted, OpenSSL insists on the same bytes again.
            self._unsent = partial(self._connection.send, frames)
            self._interrupted(error)
            return False
        return True

    def interface_lost(self, problem: object) -> None:
        """The interface is gone."""
        self.fail(TunnelFailed(f"the tunnel's network interface is gone: {problem}"), "interface-lost")

    def note(self, kind: int, note: bytes) -> None:
        """Send a frame of our own; after this turn's reading, if it comes of that."""
        self._notes[kind] = note
        if not self._reading:
            self._push()

    def _watch_room(self) -> None:
        self._writing = True
        self._reactor.addWriter(self)
        self._intake.pause()

    def doWrite(self) -> None:
        """There is room for more, which is wanted to send or, for an answer of TLS itself, to read on."""
        self._writing = False
        self._reactor.removeWriter(self)
        if self._unsent is None:
            self.doRead()
        self._push()

    def _push(self) -> None:
        """Send what waits until nothing does, or the socket takes no more."""
        if self._writing or (self._exchange.over and self._left is None):
            return
        connection = self._connection
        try:
            while self._unsent is not None or self._notes or (self._exchange.over and not self._farewell):
                if self._unsent is None and self._notes:
                    notes, self._notes = b"".join(self._notes.values()), {}
                    self._unsent = partial(connection.send, notes)
                elif self._unsent is None:
                    self._farewell = True
                    self._unsent = connection.shutdown
                self._unsent()
                self._unsent = None
        except SSL.Error as error:
            self._intake.pause()
            self._interrupted(error)
            return
        if self._exchange.agreed:
            self._intake.resume()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken, or stops."""
        self._broken(SSL.SysCallError(-1, "Unexpected EOF"))

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "tunnel"
