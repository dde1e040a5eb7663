"""A tunnel stream past its ticket: a TCP connection that carries bytes which nobody here can read."""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
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


def address_text(address: IAddress | None) -> str:
    """Host and port of a TCP address as text, C{192.0.2.1:443} or C{[2001:db8::1]:443}."""
    host, port = getattr(address, "host", ""), getattr(address, "port", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def _watch_peer(connection: socket.socket) -> None:
    """Have the kernel send small packets at once and give a dead device up; tcp(7)."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
        (socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_LIMIT),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
