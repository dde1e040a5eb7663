"""The server computes nothing for who has gone, though what he has said is still to be read."""

from __future__ import annotations

import socket
from typing import Any

from twisted.test.iosim import IOPump

from rdvtwisted.adapters.ssh.client import ClientTransport
from tests.adapters.front.sockets import tcp_pair
from tests.adapters.ssh.world import World


class DepartedTests(World):
    """Somebody whose connection has a socket, and whose bytes reach the server when the test says so."""

    def setUp(self) -> None:
        """The socket of a connection, open at both ends."""
        super().setUp()
        self.near, self.far = tcp_pair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.computed: list[Any] = []

    def come(self) -> IOPump:
        """Somebody comes; nothing has been moved yet."""
        server = self.server.factory("ssh").buildProtocol(self.peer)
        assert server is not None
        keys = server._getHostKeys

        def computing(algorithm: bytes) -> Any:
            self.computed.append(algorithm)
            return keys(algorithm)

        server._getHostKeys = computing  # type: ignore[assignment,method-assign]
        client = ClientTransport(self.target(), self.client_settings, self.clock)
        client.ready.addErrback(lambda failure: None)
        made = server.makeConnection
        near = self.near

        def make_connection(transport: Any) -> None:
            transport.fileno = near.fileno
            made(transport)

        server.makeConnection = make_connection  # type: ignore[method-assign]
        return self.join(server, client)

    def assert_forgotten(self) -> None:
        """Nothing was computed, nothing told, and nothing is left."""
        self.pump()
        self.assertEqual((self.computed, self.reception.refusals), ([], []))
        self.assertEqual((len(self.server.vestibule), self.server.lines), (0, set()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stays(self) -> None:
        """Who is still there gets the server's part of the exchange."""
        self.come()
        self.pump()
        self.assertEqual(len(self.computed), 1)

    def test_exchange(self) -> None:
        """Who has sent its part of the exchange and closed gets neither ours nor a signature."""
        pump = self.come()
        pump.pump()
        self.assertTrue(pump.clientIO.stream)
        self.far.close()
        self.assert_forgotten()
        self.assertTrue(pump.serverIO.aborted)

    def test_arrival(self) -> None:
        """Who has closed before it was taken in is not even greeted."""
        self.far.shutdown(socket.SHUT_WR)
        pump = self.come()
        self.assertFalse(pump.serverIO.getOutBuffer())
        self.assert_forgotten()
