"""A device's desk: what one connection of one device may ask of the server, and what waits there."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from zope.interface import implementer

from rdvtwisted import requests
from rdvtwisted.access import SessionGrant
from rdvtwisted.ends import LOOPBACK, End, LoneTunnel
from rdvtwisted.errors import LanAddressMissing, NoSession, RDVError, RequestRefused, VtunNotStarted
from rdvtwisted.goodbye import return_time
from rdvtwisted.interfaces import IDesk, ILine
from rdvtwisted.requests import Readiness
from rdvtwisted.session import Session
from rdvtwisted.values import (
    Device,
    EndReason,
    Mode,
    Presence,
    Profile,
    PublicKey,
    RemoteSite,
    SessionState,
    SessionView,
    TunnelParameters,
)

if TYPE_CHECKING:
    from rdvtwisted.registry import Registry

#: Requests that one desk may have waiting at a time; a device needs one.
MAX_WAITS = 8

#: Seconds that a former session may take to end before a new one is refused.
CLOSE_SECONDS = 3.0

#: How the reasons begin for which a connection ends although nothing has come from its device just then.
SILENT = ("nothing was heard of it", "the connection was lost", "the key exchange took", "it does not read")

#: States of a session in which an onsite is still to build its tunnel.
_WANTED = (SessionState.PENDING, SessionState.BUILDING)


@define(eq=False)
class _Wait:
    """A request that is answered when C{answer} gives something, or when its time is over."""

    answer: Callable[[bool], object | None]
    deferred: Deferred[Any]
    limit: IDelayedCall


@implementer(IDesk)
@define(eq=False)
class Desk:
    """
    Serves one connection of one device.

    The desk registers the device lazily, by the first request that needs it;
    what it published before and after that is always what counts.
    """

    device: Device
    key: PublicKey
    line: ILine
    _registry: Registry
    _clock: IReactorTime
    profile: Profile = field(factory=Profile, init=False)
    session: Session | None = field(default=None, init=False)
    registered_at: float | None = field(default=None, init=False)
    #: An old onsite whose tunnel has been taken down, until it waits for a master again: it is about to leave.
    spent: bool = field(default=False, init=False)
    last_heard: float = field(init=False)
    round_trip: float | None = field(default=None, init=False)
    #: Where the device may open channels to.
    _end_point: End | None = field(default=None, init=False)
    _lone: LoneTunnel | None = field(default=None, init=False)
    _ended: SessionView = field(factory=SessionView, init=False)
    _waits: list[_Wait] = field(factory=list, init=False)
    _left: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.last_heard = self._clock.seconds()

    # IDesk

    def perform(self, request: requests.Request) -> Deferred[Any]:
        """Answer a shell's request as L{IDesk} says."""
        if self._left:
            return fail(RequestRefused("ConnectionReplaced: this connection does not serve the device any more"))
        try:
            answer = _ANSWERS[type(request)](self, request)
        except RDVError as error:
            return fail(error)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def interrupt(self) -> None:
        """Let every waiting request answer now."""
        for wait in list(self._waits):
            self._finish(wait, wait.answer(True))

    def heard(self) -> None:
        """The device is alive at this moment."""
        self.last_heard = self._clock.seconds()

    def measured(self, round_trip: float) -> None:
        """A probe was answered after C{round_trip} seconds."""
        self.round_trip = round_trip

    def forward(self, host: str, port: int) -> Deferred[IProtocol]:
        """To the device's own tunnel, once it has asked for it, and to nothing else."""
        end = self._end_point
        if self._left or end is None or (host, port) != (LOOPBACK, end.port):
            raise RequestRefused("the registration does not own such a target")
        protocol: IProtocol = end.tunnel.accept()
        return succeed(protocol)

    def leave(self, reason: str) -> None:
        """End the session and the registration, as the device wants it or its connection is lost. Idempotent."""
        # Who says goodbye is alive as he does.
        if not self._left and not reason.startswith(SILENT):
            self.heard()
        self.dismiss(reason)

    # What the registry tells

    def dismiss(self, reason: str) -> None:
        """End the session and the registration, whatever the device wants. Idempotent."""
        if self._left:
            return
        self._left = True
        self._end_lone_tunnel()
        self._registry.leave(self, reason)
        for wait in list(self._waits):
            self._finish(wait, RequestRefused(f"ConnectionEnded: {reason}"))

    def joined(self, session: Session) -> None:
        """The device has a session from now on."""
        self._end_lone_tunnel()
        self._end_point = None
        self.session = session
        self.changed()

    def changed(self) -> None:
        """The session's state is another one: what waits may be answered."""
        for wait in list(self._waits):
            if wait in self._waits and (answer := wait.answer(False)) is not None:
                self._finish(wait, answer)

    def parted(self) -> None:
        """The device's session is over."""
        if self.session is not None:
            self._ended = self.session.view()
        self.spent = self._end_point is not None and not self.profile.backends
        self.session = self._end_point = None
        self.changed()

    @property
    def networks(self) -> list[IPv4Network]:
        """The networks that the device is attached to, which a tunnel address would hide."""
        return [] if self.profile.lan is None else [self.profile.lan.network]

    @property
    def presence(self) -> Presence:
        """The registration as it is now."""
        return Presence(
            id=self.device.id,
            role=self.device.role,
            address=self.line.address,
            door=self.line.door,
            since=self.registered_at or 0.0,
            last_heard=self.last_heard,
            profile=self.profile,
            key=self.key,
            session="" if self.session is None else self.session.terms.id,
            round_trip=self.round_trip,
        )

    def view(self) -> SessionView:
        """The device's session, or how its last one ended."""
        return self._ended if self.session is None else self.session.view()

    # Requests

    def _register(self) -> None:
        # A master that bridges needs no address towards the PC.
        if self.profile.lan is None and self.profile.mode is Mode.L3:
            raise LanAddressMissing()
        self._registry.register(self)

    def _publish(self, request: requests.Publish) -> None:
        self.profile = request.profile

    def _mode(self, request: requests.GetMode) -> Mode:
        return self.profile.mode if self.session is None else self.session.terms.choice.mode

    def _list(self, request: requests.ListOnsite) -> tuple[Presence, ...]:
        return self._registry.visible(self)

    def _wait_for_master(self, request: requests.WaitForMaster) -> Deferred[Readiness]:
        self._register()
        self.spent = False

        def answer(over: bool) -> Readiness | None:
            if self.session is not None and self.session.state in _WANTED:
                return Readiness.READY
            return Readiness.NOT_READY if over else None

        return self._wait(request.seconds, answer)

    def _connect(self, request: requests.Connect) -> Deferred[None]:
        self._register()
        try:
            self._registry.make_room(self, request.onsite)
        except RDVError as error:
            self._registry.session_refused(self, request.onsite, error)
            raise

        def answer(over: bool) -> object | None:
            if self._registry.has_room(self, request.onsite):
                try:
                    self._registry.open(self, request.onsite)
                except RDVError as error:
                    self._registry.session_refused(self, request.onsite, error)
                    return error
                return True
            return RequestRefused("SessionIsClosing: the former session does not end") if over else None

        return self._wait(CLOSE_SECONDS, answer).addCallback(lambda _: None)

    def _remote(self, request: requests.GetRemoteSite) -> RemoteSite | None:
        onsite = None if self.session is None else self._registry.desk(self.session.terms.onsite)
        if onsite is None:
            return None
        return RemoteSite(
            id=onsite.device.id,
            lan=onsite.profile.lan,
            dns=onsite.profile.dns,
            hostname=onsite.profile.hostname,
            uplink=onsite.profile.uplink,
            address=onsite.line.address,
            consent_seconds=onsite.profile.consent_seconds,
        )

    def _vtun_parameters(self, request: requests.GetVtunParameters) -> tuple[tuple[str, str], ...]:
        self._register()
        if self._end_point is None:
            if self.session is not None:
                self._end_point = self._registry.vtun_end(self, self.session)
            else:
                self._lone = self._registry.lone_tunnel(self)
                self._end_point = self._lone.point
        return self._end_point.lines

    def _tunnel_parameters(self, request: requests.GetTunnelParameters) -> TunnelParameters:
        if self.session is None:
            raise NoSession()
        parameters, self._end_point = self._registry.parameters(self, self.session)
        return parameters

    def _drop(self, request: requests.DropTunnel) -> None:
        if self._lone is not None:
            self._end_lone_tunnel()
            self._end_point = None
        elif self.session is not None and self.session.state is not SessionState.PENDING:
            self._end(EndReason.OPERATOR)
        elif self.registered_at is not None:
            raise VtunNotStarted()

    def _view(self, request: requests.GetSession) -> SessionView:
        return self.view()

    def _wait_for_change(self, request: requests.WaitForSessionChange) -> Deferred[SessionView]:
        def answer(over: bool) -> SessionView | None:
            view = self.view()
            same = view.state is request.state and request.grant in (None, view.grant)
            return None if same and not over else view

        return self._wait(request.seconds, answer)

    def _grant(self, request: requests.GetSessionGrant) -> SessionGrant:
        if self.session is None:
            raise NoSession()
        return self._registry.grant(self.session)

    def _limit_session(self, request: requests.LimitSession) -> None:
        if self.session is not None and request.session == self.session.terms.id:
            self.session.limit(self.device.role, request.seconds)

    def _end_session(self, request: requests.EndSession) -> None:
        if self.session is not None and request.session in ("", self.session.terms.id):
            self._end(request.reason)

    def _end_lone_tunnel(self) -> None:
        lone, self._lone = self._lone, None
        if lone is not None:
            lone.end(EndReason.OPERATOR)

    def _end(self, reason: EndReason) -> None:
        if self.session is not None:
            self.session.end(reason)

    def _authority(self, request: requests.GetCertificateAuthority) -> bytes:
        return self._registry.authority

    def _return_time(self, request: requests.GetReturnTime) -> int:
        return return_time(self._registry.crowd())

    # Waiting

    def _wait(self, seconds: float, answer: Callable[[bool], object | None]) -> Deferred[Any]:
        now = answer(False)
        if isinstance(now, RDVError):
            raise now
        if now is not None:
            return succeed(now)
        if len(self._waits) >= MAX_WAITS:
            raise RequestRefused("TooManyWaits: this connection waits for too many things at once")

        def over() -> None:
            self._finish(wait, wait.answer(True))

        def give_up(_: Deferred[Any]) -> None:
            self._waits.remove(wait)
            wait.limit.cancel()

        wait = _Wait(answer, Deferred(give_up), self._clock.callLater(seconds, over))
        self._waits.append(wait)
        return wait.deferred

    def _finish(self, wait: _Wait, answer: object) -> None:
        if wait not in self._waits:
            return
        self._waits.remove(wait)
        if wait.limit.active():
            wait.limit.cancel()
        if isinstance(answer, RDVError):
            wait.deferred.errback(answer)
        else:
            wait.deferred.callback(answer)


_ANSWERS: dict[type, Callable[[Desk, Any], object]] = {
    requests.Publish: Desk._publish,
    requests.GetMode: Desk._mode,
    requests.ListOnsite: Desk._list,
    requests.WaitForMaster: Desk._wait_for_master,
    requests.Connect: Desk._connect,
    requests.GetRemoteSite: Desk._remote,
    requests.GetVtunParameters: Desk._vtun_parameters,
    requests.GetTunnelParameters: Desk._tunnel_parameters,
    requests.DropTunnel: Desk._drop,
    requests.GetSession: Desk._view,
    requests.WaitForSessionChange: Desk._wait_for_change,
    requests.GetSessionGrant: Desk._grant,
    requests.LimitSession: Desk._limit_session,
    requests.EndSession: Desk._end_session,
    requests.GetCertificateAuthority: Desk._authority,
    requests.GetReturnTime: Desk._return_time,
}
