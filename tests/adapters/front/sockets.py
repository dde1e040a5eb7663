"""Devices on real sockets of 127.0.0.1, for what cannot be had in memory: descriptors."""

from __future__ import annotations

import hashlib
import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from rdvtwisted.adapters.front.stream import TunnelStream
from tests.adapters.front.clients import TLSClient


def descriptors() -> set[int]:
    """The descriptors that this process has open, but for the one that lists them."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


#: Turns of the reactor within which all that is being closed is closed.
CLOSING_TURNS = 1000


async def released(before: set[int]) -> None:
    """Fires once the process has no other descriptors open than these; fails with those that stay."""
    for _ in range(CLOSING_TURNS):
        if descriptors() == before:
            return
        await settled()
    raise AssertionError(f"not closed: {descriptors() - before}")


def settled() -> Deferred[None]:
    """Fires once the reactor runs and has opened what it needs for itself."""
    return deferLater(reactor, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def adopt(connection: socket.socket, protocol: Protocol) -> None:
    """Connect C{protocol} to the socket, by the reactor."""
    connection.setblocking(False)
    factory = Factory.forProtocol(lambda: protocol)  # type: ignore[arg-type]  # a callable is all it takes
    factory.noisy = False
    with connection:
        reactor.adoptStreamConnection(connection.fileno(), connection.family, factory)  # type: ignore[attr-defined]


@implementer(IHalfCloseableProtocol)
class Device(Protocol):
    """
    A device's end of a stream.

    @ivar received: how many bytes came in.
    @ivar digest: of these.
    @ivar ended: fires when nothing more comes in.
    @ivar closed: fires when the connection is gone.
    @ivar stays: whether it may have more to send when nothing more comes in.
    """

    stays = False

    def __init__(self) -> None:
        self.received = 0
        self.digest = hashlib.sha256()
        self.ended: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self._wanted: tuple[int, Deferred[None]] | None = None

    def until(self, count: int) -> Deferred[None]:
        """Fires when so many bytes have come in."""
        done: Deferred[None] = Deferred()
        self._wanted = (count, done)
        self._look()
        return done

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self.digest.update(data)
        self._look()

    def readConnectionLost(self) -> None:
        """Nothing more comes in."""
        self.ended.callback(None)
        if not self.stays:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing more goes out."""

    def connectionLost(self, reason: object = None) -> None:
        if not self.ended.called:
            self.ended.callback(None)
        self.closed.callback(None)

    def _look(self) -> None:
        if self._wanted is not None and self.received >= self._wanted[0]:
            (_, done), self._wanted = self._wanted, None
            done.callback(None)


def device_and_stream(address: str = "192.0.2.1:40000") -> tuple[Device, TunnelStream]:
    """A device, and its tunnel stream at the server."""
    near, far = tcp_pair()
    device, stream = Device(), TunnelStream(address)
    adopt(near, device)
    adopt(far, stream)
    return device, stream


class TunnelDevice(Device):
    """
    A device that shows its ticket at the door and then carries raw bytes.

    @ivar through: fires when the outer TLS has ended; fails with what the server said if that was not OK.
    """

    def __init__(self, client: TLSClient, ticket: str) -> None:
        super().__init__()
        self.client: TLSClient | None = client
        self.ticket = ticket
        self.through: Deferred[Any] = Deferred()
        self._shown = False
        self._goodbye = False

    def connectionMade(self) -> None:
        """Begin TLS."""
        self._talk(b"")

    def dataReceived(self, data: bytes) -> None:
        if self.client is None:
            super().dataReceived(data)
        else:
            self._talk(data)

    def _talk(self, data: bytes) -> None:
        client = self.client
        assert client is not None
        client.feed(data)
        if client.shaken and not self._shown:
            self._shown = True
            client.tls.write(b"RDV-TUNNEL/1 %s\n" % self.ticket.encode("ascii"))
        if client.received == b"OK\n" and not self._goodbye:
            self._goodbye = True
            client.close()
        rest = client.outgoing.read()
        if rest:
            self.transport.write(rest)
        if client.closed and not self.through.called:
            self.client = None
            if client.received == b"OK\n":
                self.through.callback(None)
            else:
                self.through.errback(ValueError(client.received))
