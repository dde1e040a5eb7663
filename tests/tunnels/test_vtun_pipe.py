"""From a stock vtund's local connection to the server and back: nobody else's, nothing too early, nothing piled up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import RDVError, TunnelFailed
from rdvtwisted.values import Mode
from tests.tunnels.test_vtun_overheard import CHALLENGE, GREETING, REPLY, WELCOME
from tunnels.vtun_handshake import accepted, message, refused
from tunnels.vtun_overheard import HERE, PREAMBLE
from tunnels.vtun_pipe import FLUSH_LIMIT, SETTLING, VtunPipe, owner_of

HELLO = b"h" * PREAMBLE


class Transport(StringTransportWithDisconnection):
    """A connection that may be slow to close."""

    lingering = False
    aborted = False

    def loseConnection(self) -> None:
        """Close, unless it lingers."""
        self.disconnecting = True
        if not self.lingering and self.connected:
            super().loseConnection()

    def abortConnection(self) -> None:
        """Close in any case."""
        self.aborted = True
        self.lingering = False
        self.loseConnection()


class Server:
    """An endpoint whose connections the test makes."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Deferred[IProtocol]]] = []
        self.cancelled = 0

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        """Wait for the test."""

        def cancel(_: object) -> None:
            self.cancelled += 1

        connecting: Deferred[IProtocol] = Deferred(cancel)
        self.asked.append((factory, connecting))
        return connecting

    def accept(self) -> Transport:
        """Be connected."""
        factory, connecting = self.asked[-1]
        transport = Transport()
        protocol = factory.buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        connecting.callback(protocol)
        return transport


class PipeCase(SynchronousTestCase):
    """A pipe that listens."""

    def setUp(self) -> None:
        """Nobody is connected yet."""
        self.reactor = MemoryReactorClock()
        self.server = Server()
        self.broken: list[RDVError] = []
        self.closed: list[Deferred[None]] = []
        self.uid: int | None = os.geteuid()
        self.pipe = VtunPipe(
            self.reactor,
            self.server,  # type: ignore[arg-type]
            Mode.L3,
            self.broken.append,
            lambda near, far: self.uid,
        )
        self.pipe.listen()

    def call(self) -> Transport | None:
        """Somebody connects; L{None} if they are refused."""
        protocol = self.pipe.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        if protocol is None:
            return None
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def join(self) -> tuple[Transport, Transport]:
        """Client and server, connected."""
        near = self.call()
        assert near is not None
        return near, self.server.accept()

    def flow(self) -> tuple[Transport, Transport]:
        """Client and old server, between which packets flow."""
        near, far = self.join()
        far.protocol.dataReceived(WELCOME)
        near.protocol.dataReceived(HELLO)
        far.protocol.dataReceived(REPLY)
        self.reactor.advance(SETTLING)
        self.successResultOf(self.pipe.flowing)
        near.clear()
        far.clear()
        return near, far

    def close(self) -> Deferred[None]:
        """Close the pipe."""
        return self.pipe.close()


class ListeningTests(PipeCase):
    """Who may connect."""

    def test_place(self) -> None:
        """It listens on this machine only, on any port, for one connection."""
        ((port, factory, backlog, interface),) = self.reactor.tcpServers
        self.assertEqual((port, factory, backlog, interface), (0, self.pipe, 1, "127.0.0.1"))

    def test_stranger(self) -> None:
        """Another user's program is refused, and does not take the client's place."""
        for uid in (os.geteuid() + 1, None):
            self.uid = uid
            self.assertIsNone(self.call())
        self.uid = os.geteuid()
        self.assertIsNotNone(self.call())
        self.assertEqual(len(self.server.asked), 1)

    def test_second(self) -> None:
        """There is one client."""
        self.join()
        self.assertIsNone(self.call())

    def test_no_port(self) -> None:
        """A machine that has no port left is one line."""

        def refuse(*_: object, **__: object) -> None:
            raise CannotListenError("127.0.0.1", 0, OSError(98, "Address already in use"))

        self.patch(self.reactor, "listenTCP", refuse)
        self.assertRaises(TunnelFailed, self.pipe.listen)

    def test_owner(self) -> None:
        """The kernel's table tells whose process holds a connection."""
        table = Path(self.mktemp())
        table.write_text(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
            "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
            "   1: 0100007F:9C40 0100007F:1388 01 00000000:00000000 00:00000000 00000000  1000        0 2 1\n"
            "   2: 0100007F:1388 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     7        0 3 1\n"
        )
        self.assertEqual(owner_of(40000, 5000, table), 1000)
        self.assertEqual(owner_of(5000, 40000, table), 7)
        self.assertIsNone(owner_of(40001, 5000, table))


