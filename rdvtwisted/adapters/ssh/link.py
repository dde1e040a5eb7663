"""A device's connection to the server, logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from rdvtwisted.adapters.ssh import stream
from rdvtwisted.adapters.ssh.remote import RemoteShell, ShellListener
from rdvtwisted.adapters.ssh.wire import string, uint32
from rdvtwisted.errors import ConnectionLost
from rdvtwisted.values import PublicKey

if TYPE_CHECKING:
    from rdvtwisted.adapters.ssh.client import ClientTransport


@define(eq=False)
class SSHLink:
    """What a device can do with its connection."""

    _line: ClientTransport

    @property
    def server_key(self) -> PublicKey:
        """The host key by which the server has proved who it is."""
        return self._line.server_key

    @property
    def local_host(self) -> str | None:
        """This machine's address that the connection comes from, as text; L{None} if the transport has none."""
        host = getattr(self._line.origin, "host", None)
        return host if isinstance(host, str) else None

    @property
    def key_exchange(self) -> str:
        """The key exchange in use, as SSH names it."""
        return self._line.exchange_name

    @property
    def cipher(self) -> str:
        """The cipher of what we send, as SSH names it."""
        return self._line.cipher_name

    @property
    def round_trip(self) -> float | None:
        """Seconds that the server took to answer the last time it was asked whether it is there."""
        return self._line.round_trip

    @property
    def closed(self) -> Deferred[None]:
        """
        Fires once, when the connection is over: with L{None} after
        L{disconnect}, else it fails with L{ConnectionLost}. Always the same Deferred.
        """
        return self._line.closed

    def open_shell(self, listener: ShellListener) -> Deferred[RemoteShell]:
        """
        Open a shell without a terminal.

        @return: a Deferred of the shell; fails with L{ConnectionLost}. What the
            shell says goes to C{listener}, from then on.
        """
        shell = RemoteShell(listener)
        self._line.channels.open(shell)
        return self._line.limit(shell.ready, "the server opened no shell")

    def endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        """An endpoint that connects to C{host}:C{port} as the server sees it, through this connection."""
        return ForwardEndpoint(self._line, host, port)

    def disconnect(self, reason: str = "goodbye") -> Deferred[None]:
        """
        Take leave, and close.

        @return: a Deferred that fires when the connection is gone.
        """
        return self._line.disconnect(reason)


class _Forward(stream.StreamChannel):
    """A forward that we ask for; its protocol is made once the far end is there."""

    def __init__(self, factory: IProtocolFactory, host: IAddress, peer: IAddress) -> None:
        super().__init__(host, peer)
        self._factory = factory
        self.ready: Deferred[IProtocol] = Deferred()

    def opened(self) -> None:
        """The far end is there."""
        protocol = None if self.ready.called else self._factory.buildProtocol(self.getPeer())
        if protocol is None:
            self._discarded = True
            self.abort()
            self._not_ready("nobody wants it any more")
            return
        self.protocol = protocol
        super().opened()
        self.ready.callback(protocol)

    _discarded = False

    def received(self, stream: int, data: bytes) -> None:
        """Data of a connection that nobody wants goes nowhere."""
        if not self._discarded:
            super().received(stream, data)

    def refused(self, code: int, reason: str) -> None:
        """The server does not forward there."""
        self._not_ready(reason)

    def closed(self, reason: str) -> None:
        """The connection is over."""
        if not self._discarded:
            super().closed(reason)

    def _not_ready(self, reason: str) -> None:
        if not self.ready.called:
            self.ready.errback(ConnectionLost(f"the server does not forward: {reason}"))


@implementer(IStreamClientEndpoint)
@define(eq=False)
class ForwardEndpoint:
    """Connects through C{direct-tcpip} channels."""

    _line: ClientTransport
    _host: str
    _port: int

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect.

        @return: a Deferred of the protocol; fails with L{ConnectionLost}.
        """
        channel = _Forward(protocolFactory, self._line.origin, stream.target(self._host, self._port))
        # The last two fields say who asks; servers log them.
        data = string(self._host.encode()) + uint32(self._port) + string(b"127.0.0.1") + uint32(0)
        self._line.channels.open(channel, data)
        return self._line.limit(channel.ready, "the server opened no forward")
