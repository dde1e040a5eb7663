"""A link whose socket is full: what OpenSSL demands then, in every order of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import RDVError
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.tunnels import packet
from rdvtwisted.values import Mode, Offloads
from tests.tunnels.frames import frames
from tunnels.hello import Hello
from tunnels.link import Link
from tunnels.packets import ANSWER, GOODBYE, HEARTBEAT, HELLO, PACKET, frame

MASTER = Hello("rpi-master", Mode.L3, 1500, Offloads(), "1")
ONSITE = Hello("rpi-onsite", Mode.L3, 1500, Offloads(), "1")


class StrictConnection:
    """
    Insists, as OpenSSL does, that a write which was refused is repeated with
    the same bytes before any other (SSL_R_BAD_WRITE_RETRY).
    """

    def __init__(self) -> None:
        self.incoming: list[bytes] = []
        self.sent = b""
        self.full: type[SSL.Error] | None = None
        #: What the next read demands, as when TLS itself has to answer something.
        self.demand: type[SSL.Error] | None = None
        self.ended = False
        self._refused: bytes | None = None

    def _write(self, data: bytes) -> None:
        if self._refused is not None and data != self._refused:
            raise SSL.Error([("SSL routines", "", "bad write retry")])
        if self.full is not None:
            self._refused = data
            raise self.full
        self._refused = None

    def send(self, data: bytes | memoryview) -> int:
        """As L{SSL.Connection.send}, without partial writes."""
        if self.ended:
            raise SSL.Error([("SSL routines", "", "protocol is shutdown")])
        self._write(bytes(data))
        self.sent += data
        return len(data)

    def shutdown(self) -> bool:
        """As L{SSL.Connection.shutdown}."""
        self._write(b"close_notify")
        self.ended = True
        return False

    def recv_into(self, buffer: memoryview, nbytes: int) -> int:
        """As L{SSL.Connection.recv_into}."""
        demand, self.demand = self.demand, None
        if demand is not None:
            raise demand
        if not self.incoming:
            raise SSL.WantReadError
        data = self.incoming.pop(0)
        buffer[: len(data)] = data
        return len(data)


class ListeningReactor(MemoryReactor, Clock):
    """A reactor in memory, which turns when it is told to."""

    def __init__(self) -> None:
        MemoryReactor.__init__(self)
        Clock.__init__(self)

    def turn(self, connection: StrictConnection) -> None:
        """Tell everybody what is ready: a socket is readable at any time, and writable if it is not full."""
        for reader in list(self.readers):
            if reader in self.readers:
                reader.doRead()
        for writer in list(self.writers):
            if connection.full is not SSL.WantWriteError:
                writer.doWrite()


class NoSocket:
    """The socket below a connection in memory."""

    def fileno(self) -> int:
        """A number that nobody uses."""
        return 999


class PressureTests(SynchronousTestCase):
    """Whatever the order, what is sent is whole, in order, and demanded as OpenSSL wants it."""

    def start(self) -> None:
        self.reactor = ListeningReactor()
        self.connection = StrictConnection()
        self.device = MemoryPacketDevice()
        self.addCleanup(self.device.close)
        self.lost: list[tuple[RDVError | None, str | None]] = []
        self.link = Link(
            self.reactor,
            cast(Any, NoSocket()),
            cast(Any, self.connection),
            cast(Any, self.device),
            MASTER,
            "rpi-onsite",
            (5.0, 15.0),
            lambda: None,
            lambda error, word: self.lost.append((error, word)),
        )
        self.connection.incoming.append(ONSITE.encode())
        self.link.start()

    def fill(self, reason: type[SSL.Error] | None) -> Callable[[], None]:
        return lambda: setattr(self.connection, "full", reason)

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from("turn packet beat full wantread room demand tick".split()), max_size=40))
    def test_any_order(self, events: list[str]) -> None:
        """Packets, heartbeats both ways and a socket that is full now and then, in any order."""
        self.start()
        injected: list[bytes] = []

        def inject() -> None:
            each = packet(Mode.L3, b"%d" % len(injected))
            if self.device.inject(each):
                injected.append(each)

        deeds: dict[str, Callable[[], None]] = {
            "turn": lambda: self.reactor.turn(self.connection),
            "packet": inject,
            "beat": lambda: self.connection.incoming.append(frame(HEARTBEAT, b"12345678")),
            "full": self.fill(SSL.WantWriteError),
            "wantread": self.fill(SSL.WantReadError),
            "room": self.fill(None),
            "demand": lambda: setattr(self.connection, "demand", SSL.WantWriteError),
            "tick": lambda: self.reactor.advance(2.5),
        }
        for event in events:
            deeds[event]()
            if event == "tick":
                self.connection.incoming.append(frame(ANSWER, bytes(8)))
                self.reactor.turn(self.connection)
        self.connection.full = None
        for _ in range(8 + len(injected)):
            self.reactor.turn(self.connection)
        self.assertEqual(self.lost, [])
        found = frames(self.connection.sent)
        self.assertEqual(found[0][0], HELLO)
        self.assertEqual([payload for kind, payload in found if kind == PACKET], injected)
        self.assertEqual(ANSWER in [kind for kind, _ in found], "beat" in events)
        self.assertIn(HEARTBEAT, [kind for kind, _ in found])

    def test_goodbye_waits(self) -> None:
        """A goodbye waits behind the batch that the socket did not take, and close_notify behind the goodbye."""
        for give_up in (False, True):
            self.start()
            self.reactor.turn(self.connection)
            self.connection.full = SSL.WantWriteError
            self.device.inject(sent := packet(Mode.L3, b"last words"))
            self.reactor.turn(self.connection)
            if give_up:
                self.link.stop()
            left = self.link.leave("closed")
            self.assertFalse(self.connection.ended)
            self.connection.full = None
            self.reactor.turn(self.connection)
            found = frames(self.connection.sent)
            self.assertEqual([payload for kind, payload in found if kind == PACKET], [sent])
            self.assertEqual(found[-1], (GOODBYE, b"closed"))
            self.assertTrue(self.connection.ended)
            self.assertNoResult(left)
            self.reactor.advance(1.1)
            self.assertIsNone(self.successResultOf(left))
            self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reactor_gives_up(self) -> None:
        """What the reactor finds broken, the socket or the interface, ends the tunnel with one clear line."""
        self.start()
        self.reactor.turn(self.connection)
        (intake,) = [reader for reader in self.reactor.getReaders() if reader is not self.link]
        intake.connectionLost(Failure(OSError("hung up")))
        ((error, word),) = self.lost
        self.assertEqual((str(error), word), ("the tunnel's network interface is gone: hung up", "interface-lost"))
        intake.connectionLost(Failure(OSError("hung up")))
        self.start()
        self.link.connectionLost(Failure(ConnectionError()))
        ((error, word),) = self.lost
        self.assertEqual((str(error), word), ("the tunnel to rpi-onsite broke: it closed the connection", None))

    def test_interface_deleted(self) -> None:
        """A packet for an interface that is no more ends the tunnel, and the other end is told."""
        self.start()
        self.reactor.turn(self.connection)
        self.device.vanish()
        self.connection.incoming.append(frame(PACKET, packet(Mode.L3, b"x")))
        self.link.doRead()
        ((error, word),) = self.lost
        self.assertIn("interface is gone", str(error))
        self.assertEqual(word, "interface-lost")

    def test_stopped(self) -> None:
        """A link that was stopped sends nothing more and watches nothing."""
        self.start()
        self.reactor.turn(self.connection)
        before = self.connection.sent
        self.link.stop()
        self.device.inject(packet(Mode.L3, b"late"))
        self.reactor.turn(self.connection)
        self.reactor.advance(60)
        self.assertEqual(self.connection.sent, before)
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))
