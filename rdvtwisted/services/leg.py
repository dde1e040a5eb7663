"""A leg: one device's half of a session, its tunnel with the network configuration that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.hooks import Hooks
from rdvtwisted.consent import Refusal, Stay
from rdvtwisted.errors import (
    AccessDenied,
    ConfigError,
    ConnectionLost,
    HookFailed,
    PartnerGone,
    PeerKeyChanged,
    RDVError,
    RequestRefused,
    TicketRefused,
    TunnelFailed,
)
from rdvtwisted.interfaces import IDeviceTunnel, INetwork, IPrograms, ITunnelSite
from rdvtwisted.plan import Plan, Site
from rdvtwisted.requests import GetSession, LimitSession, WaitForSessionChange
from rdvtwisted.services.boundary import Boundary
from rdvtwisted.services.deadline import Deadline
from rdvtwisted.services.footing import lost
from rdvtwisted.services.guard import keep
from rdvtwisted.services.link import Link
from rdvtwisted.services.pace import QUESTIONS, Turns
from rdvtwisted.services.waiting import first, following
from rdvtwisted.values import EndReason, PublicKey, Role, SessionState, SessionView, TunnelReport

#: Seconds for which a device asks at a time whether its session is still what it was. Each answer is a sign of life
#: of the server, so this and the link's patience bound how long a dead server goes unnoticed in a session.
WATCH_SECONDS = 8.0
#: States of a session that goes on.
_LIVE = (SessionState.BUILDING, SessionState.UP)
#: Seconds for which a device waits for the server's reason after its tunnel has ended.
VERDICT_SECONDS = 1.5


@implementer(ITunnelSite)
@frozen
class TunnelSite:
    """What a tunnel backend gets from the device that it runs on."""

    device: str
    role: Role
    reactor: Any
    network: INetwork
    interface: str
    identity: Any
    door: IStreamClientEndpoint
    door_address: tuple[str, int]
    authority: bytes
    programs: IPrograms
    owner: str
    link: Link

    def forward(self, port: int) -> IStreamClientEndpoint:
        """Through the device's SSH connection; see L{ITunnelSite}."""
        return self.link.forward(port)


@frozen
class Ending:
    """
    How a leg ended: the reason, and the error if it was one.

    @ivar lost: what of this device itself was lost, in a sentence; empty if it was nothing of that kind.
    @ivar left: why some of what was configured for it could not be taken away, if so.
    """

    reason: EndReason
    error: RDVError | None = None
    lost: str = ""
    left: RDVError | None = None


