"""
Where a stock vtund client connects to on its own machine, and how its bytes get to the server from there.

A client may speak to its server before that has its interface up, and a stock
server ends over a packet that comes too early. So what the client says
beyond its greeting waits until the server has settled.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed
from rdvtwisted.values import Mode
from tunnels.vtun_overheard import HERE, PREAMBLE, Overheard

LOOPBACK = "127.0.0.1"
#: Seconds that an old server gets to bring its interface up, once it has let the client in.
SETTLING = 1.0
#: Seconds that the last bytes may take to leave, after which the connection is cut.
FLUSH_LIMIT = 1.0
#: The TCP connections of this network namespace (proc(5)).
CONNECTIONS = Path("/proc/self/net/tcp")


def owner_of(near: int, far: int, table: Path = CONNECTIONS) -> int | None:
    """
    Whose process holds a TCP connection on 127.0.0.1.

    @param near: the port of its end; C{far}: that of the other one.
    @return: the number of the user; L{None} if there is no such connection.
    """
    address = f"{int.from_bytes(socket.inet_aton(LOOPBACK), sys.byteorder):08X}"
    ends = [f"{address}:{near:04X}", f"{address}:{far:04X}"]
    for line in table.read_text("ascii", "replace").splitlines():
        words = line.split()
        if words[1:3] == ends and len(words) > 7:
            return int(words[7])
    return None


class _End(Protocol):
    """One of the two connections; what comes in is its pipe's to pass on."""

    transport: Any

    def __init__(
        self, said: Callable[[bytes], None], gone: Callable[[], None], made: Callable[[], None] = lambda: None
    ) -> None:
        self._said = said
        self._gone = gone
        self._made = made
        self._fed = False
        self._leaving = False
        self.lost = False

    def feed_from(self, other: _End) -> None:
        """Have the other end read no faster than this one's peer does."""
        self._fed = True
        self.transport.registerProducer(other.transport, True)

    def hang_up(self) -> None:
        """Close, after all that was written. Idempotent."""
        if self._fed:
            self._fed = False
            self.transport.unregisterProducer()
        if not (self.lost or self._leaving):
            self._leaving = True
            # What is held back for want of room would keep the news of the end with it.
            self.transport.resumeProducing()
            self.transport.loseConnection()

    def connectionMade(self) -> None:
        """It is there."""
        self._made()

    def dataReceived(self, data: bytes) -> None:
        """Something came in."""
        self._said(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """It is over."""
        self.lost = True
        self._gone()


class VtunPipe(Factory):
    """
    Takes one connection, of a program of this user, and joins it to an endpoint of the server's.

    @ivar flowing: fires with L{None} once both ends carry packets; never if the pipe breaks before.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        server: IStreamClientEndpoint,
        mode: Mode,
        broken: Callable[[RDVError], None],
        owner: Callable[[int, int], int | None] = owner_of,
    ) -> None:
        """
        @param reactor: IReactorTCP and IReactorTime.
        @param broken: called once if the server refuses, or is gone; never for an end that begins here.
        """
        self._reactor = reactor
        self._server = server
        self._broken = broken
        self._owner = owner
        self._overheard: Overheard | None = Overheard(mode)
        self._port: Any = None
        self._connecting: Deferred[IProtocol] | None = None
        self._near: _End | None = None
        self._far: _End | None = None
        #: Bytes that the client may say still before the server has settled, and what is said beyond them.
        self._preamble = PREAMBLE
        self._held: list[bytes] = []
        self._settling: IDelayedCall | None = None
        self._over = False
        self._closing: list[Deferred[None]] = []
        self._abort: IDelayedCall | None = None
        self.flowing: Deferred[None] = Deferred()

    def listen(self) -> int:
        """
        Wait for the client.

        @return: the TCP port of 127.0.0.1 that it is to connect to.
        @raise TunnelFailed: this machine has none.
        """
        try:
            self._port = self._reactor.listenTCP(0, self, backlog=1, interface=LOOPBACK)
        except Exception as error:  # noqa: BLE001 - CannotListenError, or what it should have been
            raise TunnelFailed(f"no TCP port of {LOOPBACK} can be listened on: {error}") from None
        return int(self._port.getHost().port)

    def close(self) -> Deferred[None]:
        """
        Send on what the client has said last, and close everything. Idempotent.

        @return: a Deferred that fires with L{None} when all is closed.
        """
        self._over = True
        stopped = self._stop_listening()
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        ends = [end for end in (self._near, self._far) if end is not None and not end.lost]
        if ends and self._abort is None:
            self._abort = self._reactor.callLater(FLUSH_LIMIT, self._cut)
            for end in ends:
                end.hang_up()
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        self._settle_end()
        return stopped.addCallback(lambda _: closed)

    # The client

    def buildProtocol(self, address: Any) -> Any:
        """Take the first connection of this user, and no other."""
        if self._port is None or self._over:
            return None
        if self._owner(address.port, self._port.getHost().port) != os.geteuid():
            self._log.warn("Somebody else's program has connected to the port of the vtun client, and is refused")
            return None
        self._near = _End(self._client_said, self._client_gone, self._client_here)
        self._stop_listening()
        return self._near

    def _client_here(self) -> None:
        # Nothing is lost: a client says nothing before its server does.
        self._connecting = maybeDeferred(self._server.connect, Factory.forProtocol(self._make_far))
        self._connecting.addCallbacks(self._connected, self._unconnected)

    def _make_far(self) -> _End:
        self._far = _End(self._server_said, self._server_gone)
        return self._far

    def _connected(self, _: IProtocol) -> None:
        self._connecting = None
        assert self._near is not None and self._far is not None
        if self._over or self._near.lost:
            self._far.hang_up()
        else:
            self._near.feed_from(self._far)

    def _unconnected(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            self._break(TunnelFailed(f"the server does not open the vtun tunnel: {failure.getErrorMessage()}"))

    def _client_said(self, data: bytes) -> None:
        assert self._near is not None
        if self._far is None or self._far.lost or self._over:
            return
        if self._overheard is None:
            self._far.transport.write(data)
            return
        now, later = data[: self._preamble], data[self._preamble :]
        self._preamble -= len(now)
        if now:
            self._far.transport.write(now)
        if later:
            self._held.append(later)
            self._near.transport.pauseProducing()

    def _client_gone(self) -> None:
        """Why, its program tells; what it has said leaves still."""
        if self._far is not None:
            self._far.hang_up()
        self._settle_end()

    # The server

    def _server_said(self, data: bytes) -> None:
        if self._overheard is not None and self._settling is None:
            try:
                answered = self._overheard.hear(data)
            except ProtocolError as error:
                self._break(error)
                return
            if answered:
                self._answered(self._overheard)
        if self._near is not None and not self._near.lost:
            self._near.transport.write(data)

    def _answered(self, overheard: Overheard) -> None:
        if overheard.ours:
            self._held.insert(0, HERE)
            self._flow()
        else:
            self._settling = self._reactor.callLater(SETTLING, self._flow)

    def _flow(self) -> None:
        near, far = self._near, self._far
        if near is None or far is None or near.lost or far.lost:
            return
        self._overheard = None
        held, self._held = self._held, []
        if held:
            far.transport.write(b"".join(held))
        far.feed_from(near)
        near.transport.resumeProducing()
        self.flowing.callback(None)

    def _server_gone(self) -> None:
        self._break(TunnelFailed("the server has closed the vtun tunnel"))
        if self._near is not None:
            self._near.hang_up()
        self._settle_end()

    # The end

    def _break(self, error: RDVError) -> None:
        # When the client has left before, the server's end is but the consequence.
        if not self._over and not (self._near is not None and self._near.lost):
            self._over = True
            self._broken(error)

    def _stop_listening(self) -> Deferred[Any]:
        port, self._port = self._port, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def _cut(self) -> None:
        for end in (self._near, self._far):
            if end is not None and not end.lost:
                end.transport.abortConnection()

    def _settle_end(self) -> None:
        if not all(end is None or end.lost for end in (self._near, self._far)):
            return
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        closing, self._closing = self._closing, []
        for closed in closing:
            closed.callback(None)
