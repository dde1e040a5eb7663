"""Tunnel streams and their relay in memory, for tests of whoever joins them."""

from __future__ import annotations

from socket import socket

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from rdvtwisted.interfaces import IJoin, IRelay, ITunnelStream


@implementer(ITunnelStream)
@define(eq=False)
class MemoryStream:
    """A tunnel stream that carries nothing, and remembers whether it was closed."""

    address: str = "192.0.2.1:40000"
    #: Whether it has been closed, in whichever way.
    aborted: bool = False
    #: Its socket, if it shall have one.
    socket: socket | None = None
    #: What L{deliver} got.
    protocol: IProtocol | None = None

    def fileno(self) -> int:
        """The descriptor of its socket; -1 without one, or once it is closed."""
        return -1 if self.socket is None or self.aborted else self.socket.fileno()

    def deliver(self, protocol: IProtocol) -> None:
        """Keep C{protocol} for the test to connect, if this stream has no socket."""
        if self.socket is not None:
            raise RuntimeError("a bare stream is not delivered")
        self.protocol = protocol

    def close(self) -> None:
        """Close it in order. Idempotent."""
        self.abort()

    def abort(self) -> None:
        """Close it at once. Idempotent."""
        self.aborted = True
        if self.socket is not None:
            self.socket.close()


@implementer(IJoin)
class MemoryJoin:
    """
    Two streams joined in memory.

    @ivar to_onsite: the onsite's stream.
    @ivar to_master: the master's stream.
    @ivar carried: what L{traffic} says: bytes to the onsite, to the master.
    @ivar stopped: whether L{stop} was called.
    """

    def __init__(self, relay: MemoryRelay, to_onsite: MemoryStream, to_master: MemoryStream) -> None:
        self.to_onsite = to_onsite
        self.to_master = to_master
        self.ended: Deferred[None] = Deferred()
        self.carried = (0, 0)
        self.stopped = False
        self._relay = relay
        self._over = False

    def traffic(self) -> tuple[int, int]:
        """Bytes carried so far: to the onsite, to the master."""
        return self.carried

    def stop(self) -> None:
        """End it and close both streams; if the relay is lingering, it has not ended with that. Idempotent."""
        self.stopped = True
        if self._relay.lingering:
            self.to_onsite.abort()
            self.to_master.abort()
        else:
            self.end()

    def end(self) -> None:
        """Let it be over, as if a device had gone or a lingering end had come. Idempotent."""
        self.to_onsite.abort()
        self.to_master.abort()
        if not self._over:
            self._over = True
            self.ended.callback(None)


@implementer(IRelay)
@define(eq=False)
class MemoryRelay:
    """Joins L{MemoryStream}s, and lets a test end what it has joined."""

    #: All joins there were, the oldest first.
    joins: list[MemoryJoin] = field(factory=list)
    #: Whether a stopped join goes on until L{end}, as one whose kernel is slow.
    lingering: bool = False

    def join(self, to_onsite: MemoryStream, to_master: MemoryStream) -> MemoryJoin:
        """Join two streams; over at once if one is closed already."""
        join = MemoryJoin(self, to_onsite, to_master)
        self.joins.append(join)
        if to_onsite.aborted or to_master.aborted:
            join.end()
        return join

    def end(self, index: int) -> None:
        """Let the join of this index be over; see L{MemoryJoin.end}."""
        self.joins[index].end()
