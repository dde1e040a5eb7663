"""
The contract of the server's ends of tunnels, for whoever writes one, and what a test needs to run it.

A test case inherits from L{ServerTunnelContract} and trial's C{TestCase}, and
says how an end is made and how devices come to it. See C{tests/tunnels/test_server_ends.py} of this
project's source for those that do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import RDVError, RequestRefused
from rdvtwisted.interfaces import IServerSite, IServerTunnel, ITunnelStream
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.testing.tunnels import PATIENCE, PLAIN, MemoryIdentity, identity, packet
from rdvtwisted.values import Mode, PublicKey, Role, TunnelTerms

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object


class WatchedReactor:
    """The real reactor's descriptors and time, for one tunnel: remembers what that tunnel holds."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptors: list[tuple[str, Any]] = []
        self._calls: list[IDelayedCall] = []

    def held(self) -> list[object]:
        """What is still watched, and still waits for its time."""
        return [*self._descriptors, *(call for call in self._calls if call.active())]

    def seconds(self) -> float:
        """The time."""
        return float(self._reactor.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """Call in so many seconds."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        self._calls.append(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """What waits for its time."""
        return [call for call in self._calls if call.active()]

    def addReader(self, reader: Any) -> None:
        """Watch for what comes in."""
        self._add("reader", reader)
        self._reactor.addReader(reader)

    def addWriter(self, writer: Any) -> None:
        """Watch for room."""
        self._add("writer", writer)
        self._reactor.addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        """Watch no longer for what comes in."""
        self._remove("reader", reader)
        self._reactor.removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        """Watch no longer for room."""
        self._remove("writer", writer)
        self._reactor.removeWriter(writer)

    def _add(self, kind: str, descriptor: Any) -> None:
        if (kind, descriptor) not in self._descriptors:
            self._descriptors.append((kind, descriptor))

    def _remove(self, kind: str, descriptor: Any) -> None:
        if (kind, descriptor) in self._descriptors:
            self._descriptors.remove((kind, descriptor))


@implementer(IServerSite)
@define(eq=False)
class MemoryServerSite:
    """A server for a tunnel to end at."""

    reactor: Any
    identity: MemoryIdentity = field(factory=lambda: identity("rdv-server"))


def terms(
    mode: Mode, device: str = "rpi1100", role: Role = Role.ONSITE, key: PublicKey | None = None, mtu: int = 1450
) -> TunnelTerms:
    """
    What the server would say of a device's tunnel in a session called C{s1}.

    @param key: the device's; of no matter if not given.
    """
    return TunnelTerms("s1", mode, device, role, key or identity(device).public, mtu)


class Caller(Protocol):
    """Who comes to a server's end: the device, or a stranger. Packets have their headers in front."""

    @property
    def written(self) -> list[bytes]:
        """All packets that came so far."""
        ...

    def connect(self) -> Deferred[None]:
        """
        Come, once.

        @return: a Deferred that fires once it is let in, and fails with an L{RDVError} if it is refused.
        """

    def inject(self, packet: bytes) -> object:
        """Send a packet, once it is in."""

    def when_written(self, count: int) -> Deferred[list[bytes]]:
        """
        @return: a Deferred of all packets that came so far, once there are C{count}.
        """

    def leave(self) -> object:
        """Say goodbye, and go."""

    def cut(self) -> None:
        """Go without a word. Idempotent, also when it has gone already."""

    def gone(self) -> Deferred[None]:
        """
        @return: a Deferred that fires once it has gone, or was cut off. Asked once, after L{connect}.
        """


@define(eq=False)
class ServerEnd:
    """
    A server's end of a tunnel, not yet started, with a L{WatchedReactor}, and who may come to it.

    Whatever stands for the server's doors calls this object's L{accept} and L{occupy}, not the tunnel's own.
    """

    tunnel: IServerTunnel
    reactor: WatchedReactor
    #: Another connection of the device, and one of somebody who cannot prove to be the device.
    device: Callable[[], Caller]
    stranger: Callable[[], Caller]
    packets: MemoryPacketDevice = field(factory=MemoryPacketDevice)
    _arriving: list[Deferred[None]] = field(factory=list, init=False)

    def accept(self) -> IProtocol:
        """A caller opens a connection to the tunnel's port."""
        protocol: IProtocol = self.tunnel.accept()
        self._arrived()
        return protocol

    def occupy(self, stream: ITunnelStream) -> None:
        """A caller's stream is here."""
        self.tunnel.occupy(stream)
        self._arrived()

    def _arrived(self) -> None:
        arriving, self._arriving = self._arriving, []
        for waiting in arriving:
            waiting.callback(None)

    def arrival(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when the next caller has come to the tunnel.
        """
        waiting: Deferred[None] = Deferred()
        self._arriving.append(waiting)
        return waiting

    def start(self) -> None:
        """The packet device is there."""
        self.tunnel.start(self.packets)

    async def carry(self, mode: Mode = Mode.L3) -> Caller:
        """
        @return: the device, once its first packet has come out and the tunnel says that it is open.
        """
        self.start()
        device = self.device()
        await device.connect()
        device.inject(packet(mode, b"first"))
        await self.packets.when_written(1)
        await self.tunnel.opened
        return device

    def held(self) -> list[object]:
        """What the tunnel still holds."""
        return [*self.reactor.held(), *([] if self.packets.closed else [self.packets])]


class ServerTunnelContract(_Case):
    """What every server's end of a tunnel does; run with the real reactor, on 127.0.0.1."""

    timeout = PATIENCE

    #: The modes that it can carry.
    modes = (Mode.L3, Mode.L2)

    def build_end(self, mode: Mode) -> ServerEnd:
        """An end; what it needs besides is cleaned up when the test is over, after end and callers have gone."""
        raise NotImplementedError

    def end(self, mode: Mode = Mode.L3) -> ServerEnd:
        """An end that is closed when the test is over, and its callers gone."""
        end = self.build_end(mode)
        callers: list[Caller] = []

        def remember(make: Callable[[], Caller]) -> Callable[[], Caller]:
            def remembered() -> Caller:
                callers.append(make())
                return callers[-1]

            return remembered

        end.device, end.stranger = remember(end.device), remember(end.stranger)

        async def close() -> None:
            end.tunnel.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
            await end.tunnel.close()
            end.packets.close()
            for caller in callers:
                caller.cut()
                await caller.gone()

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return end

    async def assert_carries(self, end: ServerEnd, device: Caller, mode: Mode = Mode.L3) -> None:
        """Packets come out as they went in, in order, both ways."""
        sent = [packet(mode, bytes([size % 251]) * size) for size in (1, 18, 100, 900, 1400, 3, 700)]
        before, there = len(end.packets.written), len(device.written)
        for each in sent:
            device.inject(each)
            self.assertTrue(end.packets.inject(each))
        self.assertEqual((await end.packets.when_written(before + len(sent)))[before:], sent)
        self.assertEqual((await device.when_written(there + len(sent)))[there:], sent)

    async def assert_refused(self, caller: Caller) -> None:
        """It is not let in, and sent away."""
        with self.assertRaises(RDVError):
            await caller.connect()

    async def assert_over(self, end: ServerEnd, *, failed: bool) -> None:
        """It is over, with one clear line if it C{failed}, and nothing is held."""
        if failed:
            with self.assertRaises(RDVError) as caught:
                await end.tunnel.closed
            self.assertRegex(str(caught.exception), r"\A.{10,}\Z")
        else:
            self.assertIsNone(await end.tunnel.closed)
        self.assertEqual(end.held(), [])
        self.assertIsNone(await end.tunnel.close())

    def test_provides(self) -> None:
        """It is a server's tunnel, and its secret can be told in one line."""
        tunnel = self.end().tunnel
        verifyObject(IServerTunnel, tunnel)
        self.assertRegex(tunnel.secret, r"\A\S*\Z")
        self.assertEqual(tunnel.traffic(), (0, 0))
        self.assertFalse(tunnel.opened.called or tunnel.closed.called)

    async def test_packet_device_first(self) -> None:
        """The device may come after the packet device; packets pass unchanged, in each mode."""
        for mode in self.modes:
            end = self.end(mode)
            device = await end.carry(mode)
            await self.assert_carries(end, device, mode)

    async def test_device_first(self) -> None:
        """The device may come before the packet device, and is let in when that is there."""
        for mode in self.modes:
            end = self.end(mode)
            device, arrival = end.device(), end.arrival()
            connected = device.connect()
            await arrival
            self.assertFalse(connected.called or end.tunnel.opened.called)
            end.start()
            await connected
            await self.assert_carries(end, device, mode)
            await end.tunnel.opened

    async def test_traffic(self) -> None:
        """It counts the bytes of packets, without any headers of the tunnel, and still tells them when it is over."""
        end = self.end()
        device = await end.carry()
        first = len(packet(Mode.L3, b"first")) - len(PLAIN)
        end.packets.inject(packet(Mode.L3, b"a longer answer"))
        await device.when_written(1)
        counted = (first, len(packet(Mode.L3, b"a longer answer")) - len(PLAIN))
        self.assertEqual(end.tunnel.traffic(), counted)
        await end.tunnel.close()
        self.assertEqual(end.tunnel.traffic(), counted)

    async def test_refused_packet(self) -> None:
        """A packet that the kernel does not take is lost, and no more than that."""
        end = self.end()
        device = await end.carry()
        end.packets.refuses = 1
        device.inject(packet(Mode.L3, b"lost"))
        await self.assert_carries(end, device)

    async def test_stranger_first(self) -> None:
        """A stranger is refused, and the device that comes after it is let in."""
        end = self.end()
        end.start()
        await self.assert_refused(end.stranger())
        self.assertFalse(end.tunnel.opened.called or end.tunnel.closed.called)
        device = end.device()
        await device.connect()
        await self.assert_carries(end, device)

    async def test_second_connection(self) -> None:
        """A second connection is refused, whoever's it is; the device does not notice."""
        end = self.end()
        device = await end.carry()
        for second in (end.stranger(), end.device()):
            await self.assert_refused(second)
            await self.assert_carries(end, device)

    async def test_device_leaves(self) -> None:
        """A device that says goodbye ends the tunnel in order."""
        end = self.end()
        device = await end.carry()
        device.leave()
        await self.assert_over(end, failed=False)
        await self.assert_refused(end.device())

    async def test_device_vanishes(self) -> None:
        """A device whose connection breaks ends the tunnel, with a reason."""
        end = self.end()
        device = await end.carry()
        device.cut()
        await self.assert_over(end, failed=True)

    async def test_interface_vanishes(self) -> None:
        """An interface that is deleted ends the tunnel, with a reason, and the device's connection."""
        for read in (False, True):
            end = self.end()
            device = await end.carry()
            end.packets.vanish()
            if not read:
                device.inject(packet(Mode.L3, b"for nobody"))
            await self.assert_over(end, failed=True)

    async def test_close(self) -> None:
        """Closing ends it in order, for whoever asks and however often; the packet device is closed at once."""
        end = self.end()
        await end.carry()
        first, second = end.tunnel.close(), end.tunnel.close()
        self.assertTrue(end.packets.closed)
        self.assertIsNone(await first)
        self.assertIsNone(await second)
        await self.assert_over(end, failed=False)

    async def test_close_early(self) -> None:
        """It may be closed before anything has come, before the device, and before the packet device."""
        fresh, lonely, waiting = self.end(), self.end(), self.end()
        lonely.start()
        arrival = waiting.arrival()
        waiting.device().connect().addErrback(lambda failure: failure.trap(RDVError) and None)
        await arrival
        for end in (fresh, lonely, waiting):
            self.assertIsNone(await end.tunnel.close())
            if end is not lonely:
                end.start()
            await self.assert_over(end, failed=False)
            self.assertFalse(end.tunnel.opened.called)

    async def test_too_late(self) -> None:
        """Nobody and nothing is let in any more once it is closed."""
        end = self.end()
        await end.tunnel.close()
        self.assertRaises(RequestRefused, end.tunnel.accept)
        stream = MemoryStream()
        end.tunnel.occupy(stream)
        self.assertTrue(stream.aborted)
        await self.assert_refused(end.device())
        self.assertEqual(end.reactor.held(), [])
