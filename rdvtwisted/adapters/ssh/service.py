"""The connection service as the server gives it: shells, and the forwards that a device's desk allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.conch.ssh.connection import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_RESOURCE_SHORTAGE
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol

from rdvtwisted.adapters.ssh import stream
from rdvtwisted.adapters.ssh.allowance import Allowance
from rdvtwisted.adapters.ssh.channel import Channel
from rdvtwisted.adapters.ssh.connection import Connection, OpenRefused
from rdvtwisted.adapters.ssh.session import ShellChannel, ShellOpener
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.interfaces import IDesk

if TYPE_CHECKING:
    from rdvtwisted.adapters.ssh.server import ServerTransport

#: Seconds after its last shell has ended that a connection has to go by itself; stock clients go at once.
LINGER_SECONDS = 5.0

_SESSION = b"session"
_LARGEST_PORT = 65535


class ServerConnection(Connection):
    """
    One device's channels.

    The device leaves its desk when the last of its shells has ended, whatever
    else is still open, or when the connection is gone.
    """

    transport: ServerTransport
    _linger: IDelayedCall | None = None

    def __init__(self, desk: IDesk, open_shell: ShellOpener, allowance: Allowance) -> None:
        """
        @param allowance: how fast all shells of the connection together may make requests.
        """
        super().__init__()
        self._allowance = allowance
        self.desk = desk
        self._open_shell = open_shell

    def asked(self, kind: bytes, reader: Reader) -> Deferred[Channel]:
        """A shell's channel, or a forward; nothing else."""
        if self.transport.desk is None:
            raise OpenRefused(OPEN_ADMINISTRATIVELY_PROHIBITED, "the last shell has ended")
        if kind == _SESSION:
            self._bound(kind, self.transport.settings.session_channels)
            return succeed(
                ShellChannel(self.desk, self._open_shell, self.shell_ended, self.transport.clock, self._allowance)
            )
        if kind == stream.KIND:
            self._bound(kind, self.transport.settings.forward_channels)
            return self._forward(reader.text(), reader.uint32())
        return super().asked(kind, reader)

    def _bound(self, kind: bytes, most: int) -> None:
        present = sum(channel.kind == kind for channel in self.channels.values())
        if present + self.opening(kind) >= most:
            raise OpenRefused(OPEN_RESOURCE_SHORTAGE, f"there are {most} such channels already")

    def _forward(self, host: str, port: int) -> Deferred[Channel]:
        if not 0 < port <= _LARGEST_PORT:
            raise OpenRefused(OPEN_ADMINISTRATIVELY_PROHIBITED, "there is no such port")

        def ready(protocol: IProtocol) -> Channel:
            channel = stream.StreamChannel(stream.target(host, port), self.transport.transport.getPeer())
            channel.protocol = protocol
            return channel

        opening: Deferred[IProtocol] = maybeDeferred(self.desk.forward, host, port)
        return opening.addCallback(ready)

    def shell_ended(self, reason: str) -> None:
        """A shell is over; if it was the last one, so is the device's business here."""
        if any(isinstance(channel, ShellChannel) and channel.running for channel in self.channels.values()):
            return
        self.transport.leave(reason)
        if self._linger is None and not self.transport.closing:
            self._linger = self.transport.clock.callLater(LINGER_SECONDS, self.transport.disconnect, reason)

    def serviceStopped(self) -> None:
        """The connection is gone."""
        super().serviceStopped()
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