class CarryingTests(PipeCase):
    """What passes, and when."""

    def test_settling(self) -> None:
        """What a client says beyond its greeting waits until an old server has had time to bring its interface up."""
        near, far = self.join()
        far.protocol.dataReceived(WELCOME)
        near.protocol.dataReceived(HELLO + b"early")
        self.assertEqual((near.value(), far.value()), (WELCOME, HELLO))
        self.assertEqual(near.producerState, "paused")
        far.protocol.dataReceived(REPLY)
        self.assertNoResult(self.pipe.flowing)
        self.reactor.advance(SETTLING - 0.01)
        self.assertEqual(far.value(), HELLO)
        self.reactor.advance(0.01)
        self.successResultOf(self.pipe.flowing)
        self.assertEqual((far.value(), near.producerState), (HELLO + b"early", "producing"))

    def test_ours(self) -> None:
        """A server of our own needs no time, and learns that the client's interface is up."""
        near, far = self.join()
        far.protocol.dataReceived(message("VTUN server ver 3.X rdvtwisted") + CHALLENGE + accepted(Mode.L3))
        near.protocol.dataReceived(HELLO + b"early")
        far.protocol.dataReceived(REPLY)
        self.successResultOf(self.pipe.flowing)
        self.assertEqual(far.value(), HELLO + HERE + b"early")

    def test_both_ways(self) -> None:
        """Then everything passes as it is."""
        near, far = self.flow()
        near.protocol.dataReceived(b"to the server")
        far.protocol.dataReceived(b"to the client")
        self.assertEqual((near.value(), far.value()), (b"to the client", b"to the server"))

    def test_pressure(self) -> None:
        """Who does not take what is for it stops the other one from sending more."""
        near, far = self.flow()
        near.producer.pauseProducing()
        self.assertEqual((near.producerState, far.producerState), ("producing", "paused"))
        near.producer.resumeProducing()
        far.producer.pauseProducing()
        self.assertEqual((near.producerState, far.producerState), ("paused", "producing"))

    def test_pressure_early(self) -> None:
        """Also before packets flow, a client that reads nothing keeps the server from filling this machine."""
        near, far = self.join()
        near.producer.pauseProducing()
        self.assertEqual(far.producerState, "paused")


class EndTests(PipeCase):
    """How it ends."""

    def test_refused(self) -> None:
        """A server that refuses the client breaks the pipe, with its reason."""
        near, far = self.join()
        far.protocol.dataReceived(GREETING + refused())
        (error,) = self.broken
        self.assertIn("does not let the vtun client in", str(error))
        self.successResultOf(self.close())
        self.assertFalse(near.connected or far.connected)

    def test_unreachable(self) -> None:
        """A port at the server that nobody listens on breaks it, too."""
        self.call()
        self.server.asked[-1][1].errback(ConnectError(string="connection refused"))
        (error,) = self.broken
        self.assertIn("the server does not open the vtun tunnel: ", str(error))

    def test_refused_at_once(self) -> None:
        """A server that is known to be gone refuses before the client's connection is made; both are closed."""
        for refuse in (lambda _: fail(ConnectError()), lambda _: 1 / 0):
            self.setUp()
            self.patch(self.server, "connect", refuse)
            self.pipe._broken = lambda error: self.closed.append(self.pipe.close())
            near = self.call()
            assert near is not None
            self.assertFalse(near.connected)
            self.successResultOf(self.closed.pop())
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_server_gone(self) -> None:
        """So does a server that leaves; the client hears it."""
        near, far = self.flow()
        far.loseConnection()
        self.assertEqual([str(error) for error in self.broken], ["the server has closed the vtun tunnel"])
        self.assertFalse(near.connected)

    def test_client_gone(self) -> None:
        """A client that leaves is no fault of the pipe's: its last words reach the server, and its end does."""
        near, far = self.flow()
        near.protocol.dataReceived(b"bye")
        near.loseConnection()
        self.assertEqual((far.value(), far.connected, self.broken), (b"bye", False, []))
        self.successResultOf(self.close())

    def test_close(self) -> None:
        """Closing closes both connections; again and again."""
        near, far = self.flow()
        for _ in range(2):
            self.successResultOf(self.close())
        self.assertFalse(near.connected or far.connected or near.aborted or far.aborted)
        self.assertEqual((self.broken, self.reactor.getDelayedCalls()), ([], []))

    def test_close_slow(self) -> None:
        """A connection that does not close in a second is cut."""
        near, far = self.flow()
        far.lingering = True
        closing = [self.close(), self.close()]
        self.assertFalse(near.connected)
        self.reactor.advance(FLUSH_LIMIT)
        self.assertTrue(far.aborted)
        for each in closing:
            self.successResultOf(each)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_early(self) -> None:
        """Closing before anybody is connected, or before the server answers, leaves nothing either."""
        self.successResultOf(self.close())
        self.assertIsNone(self.call())
        self.setUp()
        near = self.call()
        assert near is not None
        self.successResultOf(self.close())
        self.assertEqual((near.connected, self.server.cancelled, self.broken), (False, 1, []))

    def test_close_while_settling(self) -> None:
        """Nothing flows after that."""
        _, far = self.join()
        far.protocol.dataReceived(WELCOME + REPLY)
        self.successResultOf(self.close())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNoResult(self.pipe.flowing)

    def test_late_server(self) -> None:
        """A server that is reached when the client has left is left again."""
        near = self.call()
        assert near is not None
        near.loseConnection()
        far = self.server.accept()
        self.assertFalse(far.connected)
        self.assertEqual(self.broken, [])
