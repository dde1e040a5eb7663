"""Relays: the promises that all of them keep, and how the real one moves bytes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.front import pipes, relay
from rdvtwisted.adapters.front.pipes import SPARE_LIMIT, Pipe, PipePool
from rdvtwisted.adapters.front.relay import Join, Relay
from rdvtwisted.adapters.front.stream import TunnelStream
from rdvtwisted.interfaces import IJoin, IRelay, ITunnelStream
from rdvtwisted.testing.streams import MemoryJoin, MemoryRelay, MemoryStream
from tests.adapters.front.sockets import Device, descriptors, device_and_stream, released, settled

#: Turns within which everything between two socket pairs is full, or empty.
TURNS = 50


class RelayContract:
    """What every relay promises."""

    #: An L{IRelay}; each test case knows more of its own.
    relay: Any

    def stream(self) -> ITunnelStream:
        """A stream that is open."""
        raise NotImplementedError

    def is_open(self, stream: ITunnelStream) -> bool:
        """Whether it still is."""
        raise NotImplementedError

    def join(self) -> tuple[ITunnelStream, ITunnelStream, IJoin]:
        """Two streams, joined."""
        first, second = self.stream(), self.stream()
        return first, second, self.relay.join(first, second)

    def test_provides(self) -> None:
        """Relay, join and stream are what they say."""
        first, _, join = self.join()
        assert verifyObject(IRelay, self.relay)
        assert verifyObject(IJoin, join)
        assert verifyObject(ITunnelStream, first)
        join.stop()

    def test_stop(self) -> None:
        """Stopping a join closes both streams and ends it, once."""
        first, second, join = self.join()
        ends: list[object] = []
        join.ended.addCallback(ends.append)
        assert (join.traffic(), ends) == ((0, 0), [])
        assert self.is_open(first) and self.is_open(second)
        join.stop()
        join.stop()
        assert ends == [None]
        assert not (self.is_open(first) or self.is_open(second))
        assert join.traffic() == (0, 0)

    def test_dead_before(self) -> None:
        """A stream that was closed before it is joined ends the join at once, and takes the other with it."""
        for dead in (0, 1):
            streams = [self.stream(), self.stream()]
            streams[dead].abort()
            streams[dead].abort()
            ends: list[object] = []
            self.relay.join(*streams).ended.addCallback(ends.append)
            assert ends == [None]
            assert not any(map(self.is_open, streams))


class MemoryRelayTests(RelayContract, SynchronousTestCase):
    """The twin in memory keeps the promises."""

    def setUp(self) -> None:
        """Make it."""
        self.relay = MemoryRelay()

    def stream(self) -> MemoryStream:
        """A stream in memory."""
        return MemoryStream()

    def is_open(self, stream: ITunnelStream) -> bool:
        """Not aborted."""
        return not stream.aborted

    def test_recorded(self) -> None:
        """It tells what it joined, carries what it is told to, and ends a join when it is told to."""
        first, second, join = self.join()
        (recorded,) = self.relay.joins
        assert isinstance(recorded, MemoryJoin)
        self.assertEqual((recorded.to_onsite, recorded.to_master), (first, second))
        recorded.carried = (5, 7)
        self.assertEqual(join.traffic(), (5, 7))
        self.relay.end(0)
        self.relay.end(0)
        self.assertIsNone(self.successResultOf(join.ended))
        self.assertFalse(self.is_open(first) or self.is_open(second))

    def test_lingering(self) -> None:
        """When told to linger, a stopped join is over only when it is ended."""
        self.relay.lingering = True
        first, _, join = self.join()
        join.stop()
        self.assertNoResult(join.ended)
        self.assertFalse(self.is_open(first))
        self.relay.end(0)
        self.successResultOf(join.ended)


class RelayTestCase(TestCase):
    """The real relay on real connections; at the end the process has the descriptors that it had at the beginning."""

    timeout = 20

    async def setUp(self) -> None:
        """Note what is open."""
        await settled()
        self.relay = Relay(reactor)
        self.devices: list[Device] = []
        self.before = descriptors()

    async def tearDown(self) -> None:
        """Everything is closed."""
        await gatherResults([device.closed for device in self.devices])
        self.relay.close()
        await released(self.before)
        self.assertEqual([reader for reader in reactor.getReaders() if isinstance(reader, relay._End)], [])

    def pair(self) -> tuple[Device, Device, TunnelStream, TunnelStream]:
        """Onsite and master, and their streams."""
        (onsite, first), (master, second) = device_and_stream(), device_and_stream()
        self.devices += [onsite, master]
        return onsite, master, first, second

    def joined(self) -> tuple[Device, Device, Join]:
        """Onsite and master, joined."""
        onsite, master, first, second = self.pair()
        return onsite, master, self.relay.join(first, second)


class RelayTests(RelayContract, RelayTestCase):
    """The real relay keeps the promises."""

    def stream(self) -> TunnelStream:
        """A stream of a new device."""
        device, stream = device_and_stream()
        self.devices.append(device)
        return stream

    def is_open(self, stream: ITunnelStream) -> bool:
        """As the stream says."""
        return bool(stream.open)

    def test_end_is_a_descriptor(self) -> None:
        """What the reactor gets to watch is what it expects."""
        *_, join = self.join()
        self.assertEqual(len(join._ends), 2)
        for end in join._ends:
            verifyObject(IReadWriteDescriptor, end)
        join.stop()

    async def test_both_ways(self) -> None:
        """Bytes arrive as they were sent, both ways at once, and are counted for each."""
        onsite, master, join = self.joined()
        up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(5_000_000)
        onsite.transport.write(up)
        master.transport.write(down)
        await gatherResults([master.until(len(up)), onsite.until(len(down))])
        self.assertEqual(master.digest.digest(), hashlib.sha256(up).digest())
        self.assertEqual(onsite.digest.digest(), hashlib.sha256(down).digest())
        self.assertEqual(join.traffic(), (len(down), len(up)))
        self.assertEqual([flow._pipe for flow in (join._to_onsite, join._to_master)], [None, None])
        join.stop()

    async def test_what_came_early(self) -> None:
        """What a device sent before its partner was there is not lost."""
        onsite, master, first, second = self.pair()
        master.transport.write(b"early")
        join = self.relay.join(first, second)
        await onsite.until(5)
        join.stop()

    async def test_half_close(self) -> None:
        """A device that says it has sent all still gets its answer; when both have, the join is over."""
        onsite, master, join = self.joined()
        master.stays = True
        onsite.transport.write(b"question")
        onsite.transport.loseWriteConnection()
        await master.ended
        self.assertEqual(master.received, 8)
        self.assertNoResult(join.ended)
        master.transport.write(b"the answer")
        await onsite.until(10)
        master.transport.loseConnection()
        await join.ended
        self.assertEqual(join.traffic(), (10, 8))

    async def test_reset(self) -> None:
        """A connection that breaks ends the join and takes the other with it."""
        onsite, master, join = self.joined()
        master.transport.abortConnection()
        await gatherResults([join.ended, onsite.closed])

    async def test_reset_of_a_reader(self) -> None:
        """So does one that breaks while it is being written to and says nothing more itself."""
        onsite, master, join = self.joined()
        onsite.stays = True
        master.transport.loseWriteConnection()
        await onsite.ended
        master.transport.pauseProducing()
        onsite.transport.write(bytes(100))
        master.transport.abortConnection()
        await master.closed
        onsite.transport.write(bytes(100_000))
        onsite.transport.write(bytes(100_000))
        await join.ended
        # Twisted does not watch a connection that it neither reads nor writes.
        onsite.transport.loseConnection()

    async def test_aborted_from_outside(self) -> None:
        """A stream that somebody aborts while it is joined is let go of before its descriptor is closed."""
        onsite, master, first, second = self.pair()
        join = self.relay.join(first, second)
        first.abort()
        self.assertIsNone(self.successResultOf(join.ended))
        await gatherResults([onsite.closed, master.closed])

    async def test_no_descriptor_left(self) -> None:
        """Where there is no descriptor left for a pipe, this join ends, and no other."""
        onsite, master, join = self.joined()

        def pipe2(_: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "Too many open files")

        patch = self.patch(os, "pipe2", pipe2)
        onsite.transport.write(b"x")
        await join.ended
        patch.restore()
        onsite, master, join = self.joined()
        onsite.transport.write(b"x")
        await master.until(1)
        join.stop()

    def test_socket_options(self) -> None:
        """Small packets go at once, and a device that is gone is noticed by the kernel."""
        *_, first, second = self.pair()
        connection = first.transport.getHandle()
        options = [
            connection.getsockopt(*option)
            for option in (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
        ]
        self.assertEqual(options, [1, 1, 30, 10, 3, 15_000])
        first.abort()
        second.abort()
        self.assertEqual(first.fileno(), -1)


class FlowTests(SynchronousTestCase):
    """One direction, turn by turn."""

    def setUp(self) -> None:
        """A flow between two socket pairs."""
        self.pool = PipePool()
        self.addCleanup(self.pool.close)
        self.sender, source = socket.socketpair()
        target, self.receiver = socket.socketpair()
        for end in (self.sender, source, target, self.receiver):
            self.addCleanup(end.close)
            end.setblocking(False)
        self.target = target
        self.flow = relay._Flow(self.pool, source.fileno(), target.fileno())

    def fill(self) -> int:
        """Send until no more is taken."""
        count = 0
        try:
            while True:
                count += self.sender.send(bytes(65536))
        except BlockingIOError:
            return count

    def drain(self) -> int:
        """Receive all there is."""
        count = 0
        try:
            while True:
                count += len(self.receiver.recv(65536))
        except BlockingIOError:
            return count

    def test_idle(self) -> None:
        """With nothing to move it waits for its source, and holds no pipe."""
        self.flow.pump()
        self.assertIs(self.flow.waits, relay._Waits.SOURCE)
        self.assertIsNone(self.flow._pipe)

    def test_backpressure(self) -> None:
        """A target that takes nothing holds its source back: what is on the way is bounded."""
        sent, calm = 0, 0
        while not calm:
            more = self.fill()
            sent += more
            self.flow.pump()
            calm = more == 0
        self.assertIs(self.flow.waits, relay._Waits.TARGET)
        held = self.flow._inside
        self.assertTrue(0 < held <= pipes.PIPE_SIZE)
        self.fill()
        self.flow.pump()
        self.assertEqual(self.flow._inside, held)
        self.assertRaises(BlockingIOError, self.sender.send, b"x")

    def test_resumes(self) -> None:
        """Once the target takes bytes again, all arrives, and the pipe is given back."""
        sent = self.fill()
        self.flow.pump()
        while self.flow.waits is not relay._Waits.TARGET:
            sent += self.fill()
            self.flow.pump()
        received = 0
        while received < sent:
            received += self.drain()
            self.flow.pump()
        self.assertEqual((received, self.flow.carried), (sent, sent))
        self.assertIs(self.flow.waits, relay._Waits.SOURCE)
        self.assertIsNone(self.flow._pipe)

    def test_end_behind_bytes(self) -> None:
        """An end of the source is seen only when all before it is delivered."""
        self.sender.send(b"last")
        self.sender.close()
        self.flow.pump()
        self.flow.pump()
        self.assertIs(self.flow.waits, relay._Waits.NOTHING)
        self.assertEqual(self.receiver.recv(10), b"last")

    def test_turn(self) -> None:
        """One turn moves no more than its limit and what a pipe holds; the rest waits for the next turn."""
        self.patch(relay, "TURN_LIMIT", 10_000)
        self.patch(relay, "SHORT_READ", 0)
        self.patch(pipes, "PIPE_SIZE", 4096)
        self.fill()
        self.flow.pump()
        self.assertTrue(10_000 <= self.flow.carried <= 10_000 + 4096)
        self.assertIs(self.flow.waits, relay._Waits.SOURCE)

    def test_broken_target(self) -> None:
        """A broken target is an error, and the pipe with its bytes is closed, not given to others."""
        self.fill()
        self.flow.pump()
        while self.flow.waits is not relay._Waits.TARGET:
            self.fill()
            self.flow.pump()
        pipe = self.flow._pipe
        assert pipe is not None
        self.receiver.close()
        self.assertRaises(OSError, self.flow.pump)
        self.flow.drop()
        self.flow.drop()
        self.assertRaises(OSError, os.fstat, pipe.inlet)


class SocketTransport:
    """As much of a TCP transport as a tunnel stream uses, around a socket; no reactor is in it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.fileno = connection.fileno
        self.reading = True
        self.closed = ""

    def getHandle(self) -> socket.socket:
        return self._socket

    def pauseProducing(self) -> None:
        self.reading = False

    def loseConnection(self) -> None:
        self.closed = "in order"

    def abortConnection(self) -> None:
        self.closed = "at once"


