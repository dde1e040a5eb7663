"""The master device: one session to one onsite, for an operator who watches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from rdvtwisted import bridged
from rdvtwisted.errors import (
    AccessDenied,
    ConnectionLost,
    ConsentDenied,
    InvalidValue,
    OnsiteNotRegistered,
    RDVError,
    RoleMismatch,
    TunnelFailed,
)
from rdvtwisted.requests import Connect, GetRemoteSite, GetSession, Publish, WaitForSessionChange
from rdvtwisted.scope import ALL
from rdvtwisted.services.console import Console, carriage, carried, duration, established, flow
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.footing import rest
from rdvtwisted.services.leg import WATCH_SECONDS, Ending, Leg
from rdvtwisted.services.link import Link
from rdvtwisted.services.pace import QUESTIONS, Turns
from rdvtwisted.services.resumption import Resumption
from rdvtwisted.services.terminal import ssh_connection
from rdvtwisted.session import CONSENT
from rdvtwisted.shell.questions import GetRemoteLan, ListOnsiteIds
from rdvtwisted.values import EndReason, Mode, Profile, RemoteSite, Role, SessionView, TunnelParameters, TunnelReport

#: Seconds between two looks for an onsite that is not there yet.
POLL_SECONDS = 2.0
#: Seconds between two lines that say how much has flowed.
FLOW_SECONDS = 30.0

#: Ends of a session that are none of its failures.
_GOOD = (EndReason.OPERATOR, EndReason.TIME_LIMIT, EndReason.ADMINISTRATOR, EndReason.CONSENT_WITHDRAWN)
#: Ends for which the site has not agreed, and how the operator is told.
_DENIED = {
    EndReason.CONSENT_REFUSED: "the site has refused its consent",
    EndReason.CONSENT_TIMEOUT: "nobody at the site has agreed in time",
}
#: Ends by which the other device or the server tells that a tunnel is the cause.
_TUNNELS = (EndReason.TUNNEL_LOST, EndReason.TUNNEL_FAILED)

#: Ends by rules, in words.
_FORBIDDEN = {
    EndReason.ACCESS_REVOKED: "the server's access rules do not allow it any more",
    EndReason.ACCESS_DENIED: "the onsite's own rules forbid it",
}


@frozen
class MasterSettings:
    """
    What the operator wants.

    @ivar onsite: the onsite to open a session to; C{None} only together with C{list_onsite}.
    @ivar extremity: the interface towards the engineer's PC; C{None} finds the one with the default route.
    @ivar dhcp: in mode L2, the customer's LAN may give the PC its addresses.
    @ivar session_seconds: hard end of the session; C{None} for none.
    @ivar wait_seconds: how long to wait for an absent onsite; C{None} for ever.
    @ivar resume_seconds: for how long to seek a session again that was up and is lost; 0 for not at all.
    """

    onsite: str | None = None
    list_onsite: bool = False
    mode: Mode = Mode.L3
    extremity: str | None = None
    dhcp: bool = True
    session_seconds: float | None = None
    wait_seconds: float | None = None
    resume_seconds: float = 0.0
    backends: tuple[str, ...] | None = None
    report: Path | None = None


@define(eq=False)
class MasterService(Service):
    """
    Opens one session, keeps it until the operator, the time limit or the other
    end closes it, and cleans up.

    @ivar connect: makes the link to the server.
    @ivar terminal: how the operator's terminal comes to this machine, if by SSH.
    @ivar finished: called once when everything is over and cleaned up.
    @ivar exit_status: what the command exits with, once finished.
    """

    _log = Logger()

    equipment: Equipment
    console: Console
    settings: MasterSettings
    connect: Callable[[], Awaitable[Link]]
    finished: Callable[[], None]
    terminal: str | None = field(factory=ssh_connection, kw_only=True)
    exit_status: int = field(default=0, init=False)
    _work: Deferred[None] | None = field(default=None, init=False)
    _resumption: Resumption = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._resumption = Resumption(self.equipment.reactor, self.settings.resume_seconds)

    def startService(self) -> None:
        """Begin at once."""
        super().startService()
        self._work = Deferred.fromCoroutine(self._serve())

    def stopService(self) -> Deferred[None] | None:
        """The operator's end: close the session and clean up."""
        super().stopService()
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        return work

    async def _serve(self) -> None:
        try:
            await self._sweep()
            while (error := await self._try()) is not None:
                await self._await_next_try(error)
        except CancelledError:
            self.console.say("Stopped by the operator")
        except RDVError as error:
            self._fail(str(error), error.exit_status)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the operator gets a line and a status
            self._log.failure("Unexpected failure")
            self._fail(f"an unexpected failure, {error!r}: the log says more", 1)
        self.console.say("...done")
        self.finished()

    def _fail(self, complaint: str, exit_status: int) -> None:
        self.exit_status = exit_status
        self.console.complain(complaint)
        self.console.record("failed", error=complaint, exit_status=exit_status)

    async def _sweep(self) -> None:
        equipment = self.equipment
        if self.settings.onsite is not None:
            for line in await equipment.network.sweep(equipment.owner):
                self.console.say(f"Removed what an earlier run left behind: {line}")

    async def _try(self) -> RDVError | None:
        """Have the session until it is over; the error by which it was lost, if there is one."""
        try:
            await self._open()
        except RDVError as error:
            return error
        return None

    async def _await_next_try(self, error: RDVError) -> None:
        """Wait for a while, if a session that was lost by this error is worth another try; else raise the error."""
        news = self._resumption.loss is None
        seconds = self._resumption.wait(error)
        if seconds is None:
            raise self._resumption.verdict(error)
        if news:
            self.console.record("lost", error=str(error))
            limit = duration(self._resumption.seconds)
            self.console.say(f"{error}. Trying to have the session again, for {limit} at most; Ctrl-C gives it up")
        await rest(self.equipment.network, self.equipment.reactor, seconds)

    async def _open(self) -> None:
        settings = self.settings
        link = await self.connect()
        try:
            if await link.role() is not Role.MASTER:
                raise RoleMismatch("Tundev shell returns a role that does not match this script (master)")
            if settings.list_onsite and self._resumption.loss is None:
                await self._list(link)
            if settings.onsite is not None:
                await self._select(link, settings.onsite)
        finally:
            await link.close()

    async def _list(self, link: Link) -> None:
        ids = await link.ask(ListOnsiteIds())
        if ids:
            self.console.say("Currently available onsite devices:")
            for id in ids:
                self.console.say(id)
            self.console.say(f"Total: {len(ids)}")
        else:
            self.console.say("No onsite device currently available")
        self.console.record("list", onsite=list(ids))

    async def _select(self, link: Link, onsite: str) -> None:
        equipment, settings = self.equipment, self.settings
        reactor = equipment.reactor
        profile, extremity = await self._profile(await equipment.offered(link, settings.backends or ()))
        self.console.say(f"Connecting to onsite {onsite}")
        await self._wait_for(link, onsite)
        await link.ask(Publish(profile))
        equipment.accept(link)
        self.console.say(f"Selecting onsite dev {onsite} for this session")
        selected = reactor.seconds()
        await link.ask(Connect(onsite))
        remote = await self._remote(link, onsite)
        if remote is not None and remote.consent_seconds is not None:
            await self._wait_for_consent(link, onsite, remote.consent_seconds)
        elif link.old:
            self.console.say(
                f"This server does not tell whether the site of {onsite} must agree: until it has, nothing answers"
            )
        if link.old and settings.mode is Mode.L2:
            self.console.say(
                f"This server does not tell {onsite} that mode L2 is wanted:"
                " if the tunnel is lost at once, have the session in mode L3"
            )
        self.console.say(f"Building the tunnel; what enters by {extremity} will reach the LAN of {onsite}")
        leg: Leg | None = None
        up_at = 0.0

        def up(parameters: TunnelParameters, working: Leg, report: TunnelReport) -> None:
            nonlocal leg, up_at
            leg, up_at = working, reactor.seconds()
            self._resumption.up()
            self.console.record("up", session_s=round(up_at - selected, 3), **established(parameters, report))
            self._introduce(parameters.peer, remote, carriage(parameters, report))
            self._tell_limits(working)
            flowing.start(FLOW_SECONDS, now=False)

        def tell_flow() -> None:
            if leg is not None:
                self.console.say(flow(leg.tunnel.report()))

        flowing = LoopingCall(tell_flow)
        flowing.clock = reactor
        try:
            ending = await equipment.attend(
                link,
                extremity,
                self._resumption.left(settings.session_seconds),
                up,
                peer=onsite,
                mode=settings.mode,
                dhcp=settings.dhcp,
                limited=self.console.limited,
            )
        finally:
            if flowing.running:
                flowing.stop()
        if ending.left is not None:
            raise ending.left
        self._conclude(onsite, ending, link.error, leg, reactor.seconds() - up_at)

    async def _remote(self, link: Link, onsite: str) -> RemoteSite | None:
        """What the server knows of the onsite; an old one knows the address of its LAN only."""
        if link.old:
            return RemoteSite(onsite, await link.ask(GetRemoteLan()), (), None, None, "")
        remote: RemoteSite | None = await link.ask(GetRemoteSite())
        return remote

    async def _wait_for_consent(self, link: Link, onsite: str, seconds: float) -> None:
        """Return when the onsite begins to build its tunnel, or the session is over, whose end is told later."""
        view: SessionView = await link.ask(GetSession())
        if view.waiting != CONSENT:
            return
        self.console.say(f"Waiting for consent at the site of {onsite}, {duration(seconds)} at most")
        self.console.record("consent", onsite=onsite, seconds=seconds)
        questions = Turns(self.equipment.reactor, *QUESTIONS)
        while view.waiting == CONSENT and view.reason is None:
            await questions.turn()
            view = await link.ask(WaitForSessionChange(view.state, WATCH_SECONDS))
        if view.reason in _DENIED:
            raise ConsentDenied(f"{_DENIED[view.reason]}: {onsite}")
        if view.reason is None:
            self.console.say("The site has agreed")

    async def _profile(self, backends: tuple[str, ...]) -> tuple[Profile, str]:
        site = await self.equipment.network.site()
        name = self.settings.extremity or site.interface
        if name is None:
            raise InvalidValue("extremity", "", "there is no default route to find it by; name it with --extremity")
        attachment = site.attachment(name)
        if self.settings.mode is Mode.L2:
            bridged.apart(name, site)
            bridged.refuse_own_terminal(name, site, self.terminal)
        elif attachment is None:
            raise InvalidValue("extremity", name, "there is no such interface with an IPv4 address, the PC's gateway")
        lan = None if attachment is None else attachment.address
        return Profile(mode=self.settings.mode, lan=lan, backends=backends), name

    async def _wait_for(self, link: Link, onsite: str) -> None:
        """Return when the onsite is online and this master may use it."""
        reactor, patience = self.equipment.reactor, self.settings.wait_seconds
        if self._resumption.loss is not None:
            patience = self._resumption.patience
        began, warned = reactor.seconds(), False
        while onsite not in await link.ask(ListOnsiteIds()):
            if patience is not None and reactor.seconds() - began >= patience:
                raise OnsiteNotRegistered(onsite)
            if not warned:
                self.console.say(f"Could not connect to {onsite}. It is not connected (yet). Waiting")
                warned = True
            await deferLater(reactor, POLL_SECONDS)

    def _introduce(self, onsite: str, remote: RemoteSite | None, carriage: str) -> None:
        say = self.console.say
        say(f"Remote session to onsite {onsite} is now established")
        if remote is not None:
            if remote.lan is not None:
                say(f"Remote onsite has it LAN interface configured with IP address {remote.lan}")
            if remote.address:
                servers = " ".join(str(server) for server in remote.dns) or "none"
                hostname, uplink = remote.hostname or "unknown", remote.uplink or "-"
                say(f"Remote hostname {hostname}, DNS servers {servers}, uplink {uplink}")
        say(carriage)
        if self.settings.mode is Mode.L2:
            say("The PC is on that LAN now: let it ask there for an address anew, or give it one")
        say("Ctrl-C ends the session")

    def _tell_limits(self, leg: Leg) -> None:
        """What the server's access rules leave of the LAN, if not everything; when the session ends is told apart."""
        boundary = leg.boundary
        if boundary is not None and boundary.scope != ALL:
            self.console.say(f"The access rules let you reach: {boundary.places}")

    def _conclude(self, onsite: str, ending: Ending, lost: RDVError | None, leg: Leg | None, seconds: float) -> None:
        """Tell how it ended; an end that nobody wanted is the command's failure."""
        self._resumption.over(ending.reason)
        report = None if leg is None else leg.tunnel.report()
        self.console.record("ended", reason=ending.reason.value, **({} if report is None else carried(report)))
        if report is None and ending.reason is EndReason.OPERATOR:
            self.console.say("Stopped by the operator")
        elif report is not None:
            self.console.say(f"Session ended ({ending.reason}) after {duration(seconds)}: {flow(report)}")
        if ending.lost:
            self.console.say(f"The session is over: {ending.lost}")
        if ending.reason in _GOOD or ending.lost:
            return
        if ending.error is not None:
            raise ending.error
        if lost is not None:
            # The server has dropped us; why, it says when it closes the connection.
            raise lost
        if ending.reason in _FORBIDDEN:
            raise AccessDenied(f"the session to {onsite} was ended: {_FORBIDDEN[ending.reason]}")
        if ending.reason in _DENIED:
            raise ConsentDenied(f"{_DENIED[ending.reason]}: {onsite}")
        if leg is None:
            raise TunnelFailed(f"the session to {onsite} could not be built: {ending.reason}")
        if ending.reason in _TUNNELS:
            raise TunnelFailed(f"the tunnel to {onsite} broke: {ending.reason}")
        raise ConnectionLost(f"the session to {onsite} was lost: {ending.reason}")
