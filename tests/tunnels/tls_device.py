"""A device with a C{tls} tunnel that ends at the server, and the server's door."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPullProducer, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.front.stream import TunnelStream
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import ITunnelBackend, ITunnelStream
from rdvtwisted.testing.tunnels import MemoryIdentity, MemoryTunnelSite, parameters
from rdvtwisted.values import Mode, PublicKey, Role
from tests.tunnels.door import Door, Visit

reactor: Any = global_reactor


class TakenStream(TunnelStream):
    """The stream of a visit, past its ticket."""

    def __init__(self, visit: Visit) -> None:
        super().__init__("127.0.0.1:40000")
        self._visit = visit
        transport: Any = visit.transport
        transport.protocol = self
        self.makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The socket is closed."""
        super().connectionLost(reason)
        self._visit.connectionLost(reason)


@implementer(IPullProducer)
class Leaving:
    """Waits until the door's last words to a visit have left; asked for more at once, and again then."""

    def __init__(self, visit: Visit, then: Callable[[], object]) -> None:
        self._transport: Any = visit.transport
        self._then = then
        self._asked = False
        self._transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """The transport has nothing to send."""
        if self._asked:
            self._transport.unregisterProducer()
            self._then()
        self._asked = True

    def stopProducing(self) -> None:
        """The visit is over."""


def hand_over(door: Door, occupy: Callable[[ITunnelStream], object]) -> None:
    """Have whoever comes in at a door handed to C{occupy}."""

    def take(visit: Visit) -> None:
        Leaving(visit, lambda: occupy(TakenStream(visit)))

    door.takes = take


@implementer(IStreamClientEndpoint)
class KnownEndpoint:
    """An endpoint that keeps the connection that was made, to be cut."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._socket: socket.socket | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect there."""
        return self._endpoint.connect(factory).addCallback(self._keep)

    def _keep(self, protocol: Any) -> Any:
        self._socket = protocol.transport.getHandle()
        return protocol

    def cut(self) -> None:
        """Break the connection, without a word to either end. Idempotent."""
        if self._socket is not None:
            with suppress(OSError):  # it is broken already
                self._socket.shutdown(socket.SHUT_RDWR)


class TLSDevice:
    """Comes with a device's end of the backend."""

    def __init__(
        self, backend: ITunnelBackend, mode: Mode, role: Role, own: MemoryIdentity, server: PublicKey, door: Door
    ) -> None:
        """
        @param server: the key that the server has to have.
        """
        self._door = KnownEndpoint(door.endpoint)
        self._site = MemoryTunnelSite("rpi1100", role, reactor, own, self._door, door.authority.der)
        said = parameters("tls", mode, role, "rpi-other", server, "t1")
        self._tunnel = backend.device_end(evolve(said, join="glue"), self._site)
        self._gone: Deferred[None] = Deferred()
        self._tunnel.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
        self._tunnel.closed.chainDeferred(self._gone)

    def connect(self) -> Deferred[None]:
        """Come; see L{rdvtwisted.testing.server_tunnels.Caller}."""

        async def connect() -> None:
            await self._tunnel.attach()
            await self._tunnel.carry()

        return Deferred.fromCoroutine(connect())

    def inject(self, packet: bytes) -> bool:
        """Send a packet; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        return self._site.packets.inject(packet)

    @property
    def written(self) -> list[bytes]:
        """What has come; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        return self._site.packets.written

    def when_written(self, count: int) -> Deferred[list[bytes]]:
        """Wait for packets; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        return self._site.packets.when_written(count)

    def leave(self) -> None:
        """Say goodbye; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        self._tunnel.close()

    def cut(self) -> None:
        """Hang up; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        self._door.cut()

    def gone(self) -> Deferred[None]:
        """Wait for the end; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        return self._gone
