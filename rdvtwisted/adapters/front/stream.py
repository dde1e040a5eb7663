"""Tunnel streams past their ticket: bare ones, whose bytes nobody here can read, and those inside the door's TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.interfaces import ITunnelStream

#: Seconds of silence before the kernel asks whether the device is still there.
KEEPALIVE_IDLE = 30
#: Seconds between two such questions.
KEEPALIVE_INTERVAL = 10
#: Unanswered questions after which the device is gone.
KEEPALIVE_COUNT = 3
#: Milliseconds for which bytes may stay unacknowledged before the device is gone.
UNACKNOWLEDGED_LIMIT = 15_000
#: Bytes of a stream inside TLS that may wait in the kernel unsent: bounds how long a small packet
#: waits behind large ones on a slow line (TCP_NOTSENT_LOWAT of linux/tcp.h).
UNSENT_LIMIT = 256 * 1024
_TCP_NOTSENT_LOWAT = 25


@implementer(ITunnelStream)
class TunnelStream(Protocol):
    """
    One device's stream, taken out of the reactor's hands.

    Connecting this protocol to a TCP transport pauses the transport: from
    then on nothing reads the socket but who uses L{fileno}, and nothing
    watches it either. A stream that breaks while it waits for its partner is
    noticed by the device's control connection, which runs over the same
    uplink, or when it is joined, whichever comes first; until then it costs
    one socket and no wake-up. (To watch it here would mean to be woken for
    the partner's bytes, which may come early and must stay in the kernel.)
    """

    transport: Connection

    def __init__(self, address: str) -> None:
        self.address = address
        #: Called once when somebody aborts the stream; who uses L{fileno} must let go of it in there.
        self.on_abort: Callable[[], None] | None = None
        self._open = True

    def connectionMade(self) -> None:
        """Take the socket over and have the kernel notice a dead device."""
        self.transport.pauseProducing()
        _watch_peer(self.transport.getHandle())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The socket is closed."""
        self._open = False

    @property
    def open(self) -> bool:
        """Whether this end has not closed it; what the device did is not looked at."""
        return self._open

    def fileno(self) -> int:
        """The socket's descriptor, non-blocking; -1 once the stream is closed."""
        return int(self.transport.fileno()) if self._open else -1

    def deliver(self, protocol: IProtocol) -> None:
        """
        @raise RuntimeError: always: it has a socket and no transport.
        """
        raise RuntimeError("a bare stream is used by its socket")

    def finish(self) -> None:
        """
        Tell the device that nothing more will come to it.

        @raise OSError: the connection is broken.
        """
        self.transport.getHandle().shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it in order, once all has been carried. Idempotent."""
        if self._open:
            self._open = False
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close it at once. Idempotent."""
        if self._open:
            self._open = False
            if self.on_abort is not None:
                self.on_abort()
            self.transport.abortConnection()


@implementer(ITunnelStream)
class InsideStream(Protocol):
    """
    One device's stream that stays inside the door's TLS.

    Nothing is read before somebody takes it by L{deliver}: then its protocol
    takes this one's place, and this is but the handle by which to close it.
    """

    transport: TLSMemoryBIOProtocol

    def __init__(self, address: str, early: bytes) -> None:
        """
        @param early: what the device has sent already.
        """
        self.address = address
        self._early = early
        self._lost: Failure | None = None
        self._taken = False

    def connectionMade(self) -> None:
        """Wait for somebody to take it; have the kernel notice a dead device."""
        self._connection = cast(Connection, self.transport.transport)
        self._connection.pauseProducing()
        _watch_peer(self._connection.getHandle(), (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LIMIT))

    def dataReceived(self, data: bytes) -> None:
        """What had been read before: no more than one read of the socket."""
        self._early += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone, and nobody has taken it."""
        self._lost = reason

    def fileno(self) -> int:
        """-1: its socket is not for anybody else."""
        return -1

    def deliver(self, protocol: IProtocol) -> None:
        """
        Connect C{protocol}; what has come in already is delivered first.

        @raise RuntimeError: it is taken already.
        """
        if self._taken:
            raise RuntimeError("the stream is taken already")
        self._taken = True
        tls = self.transport
        tls.wrappedProtocol = protocol
        protocol.makeConnection(tls)
        early, self._early = self._early, b""
        if early:
            protocol.dataReceived(early)
        if self._lost is not None:
            protocol.connectionLost(self._lost)
        else:
            self._connection.resumeProducing()

    def close(self) -> None:
        """Close it in order, once all that was written has left. Idempotent."""
        self.transport.loseConnection()
        if not self._taken:
            # Nobody reads the device's close_notify.
            self._connection.loseConnection()

    def abort(self) -> None:
        """Close it at once. Idempotent."""
        if self.transport.connected:
            self.transport.abortConnection()


def _watch_peer(connection: socket.socket, *more: tuple[int, int, int]) -> None:
    """Have the kernel send small packets at once and give a dead device up (tcp(7)); with C{more} socket options."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_LIMIT),
        *more,
    ):
        connection.setsockopt(level, option, value)
