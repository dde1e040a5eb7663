"""
What a writer of tunnel backends needs to run both contracts over real connections: a port that leads to a
server's end, a server's end that passes for a device's, a device's end that calls at a server's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import RDVError, RequestRefused, TunnelFailed
from rdvtwisted.interfaces import IDeviceTunnel, IServerTunnel
from rdvtwisted.testing.tunnels import MemoryTunnelSite
from rdvtwisted.values import Mode, TunnelReport

LOOPBACK = "127.0.0.1"


class Forward(Factory):
    """
    A port of 127.0.0.1 that leads to a server's end, as a device's channel through its SSH connection does.

    @ivar number: of the port.
    @ivar endpoint: connects there; for L{MemoryTunnelSite.forwards}.
    """

    noisy = False

    def __init__(self, reactor: Any, accept: Callable[[], IProtocol]) -> None:
        """
        @param reactor: IReactorTCP.
        @param accept: see L{rdvtwisted.interfaces.IServerTunnel.accept}.
        """
        self._accept = accept
        self._port = reactor.listenTCP(0, self, interface=LOOPBACK)
        self._connections: list[Any] = []
        self.number = int(self._port.getHost().port)
        self.endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, self.number)

    def buildProtocol(self, address: IAddress | None) -> Any:
        """Somebody connects; refused if the tunnel refuses."""
        try:
            protocol = self._accept()
        except RequestRefused:
            return None
        self._connections.append(protocol)
        return protocol

    def cut(self) -> None:
        """Break all connections, without a word to either end."""
        for protocol in self._connections:
            if protocol.transport is not None:
                protocol.transport.abortConnection()

    def close(self) -> Deferred[None]:
        """
        Close the port.

        @return: a Deferred that fires when it is closed.
        """
        closed: Deferred[None] = self._port.stopListening()
        return closed


@implementer(IDeviceTunnel)
@define(eq=False)
class Stand:
    """
    A tunnel's end at the server, started and stopped as a device's is: the far one of L{TunnelEnds}.

    @ivar backend: its backend's name.
    """

    tunnel: IServerTunnel
    site: MemoryTunnelSite
    mode: Mode
    backend: str
    closed: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.closed = self.tunnel.closed

    async def _attach(self) -> str:
        device = await self.site.network.packet_device(self.site.interface, self.mode)
        self.tunnel.start(device)
        return str(device.name)

    def attach(self) -> Deferred[str]:
        """Make the interface."""
        return Deferred.fromCoroutine(self._attach())

    def carry(self) -> Deferred[TunnelReport]:
        """Wait until the device is in."""
        carried: Deferred[TunnelReport] = Deferred()

        def ended(result: Failure | None) -> Failure | None:
            if not carried.called:
                carried.errback(result or TunnelFailed("closed before the device was in"))
            return result

        self.tunnel.opened.addCallback(lambda _: carried.callback(self.report()))
        self.closed.addBoth(ended)
        return carried

    def report(self) -> TunnelReport:
        """What it has carried."""
        received, sent = self.tunnel.traffic()
        packets = self.site.network.devices.get(self.site.interface)
        count = 0 if packets is None else len(packets.written)
        return TunnelReport(self.backend, received_bytes=received, sent_bytes=sent, received_packets=count)

    def close(self) -> Deferred[None]:
        """Close it."""
        gone: Deferred[None] = self.tunnel.close()
        return gone


class TunnelCaller:
    """Comes to a server's end with a device's; see L{rdvtwisted.testing.server_tunnels.Caller}."""

    def __init__(self, tunnel: IDeviceTunnel, site: MemoryTunnelSite, cut: Callable[[], None]) -> None:
        """
        @param tunnel: not yet started.
        @param site: what it was made for.
        @param cut: breaks its connection, without a word to either end. Idempotent.
        """
        self.tunnel = tunnel
        self.site = site
        self.cut = cut
        self._gone: Deferred[None] = Deferred()
        self.tunnel.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
        self.tunnel.closed.chainDeferred(self._gone)

    @property
    def written(self) -> list[bytes]:
        """What has come."""
        return self.site.packets.written

    def connect(self) -> Deferred[None]:
        """Come."""

        async def connect() -> None:
            await self.tunnel.attach()
            await self.tunnel.carry()

        return Deferred.fromCoroutine(connect())

    def inject(self, packet: bytes) -> bool:
        """Send a packet."""
        return self.site.packets.inject(packet)

    def when_written(self, count: int) -> Deferred[list[bytes]]:
        """Wait for packets."""
        return self.site.packets.when_written(count)

    def leave(self) -> None:
        """Say goodbye."""
        self.tunnel.close()

    def gone(self) -> Deferred[None]:
        """Wait for the end."""
        return self._gone
