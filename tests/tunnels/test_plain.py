"""A local socket used as a TLS connection is."""

from __future__ import annotations

import socket

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tunnels.plain import PlainConnection


class PlainTests(SynchronousTestCase):
    """L{PlainConnection}."""

    def setUp(self) -> None:
        """Two ends of a socket pair, one of them in use."""
        near, self.far = socket.socketpair()
        for end in (near, self.far):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.near = near
        self.plain = PlainConnection(near)

    def test_whole(self) -> None:
        """What does not fit at once is sent by further calls with the same, whole and once."""
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data = bytes(range(256)) * 4000
        got = b""
        calls = 0
        sent = 0
        while not sent:
            calls += 1
            try:
                sent = self.plain.send(memoryview(data))
            except SSL.WantWriteError:
                got += self.far.recv(1 << 20)
        while len(got) < len(data):
            got += self.far.recv(1 << 20)
        self.assertGreater(calls, 2)
        self.assertEqual((sent, got == data), (len(data), True))
        self.assertEqual(self.plain.send(b"next"), 4)
        self.assertEqual(self.far.recv(100), b"next")

    def test_lines(self) -> None:
        """Bytes behind a line are for who reads next."""
        self.assertRaises(SSL.WantReadError, self.plain.recv, 100)
        self.far.send(b"OK\nframes")
        self.assertEqual(self.plain.recv(100), b"OK\n")
        buffer = bytearray(100)
        self.assertEqual(self.plain.recv_into(memoryview(buffer), 100), 6)
        self.assertEqual(buffer[:6], b"frames")
        self.assertRaises(SSL.WantReadError, self.plain.recv_into, memoryview(buffer), 100)
        self.far.send(b"no end")
        self.assertEqual(self.plain.recv(3), b"no ")
        self.assertFalse(self.plain.ended)

    def test_end(self) -> None:
        """An end in order, and a broken connection, are told apart; both are ends."""
        self.assertTrue(self.plain.shutdown())
        self.assertEqual(self.far.recv(10), b"")
        self.far.close()
        self.assertRaises(SSL.ZeroReturnError, self.plain.recv, 10)
        self.assertTrue(self.plain.ended)
        self.assertRaises(SSL.SysCallError, self.plain.send, b"x")
