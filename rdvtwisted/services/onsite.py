"""The onsite device: here for ever, and in a session whenever a master wants one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from rdvtwisted.adapters.control_server import ControlService
from rdvtwisted.consent import Consent, Refusal, Stay, Visit
from rdvtwisted.errors import ConnectionLost, InvalidValue, KeyRejected, RDVError, RoleMismatch
from rdvtwisted.goodbye import bounded, spread
from rdvtwisted.requests import (
    GetMode,
    GetReturnTime,
    GetSession,
    Publish,
    Readiness,
    WaitForMaster,
    WaitForSessionChange,
)
from rdvtwisted.services.console import Console, carriage, carried, duration, established, flow
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.footing import rest
from rdvtwisted.services.ladder import ACCOUNT, CONNECTION, MACHINE, SERVICE, Ladder
from rdvtwisted.services.leg import WATCH_SECONDS, Ending, Leg
from rdvtwisted.services.link import Link
from rdvtwisted.services.pace import QUESTIONS, Pace, Turns
from rdvtwisted.services.resumption import LONGEST_SECONDS, RESUME_SECONDS
from rdvtwisted.services.rounds import Rounds
from rdvtwisted.services.waiting import first
from rdvtwisted.values import EndReason, Profile, Role, SessionState, SessionView, TunnelParameters, TunnelReport

#: Seconds for which an onsite asks at a time whether a master wants it.
WAIT_SECONDS = 60.0
#: Seconds for which an onsite stays away from an old server after a session, as old devices do.
AWAY_SECONDS = 2.0
#: Seconds between two questions over how many seconds to spread after a restart of the server: that changes slowly.
SPREAD_SECONDS = 600.0
#: Seconds between two attempts to take away what an onsite could not take away when its session ended.
UNTIDY_SECONDS = 5.0


@define(eq=False)
class OnsiteService(Service):
    """
    Connects, publishes what it is attached to, waits for a master, carries the
    session, and waits again; after any failure it connects anew, for ever.

    @ivar connect: makes a new link to the server.
    @ivar interface: the interface whose LAN is made accessible; C{None} finds the one with the default route.
    @ivar session_seconds: hard end of each session; C{None} for none.
    @ivar consent: the site's; C{None}: it is not asked, and cannot end a session.
    @ivar socket: where the site's commands are taken.
    @ivar ladder: is told what fails and what works, and knows what else to try; C{None}: nothing else.
    """

    _log = Logger()

    equipment: Equipment
    console: Console
    pace: Pace
    connect: Callable[[], Awaitable[Link]]
    interface: str | None = None
    session_seconds: float | None = None
    consent: Consent | None = None
    socket: ControlService | None = None
    ladder: Ladder | None = None
    _stay: Deferred[None] | None = field(default=None, init=False)
    _trouble: str = field(default="", init=False)
    _stage: str = field(default="", init=False)
    #: Over how many seconds the server's devices spread when they come back, and when to ask for that again.
    _spread: float = field(default=0.0, init=False)
    _ask_at: float = field(default=0.0, init=False)
    _rounds: Rounds = field(init=False)
    #: Why something of a former session or run is still there; C{None}: nothing is, empty: that is not known.
    _left: str | None = field(default="", init=False)
    #: Until when a master may be trying to have a session again that was lost with the server.
    _hurry_until: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._rounds = Rounds(self.equipment.reactor, self.console)

    def startService(self) -> None:
        """Begin. This never fails: whatever is wrong now may be right later."""
        super().startService()
        if self.socket is not None:
            try:
                self.socket.startService()
            except RDVError as error:
                # Without it nobody here can agree or end a session, which is what a device does whose site is asked.
                self._log.error("No command of this site can be taken: {error}", error=str(error))
                self.socket = None
        self._stay = Deferred.fromCoroutine(self._for_ever())

    def stopService(self) -> Deferred[None] | None:
        """End the session, leave the server, and take away what is configured."""
        super().stopService()
        stay, self._stay = self._stay, None
        if stay is not None:
            stay.addErrback(lambda failure: None if failure.check(CancelledError) else failure)
            stay.cancel()
        socket, self.socket = self.socket, None
        if socket is None:
            return stay
        closing = socket.stopService()
        return closing if stay is None else closing.addBoth(lambda _: stay)

    async def _for_ever(self) -> None:
        while True:
            away = 0.0
            self._stage = MACHINE
            try:
                away = await self._visit()
            except CancelledError:
                raise
            except RDVError as error:
                self._heed(error)
                if self._is_news(str(error)):
                    self._log.warn("{error}", error=str(error))
                    self.console.record("offline", error=str(error))
            except Exception as error:  # noqa: BLE001 - no fault of ours may strand a device that nobody can walk to
                self._left = self._left or ""
                if self._is_news(repr(error)):
                    self._log.failure("Unexpected failure; connecting anew")
            else:
                self._stage = ""
            if not self.running:
                return
            if self._stage and self.ladder is not None:
                self.ladder.failed(self._stage)
            delay = max(self._wait(), away)
            self._log.debug("Connecting anew in {delay:.1f} s", delay=delay)
            if away:
                await deferLater(self.equipment.reactor, delay)
            else:
                await rest(self.equipment.network, self.equipment.reactor, delay)

    def _heed(self, error: RDVError) -> None:
        """A connection has ended, or there is none; in its last words a server may say over how long to spread."""
        if isinstance(error, (KeyRejected, RoleMismatch)):
            self._stage = ACCOUNT
        told = spread(str(error))
        if told is not None:
            self._spread, self._ask_at = told, self.equipment.reactor.seconds() + SPREAD_SECONDS

    def _wait(self) -> float:
        """
        How long to wait before the next try. If there was a session, its master seeks it; if the fault is this
        machine's own, nobody else comes back at this moment.
        """
        if self.equipment.reactor.seconds() < self._hurry_until:
            return self.pace.next(longest=LONGEST_SECONDS)
        return self.pace.next(0.0 if self._stage == MACHINE else self._spread)

    def _is_news(self, trouble: str) -> bool:
        """Whether this is another trouble than the last time: the same one, told every few seconds, fills the disk."""
        former, self._trouble = self._trouble, trouble
        return trouble != former

    async def _sweep(self) -> None:
        """Take away what was left, if anything. What cannot be taken away now keeps no device from being here."""
        if self._left is None:
            return
        try:
            lines = await self.equipment.network.sweep(self.equipment.owner)
        except RDVError as error:
            self._untidy(error)
            return
        self._left = None
        for line in lines:
            self.console.say(f"Removed what an earlier run left behind: {line}")

    async def _master_or_not(self, link: Link) -> Readiness:
        """Wait for a master; and meanwhile, if something could not be taken away, try that again."""
        asking: Deferred[Readiness] = link.ask(WaitForMaster(WAIT_SECONDS))
        if self._left is None:
            return await asking
        sweeping = LoopingCall(lambda: Deferred.fromCoroutine(self._sweep()))
        sweeping.clock = self.equipment.reactor
        over = sweeping.start(UNTIDY_SECONDS, now=False)
        try:
            return await asking
        finally:
            if sweeping.running:
                sweeping.stop()
            await over  # a session finds nothing under way

    def _untidy(self, error: RDVError) -> None:
        former, self._left = self._left, str(error)
        if self._left != former:
            self._log.warn("{error}: this is tried again", error=str(error))

    async def _visit(self) -> float:
        """
        One connection to the server, as long as it lasts.

        @return: for how many seconds to stay away at least.
        """
        await self._sweep()
        self._stage = CONNECTION
        link = await self.connect()
        self._stage = SERVICE
        try:
            if await link.role() is not Role.ONSITE:
                raise RoleMismatch("Tundev shell returns a role that does not match this script (onsite)")
            backends = await self.equipment.offered(link)
            published: Profile | None = None
            while self.running:
                # The address may have changed since: what is published is looked at before every wait.
                self._stage = MACHINE
                await self._sweep()
                profile, interface = await self._profile(backends)
                self._stage = SERVICE
                if profile != published:
                    await link.ask(Publish(profile))
                    self.equipment.accept(link)
                    published = profile
                    self._tell_online(link, profile, interface)
                    self._hurry_until = 0.0
                answer = await self._master_or_not(link)
                self._rounds.begin()
                if not self._rounds.quiet:
                    self.pace.reset()
                if self.ladder is not None:
                    self.ladder.worked()
                if answer is Readiness.READY:
                    await self._session(link, interface)
                    if link.error is not None:
                        self._hurry_until = self.equipment.reactor.seconds() + RESUME_SECONDS
                    if link.old:
                        # It can give no second tunnel to a connection.
                        return max(AWAY_SECONDS, self._rounds.left())
                if answer is not Readiness.NOT_READY:
                    published = None
                else:
                    await self._learn_spread(link)
                if self._rounds.left() and link.error is None:
                    await deferLater(self.equipment.reactor, self._rounds.left())
            return 0.0
        finally:
            if link.given_up:
                self._stage = MACHINE
            await link.close()

    def _tell_online(self, link: Link, profile: Profile, interface: str) -> None:
        if not self._rounds.quiet:
            self._trouble = ""
        if link.old:
            self._rounds.say("This server is an old one: it joins each session itself, and can read it")
        self._rounds.say(f"Online. A master will reach {profile.lan} on {interface}. Waiting for one")
        self._rounds.record("online", interface=interface, lan=str(profile.lan))

    async def _learn_spread(self, link: Link) -> None:
        """Ask now and then over how many seconds to spread after a restart of the server; not each is announced."""
        now = self.equipment.reactor.seconds()
        if link.old or now < self._ask_at:
            return
        self._ask_at = now + SPREAD_SECONDS
        try:
            self._spread = bounded(await link.ask(GetReturnTime()))
        except ConnectionLost:
            raise
        except RDVError as error:
            # A server that does not know the question, or gives no answer to it, has served until now all the same.
            self._log.debug("Over how long to spread is not known: {error}", error=str(error))

    async def _profile(self, backends: tuple[str, ...]) -> tuple[Profile, str]:
        site = await self.equipment.network.site()
        name = self.interface or site.interface
        if name is None:
            raise InvalidValue("interface", "", "there is no default route to find it by; name it with --interface")
        attachment = site.attachment(name)
        if attachment is None:
            raise InvalidValue("interface", name, "it has no IPv4 address yet")
        profile = Profile(
            lan=attachment.address,
            dns=site.dns,
            hostname=site.hostname,
            uplink=attachment.kind,
            backends=backends,
            consent_seconds=self.consent.seconds if self.consent is not None and self.consent.required else None,
        )
        return profile, name

    async def _session(self, link: Link, interface: str) -> None:
        """Carry one session. Its failure is told, and is no failure of the link."""
        self._rounds.say("A master wants a session")
        view = await self._wanted(link)
        try:
            stay = await self._agree(link, view)
        except Refusal as refusal:
            # An old server learns it by the loss of the connection. Without an id there is no session to end.
            if view.id:
                await link.end_session(refusal.reason, view.id)
            self._conclude(Ending(refusal.reason, refusal), None)
            return
        leg: Leg | None = None

        def up(parameters: TunnelParameters, working: Leg, report: TunnelReport) -> None:
            nonlocal leg
            leg = working
            self._rounds.up()
            if stay is not None:
                stay.visit = Visit(parameters.session, parameters.peer, parameters.mode)
            self.console.say(f"Session now established with remote master {parameters.peer}".rstrip())
            self.console.say(carriage(parameters, report))
            self.console.record("up", **established(parameters, report))

        try:
            ending = await self.equipment.attend(
                link, interface, self.session_seconds, up, stay=stay, limited=self.console.limited
            )
        finally:
            if stay is not None:
                stay.close()
        if ending.left is not None:
            self._untidy(ending.left)
        self._conclude(ending, leg)

    async def _wanted(self, link: Link) -> SessionView:
        """The session that the site is asked about, if it is asked; an old server tells nothing of it but the mode."""
        if self.consent is None or not self.consent.required:
            return SessionView()
        view: SessionView = SessionView(mode=await link.ask(GetMode())) if link.old else await link.ask(GetSession())
        return view

    async def _agree(self, link: Link, view: SessionView) -> Stay | None:
        """
        Have the site's consent to a session.

        @raise Refusal: it does not agree, or the session is over before it has answered.
        """
        if self.consent is None:
            return None
        if not self.consent.required:
            return await self.consent.ask(Visit())
        if not link.old and (view.reason is not None or view.state is SessionState.NONE or not view.id):
            raise Refusal(view.reason or EndReason.MASTER_LEFT, "the session is over already")
        asking = self.consent.ask(Visit(view.id, view.master, view.mode))
        if asking.called:
            return await asking
        # Told in any case: somebody is to act on it.
        self.console.say(
            f"Waiting {duration(self.consent.seconds)} for the consent of this site to a session with"
            f" {view.master or 'a master'}: rdv-onsite grant{' ' * bool(view.id)}{view.id}, or refuse"
        )
        self.console.record("consent", session=view.id, master=view.master, seconds=self.consent.seconds)
        over = Deferred.fromCoroutine(self._session_over(link, view))
        return await first([asking, over])

    async def _session_over(self, link: Link, asked: SessionView) -> Stay:
        """Wait until there is no session any more to agree to, or not the one that the site is asked about."""
        if link.old:
            raise await link.gone()
        questions = Turns(self.equipment.reactor, *QUESTIONS)
        view = asked
        while view.reason is None and view.state is not SessionState.NONE and _same(view, asked):
            await questions.turn()
            view = await link.ask(WaitForSessionChange(view.state, WATCH_SECONDS))
        reason = view.reason if view.id == asked.id else None
        raise Refusal(reason or EndReason.MASTER_LEFT, "the session is over before this site has agreed to it")

    def _conclude(self, ending: Ending, leg: Leg | None) -> None:
        if ending.error is not None and not self._rounds.quiet:
            self._log.warn("{error}", error=str(ending.error))
        if ending.lost:
            self._rounds.say(f"The session cannot go on: {ending.lost}")
        carried_so_far = {} if leg is None else carried(leg.tunnel.report())
        self._rounds.say(f"Session over: {ending.reason}" + ("" if leg is None else f"; {flow(leg.tunnel.report())}"))
        self._rounds.record("ended", reason=ending.reason.value, **carried_so_far)
        if not self.running:
            raise CancelledError()


def _same(view: SessionView, asked: SessionView) -> bool:
    """Whether this is still what the site is asked about."""
    return (view.id, view.master, view.mode) == (asked.id, asked.master, asked.mode)
