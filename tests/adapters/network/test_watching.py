"""The kernel tells that something of the network has changed; whoever wants to know is told soon, and once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from twisted.internet.main import CONNECTION_LOST
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network import watching
from rdvtwisted.adapters.network.watching import BUNCH_SECONDS, Watching, watch_everything
from rdvtwisted.errors import NetworkError


class _Socket:
    """Says what the test puts in."""

    def __init__(self, *arguments: object) -> None:
        self.messages: list[bytes | OSError] = []
        self.bound: object = None
        self.closed = False

    def bind(self, address: object) -> None:
        self.bound = address

    def recv(self, size: int) -> bytes:
        if not self.messages:
            raise BlockingIOError
        message = self.messages.pop(0)
        if isinstance(message, OSError):
            raise message
        return message

    def fileno(self) -> int:
        return 5

    def close(self) -> None:
        self.closed = True


class WatchingTests(SynchronousTestCase):
    """One that watches."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.told = 0
        self.socket = _Socket()
        self.patch(watching.socket, "socket", lambda *_: self.socket)
        self.watching = Watching(self.reactor, self.tell)

    def tell(self) -> None:
        """Something has changed."""
        self.told += 1

    def hear(self, *messages: bytes | OSError) -> None:
        """The kernel has said something."""
        self.socket.messages += messages
        self.watching.doRead()

    def test_bunch(self) -> None:
        """Changes that come together are told once; those that come later, anew."""
        self.assertEqual((self.socket.bound, self.watching.fileno()), ((0, 0x11), 5))
        self.hear(b"1", b"2")
        self.hear(b"3")
        self.assertEqual(self.told, 0)
        self.reactor.advance(BUNCH_SECONDS)
        self.assertEqual(self.told, 1)
        self.hear(b"4")
        self.reactor.advance(BUNCH_SECONDS)
        self.assertEqual((self.told, self.reactor.getDelayedCalls()), (2, []))

    def test_too_many(self) -> None:
        """When the kernel has dropped some, there has been a change all the same."""
        self.hear(OSError(errno.ENOBUFS, "No buffer space available"))
        self.reactor.advance(BUNCH_SECONDS)
        self.assertEqual(self.told, 1)

    def test_stopped(self) -> None:
        """Nothing is told after the end, and nothing is left open, however it ends."""
        ends: list[Callable[[Watching], None]] = [
            lambda watching: watching.stop(),
            lambda watching: watching.connectionLost(Failure(CONNECTION_LOST)),
        ]
        for end in ends:
            self.setUp()
            self.hear(b"1")
            end(self.watching)
            end(self.watching)
            self.reactor.advance(BUNCH_SECONDS)
            self.assertEqual((self.told, self.socket.closed, self.watching.fileno()), (0, True, -1))
            self.assertEqual((self.reactor.getReaders(), self.reactor.getDelayedCalls()), ([], []))

    def test_refused(self) -> None:
        """Where the kernel does not allow it, that is said."""

        def refuse(*_: object) -> socket.socket:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(watching.socket, "socket", refuse)
        error = self.assertRaises(NetworkError, Watching, self.reactor, self.tell)
        self.assertIn("Operation not permitted", str(error))

    def test_everything(self) -> None:
        """Routes, rules, settings and firewall tables are watched, too, all of them or none."""
        made: list[tuple[object, _Socket]] = []

        def make(family: object, kind: object, protocol: int) -> _Socket:
            made.append((protocol, _Socket()))
            return made[-1][1]

        self.patch(watching.socket, "socket", make)
        stop = watch_everything(self.reactor, self.tell)
        self.assertEqual([(protocol, each.bound) for protocol, each in made], [(0, (0, 0x8000D9)), (12, (0, 0x40))])
        stop()
        self.assertTrue(all(each.closed for _, each in made))

        def refuse(each: _Socket, address: tuple[int, int]) -> None:
            if address[1] == 0x40:
                raise PermissionError(errno.EPERM, "Operation not permitted")

        made.clear()
        self.patch(_Socket, "bind", refuse)
        self.assertRaises(NetworkError, watch_everything, self.reactor, self.tell)
        self.assertTrue(made[0][1].closed)
        self.assertEqual([each.fileno() for each in self.reactor.getReaders()], [5])