@define(eq=False)
class Leg:
    """
    Builds one tunnel with its network configuration, waits for its end, and takes both away again.

    @ivar session: its id.
    @ivar tunnel: not yet started.
    @ivar plan: what the tunnel's interface needs.
    @ivar link: the connection to the server, free for this leg's questions.
    @ivar extremity: says what is missing of the interface that this device gives access through, if anything is;
        C{None}: that does not matter.
    @ivar boundary: what may be done in the session, of which the plan is; C{None}: anything.
    @ivar stay: the consent of this device's site.
    @ivar proof: the key that the tunnel's other end must have proved to hold before the session counts as up;
        C{None}: none.
    @ivar glued: the server joins this tunnel to another one, of which it alone can tell whether it is there; the
        session counts as up when it says so.
    @ivar hooks: programs that are run before and after, with C{facts} in their environment.
    """

    _log = Logger()

    session: str
    tunnel: IDeviceTunnel
    network: INetwork
    plan: Plan
    link: Link
    clock: IReactorTime
    boundary: Boundary | None = None
    extremity: Callable[[Site], str | None] | None = None
    stay: Stay | None = None
    proof: PublicKey | None = None
    glued: bool = False
    hooks: Hooks | None = None
    facts: Mapping[str, str] = field(factory=dict)
    _attached: bool = field(default=False, init=False)
    _configured: bool = field(default=False, init=False)
    #: The hook C{pre-up} has let the session begin, after which the others are run.
    _begun: bool = field(default=False, init=False)
    #: Fires once the server says that both tunnels are there.
    _joined: Deferred[None] = field(factory=Deferred, init=False)
    _after: Deferred[None] | None = field(default=None, init=False)
    _over: bool = field(default=False, init=False)

    async def run(
        self,
        seconds: float | None,
        up: Callable[[TunnelReport], None],
        limited: Callable[[float], None] = lambda seconds: None,
    ) -> Ending:
        """
        Build the tunnel, call C{up} once packets can flow between the two devices, and wait until the session ends,
        at most C{seconds} from then. Cancelling this is the operator's end. L{dismantle} is to be called in any case.

        @param limited: called with the seconds after which the session will have ended, whenever they are known anew.
        """
        deadline = Deadline(self.clock, seconds, self.boundary, self.stay, limited)
        watch = Deferred.fromCoroutine(self._watch(deadline))
        carry = Deferred.fromCoroutine(self._carry(deadline, up))
        closed = following(self.tunnel.closed).addCallbacks(lambda _: Ending(EndReason.TUNNEL_LOST), _lost)
        try:
            ending = await first([carry, following(watch), closed, *self._unplugged(), *self._unwanted()])
            broken = ending.reason is EndReason.TUNNEL_LOST or isinstance(ending.error, (TicketRefused, PartnerGone))
            if broken and not watch.called and not self.link.old:
                # A tunnel ends, or is too late, for some reason that the server knows, or will know in a moment.
                ending = await self._verdict(watch, ending)
        except CancelledError:
            return Ending(EndReason.OPERATOR)
        finally:
            self._over = True
            watch.addErrback(lambda _: None)
            watch.cancel()
        return ending

    def _unwanted(self) -> list[Deferred[Ending]]:
        """What fires when the site's consent is over."""
        return [] if self.stay is None else [following(self.stay.ended).addCallback(Ending)]

    def _unplugged(self) -> list[Deferred[Ending]]:
        """What fires when the extremity is lost, if that is looked at."""
        if self.extremity is None:
            return []
        watching = Deferred.fromCoroutine(lost(self.network, self.clock, self.extremity))

        def unknown(failure: Failure) -> Deferred[Ending]:
            failure.trap(RDVError)
            self._log.warn("The extremity is not watched: {error}", error=failure.getErrorMessage())
            return Deferred()

        return [watching.addCallbacks(lambda what: Ending(EndReason.EXTREMITY_LOST, lost=what), unknown)]

    async def dismantle(self, reason: EndReason) -> None:
        """Tell the server why, and take everything away, whatever of it is there."""
        # The server is told first, so that the other device learns the reason and not just the loss.
        await self.link.end_session(reason, self.session)
        if self._after is not None:
            self._after.cancel()
        await self._notify("pre-down", reason)
        # What broke the tunnel has been told by now, and what breaks while it is closed is no news.
        self.tunnel.closed.addErrback(lambda _: None)
        try:
            await self.tunnel.close()
        finally:
            try:
                if self._attached:
                    await self.network.undo(self.plan.owner)
            finally:
                await self._notify("post-down", reason)

    async def _notify(self, hook: str, reason: EndReason) -> None:
        if self._begun and self.hooks is not None:
            await self.hooks.notify(hook, {**self.facts, "RDV_REASON": reason.value})

    async def _carry(self, deadline: Deadline, up: Callable[[TunnelReport], None]) -> Ending:
        try:
            if self.hooks is not None:
                await self.hooks.require("pre-up", self.facts)
                self._begun = True
            await self.tunnel.attach()
            self._attached = True
            self._configured = True
            # In this order, so that a device which hears from this tunnel reaches what is behind it.
            await self.network.apply(self.plan)
            report = await self.tunnel.carry()
            if self.proof is not None and report.proved != self.proof:
                raise TunnelFailed(f"the tunnel by {report.backend} has not proved the other device's key")
        except RDVError as error:
            return Ending(reason_of(error), error)
        if self.glued:
            await self._joined
        up(report)
        if self._over:  # whoever was told has ended it at once
            return Ending(EndReason.OPERATOR)
        if self.hooks is not None:
            # Packets flow already, so nobody waits for it; it is ended with the session.
            self._after = Deferred.fromCoroutine(self.hooks.notify("post-up", self.facts))
            self._after.addErrback(_not_cancelled)
        deadline.begin()
        try:
            limit = following(deadline.reached).addCallback(lambda _: Ending(EndReason.TIME_LIMIT))
            kept = Deferred.fromCoroutine(keep(self.network, self.clock, self.plan.owner))
            return await first([limit, kept.addErrback(_as_ending)])
        finally:
            deadline.stop()

    async def _watch(self, deadline: Deadline) -> Ending:
        """Ask the server until the session is over, and why. An old one has no answer but its own loss."""
        if self.link.old:
            return Ending(EndReason.TUNNEL_LOST, await self.link.gone())
        view = SessionView(state=SessionState.BUILDING)
        questions = Turns(self.clock, *QUESTIONS)
        try:
            while True:
                await questions.turn()
                number = None if self.boundary is None else self.boundary.number
                view = await self.link.ask(WaitForSessionChange(view.state, WATCH_SECONDS, number))
                if view.state not in _LIVE:
                    return Ending(view.reason or EndReason.TUNNEL_LOST)
                if self.boundary is not None and (ending := await self._keep_within(self.boundary, view)) is not None:
                    return ending
                if view.state is SessionState.UP:
                    if not self._joined.called:
                        self._joined.callback(None)
                    deadline.count()
                deadline.review()
                if view.state is SessionState.UP and (seconds := deadline.news()) is not None:
                    await self.link.ask(LimitSession(seconds, self.session))
        except RDVError as error:
            return Ending(EndReason.TUNNEL_LOST, error)

    async def _keep_within(self, boundary: Boundary, view: SessionView) -> Ending | None:
        """See to it that nothing is done but what may be now. How the session ends if that cannot be."""
        try:
            if await boundary.renew(view.grant):
                self.plan = boundary.plan
                if self._configured:
                    await self.network.amend(self.plan)
        except RequestRefused as error:
            # There is no session to ask about any more.
            view = await self.link.ask(GetSession())
            return Ending(view.reason or EndReason.TUNNEL_LOST, error if view.reason is None else None)
        except ConnectionLost:
            raise
        except RDVError as error:
            return Ending(reason_of(error), error)
        return None

    async def _verdict(self, watch: Deferred[Ending], ending: Ending) -> Ending:
        """What the server says of an end that this device has seen as the loss of its tunnel."""
        try:
            verdict = await following(watch).addTimeout(VERDICT_SECONDS, self.clock)
        except defer.TimeoutError:
            return ending
        if verdict.reason is EndReason.TUNNEL_LOST and verdict.error is None:
            return ending
        return verdict


def reason_of(error: RDVError) -> EndReason:
    """What the server is told when C{error} keeps a device from building its tunnel, or breaks it."""
    if isinstance(error, Refusal):
        return error.reason
    if isinstance(error, PeerKeyChanged):
        return EndReason.PEER_KEY_REFUSED
    if isinstance(error, (AccessDenied, ConfigError)):
        return EndReason.ACCESS_DENIED
    if isinstance(error, HookFailed):
        return EndReason.HOOK_REFUSED
    return EndReason.TUNNEL_FAILED


def _not_cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)


def _as_ending(failure: Failure) -> Ending:
    error = failure.value
    if not isinstance(error, RDVError):
        failure.raiseException()
    return Ending(reason_of(error), error)


def _lost(failure: Failure) -> Ending:
    return Ending(EndReason.TUNNEL_LOST, _as_ending(failure).error)