class WatchTests(SynchronousTestCase):
    """What a join has the reactor watch, turn by turn."""

    def setUp(self) -> None:
        """A join of two streams whose far ends are in our hands."""
        self.reactor = MemoryReactor()
        self.relay = Relay(self.reactor)
        self.addCleanup(self.relay.close)
        self.far: list[socket.socket] = []
        self.transports: list[SocketTransport] = []
        streams = []
        for _ in range(2):
            near, far = socket.socketpair()
            for end in (near, far):
                self.addCleanup(end.close)
                end.setblocking(False)
            transport = SocketTransport(near)
            stream = TunnelStream("")
            stream.makeConnection(transport)
            self.assertFalse(transport.reading)
            self.far.append(far)
            self.transports.append(transport)
            streams.append(stream)
        self.join = self.relay.join(*streams)
        self.onsite, self.master = self.join._ends

    def watched(self) -> tuple[set[object], set[object]]:
        """What is watched for reading and for writing."""
        return set(self.reactor.getReaders()), set(self.reactor.getWriters())

    def test_idle(self) -> None:
        """Both ends are read, and nothing is waited for at their writing side."""
        self.assertEqual(self.watched(), ({self.onsite, self.master}, set()))
        self.onsite.doRead()
        self.assertEqual(self.watched(), ({self.onsite, self.master}, set()))

    def test_blocked(self) -> None:
        """While the master takes nothing the onsite is not read, but the master is; later all is as before."""
        for _ in range(TURNS):
            self.fill()
            if self.onsite in self.reactor.getReaders():
                self.onsite.doRead()
        self.assertEqual(self.watched(), ({self.master}, {self.master}))
        for _ in range(TURNS):
            self.drain()
            if self.master in self.reactor.getWriters():
                self.master.doWrite()
        self.assertEqual(self.watched(), ({self.onsite, self.master}, set()))

    def fill(self) -> None:
        """The onsite sends until no more is taken."""
        try:
            while True:
                self.far[0].send(bytes(65536))
        except BlockingIOError:
            pass

    def drain(self) -> None:
        """The master receives all there is."""
        try:
            while True:
                self.far[1].recv(65536)
        except BlockingIOError:
            pass

    def test_half_closed(self) -> None:
        """An end that has said all is not read any more; when both have, they are closed in order."""
        self.far[0].shutdown(socket.SHUT_WR)
        self.onsite.doRead()
        self.assertEqual(self.watched(), ({self.master}, set()))
        self.assertEqual(self.far[1].recv(1), b"")
        self.far[1].shutdown(socket.SHUT_WR)
        self.master.doRead()
        self.assertEqual(self.watched(), (set(), set()))
        self.assertIsNone(self.successResultOf(self.join.ended))
        self.assertEqual([transport.closed for transport in self.transports], ["in order", "in order"])

    def test_after_the_end(self) -> None:
        """What the reactor still has to say after the end is not listened to."""
        self.far[0].send(b"late")
        self.join.stop()
        self.assertEqual(self.watched(), (set(), set()))
        for end in (self.onsite, self.master):
            end.doRead()
            end.doWrite()
            end.connectionLost(Failure(ConnectionLost()))
        self.assertRaises(BlockingIOError, self.far[1].recv, 4)
        self.assertEqual(self.watched(), (set(), set()))
        self.assertEqual([transport.closed for transport in self.transports], ["at once", "at once"])

    def test_found_broken(self) -> None:
        """An end that the reactor finds broken ends the join."""
        self.master.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(self.join.ended)
        self.assertEqual([transport.closed for transport in self.transports], ["at once", "at once"])


