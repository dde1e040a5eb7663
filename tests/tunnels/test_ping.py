"""Asking an address whether it is there."""

from __future__ import annotations

import socket
import struct
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from rdvtwisted.errors import TunnelFailed
from tunnels import ping
from tunnels.ping import ATTEMPTS, INTERVAL, Ping, checksum, open_socket, reach

PEER = "192.168.128.1"


class Network:
    """A socket for ICMP whose peer is the test, and the reactor that watches it."""

    def __init__(self, kind: socket.SocketKind) -> None:
        self.type = kind
        self.sent: list[bytes] = []
        self.waiting: list[bytes] = []
        self.unreachable = False
        self.closed = False
        self.clock = Clock()
        self.callLater = self.clock.callLater
        self.seconds = self.clock.seconds
        self.watched: list[Any] = []
        self.addReader = self.watched.append
        self.removeReader = self.watched.remove

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        """Take note."""
        assert address == (PEER, 0)
        self.sent.append(data)
        if self.unreachable:
            raise OSError(101, "Network is unreachable")
        return len(data)

    def recv(self, size: int) -> bytes:
        """The next packet."""
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0)

    def fileno(self) -> int:
        """None."""
        return -1

    def close(self) -> None:
        """Take note."""
        self.closed = True


def reply(request: bytes, kind: int = 0) -> bytes:
    """The answer to a request."""
    return bytes([kind]) + request[1:]


class PingTests(SynchronousTestCase):
    """One question after the other."""

    def begin(self, kind: socket.SocketKind = socket.SOCK_DGRAM, unreachable: bool = False) -> None:
        """Ask."""
        self.network = Network(kind)
        self.network.unreachable = unreachable
        self.ping = Ping(self.network, PEER, cast(socket.socket, self.network))

    def hear(self, *packets: bytes) -> None:
        """These packets come in."""
        self.network.waiting += packets
        for _ in packets:
            self.ping.doRead()

    def assert_over(self) -> None:
        """Nothing is left."""
        self.assertTrue(self.network.closed)
        self.assertEqual((self.network.watched, self.network.clock.getDelayedCalls()), ([], []))

    def test_answer(self) -> None:
        """An answer tells how long it took; that of the request that it answers."""
        self.begin()
        self.network.clock.advance(INTERVAL)
        self.network.clock.advance(0.25)
        self.assertEqual(len(self.network.sent), 2)
        self.hear(reply(self.network.sent[1]))
        self.assertEqual(self.successResultOf(self.ping.answered), 0.25)
        self.assert_over()

    def test_raw(self) -> None:
        """A raw socket gives the packet with its IP header, options and all."""
        self.begin(socket.SOCK_RAW)
        self.hear(b"\x46" + bytes(23) + reply(self.network.sent[0]))
        self.assertEqual(self.successResultOf(self.ping.answered), 0.0)

    def test_request(self) -> None:
        """A request is one that everybody answers: its checksum is right."""
        self.begin()
        (request,) = self.network.sent
        self.assertEqual(request[:2], b"\x08\x00")
        self.assertEqual(checksum(request), 0)

    def test_others(self) -> None:
        """Answers to others, requests, and nonsense are no answers."""
        self.begin()
        (request,) = self.network.sent
        other = reply(request)[:-1] + bytes([request[-1] ^ 1])
        late = request[:6] + struct.pack("!H", 7) + request[8:]
        self.hear(b"", b"\0", other, reply(request, 3), reply(request)[:-1], reply(late), reply(request) + b"x")
        self.ping.doRead()
        self.assertNoResult(self.ping.answered)
        self.hear(reply(request))
        self.successResultOf(self.ping.answered)

    def test_silence(self) -> None:
        """Ten questions, a second apart, are enough; also where the network itself is not there yet."""
        for unreachable in (False, True):
            self.begin(unreachable=unreachable)
            self.network.clock.pump([INTERVAL] * (ATTEMPTS - 1))
            self.assertEqual(len(self.network.sent), ATTEMPTS)
            self.assertNoResult(self.ping.answered)
            self.network.clock.advance(INTERVAL)
            error = self.failureResultOf(self.ping.answered, TunnelFailed).value
            self.assertEqual(str(error), "192.168.128.1 does not answer through the tunnel (10 s)")
            self.assert_over()

    def test_cancel(self) -> None:
        """Who does not want to know any more leaves nothing."""
        self.begin()
        self.ping.answered.addErrback(lambda failure: None)
        self.ping.answered.cancel()
        self.assert_over()

    def test_forbidden(self) -> None:
        """Whoever may not ask does not know."""

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(ping.socket, "socket", refuse)
        self.assertIsNone(self.successResultOf(reach(None, PEER, "rdv0")))

    def bound(self, error: OSError | None) -> list[tuple[int, int, bytes]]:
        """Have a socket be bound to an interface, or not; as what."""
        asked: list[tuple[int, int, bytes]] = []

        def set_option(*option: Any) -> None:
            asked.append(option)
            if error is not None:
                raise error

        self.network = Network(socket.SOCK_DGRAM)
        self.network.setsockopt = set_option  # type: ignore[attr-defined]
        self.patch(ping, "open_socket", lambda: self.network)
        return asked

    def test_interface(self) -> None:
        """An address is asked by the tunnel, though another route leads to it."""
        asked = self.bound(None)
        answered = reach(self.network, PEER, "rdv0")
        self.assertEqual(asked, [(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"rdv0\0")])
        self.assertEqual(len(self.network.sent), 1)
        answered.addErrback(lambda failure: None)
        answered.cancel()

    def test_no_interface(self) -> None:
        """Whoever may not choose an interface does not know; where there is none, that is said."""
        self.bound(PermissionError(1, "Operation not permitted"))
        self.assertIsNone(self.successResultOf(reach(self.network, PEER, "rdv0")))
        self.assertEqual((self.network.sent, self.network.closed), ([], True))
        self.bound(OSError(19, "No such device"))
        error = self.assertRaises(TunnelFailed, reach, self.network, PEER, "rdv0")
        self.assertEqual(str(error), "nothing can be asked by rdv0: No such device")
        self.assertEqual((self.network.sent, self.network.closed), ([], True))

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.binary(max_size=60).filter(lambda data: len(data) % 2 == 0))
    def test_checksum(self, data: bytes) -> None:
        """Whatever is sent, its receiver finds nothing wrong with it."""
        self.assertEqual(checksum(data + struct.pack("!H", checksum(data))), 0)


class LinuxTests(TestCase):
    """The kernel's own answer."""

    timeout = 20

    async def test_reach(self) -> None:
        """This machine answers itself."""
        sock = open_socket()
        if sock is None:
            raise SkipTest("may not send ICMP")
        sock.close()
        seconds = await reach(reactor, "127.0.0.1", "lo")
        assert seconds is not None
        self.assertGreaterEqual(seconds, 0.0)
