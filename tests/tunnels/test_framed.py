"""Frames on a transport of Twisted: what it says, what it keeps, and what it makes of strange ones."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.tunnels import packet
from rdvtwisted.values import Mode, Offloads
from tests.tunnels.frames import frames
from tunnels.carrier import FLUSH_LIMIT
from tunnels.framed import FramedStream
from tunnels.hello import SERVER, Hello
from tunnels.intake import BATCHES_PER_TURN
from tunnels.packets import ANSWER, CLOSED, GOODBYE, HEARTBEAT, HELLO, PACKET, frame, goodbye

DEVICE = Hello("rpi1100", Mode.L3, 1450, Offloads(), "test")


class Transport(StringTransport):
    """One that is closed when the test says so."""

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborting = True


class FramedCase(SynchronousTestCase):
    """A server's end on a transport in memory."""

    def setUp(self) -> None:
        """A stream that was just delivered."""
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self.reactor = MemoryReactorClock()
        self.device = MemoryPacketDevice()
        self.addCleanup(self.device.close)
        self.opened: list[None] = []
        self.lost: list[tuple[RDVError | None, str | None]] = []
        self.framed = FramedStream(
            self.reactor,
            self.device,
            Hello(SERVER, Mode.L3, 1450, Offloads(), "test"),
            "rpi1100",
            (5.0, 15.0),
            lambda: self.opened.append(None),
            lambda error, word: self.lost.append((error, word)),
        )
        self.transport = Transport()
        self.framed.makeConnection(self.transport)

    def said(self) -> list[tuple[int, bytes]]:
        """The frames that it has sent since last asked."""
        sent = frames(self.transport.value())
        self.transport.clear()
        return sent

    def greet(self) -> None:
        """The device says hello and answers the first heartbeat."""
        stamp = dict(self.said())[HEARTBEAT]
        self.framed.dataReceived(DEVICE.encode() + frame(ANSWER, stamp))


class ConversationTests(FramedCase):
    """What is said in which order."""

    def test_first(self) -> None:
        """Its hello comes first, then a heartbeat; the answer to that opens it."""
        self.assertEqual([kind for kind, _ in frames(self.transport.value())], [HELLO, HEARTBEAT])
        self.assertEqual(self.reactor.getReaders(), [])
        self.greet()
        self.assertEqual(len(self.opened), 1)
        self.assertEqual(len(self.reactor.getReaders()), 1)

    def test_in_pieces(self) -> None:
        """Frames may be cut anywhere."""
        stamp = dict(self.said())[HEARTBEAT]
        sent = packet(Mode.L3, b"x" * 1000)
        for byte in DEVICE.encode() + frame(ANSWER, stamp) + frame(PACKET, sent):
            self.framed.dataReceived(bytes([byte]))
        self.assertEqual((self.device.written, len(self.opened)), ([sent], 1))
        self.assertEqual(self.framed.traffic(), (len(sent) - 10, 0))

    def test_flood_of_heartbeats(self) -> None:
        """However many heartbeats come at once, the last is answered."""
        self.greet()
        self.said()
        self.framed.dataReceived(b"".join(frame(HEARTBEAT, struct.pack("!Q", n)) for n in range(2000)))
        self.assertEqual(self.said(), [(ANSWER, struct.pack("!Q", 1999))])

    def test_full(self) -> None:
        """While the transport is full the interface is not read, and at most one frame of each kind is kept."""
        self.greet()
        self.said()
        self.framed.pauseProducing()
        self.assertEqual(self.reactor.getReaders(), [])
        for n in range(100):
            self.framed.dataReceived(frame(HEARTBEAT, struct.pack("!Q", n)))
        self.reactor.pump([2.5, 2.5])
        self.assertEqual(self.transport.value(), b"")
        self.framed.resumeProducing()
        self.assertEqual(sorted(kind for kind, _ in self.said()), [HEARTBEAT, ANSWER])
        self.assertEqual(len(self.reactor.getReaders()), 1)

    def test_fills_up(self) -> None:
        """A turn stops as soon as the transport is full; what has been read by then is sent."""
        self.greet()
        self.said()
        sent = [packet(Mode.L3, bytes([n]) * 1000) for n in range(20)]
        for each in sent:
            self.assertTrue(self.device.inject(each))
        writing, self.transport.write = self.transport.write, self.full  # type: ignore[method-assign]
        (intake,) = self.reactor.getReaders()
        intake.doRead()
        self.assertEqual(self.said(), [(PACKET, sent[0])])
        self.assertEqual(self.reactor.getReaders(), [])
        self.transport.write = writing  # type: ignore[method-assign]
        self.framed.resumeProducing()
        for _ in range(BATCHES_PER_TURN):
            intake.doRead()
        self.assertEqual(self.said(), [(PACKET, each) for each in sent[1:]])

    def full(self, data: bytes) -> None:
        """Take it, and no more."""
        StringTransport.write(self.transport, data)
        self.framed.pauseProducing()

    def test_provides(self) -> None:
        """It is told when the transport is full."""
        self.assertTrue(verifyObject(IPushProducer, self.framed))
        self.assertIs(self.transport.producer, self.framed)


