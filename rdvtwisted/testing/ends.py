"""The server's end of a tunnel in memory, for tests of whoever joins such."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from rdvtwisted.errors import RDVError, RequestRefused
from rdvtwisted.interfaces import IPacketDevice, IServerTunnel, ITunnelStream
from rdvtwisted.values import TunnelTerms


@implementer(IServerTunnel)
@define(eq=False)
class MemoryServerTunnel:
    """
    A tunnel that carries nothing; its device is in when a test says so.

    @ivar terms: what it was made for.
    @ivar secret: empty for one that takes streams.
    """

    terms: TunnelTerms
    secret: str = ""
    opened: Deferred[None] = field(factory=Deferred, init=False)
    closed: Deferred[None] = field(factory=Deferred, init=False)
    #: What it was given.
    device: IPacketDevice | None = field(default=None, init=False)
    stream: ITunnelStream | None = field(default=None, init=False)
    #: What L{traffic} says: bytes from the device, to the device.
    carried: tuple[int, int] = field(default=(0, 0), init=False)
    _over: bool = field(default=False, init=False)

    def start(self, device: IPacketDevice) -> None:
        """Take the packet device."""
        if self._over:
            device.close()
        else:
            self.device = device

    def accept(self) -> IProtocol:
        """A protocol that ignores what it gets, if the tunnel has a secret."""
        if not self.secret or self._over:
            raise RequestRefused("this tunnel takes no connections")
        protocol: IProtocol = Protocol()
        return protocol

    def occupy(self, stream: ITunnelStream) -> None:
        """Take the stream; with it the device is in."""
        if self.secret or self._over or self.stream is not None:
            stream.abort()
            return
        self.stream = stream
        self.let_in()

    def let_in(self) -> None:
        """Let the device be in."""
        self.opened.callback(None)

    def fail(self, error: RDVError) -> None:
        """Let the tunnel end by an error."""
        if not self._over:
            self._release()
            self.closed.errback(error)

    def traffic(self) -> tuple[int, int]:
        """Bytes from the device, to the device."""
        return self.carried

    def close(self) -> Deferred[None]:
        """Close everything. Idempotent."""
        if not self._over:
            self._release()
            self.closed.callback(None)
        return succeed(None)

    def _release(self) -> None:
        self._over = True
        if self.device is not None:
            self.device.close()
        if self.stream is not None:
            self.stream.abort()
