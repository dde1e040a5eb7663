"""Connections with small segments: what both ends of a real one send, over either IP, by name and by address."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectError
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters import segments
from rdvtwisted.adapters.segments import SEGMENT_BYTES, SmallSegments, endpoint

reactor: Any = global_reactor

OPTIONS_BYTES = 12
"""What timestamps take of each segment (RFC 7323), if they are in use."""

TCP_INFO_BYTES = 104
"""Of struct tcp_info (linux/tcp.h), up to its field tcpi_total_retrans."""


def largest_sent(handle: socket.socket) -> int:
    """Bytes of the largest segment that an end sends: C{tcpi_snd_mss}, after eight bytes and two words."""
    info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return int.from_bytes(info[16:20], "little" if socket.htons(1) != 1 else "big")


def has_ipv6() -> bool:
    """Whether this machine has C{::1}."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class _Resolver:
    """Knows one name."""

    def __init__(self, *addresses: IPv4Address | IPv6Address) -> None:
        self.addresses = addresses

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0, **_: object) -> object:
        receiver.resolutionBegan(self)
        for address in self.addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()
        return self


class SmallSegmentsTests(SynchronousTestCase):
    """The stand-in for a reactor."""

    def test_interfaces(self) -> None:
        """It is what an endpoint by name asks of a reactor."""
        verifyObject(IReactorTime, SmallSegments(reactor))
        verifyObject(IReactorPluggableNameResolver, SmallSegments(reactor))

    def test_time(self) -> None:
        """Its time is the reactor's."""
        called: list[str] = []
        clock = Clock()
        small = SmallSegments(clock)
        call = small.callLater(2.0, called.append, "called")
        self.assertEqual(small.getDelayedCalls(), [call])
        clock.advance(2.0)
        self.assertEqual((small.seconds(), called), (2.0, ["called"]))

    def test_names(self) -> None:
        """Its names are the reactor's, also when that learns to resolve them otherwise."""

        class Named(Clock):
            """A reactor that knows names."""

            nameResolver = "first"

            def installNameResolver(self, resolver: str) -> str:
                former, self.nameResolver = self.nameResolver, resolver
                return former

        named = Named()
        small = SmallSegments(named)
        self.assertEqual(small.installNameResolver(cast(Any, "second")), "first")
        self.assertEqual((small.nameResolver, named.nameResolver), ("second", "second"))

    def test_size(self) -> None:
        """With the headers of either IP and of TCP, no packet is larger than what IPv6 demands of every link."""
        self.assertLessEqual(SEGMENT_BYTES + 40 + 20, 1280)

    def test_usual(self) -> None:
        """Nobody who does not ask for it has small segments."""
        self.assertIs(cast(Any, endpoint(reactor, "a.example", 1, small=False))._reactor, reactor)


class ConnectionTests(TestCase):
    """Real connections within this machine, whose loopback interface takes 64 KiB at a time."""

    async def sizes(self, host: str, small: bool, resolver: Any = None, address: str | None = None) -> tuple[int, int]:
        """The largest segments that the two ends of a connection send: this one and the one that it connects to."""
        came: Deferred[Any] = Deferred()

        class Far(Protocol):
            """The other end."""

            def connectionMade(self) -> None:
                came.callback(self.transport)

        port = reactor.listenTCP(0, Factory.forProtocol(Far), interface=address or host)
        self.addCleanup(port.stopListening)
        if resolver is not None:
            former = reactor.installNameResolver(resolver(port.getHost().port))
            self.addCleanup(reactor.installNameResolver, former)
        near: Any = await endpoint(reactor, host, port.getHost().port, small).connect(Factory.forProtocol(Protocol))
        far = await came
        ends = (near.transport, far)
        found = [largest_sent(end.getHandle()) for end in ends]
        gone = [self.gone(end) for end in ends]
        for end in ends:
            end.abortConnection()
        for each in gone:
            await each
        return found[0], found[1]

    def gone(self, transport: Any) -> Deferred[None]:
        """Fires when a connection is over."""
        over: Deferred[None] = Deferred()
        transport.protocol.connectionLost = lambda reason: over.callback(None)
        return over

    async def test_both_ends(self) -> None:
        """Neither end sends more than a small segment, options included, though the other end knows nothing of it."""
        for size in await self.sizes("127.0.0.1", small=True):
            self.assertIn(size, (SEGMENT_BYTES, SEGMENT_BYTES - OPTIONS_BYTES))

    async def test_usual(self) -> None:
        """Else both send what fits into the interface's packets."""
        for size in await self.sizes("127.0.0.1", small=False):
            self.assertGreater(size, SEGMENT_BYTES)

    async def test_ipv6(self) -> None:
        """The same holds over IPv6."""
        for size in await self.sizes("::1", small=True):
            self.assertIn(size, (SEGMENT_BYTES, SEGMENT_BYTES - OPTIONS_BYTES))

    if not has_ipv6():
        test_ipv6.skip = "this machine has no IPv6"  # type: ignore[attr-defined]

    async def test_name(self) -> None:
        """The addresses of a name are tried until one answers, with small segments all of them."""

        def resolver(port: int) -> _Resolver:
            return _Resolver(IPv4Address("TCP", "127.0.0.2", port), IPv4Address("TCP", "127.0.0.1", port))

        for size in await self.sizes("rdv.example.org", small=True, resolver=resolver, address="127.0.0.1"):
            self.assertIn(size, (SEGMENT_BYTES, SEGMENT_BYTES - OPTIONS_BYTES))

    async def test_refused(self) -> None:
        """A refusal is told as ever."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        connecting = endpoint(reactor, "127.0.0.1", number, small=True).connect(Factory.forProtocol(Protocol))
        error = await self.assertFailure(connecting, ConnectError)
        self.assertIn("refused", str(error))

    async def test_no_socket(self) -> None:
        """A machine that has no sockets left, or no such option, makes the connection fail, and keeps none."""
        made: list[socket.socket] = []

        def refuse(self: Any, *_: object) -> None:
            made.append(self)
            raise OSError(92, "Protocol not available")

        self.patch(segments.socket, "socket", type("Refusing", (socket.socket,), {"setsockopt": refuse}))
        connecting = endpoint(reactor, "127.0.0.1", 9, small=True).connect(Factory.forProtocol(Protocol))
        error = await self.assertFailure(connecting, ConnectBindError)
        self.assertIn("Protocol not available", str(error))
        self.assertEqual(made[0].fileno(), -1)
