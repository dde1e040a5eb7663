"""What a device builds its sessions with: identity, known peers, tunnel backends, network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import Factory, define, evolve, field
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from rdvtwisted import bridged, oldserver, routed
from rdvtwisted.adapters.hooks import Hooks
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.segments import endpoint
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.consent import Stay, Visit
from rdvtwisted.errors import MissingProgram, RDVError, RequestRefused, ServerKeyChanged, TunnelFailed
from rdvtwisted.interfaces import INetwork, IPrograms, ITunnelBackend
from rdvtwisted.plan import Plan, Site, interface_name
from rdvtwisted.requests import (
    GetCertificateAuthority,
    GetMode,
    GetSession,
    GetTunnelParameters,
    GetVtunParameters,
)
from rdvtwisted.scope import Scope
from rdvtwisted.services.boundary import Boundary, LocalAccess
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.footing import extremity_gone
from rdvtwisted.services.leg import Ending, Leg, TunnelSite, reason_of
from rdvtwisted.services.link import Link
from rdvtwisted.services.suspicion import Suspicion
from rdvtwisted.values import EndReason, Mode, PublicKey, Role, SessionView, TunnelParameters, TunnelReport

#: How a session is joined that nobody but the two devices can read.
RELAY = "relay"
#: The one tunnel backend that an old server knows.
OLD = "vtun"


@define(eq=False)
class Equipment:
    """
    Everything that one device needs to take part in sessions.

    @ivar backends: the tunnel backends that can be used here, by name.
    @ivar access: what an onsite allows, whatever the server says.
    @ivar hooks: programs that are run before and after a session; C{None}: none.
    @ivar suspicion: is told how connections and tunnels end.
    @ivar owner: under which everything in the kernel is journalled and named.
    """

    _log = Logger()

    settings: DeviceSettings
    reactor: Any
    network: INetwork
    identity: Any
    peers: KnownPeers
    authority: Authority
    backends: Mapping[str, ITunnelBackend]
    programs: IPrograms
    access: LocalAccess = field(factory=LocalAccess)
    hooks: Hooks | None = None
    suspicion: Suspicion = field(init=False, default=Factory(lambda self: Suspicion(self.reactor), takes_self=True))

    @property
    def owner(self) -> str:
        """The name under which this device's network configuration is journalled."""
        return f"{self.settings.role}-{self.settings.account}"

    async def offered(self, link: Link, wanted: Iterable[str] = ()) -> tuple[str, ...]:
        """
        The names of the backends by which this device can have a tunnel through C{link}.

        Where the TLS that the device came by is not that of the server's own door (a stock stunnel stands in front
        of it), there is no way to that door, and only what goes through the SSH connection will do.

        @param wanted: those that the operator wants; none for all.
        @raise TunnelFailed: none of those will do.
        """
        names = tuple(wanted) or tuple(self.backends)
        authority = link.authority or self.authority
        if not (link.way or self.settings).tls or authority.der is None:
            return names
        try:
            if await link.ask(GetCertificateAuthority()) == authority.der:
                return names
        except RequestRefused:
            # An old server has no such command, as will show.
            return names
        through = tuple(name for name in names if not _by_door(self.backends[name]))
        if not through:
            raise TunnelFailed(
                "what speaks TLS in front of the server is not the server itself, so there is no way for a tunnel by"
                f" {', '.join(names)}: use vtun, for which the package vtun is needed"
            )
        self._log.info(
            "What speaks TLS in front of the server is not the server itself: tunnels go by {names}, inside SSH",
            names=", ".join(through),
        )
        return through

    def accept(self, link: Link) -> None:
        """
        Make sure that this device can, and may, take part in sessions at this server, which knows its profile.

        @raise TunnelFailed: it is an old one, which could read them.
        @raise MissingProgram: it is an old one, which knows no tunnel that could be built here.
        """
        if not link.old:
            return
        if self.settings.end_to_end:
            raise TunnelFailed("this server is an old one, which can read every session: --end-to-end refuses that")
        if OLD not in self.backends:
            raise MissingProgram(
                f"this server is an old one, which knows tunnels by {OLD} only: install the package vtun,"
                " and name it too where --backend names others"
            )

    async def attend(
        self,
        link: Link,
        extremity: str,
        seconds: float | None,
        up: Callable[[TunnelParameters, Leg, TunnelReport], None],
        *,
        peer: str = "",
        mode: Mode | None = None,
        dhcp: bool = True,
        stay: Stay | None = None,
        limited: Callable[[float], None] = lambda seconds: None,
    ) -> Ending:
        """
        Take part in the session that C{link} has been selected for, from the
        first question to the last undone route.

        @param seconds: hard end of the session, counted from when it is up.
        @param up: called when packets flow.
        @param peer: the other device that is wanted, and no other; empty on an onsite, which learns it.
        @param mode: the one that is wanted, and no other; C{None}: any.
        @param dhcp: on a master in mode L2: the LAN may give the PC its addresses.
        @param stay: the consent of this device's site, with which the session ends.
        @param limited: called with the seconds after which the session will have ended, whenever they are known anew.
        @return: how it ended; cancelling is the operator's end.
        """
        # Nothing is said of a session but by its id: the device may have been selected for another one meanwhile.
        session = "" if stay is None else stay.visit.session
        try:
            parameters = await self._parameters(link, peer)
            session = parameters.session
            self._require(parameters, peer, mode)
            if stay is not None:
                stay.require(_visit(link, parameters))
            leg = await self._leg(link, parameters, extremity, dhcp, stay)
        except RequestRefused as error:
            return await self._refused(link, error, session)
        except RDVError as error:
            await link.end_session(reason_of(error), session)
            return Ending(reason_of(error), error)
        except CancelledError:
            await link.end_session(EndReason.OPERATOR, session)
            return Ending(EndReason.OPERATOR)

        def pin_and_tell(report: TunnelReport) -> None:
            if parameters.join == RELAY and report.proved is not None:
                self._pin(parameters.peer, report.proved)
            up(parameters, leg, report)

        ending = Ending(EndReason.TUNNEL_FAILED)
        try:
            ending = await leg.run(seconds, pin_and_tell, limited)
            self.suspicion.heed_end(ending.reason)
        finally:
            try:
                await leg.dismantle(ending.reason)
            except RDVError as error:
                ending = evolve(ending, left=error)
        return ending

    def _pin(self, peer: str, proved: PublicKey) -> None:
        try:
            self.peers.pin(peer, proved)
        except RDVError as error:
            # The key has been checked: a full disk is no reason to leave somebody without a session.
            self._log.error("The key of {peer} is not pinned: {error}", peer=peer, error=str(error))

    async def _parameters(self, link: Link, peer: str) -> TunnelParameters:
        self.accept(link)
        if link.old:
            mode = await link.ask(GetMode())
            # Never asked twice of one connection: an old server does not survive that.
            pairs = await link.ask(GetVtunParameters())
            return oldserver.tunnel_parameters(
                self.settings.account, self.settings.role, peer, mode, pairs, link.server_key
            )
        parameters: TunnelParameters = await link.ask(GetTunnelParameters())
        return parameters

    def _require(self, parameters: TunnelParameters, peer: str, mode: Mode | None) -> None:
        """
        Make sure that this is what is wanted: the server decides what there is, and not what it is taken for.

        @raise TunnelFailed: it is something else.
        """
        if peer and parameters.peer != peer:
            raise TunnelFailed(f"the server has joined this device to {parameters.peer}, and not to {peer}")
        if parameters.peer_role is self.settings.role:
            raise TunnelFailed(f"the server has joined this device to one of its own role, {self.settings.role}")
        if mode is not None and parameters.mode is not mode:
            raise TunnelFailed(f"the server would have this session in mode {parameters.mode}, and not in {mode}")
        if parameters.join != RELAY and self.settings.end_to_end:
            raise TunnelFailed("the server would join this session, and could read it: --end-to-end refuses that")

    async def _refused(self, link: Link, error: RequestRefused, session: str) -> Ending:
        """End a session that the server refuses to go on with: it may be over, for the other device's reason."""
        ending = Ending(reason_of(error), error)
        if link.old:
            return ending
        try:
            view: SessionView = await link.ask(GetSession())
        except RDVError:
            view = SessionView(id=session)
        session = session or view.id
        if view.reason is not None and view.id == session:
            ending = Ending(view.reason)
        # A master has no session but the one that it has asked for.
        if session or self.settings.role is Role.MASTER:
            await link.end_session(ending.reason, session)
        return ending

    async def _leg(
        self, link: Link, parameters: TunnelParameters, extremity: str, dhcp: bool, stay: Stay | None
    ) -> Leg:
        backend = self.backends.get(parameters.backend)
        if backend is None:
            raise TunnelFailed(f"the server wants a tunnel by {parameters.backend}, which is not to be had here")
        # The server has proved who it is by the very connection on which it tells its key of a glued session.
        relayed = parameters.join == RELAY
        if relayed and not backend.relay:
            raise TunnelFailed(
                f"the server would have a tunnel by {parameters.backend} taken for one from end to end, which none is"
            )
        if relayed:
            self.peers.check(parameters.peer, parameters.peer_key)
        if not link.old:
            await self._learn_authority(link, backend)
        around = await self.network.site()
        interface = interface_name("rdv", self.owner)

        def plan(scope: Scope) -> Plan:
            return self._plan(parameters, interface, extremity, around, dhcp, scope)

        boundary = Boundary(self.access, parameters, link, self.reactor, plan)
        await boundary.learn()
        way, authority = link.way or self.settings, link.authority or self.authority
        port = way.port if way.tls else parameters.door_port
        site = TunnelSite(
            device=self.settings.account,
            role=self.settings.role,
            reactor=self.reactor,
            network=self.network,
            interface=interface,
            identity=self.identity,
            door=endpoint(self.reactor, way.host, port, small=link.small or self.suspicion.holds),
            door_address=(way.host, port),
            authority=authority.der or b"",
            programs=self.programs,
            owner=f"{self.owner}.tunnel",
            link=link,
        )
        # The plan first: if there can be none, there is no tunnel that would have to be closed.
        first_plan = boundary.plan
        tunnel = backend.device_end(parameters, site)
        tunnel.closed.addErrback(self.suspicion.heed_failure)
        return Leg(
            session=parameters.session,
            tunnel=tunnel,
            network=self.network,
            plan=first_plan,
            link=link,
            clock=self.reactor,
            boundary=boundary,
            extremity=extremity_gone(extremity, address=parameters.mode is Mode.L3),
            stay=stay,
            proof=parameters.peer_key if relayed else None,
            # An old server does not tell.
            glued=not relayed and not link.old,
            hooks=self.hooks,
            facts=self._facts(parameters, interface, extremity),
        )

    def _facts(self, parameters: TunnelParameters, interface: str, extremity: str) -> dict[str, str]:
        """What hooks are told, as their environment."""
        return {
            "RDV_DEVICE": self.settings.account,
            "RDV_ROLE": self.settings.role.value,
            "RDV_SESSION": parameters.session,
            "RDV_PEER": parameters.peer,
            "RDV_MODE": parameters.mode.value,
            "RDV_INTERFACE": interface,
            "RDV_EXTREMITY": extremity,
            "RDV_ADDRESS": str(parameters.address),
            "RDV_NETWORK": str(parameters.address.network),
            "RDV_PEER_ADDRESS": str(parameters.peer_address),
        }

    async def _learn_authority(self, link: Link, backend: ITunnelBackend) -> None:
        try:
            (link.authority or self.authority).accept(await link.ask(GetCertificateAuthority()))
        except ServerKeyChanged:
            # Through a stunnel in front of the server, its certificate is the pinned one; see L{offered}.
            if _by_door(backend):
                raise

    def _plan(
        self, parameters: TunnelParameters, tunnel: str, extremity: str, site: Site, dhcp: bool, scope: Scope
    ) -> Plan:
        onsite = self.settings.role is Role.ONSITE
        if parameters.mode is Mode.L3:
            address, mtu = parameters.address, parameters.mtu
            if onsite:
                return routed.onsite(self.owner, tunnel, extremity, address, mtu, site, scope)
            return routed.master(self.owner, tunnel, extremity, address, mtu, site)
        if onsite:
            return bridged.onsite(self.owner, tunnel, extremity, parameters.mtu, site)
        return bridged.master(self.owner, tunnel, extremity, parameters.mtu, site, dhcp=dhcp)


def _visit(link: Link, parameters: TunnelParameters) -> Visit:
    """The session, as far as its site was told; an old server has a name for neither it nor its master."""
    if link.old:
        return Visit(mode=parameters.mode)
    return Visit(parameters.session, parameters.peer, parameters.mode)


def _by_door(backend: ITunnelBackend) -> bool:
    """Whether its tunnels come in by the server's TLS door; others go through the device's SSH connection."""
    return bool(backend.relay or backend.inside)
