"""The TCP connection under a tunnel stream, taken from Twisted's hands so that TLS can run straight on its socket."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from rdvtwisted.errors import ConnectionLost, TunnelFailed
from tunnels.conversation import Socket

#: Seconds until the server must have accepted the TCP connection.
CONNECT_LIMIT = 10.0
#: Seconds that the last bytes may take to leave, after which the connection is cut.
FLUSH_LIMIT = 1.0
#: Bytes that may wait in the kernel unsent: bounds how long a small packet waits behind large
#: ones on a slow line, as a full socket stops the reading of packets (TCP_NOTSENT_LOWAT, tcp(7)).
UNSENT_LIMIT = 256 * 1024
_TCP_NOTSENT_LOWAT = 25


def prepare(connected: Socket) -> None:
    """Have a TCP socket send small packets at once, and keep few bytes unsent; any other one is left as it is."""
    handle = socket.socket(fileno=connected.fileno())
    try:
        if handle.family in (socket.AF_INET, socket.AF_INET6):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handle.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LIMIT)
    finally:
        handle.detach()


class Carrier(Protocol):
    """A connected TCP socket that the reactor does not watch until somebody says so."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._abort: IDelayedCall | None = None
        self._gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """The connection is there: take the socket, and prepare it for packets."""
        self._connection = cast(Any, self.transport)
        self._connection.stopReading()
        self._connection.stopWriting()
        self.socket: socket.socket = self._connection.getHandle()
        prepare(self.socket)

    def release(self, orderly: bool) -> Deferred[None]:
        """
        Close the socket, which nobody watches any more; called once.

        @param orderly: what was written may still leave, for C{FLUSH_LIMIT} seconds.
        @return: a Deferred that fires when it is closed.
        """
        if self._gone.called:
            return self._gone
        if orderly:
            self._abort = self._reactor.callLater(FLUSH_LIMIT, self._connection.abortConnection)
            self._connection.loseConnection()
        else:
            self._connection.abortConnection()
        return self._gone

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """The socket is closed."""
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        self._gone.callback(None)


async def connect(reactor: Any, door: IStreamClientEndpoint, address: tuple[str, int]) -> Carrier:
    """
    Connect to the server's door.

    @param address: its host and port, for errors.
    @raise TunnelFailed: it did not answer in time, or refused, or the
        endpoint is not of a kind that has a socket.
    """
    carrier = Carrier(reactor)
    factory = Factory.forProtocol(lambda: carrier)
    factory.noisy = False
    place = f"{address[0]} port {address[1]}"

    def late(result: object, seconds: float) -> Failure:
        return Failure(TunnelFailed(f"the server's TLS door, {place}, did not answer within {seconds:.0f} s"))

    try:
        await door.connect(factory).addTimeout(CONNECT_LIMIT, reactor, late)
    except (ConnectError, DNSLookupError, OSError) as error:
        raise TunnelFailed(f"the server's TLS door, {place}, cannot be reached: {error}") from None
    return carrier