class PipeTests(SynchronousTestCase):
    """Pipes and their pool."""

    def test_reused(self) -> None:
        """A pipe that is given back is used again; no more are kept than the limit says."""
        pool = PipePool()
        before = descriptors()
        borrowed = [pool.borrow() for _ in range(SPARE_LIMIT + 3)]
        self.assertEqual(len(descriptors() - before), 2 * (SPARE_LIMIT + 3))
        for pipe in borrowed:
            pool.give_back(pipe)
        self.assertEqual(len(descriptors() - before), 2 * SPARE_LIMIT)
        again = pool.borrow()
        self.assertIn(again, borrowed)
        pool.give_back(again)
        pool.close()
        self.assertEqual(descriptors(), before)

    def test_size(self) -> None:
        """A pipe is as large as we want it."""
        pipe = Pipe.open()
        self.addCleanup(pipe.close)
        self.assertEqual(pipe.size, pipes.PIPE_SIZE)
        self.assertFalse(os.get_blocking(pipe.inlet) or os.get_blocking(pipe.outlet))
        self.assertFalse(os.get_inheritable(pipe.inlet) or os.get_inheritable(pipe.outlet))

    def test_size_not_granted(self) -> None:
        """Where the kernel does not grant the size, the pipe is as large as it is."""
        real = fcntl.fcntl

        def fcntl_(descriptor: int, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETPIPE_SZ:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            return real(descriptor, command, argument)

        self.patch(fcntl, "fcntl", fcntl_)
        pipe = Pipe.open()
        self.addCleanup(pipe.close)
        self.assertEqual(pipe.size, real(pipe.inlet, fcntl.F_GETPIPE_SZ))
        self.assertLess(pipe.size, pipes.PIPE_SIZE)