class EndTests(FramedCase):
    """How it ends."""

    def test_leave(self) -> None:
        """Who leaves says goodbye and closes, and cuts off who does not hang up in time."""
        self.greet()
        self.said()
        gone = self.framed.leave(CLOSED)
        self.assertEqual(self.said(), [(GOODBYE, CLOSED.encode())])
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.reactor.getReaders(), [])
        self.framed.dataReceived(frame(PACKET, packet(Mode.L3, b"late")))
        self.assertEqual(self.device.written, [])
        self.assertNoResult(gone)
        self.reactor.advance(FLUSH_LIMIT)
        self.assertTrue(self.transport.aborting)
        self.framed.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(gone)
        self.assertEqual((self.lost, self.reactor.getDelayedCalls()), ([], []))

    def test_left(self) -> None:
        """A goodbye is told, with an error unless all is well."""
        for word, error in ((CLOSED, None), ("mode-is-L2", TunnelFailed)):
            self.begin()
            self.greet()
            self.framed.dataReceived(goodbye(word) + frame(PACKET, packet(Mode.L3, b"behind")))
            ((told, answer),) = self.lost
            self.assertEqual(answer, CLOSED)
            self.assertIs(type(told), type(None) if error is None else error)
            self.assertEqual(self.device.written, [])

    def test_lost(self) -> None:
        """A connection that closes or breaks without a goodbye is an error, in one line, told once."""
        for reason, words in ((ConnectionDone(), "it closed the connection"), (ConnectionLost(), "non-clean fashion")):
            self.begin()
            self.greet()
            self.framed.connectionLost(Failure(reason))
            ((error, word),) = self.lost
            self.assertIn(words, str(error))
            self.assertIsNone(word)
            self.successResultOf(self.framed.leave(None))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """Who says nothing at all any more is given up, although heartbeats are sent."""
        self.greet()
        for _ in range(30):
            self.reactor.advance(0.5)
        ((error, word),) = self.lost
        self.assertIn("fell silent", str(error))
        self.assertIsNone(word)

    def test_broken_rules(self) -> None:
        """What may not be said ends it with one line, and the other end is told."""
        for text in (
            frame(PACKET, packet(Mode.L3, b"early")),
            DEVICE.encode() * 2,
            frame(7, b""),
            struct.pack("!I", 0xFFFFFF),
            frame(HELLO, b"nonsense"),
        ):
            self.begin()
            self.framed.dataReceived(text)
            ((error, word),) = self.lost
            self.assertIsInstance(error, ProtocolError)
            self.assertEqual((word, self.device.written), ("protocol-error", []))

    def test_interface_gone(self) -> None:
        """An interface that vanishes is told, whoever notices it."""
        for reading in (True, False):
            self.begin()
            self.greet()
            self.device.vanish()
            if reading:
                self.reactor.getReaders()[0].doRead()
            else:
                self.framed.dataReceived(frame(PACKET, packet(Mode.L3, b"x")))
            ((error, word),) = self.lost
            self.assertIn("interface is gone", str(error))
            self.assertEqual(word, "interface-lost")

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=400), max_size=6), st.booleans())
    def test_anything(self, pieces: list[bytes], greeted: bool) -> None:
        """Whatever comes, it ends at most once, by an error that a user can read, and nothing breaks."""
        self.begin()
        if greeted:
            self.greet()
        for piece in pieces:
            self.framed.dataReceived(piece)
        self.assertLessEqual(len(self.lost), 1)
        for error, _ in self.lost:
            if error is not None:
                self.assertNotIn("\n", str(error))
        self.framed.leave(None)
        self.device.close()
