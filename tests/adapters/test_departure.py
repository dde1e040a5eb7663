"""Who has gone is known before anything is computed for him."""

from __future__ import annotations

import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.departure import departed
from tests.adapters.front.sockets import tcp_pair


class Transport:
    """A transport as far as it is looked at: a socket's, or another one's user."""

    def __init__(self, fileno: int, transport: object = None) -> None:
        self.fileno = lambda: fileno
        self.transport = transport


class DepartureTests(SynchronousTestCase):
    """L{departed}, of connections of 127.0.0.1."""

    def setUp(self) -> None:
        """Two ends; the far one has said something that nobody has read."""
        self.near, self.far = tcp_pair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.far.send(b"part of a key exchange")
        self.transport = Transport(self.near.fileno())

    def test_here(self) -> None:
        """Who is there is not gone, whatever he has said."""
        self.assertFalse(departed(self.transport))

    def test_closed(self) -> None:
        """Who has closed is gone, though something of him is still to be read; that stays where it is."""
        self.far.close()
        self.assertTrue(departed(self.transport))
        self.assertEqual(self.near.recv(100), b"part of a key exchange")

    def test_reset(self) -> None:
        """So is who was cut off."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.assertTrue(departed(self.transport))

    def test_inside(self) -> None:
        """What counts for a connection inside TLS is the one below."""
        inside = Transport(-1, self.transport)
        self.assertFalse(departed(inside))
        self.far.close()
        self.assertTrue(departed(inside))

    def test_unknown(self) -> None:
        """Of a transport without a socket, or that has closed its own, nothing is known."""
        self.assertFalse(departed(object()))
        self.assertFalse(departed(Transport(-1)))
