"""Tunnel streams that stay inside the door's TLS, over real sockets."""

from __future__ import annotations

import gc
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.front.stream import UNSENT_LIMIT, InsideStream, TunnelStream
from rdvtwisted.adapters.front.turnstile import Turnstile
from rdvtwisted.adapters.negotiation import SPARE_STEPS
from rdvtwisted.interfaces import ITunnelStream
from tests.adapters.front.clients import Identity, Office, Seat, TLSClient
from tests.adapters.front.sockets import adopt, descriptors, device_and_stream, released, settled
from tests.adapters.front.test_door import Greeters
from tests.newkeys import Asker

reactor: Any = global_reactor

#: linux/tcp.h
TCP_NOTSENT_LOWAT = 25


class Device(Protocol):
    """A device that shows a ticket by the name of the server, and goes on inside TLS."""

    transport: Any

    def __init__(self, ticket: str, behind: bytes) -> None:
        """
        @param behind: what it says right behind its ticket.
        """
        self.client = TLSClient(identity=Identity(), name="rdv-tunnel")
        self.closed: Deferred[None] = Deferred()
        self._first = b"RDV-TUNNEL/1 %s\n" % ticket.encode("ascii") + behind
        self._wanted: tuple[bytes, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        """Begin TLS."""
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        self.client.feed(data)
        if self.client.shaken and self._first:
            first, self._first = self._first, b""
            self.client.tls.write(first)
        if self.client.closed:
            self.transport.loseConnection()
        self._flush()
        if self._wanted is not None and self.client.received.startswith(self._wanted[0]):
            (_, done), self._wanted = self._wanted, None
            done.callback(None)

    def _flush(self) -> None:
        rest = self.client.outgoing.read()
        if rest:
            self.transport.write(rest)

    def until(self, text: bytes) -> Deferred[None]:
        """Fires once it has received this."""
        done: Deferred[None] = Deferred()
        self._wanted = (text, done)
        self.dataReceived(b"")
        return done

    def say(self, text: bytes) -> None:
        """Send something inside TLS."""
        self.client.tls.write(text)
        self._flush()

    def leave(self) -> None:
        """End TLS."""
        self.client.close()
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class Taker(Protocol):
    """Takes a stream, and remembers what it got."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[BaseException | None] = Deferred()
        self._wanted: tuple[int, Deferred[None]] | None = None

    def until(self, count: int) -> Deferred[None]:
        """Fires once so many bytes have come."""
        done: Deferred[None] = Deferred()
        self._wanted = (count, done)
        self.dataReceived(b"")
        return done

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._wanted is not None and len(self.received) >= self._wanted[0]:
            (_, done), self._wanted = self._wanted, None
            done.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class InsideTests(TestCase):
    """A device with a ticket for a seat inside TLS."""

    timeout = 20

    async def setUp(self) -> None:
        """Open the door on a free port."""
        await settled()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        authority = Authority.open(Path(folder.name, "tls"), ["127.0.0.1"], reactor)
        self.office = Office()
        self.refusals: list[tuple[str, str, str, str]] = []
        self.door = Door(
            reactor, authority.credentials(), self.office, Greeters(), lambda *what: self.refusals.append(what)
        )
        self.port = reactor.listenTCP(0, self.door, interface="127.0.0.1")
        self.devices: list[Device] = []
        self.before = descriptors()

    async def tearDown(self) -> None:
        """Everything is closed, and nobody was refused."""
        for device in self.devices:
            await device.closed
        await released(self.before)
        await maybeDeferred(self.port.stopListening)
        self.assertEqual((self.refusals, len(self.door.visits)), ([], 0))

    async def arrive(self, behind: bytes = b"", keylog: Path | None = None) -> tuple[Device, InsideStream]:
        """A device that has shown its ticket, and its stream."""
        seat = Seat(inside=True)
        device = Device("one", behind)
        identity = Identity()
        device.client = TLSClient(identity=identity, name="rdv-tunnel", keylog=keylog)
        self.office.tickets["one"] = (identity.public, seat)
        adopt(socket.create_connection(("127.0.0.1", self.port.getHost().port)), device)
        self.devices.append(device)
        await device.until(b"OK\n")
        (stream,) = seat.streams
        assert isinstance(stream, InsideStream)
        return device, stream

    async def test_both_ways(self) -> None:
        """What either says comes out at the other; who closes in order is heard to do so."""
        device, stream = await self.arrive()
        self.assertTrue(verifyObject(ITunnelStream, stream))
        self.assertEqual(stream.address, f"127.0.0.1:{device.transport.getHost().port}")
        self.assertEqual(stream.fileno(), -1)
        taker = Taker()
        stream.deliver(taker)
        device.say(b"a" * 100_000)
        await taker.until(100_000)
        taker.transport.write(b"b" * 100_000)
        await device.until(b"OK\n" + b"b" * 100_000)
        device.leave()
        self.assertIsInstance(await taker.lost, ConnectionDone)

    async def test_early(self) -> None:
        """What a device says right behind its ticket, in one record with it or in many, is delivered first."""
        for behind in (b"x", b"y" * 16_000, bytes(range(256)) * 200):
            device, stream = await self.arrive(behind)
            taker = Taker()
            device.say(b"then")
            stream.deliver(taker)
            await taker.until(len(behind) + 4)
            self.assertEqual(taker.received, behind + b"then")
            stream.abort()
            await taker.lost
            await device.closed

    async def test_not_read(self) -> None:
        """Before somebody takes the stream nothing of it is read: it waits in the kernel, and then at the device."""
        device, stream = await self.arrive()
        self.assertNotIn(stream.transport.transport, reactor.getReaders())
        device.say(b"z" * 50_000)
        for _ in range(20):
            await settled()
        self.assertEqual(stream._early, b"")
        taker = Taker()
        stream.deliver(taker)
        await taker.until(50_000)
        stream.close()
        await taker.lost
        self.assertTrue(device.client.closed)

    async def test_taken_once(self) -> None:
        """A stream is taken once."""
        _, stream = await self.arrive()
        taker = Taker()
        stream.deliver(taker)
        with self.assertRaises(RuntimeError):
            stream.deliver(Taker())
        stream.abort()
        stream.abort()
        await taker.lost

    async def test_nobody_takes_it(self) -> None:
        """A stream that nobody takes can be closed either way, again and again."""
        device, stream = await self.arrive()
        stream.close()
        stream.close()
        await device.closed
        self.assertTrue(device.client.closed)
        device, stream = await self.arrive()
        stream.abort()
        stream.close()
        stream.abort()
        await device.closed

    async def test_gone_before(self) -> None:
        """Who takes the stream of a device that has gone is told that it has."""
        device, stream = await self.arrive()
        device.transport.abortConnection()
        await device.closed
        taker = Taker()
        stream.deliver(taker)
        self.assertIsInstance(await taker.lost, ConnectionLost)

    async def test_lost_before(self) -> None:
        """It is told also if the door had noticed that before."""
        _, stream = await self.arrive()
        stream.abort()
        while stream._lost is None:
            await settled()
        taker = Taker()
        stream.deliver(taker)
        await taker.lost

    async def test_new_keys_without_end(self) -> None:
        """A device that asks for new keys without end, and does not read, is cut off, and that is told."""
        keylog = Path(self.mktemp())
        device, stream = await self.arrive(keylog=keylog)
        taker = Taker()
        stream.deliver(taker)
        asker = Asker.of_client(keylog, sent=1)
        device.transport.pauseProducing()
        device.transport.write(asker.ask(SPARE_STEPS))
        self.assertIsInstance(await taker.lost, ConnectionLost)
        device.transport.abortConnection()
        (refusal,) = self.refusals
        self.assertEqual(refusal[3], "it asked for new TLS keys too often")
        self.refusals.clear()

    async def test_socket(self) -> None:
        """A dead device is noticed, small packets leave at once, and few bytes wait unsent."""
        _, stream = await self.arrive()
        handle = stream.transport.transport.getHandle()
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        self.assertEqual(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT), UNSENT_LIMIT)
        stream.abort()

    async def test_nothing_of_the_turnstile_stays(self) -> None:
        """Of the way in nothing remains in memory, garbage collector or not."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        _, stream = await self.arrive()
        self.assertEqual([found for found in gc.get_objects() if isinstance(found, Turnstile)], [])
        stream.abort()


class BareTests(TestCase):
    """A stream that has left TLS."""

    async def test_not_delivered(self) -> None:
        """It is for who uses its socket, not for a protocol."""
        await settled()
        device, stream = device_and_stream()
        self.assertTrue(verifyObject(ITunnelStream, stream))
        assert isinstance(stream, TunnelStream)
        with self.assertRaises(RuntimeError):
            stream.deliver(Taker())
        stream.abort()
        await device.closed
