"""Who is here and who is joined to whom: the server's memory, without I/O."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from rdvtwisted.access import Grant, SessionGrant
from rdvtwisted.carriers import Choice, choose
from rdvtwisted.device import Desk
from rdvtwisted.ends import End, Ends, LoneTunnel
from rdvtwisted.entitlement import Entitlements
from rdvtwisted.errors import OnsiteBusy, OnsiteNotRegistered, RDVError, RequestRefused, VtunNotChosen
from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    SessionEnded,
    SessionOpened,
    SessionRefused,
    SessionUp,
)
from rdvtwisted.goodbye import stopping
from rdvtwisted.interfaces import IEventSink, IInventory, ILine, IReception, IRelay
from rdvtwisted.junction import GlueJunction, RelayJunction
from rdvtwisted.leases import LeasePool
from rdvtwisted.ports import TLS_PORT
from rdvtwisted.session import IJunction, ISessionWorld, Session, Terms
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import (
    Device,
    EndReason,
    Presence,
    PublicKey,
    Role,
    SessionState,
    SessionView,
    TunnelParameters,
)

#: What a device is told whose connection is closed for a newer one of the same device.
SUPERSEDED = "a newer connection of this device has taken its place"
#: Ends of sessions after which a device may be gone, and its connection as well, without a word.
_DOUBTFUL = (EndReason.TUNNEL_LOST, EndReason.TUNNEL_FAILED, EndReason.BUILD_TIMEOUT)


@implementer(IReception, ISessionWorld)
@define(eq=False)
class Registry:
    """
    The registrations and sessions of a server.

    A device is registered by exactly one connection: the newest that asked
    for it. Losing the connection, or the registration, ends the session.

    @ivar ends: makes the ends of those tunnels that are not relayed, and knows the backends.
    @ivar authority: certificate of the TLS door's authority, DER.
    @ivar door_port: TCP port of the TLS door.
    @ivar build_seconds: how long a session may take from selection to both tunnels.
    @ivar wall: the wall clock, in seconds since the epoch, by which access rules end; C{None}: C{clock} is it.
    @ivar random: C{random(n)} gives C{n} unpredictable bytes.
    """

    inventory: IInventory
    clock: IReactorTime
    relay: IRelay
    tickets: TicketOffice
    leases: LeasePool
    ends: Ends
    events: IEventSink
    random: Callable[[int], bytes] = field(repr=False)
    authority: bytes = field(default=b"", repr=False)
    door_port: int = TLS_PORT
    build_seconds: float = 60.0
    wall: Callable[[], float] | None = None
    _access: Entitlements = field(init=False, repr=False)
    _desks: set[Desk] = field(factory=set, init=False, repr=False)
    _registered: dict[str, Desk] = field(factory=dict, init=False, repr=False)
    _sessions: dict[str, Session] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._access = Entitlements(self.inventory, self.clock, self.wall or self.clock.seconds, self.review_access)

    # IReception

    def admit(self, account: str, key: PublicKey) -> Device | None:
        """The device, if it is enabled and has this key."""
        device = self.inventory.device(account)
        return device if device is not None and device.enabled and key in device.keys else None

    def arrive(self, device: Device, key: PublicKey, line: ILine) -> Desk:
        """A desk for a new connection of C{device}."""
        desk = Desk(device, key, line, self, self.clock)
        self._desks.add(desk)
        return desk

    def refused(self, door: str, address: str, account: str, reason: str) -> None:
        """Take note of somebody who was refused."""
        self.events.emit(EntryRefused(door, address, account, reason))

    def session_refused(self, master: Desk, onsite: str, error: RDVError) -> None:
        """Take note of a session that a master may not have, or cannot."""
        self.events.emit(SessionRefused(master.device.id, onsite, master.line.address, str(error)))

    # For desks

    def register(self, desk: Desk) -> None:
        """C{desk} is the device's registration from now on; an older one is ended and its connection closed."""
        older = self._registered.get(desk.device.id)
        if older is desk:
            return
        if older is not None:
            self._dismiss(older, SUPERSEDED)
        self._registered[desk.device.id] = desk
        desk.registered_at = self.clock.seconds()
        device, line = desk.device, desk.line
        self.events.emit(DeviceArrived(device.id, device.role, line.address, line.door, desk.key.fingerprint))

    def leave(self, desk: Desk, reason: str) -> None:
        """The connection of C{desk} is over, and with it what it held."""
        self._desks.discard(desk)
        if self._registered.get(desk.device.id) is not desk:
            return
        presence = desk.presence
        if desk.session is not None:
            left = EndReason.MASTER_LEFT if desk.device.role is Role.MASTER else EndReason.ONSITE_LEFT
            desk.session.end(left)
        del self._registered[desk.device.id]
        self.events.emit(DeviceLeft(desk.device.id, desk.device.role, reason, presence))

    def desk(self, id: str) -> Desk | None:
        """The registration of a device, if it is here."""
        return self._registered.get(id)

    def crowd(self) -> int:
        """How many devices are here now."""
        return len(self._registered)

    def online(self, role: Role | None = None) -> tuple[Presence, ...]:
        """The devices that are here now, by id."""
        return tuple(
            desk.presence for _, desk in sorted(self._registered.items()) if role is None or desk.device.role is role
        )

    def visible(self, master: Desk) -> tuple[Presence, ...]:
        """The onsites that are here now and that this master may know of, by id."""
        spent = {id for id, desk in self._registered.items() if desk.spent}
        ready = [presence for presence in self.online(Role.ONSITE) if presence.id not in spent]
        return self._access.visible(master.device.id, ready)

    def make_room(self, master: Desk, onsite_id: str) -> None:
        """
        Begin to end what stands in the way of a session between the two: a former one of this master.

        @raise RequestRefused: the onsite is not here, not for this master or busy, or the backends do not fit.
        """
        onsite, _ = self._onsite(master, onsite_id)
        if onsite.session is not None and onsite.session.terms.master != master.device.id:
            raise OnsiteBusy(onsite_id)
        self._choose(master, onsite)
        for session in (master.session, onsite.session):
            if session is not None:
                session.end(EndReason.REPLACED)

    def has_room(self, master: Desk, onsite_id: str) -> bool:
        """Neither has a session now, or the onsite has left, which L{open} will say."""
        onsite = self._registered.get(onsite_id)
        return master.session is None and (onsite is None or onsite.session is None)

    def open(self, master: Desk, onsite_id: str) -> None:
        """
        Open a session between two that have none.

        @raise RequestRefused: the onsite is not here or not for this master, the backends do not fit, or no addresses
            are left.
        """
        onsite, grant = self._onsite(master, onsite_id)
        choice = self._choose(master, onsite)
        avoid = [*master.networks, *onsite.networks]
        leases = self.leases.allocate_several(1 if choice.join == "relay" else 2, avoid)
        terms = Terms(self.random(6).hex(), master.device.id, onsite.device.id, choice, leases)
        try:
            session = Session(terms, self, self.clock, self.build_seconds, grant, onsite.profile.consent_seconds)
        except RDVError:
            self._release(terms)
            raise
        self._sessions[session.terms.id] = session
        self.events.emit(SessionOpened(session.view()))
        master.joined(session)
        onsite.joined(session)
        # It may have been gone for a while without a word; the master is not to wait until a session is built in vain.
        onsite.line.probe()
        session.begin()
        self._look_again()

    def _onsite(self, master: Desk, id: str) -> tuple[Desk, Grant]:
        grant = self._access.require(master.device.id, id, master.profile.mode)
        onsite = self._registered.get(id)
        if onsite is None or onsite.spent or onsite.device.role is not Role.ONSITE:
            raise OnsiteNotRegistered(id)
        return onsite, grant

    def _choose(self, master: Desk, onsite: Desk) -> Choice:
        ends = self.ends
        return choose(ends.carriers, master.presence, onsite.presence, glue=ends.glue is not None)

    def vtun_end(self, desk: Desk, session: Session) -> End:
        """
        Where the vtun tunnel of C{desk} ends, which is about to be built.

        @raise RequestRefused: the session has none, or is not to be built (any more).
        """
        choice = session.terms.choice
        end = self._end(desk, session)
        if end is None or not end.tunnel.secret:
            raise VtunNotChosen(choice.of(desk.device.role).name)
        session.ask(desk.device.role)
        return end

    def lone_tunnel(self, desk: Desk) -> LoneTunnel:
        """
        A vtun tunnel for a device without session.

        @raise RequestRefused: there is none to be had.
        """
        return self.ends.lone(desk.device, desk.key, desk.profile.mode, desk.networks)

    def _end(self, desk: Desk, session: Session) -> End | None:
        junction = session.junction
        if not isinstance(junction, GlueJunction):
            return None
        return self.ends.end(session.terms, junction, desk.device.role)

    def parameters(self, desk: Desk, session: Session) -> tuple[TunnelParameters, End | None]:
        """
        What C{desk} needs to build its tunnel of C{session}, with a fresh ticket (an older one is void), and where
        the tunnel ends if that is at the server.

        @raise RequestRefused: the session is not to be built (any more).
        """
        role, terms = desk.device.role, session.terms
        peer = self._registered.get(terms.onsite if role is Role.MASTER else terms.master)
        if peer is None:
            raise RequestRefused("PeerLeft: the other device of the session has left")
        session.ask(role)
        lease, end = terms.lease(role), self._end(desk, session)
        if end is not None:
            own, far = lease.second, lease.first
        elif role is Role.ONSITE:
            own, far = lease.first, lease.second
        else:
            own, far = lease.second, lease.first
        secret = "" if end is None else end.tunnel.secret
        parameters = TunnelParameters(
            session=terms.id,
            backend=terms.choice.of(role).name,
            mode=terms.choice.mode,
            join=terms.choice.join,
            peer=peer.device.id,
            peer_key=peer.key if end is None else self.ends.key,
            peer_role=peer.device.role,
            address=own,
            peer_address=far.ip,
            mtu=terms.choice.mtu,
            door_port=end.port if end is not None and secret else self.door_port,
            ticket=secret or self.tickets.issue(session.seats[role], desk.key),
        )
        return parameters, end if secret else None

    # ISessionWorld

    def junction(self, session: Session) -> IJunction:
        """What lies here of a session: two streams that are relayed, or two tunnels that end here."""
        terms = session.terms
        if terms.choice.join == "relay":
            return RelayJunction(self.relay, session)
        keys = {role: self._registered[id].key for role, id in _members(terms)}
        return self.ends.junction(terms, keys, session, session.grant.scope)

    def changed(self, session: Session) -> None:
        """Tell the session's devices that its state is another one."""
        if session.state is SessionState.UP:
            self.events.emit(SessionUp(session.view()))
        for desk in self._members(session):
            desk.changed()

    def regranted(self, session: Session) -> None:
        """Tell the session's devices that something else may be done in it."""
        for desk in self._members(session):
            desk.changed()

    def gone(self, session: Session) -> None:
        """Give back what the session held."""
        for seat in session.seats.values():
            self.tickets.revoke(seat)
        self._release(session.terms)
        del self._sessions[session.terms.id]
        self._look_again()
        assert session.reason is not None
        self.events.emit(SessionEnded(session.view(), session.reason))
        for desk in self._members(session):
            desk.parted()
            if session.reason in _DOUBTFUL:
                desk.line.probe()
        # Whoever has come in the place of a member may be waiting for this end.
        for id in (session.terms.master, session.terms.onsite):
            if (successor := self._registered.get(id)) is not None:
                successor.changed()

    def _release(self, terms: Terms) -> None:
        for lease in terms.leases:
            self.leases.release(lease)

    def _members(self, session: Session) -> list[Desk]:
        desks = [self._registered.get(id) for id in (session.terms.master, session.terms.onsite)]
        return [desk for desk in desks if desk is not None and desk.session is session]

    # Administration

    def presences(self) -> tuple[Presence, ...]:
        """All registrations."""
        return self.online()

    def views(self) -> list[SessionView]:
        """All sessions, the oldest first."""
        return [session.view() for session in self._sessions.values()]

    def end_session(self, id: str, reason: EndReason) -> bool:
        """End the session with this id, or of this device. False if there is none."""
        desk = self._registered.get(id)
        session = self._sessions.get(id) if desk is None else desk.session
        if session is None:
            return False
        session.end(reason)
        return True

    def drop_disentitled(self) -> int:
        """
        Close the connections of devices that were removed or disabled, or
        whose key or role was changed in the inventory.

        @return: how many.
        """
        disentitled = [
            desk
            for desk in self._desks
            if (now := self.admit(desk.device.id, desk.key)) is None or now.role is not desk.device.role
        ]
        for desk in disentitled:
            if desk.session is not None:
                desk.session.end(EndReason.ADMINISTRATOR)
            self._dismiss(desk, "this device is not entitled any more: ask the administrator")
        return len(disentitled)

    def grant(self, session: Session) -> SessionGrant:
        """What may be done in a session."""
        ends = [left for left in (self._access.left(session.grant), session.left()) if left is not None]
        return SessionGrant(session.grant_number, min(ends, default=None), session.grant.scope)

    def review_access(self) -> int:
        """
        Let every session have what the access rules give it now, and end those that they give nothing.

        @return: how many have been ended.
        """
        ended = 0
        for session in list(self._sessions.values()):
            terms, former = session.terms, session.grant
            grant = self._access.grant(terms.master, terms.onsite, terms.choice.mode)
            if grant is not None:
                session.regrant(grant)
            elif session.reason is None:
                session.end(EndReason.TIME_LIMIT if self._access.left(former) == 0 else EndReason.ACCESS_REVOKED)
                ended += 1
        self._look_again()
        return ended

    def _look_again(self) -> None:
        self._access.look_again([session.grant for session in self._sessions.values() if session.reason is None])

    def close(self) -> str:
        """The server stops: end all sessions and close all connections; the reason that devices are told."""
        goodbye = stopping(self.crowd())
        for session in list(self._sessions.values()):
            session.end(EndReason.SERVER_STOPPED)
        for desk in list(self._desks):
            self._dismiss(desk, goodbye)
        return goodbye

    def _dismiss(self, desk: Desk, reason: str) -> None:
        desk.dismiss(reason)
        desk.line.disconnect(reason)


def _members(terms: Terms) -> tuple[tuple[Role, str], tuple[Role, str]]:
    return (Role.ONSITE, terms.onsite), (Role.MASTER, terms.master)
