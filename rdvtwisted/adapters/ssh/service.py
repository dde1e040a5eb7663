"""The connection service as the server gives it: shells, and the forwards that a device's desk allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.conch.ssh.connection import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_RESOURCE_SHORTAGE
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh import denials, stream
from rdvtwisted.adapters.ssh.allowance import Allowance
from rdvtwisted.adapters.ssh.channel import Channel
from rdvtwisted.adapters.ssh.connection import Connection, OpenRefused
from rdvtwisted.adapters.ssh.denials import Denials
from rdvtwisted.adapters.ssh.session import ShellChannel, ShellOpener
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.errors import RDVError
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

    def __init__(self, desk: IDesk, open_shell: ShellOpener, allowance: Allowance, refused: Denials) -> None:
        """
        @param allowance: how fast all shells of the connection together may make requests.
        @param refused: is told what the device does not get.
        """
        super().__init__()
        self._denials = refused
        self._allowance = allowance
        self.desk = desk
        self._open_shell = open_shell

    def asked(self, kind: bytes, reader: Reader) -> Deferred[Channel]:
        """A shell's channel, or a forward; nothing else."""
        if kind == stream.KIND:
            host, port = reader.text(), reader.uint32()
            what = denials.forward(host, port)
            opening = maybeDeferred(self._forward, host, port)
        else:
            what = denials.channel(kind)
            opening = maybeDeferred(self._session, kind, reader)
        return opening.addErrback(self._not_opened_because, what)

    def _not_opened_because(self, failure: Failure, what: str) -> Failure:
        # All else is a fault of ours, and logged as such.
        if isinstance(failure.value, RDVError):
            self._denials.add(self.desk.device.id, what, str(failure.value))
        return failure

    def denied(self, name: bytes) -> None:
        """The device was refused a request."""
        what = denials.request(name)
        if what is not None:
            self._denials.add(self.desk.device.id, what)

    def _session(self, kind: bytes, reader: Reader) -> Deferred[Channel]:
        if kind != _SESSION:
            return super().asked(kind, reader)
        self._here(kind, self.transport.settings.session_channels)
        shell = ShellChannel(self.desk, self._open_shell, self.shell_ended, self.transport.clock, self._allowance)
        return succeed(shell)

    def _here(self, kind: bytes, most: int) -> None:
        """Refuse one more channel of a kind if the device has left, or has as many as it may."""
        if self.transport.desk is None:
            raise OpenRefused(OPEN_ADMINISTRATIVELY_PROHIBITED, "the last shell has ended")
        present = sum(channel.kind == kind for channel in self.channels.values())
        if present + self.opening(kind) >= most:
            raise OpenRefused(OPEN_RESOURCE_SHORTAGE, f"there are {most} such channels already")

    def _forward(self, host: str, port: int) -> Deferred[Channel]:
        self._here(stream.KIND, self.transport.settings.forward_channels)
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
