"""What of a session lies at the server: two streams that are relayed blindly, or two tunnels that end here."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import ProtocolError, RDVError
from rdvtwisted.glue import GlueSpec
from rdvtwisted.interfaces import IGlue, IJoin, IPacketDevice, IRelay, IServerTunnel, ITunnelStream
from rdvtwisted.scope import Scope
from rdvtwisted.session import IJunction, IJunctionListener
from rdvtwisted.values import EndReason, Role


@implementer(IJunction)
@define(eq=False)
class RelayJunction:
    """Two streams, which the server moves bytes between and cannot read."""

    _relay: IRelay
    _listener: IJunctionListener
    ended: Deferred[None] = field(factory=Deferred, init=False)
    _streams: dict[Role, ITunnelStream] = field(factory=dict, init=False)
    _join: IJoin | None = field(default=None, init=False)

    def begin(self) -> None:
        """Two streams will come."""

    def occupy(self, role: Role, stream: ITunnelStream) -> None:
        """A device's stream; a second one is aborted."""
        if role in self._streams or self.ended.called:
            stream.abort()
            return
        self._streams[role] = stream
        self._listener.arrived(role)

    def connect(self) -> None:
        """Let bytes move."""
        self._join = self._relay.join(self._streams[Role.ONSITE], self._streams[Role.MASTER])
        self._join.ended.addBoth(self._over)

    def confine(self, scope: Scope) -> None:
        """Nothing of it can be seen here: the onsite keeps to it."""

    def traffic(self) -> tuple[int, int]:
        """Bytes so far: to the onsite, to the master."""
        if self._join is None:
            return 0, 0
        to_onsite, to_master = self._join.traffic()
        return to_onsite, to_master

    def stop(self) -> None:
        """Close both streams. Idempotent."""
        if self._join is not None:
            self._join.stop()
        else:
            self._over(None)

    def _over(self, _: object) -> None:
        if not self.ended.called:
            for stream in self._streams.values():
                stream.abort()
            self.ended.callback(None)


@implementer(IJunction)
@define(eq=False)
class GlueJunction:
    """
    Tunnels that end at the server, and the network namespace that joins them.

    @ivar tunnels: the tunnel of each device; one that is alone has none at its other side.
    """

    _log = Logger()

    _glue: IGlue
    _spec: GlueSpec
    _listener: IJunctionListener
    tunnels: Mapping[Role, IServerTunnel]
    ended: Deferred[None] = field(factory=Deferred, init=False)
    _stopped: bool = field(default=False, init=False)
    _opening: Deferred[None] | None = field(default=None, init=False)

    def begin(self) -> None:
        """Open the namespace; the tunnels start when it is there."""
        for role, tunnel in self.tunnels.items():
            tunnel.opened.addCallback(self._arrived, role)
            tunnel.closed.addCallbacks(self._left, self._lost, callbackArgs=(role,), errbackArgs=(role,))
        opening: Deferred[tuple[IPacketDevice, IPacketDevice]] = self._glue.open(self._spec)
        self._opening = opening.addCallbacks(self._open, self._failed)

    def occupy(self, role: Role, stream: ITunnelStream) -> None:
        """A device's stream."""
        self.tunnels[role].occupy(stream)

    def connect(self) -> None:
        """Both tunnels carry already."""

    def confine(self, scope: Scope) -> None:
        """Have the namespace keep to it; if it does not, the session cannot go on."""
        if not self._stopped:
            confining: Deferred[None] = self._glue.confine(self._spec.session, scope)
            confining.addErrback(lambda failure: None if self._stopped else self._failed(failure))

    def traffic(self) -> tuple[int, int]:
        """Bytes so far: to the onsite, to the master."""
        sent = {role: tunnel.traffic()[1] for role, tunnel in self.tunnels.items()}
        return sent.get(Role.ONSITE, 0), sent.get(Role.MASTER, 0)

    def stop(self) -> None:
        """Close both tunnels, then remove the namespace. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._opening is not None:
            self._opening.cancel()
        closing = DeferredList([tunnel.close() for tunnel in self.tunnels.values()])
        # Its packet devices first: then there is little left for the kernel to remove.
        closing.addBoth(lambda _: self._glue.close(self._spec.session))
        closing.addErrback(lambda failure: self._log.failure("A session's namespace is not removed", failure))
        closing.addBoth(lambda _: self.ended.callback(None))

    def _open(self, devices: tuple[IPacketDevice, IPacketDevice]) -> None:
        onsite, master = devices
        for role, device in ((Role.ONSITE, onsite), (Role.MASTER, master)):
            if role in self.tunnels:
                self.tunnels[role].start(device)
            else:
                device.close()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self._stopped:
            return
        self._log.error(
            "The session {session} cannot be joined: {error}",
            session=self._spec.session,
            error=failure.getErrorMessage(),
        )
        self._listener.end(EndReason.TUNNEL_FAILED)

    def _arrived(self, _: None, role: Role) -> None:
        if not self._stopped:
            self._listener.arrived(role)

    def _left(self, _: None, role: Role) -> None:
        if not self._stopped:
            # That is how an old device leaves, which cannot tell why.
            self._listener.end(EndReason.MASTER_LEFT if role is Role.MASTER else EndReason.ONSITE_LEFT)

    def _lost(self, failure: Failure, role: Role) -> None:
        failure.trap(RDVError)
        # That a tunnel breaks while it is closed is no news; but who breaks the rules and hangs up is told of, too.
        if self._stopped and not failure.check(ProtocolError):
            return
        self._log.info(
            "The session {session} has lost the tunnel of its {role}: {error}",
            session=self._spec.session,
            role=role.value,
            error=failure.getErrorMessage(),
        )
        if not self._stopped:
            self._listener.end(EndReason.TUNNEL_LOST)
