"""
A session: one master joined to one onsite.

The machine is the table L{TRANSITIONS}: what is absent there is illegal, and
L{Session} makes no such call. C{pending} and C{building} share one time limit,
counted from the selection, so a session that is not up in time ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Attribute, Interface, implementer

from rdvtwisted.access import Grant
from rdvtwisted.carriers import Choice
from rdvtwisted.errors import RequestRefused
from rdvtwisted.interfaces import ITunnelSeat, ITunnelStream
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.values import EndReason, Lease, Role, SessionState, SessionView

#: For what a session waits whose site is asked.
CONSENT = "consent"

#: Seconds by which the end of a session must move for its devices to be told, who ask for it then; how often in a row
#: they are told at once; and seconds for one time more. What moves meanwhile is told together.
LEAST_MOVE = 1.0
MOVES_IN_A_ROW = 4
MOVE_SECONDS = 5.0

#: Seconds after the loss of a tunnel in which it may turn out that it was its device that was lost.
INQUEST_SECONDS = 0.2


class IJunctionListener(Interface):
    """Who a junction tells what becomes of its two sides: a session."""

    def arrived(role: Role) -> None:
        """A device's tunnel is there. Comes at most once for each role."""

    def end(reason: EndReason) -> None:
        """The junction is of no use any more: it is to be stopped."""


class IJunction(Interface):
    """What of a session lies at the server. Stopped once, also if it has ended by itself."""

    ended = Attribute("A Deferred that fires with L{None} once it holds nothing any more, whoever ended it.")

    def begin() -> None:
        """Make what is needed; called once, first."""

    def occupy(role: Role, stream: ITunnelStream) -> None:
        """A device's stream is here; one that is not wanted is aborted."""

    def connect() -> None:
        """Both tunnels are here, and the session is up from now on."""

    def confine(scope: Scope) -> None:
        """From now on packets may go where C{scope} says only, as far as that can be seen here."""

    def traffic() -> tuple[int, int]:
        """
        @return: bytes carried so far, as a pair: towards the onsite, towards the master.
        """

    def stop() -> None:
        """End it. Idempotent."""


class ISessionWorld(Interface):
    """What a session asks of the world."""

    def junction(session: Session) -> IJunction:
        """
        @return: an L{IJunction} whose listener is the session.
        @raise RDVError: the server lacks something that it needs.
        """

    def changed(session: Session) -> None:
        """The session's state is another one now."""

    def regranted(session: Session) -> None:
        """What may be done in the session is something else now."""

    def gone(session: Session) -> None:
        """The session holds nothing any more; called once, after L{changed}."""


@frozen
class Terms:
    """What is agreed when a session is opened, and never changes."""

    id: str
    master: str
    onsite: str
    choice: Choice
    #: One block for a tunnel from end to end; else the onsite's and the master's.
    leases: tuple[Lease, ...]

    def lease(self, role: Role) -> Lease:
        """The block of one device's tunnel."""
        return self.leases[-1 if role is Role.MASTER else 0]


class Input(Enum):
    """What can happen to a session."""

    #: A device asks for the parameters of its tunnel.
    ASKED = auto()
    #: The tunnel of one device is here, the other's is not.
    FIRST_TUNNEL = auto()
    #: Both tunnels are here.
    BOTH_TUNNELS = auto()
    #: Somebody, or the time limit, ends the session.
    ENDED = auto()
    #: Nothing of the session lies at the server any more.
    PARTED = auto()


_S = SessionState
#: (state, input) to (name of the L{Session} method that acts, next state).
TRANSITIONS: dict[tuple[SessionState, Input], tuple[str, SessionState]] = {
    (_S.PENDING, Input.ASKED): ("_nothing", _S.BUILDING),
    (_S.PENDING, Input.ENDED): ("_part", _S.CLOSING),
    (_S.BUILDING, Input.ASKED): ("_nothing", _S.BUILDING),
    (_S.BUILDING, Input.FIRST_TUNNEL): ("_nothing", _S.BUILDING),
    (_S.BUILDING, Input.BOTH_TUNNELS): ("_connect", _S.UP),
    (_S.BUILDING, Input.ENDED): ("_part", _S.CLOSING),
    (_S.UP, Input.ENDED): ("_part", _S.CLOSING),
    (_S.UP, Input.PARTED): ("_release", _S.NONE),
    (_S.CLOSING, Input.ENDED): ("_nothing", _S.CLOSING),
    (_S.CLOSING, Input.PARTED): ("_release", _S.NONE),
    (_S.NONE, Input.ENDED): ("_nothing", _S.NONE),
}


@implementer(ITunnelSeat)
@define(eq=False)
class Seat:
    """The place of one device's tunnel stream in its session."""

    _session: Session
    role: Role

    @property
    def inside(self) -> bool:
        """Whether the stream stays inside the TLS of the door."""
        return self._session.terms.choice.of(self.role).inside

    def occupy(self, stream: ITunnelStream) -> None:
        """Put the stream in; when both tunnels are there the session is up."""
        self._session.occupy(self.role, stream)


@implementer(IJunctionListener)
@define(eq=False)
class Session:
    """
    One master joined to one onsite, from the selection to the last byte.

    @ivar build_seconds: how long it may take from the selection to both tunnels.
    @ivar consent_seconds: for how long the onsite's site may be asked for its consent first, on top of that; C{None}
        if it is not asked. The onsite has it when it asks for its tunnel.
    @ivar grant: what may be done in it; and a number that is another one whenever that is something else.
    @ivar junction: what of it lies at the server.
    """

    terms: Terms
    _world: ISessionWorld
    _clock: IReactorTime
    build_seconds: float
    grant: Grant = Grant(ALL)
    consent_seconds: float | None = None
    grant_number: int = field(default=1, init=False)
    state: SessionState = field(default=SessionState.PENDING, init=False)
    reason: EndReason | None = field(default=None, init=False)
    seats: dict[Role, Seat] = field(init=False)
    junction: IJunction = field(init=False)
    _here: set[Role] = field(factory=set, init=False)
    _parted: bool = field(default=False, init=False)
    _selected_at: float = field(init=False)
    _up_at: float = field(default=0.0, init=False)
    _inquest: IDelayedCall | None = field(default=None, init=False)
    _traffic: tuple[int, int] = field(default=(0, 0), init=False)
    _limit: IDelayedCall = field(init=False)
    _waiting: str = field(init=False)
    #: When it is to be over, as each device says; and what ends it then.
    _limits: dict[Role, float] = field(factory=dict, init=False)
    _end: IDelayedCall | None = field(default=None, init=False)
    #: The end that the devices were told of last, and when; how often in a row they may be yet; and what tells them.
    _told_end: float | None = field(default=None, init=False)
    _told_at: float = field(default=0.0, init=False)
    _tellings: float = field(default=MOVES_IN_A_ROW, init=False)
    _telling: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.seats = {role: Seat(self, role) for role in Role}
        self._selected_at = self._clock.seconds()
        self.junction = self._world.junction(self)
        self.junction.ended.addBoth(self._gone)
        self._waiting = "" if self.consent_seconds is None else CONSENT
        self._limit = self._clock.callLater(self.build_seconds + (self.consent_seconds or 0.0), self._too_late)

    def begin(self) -> None:
        """Everybody knows of it: what is needed at the server may be made. It may have failed when this returns."""
        self.junction.begin()

    # What happens to it

    def ask(self, role: Role) -> None:
        """
        A device is about to build its tunnel.

        @raise RequestRefused: it is too late, the session is joined or over.
        """
        if self.state not in (SessionState.PENDING, SessionState.BUILDING):
            raise RequestRefused(f"SessionIs{self.state.value.capitalize()}: it is too late to build a tunnel for it")
        if role is Role.ONSITE and self._waiting:
            self._waiting = ""
            self._limit.reset(self.build_seconds)
        self._happens(Input.ASKED)

    def limit(self, role: Role, seconds: float) -> None:
        """A device says in how many seconds from now the session is to be over."""
        if self.reason is not None:
            return
        self._limits[role] = self._clock.seconds() + seconds
        if self._end is not None:
            self._end.cancel()
        self._end = self._clock.callLater(self.left() or 0.0, self._over)
        if self._telling is None:
            self._tell_end()

    def _tell_end(self) -> None:
        """Tell the devices when it is to be over, if they do not know that; as soon as it is time to."""
        self._telling = None
        end = min(self._limits.values())
        if self._told_end is not None and abs(end - self._told_end) < LEAST_MOVE:
            return
        now = self._clock.seconds()
        tellings = min(MOVES_IN_A_ROW, self._tellings + (now - self._told_at) / MOVE_SECONDS)
        if tellings < 1:
            self._telling = self._clock.callLater((1 - tellings) * MOVE_SECONDS, self._tell_end)
            return
        self._tellings, self._told_at, self._told_end = tellings - 1, now, end
        self.grant_number += 1
        self._world.regranted(self)

    def left(self) -> float | None:
        """Seconds until the session is to be over, as its devices say; C{None} if they do not."""
        return max(0.0, min(self._limits.values()) - self._clock.seconds()) if self._limits else None

    def end(self, reason: EndReason) -> None:
        """End the session, whatever its state. The first reason counts. Idempotent."""
        if self.reason is None:
            self.reason = reason
        self._happens(Input.ENDED)
        if self._inquest is not None:
            self._conclude()

    def regrant(self, grant: Grant) -> None:
        """Something else may be done in it from now on; or the same."""
        former, self.grant = self.grant, grant
        if (former.scope, former.ends_at) == (grant.scope, grant.ends_at):
            return
        self.grant_number += 1
        if former.scope != grant.scope:
            self.junction.confine(grant.scope)
        self._world.regranted(self)

    def view(self) -> SessionView:
        """The session as it is now."""
        traffic = self._traffic if self._parted else self.junction.traffic()
        choice = self.terms.choice
        return SessionView(
            state=self.state,
            id=self.terms.id,
            master=self.terms.master,
            onsite=self.terms.onsite,
            mode=choice.mode,
            backend=choice.backend,
            join=choice.join,
            selected_at=self._selected_at,
            up_at=self._up_at,
            to_onsite=traffic[0],
            to_master=traffic[1],
            reason=self.reason,
            grant=self.grant_number,
            waiting=self._waiting if self.state in (SessionState.PENDING, SessionState.BUILDING) else "",
        )

    def occupy(self, role: Role, stream: ITunnelStream) -> None:
        """A device's stream is here; it is wanted only while the tunnels are built."""
        if self.state is SessionState.BUILDING:
            self.junction.occupy(role, stream)
        else:
            stream.abort()

    def arrived(self, role: Role) -> None:
        """A device's tunnel is there, says the junction."""
        if self.state is not SessionState.BUILDING:
            return
        self._here.add(role)
        self._happens(Input.BOTH_TUNNELS if len(self._here) == len(Role) else Input.FIRST_TUNNEL)

    def _too_late(self) -> None:
        self.end(EndReason.CONSENT_TIMEOUT if self._waiting else EndReason.BUILD_TIMEOUT)

    def _over(self) -> None:
        self._end = None
        self.end(EndReason.TIME_LIMIT)

    def _gone(self, _: object) -> None:
        if self.reason is None:
            # A device that is gone loses tunnel and connection at once, and which of the two is seen first is chance.
            self._inquest = self._clock.callLater(INQUEST_SECONDS, self._conclude)
        else:
            self._happens(Input.PARTED)

    def _conclude(self) -> None:
        """Nothing of it lies here any more, and why is known now, as far as it will be."""
        inquest, self._inquest = self._inquest, None
        if inquest is not None and inquest.active():
            inquest.cancel()
        if self.reason is None:
            self.reason = EndReason.TUNNEL_LOST
        self._happens(Input.PARTED)

    def _happens(self, what: Input) -> None:
        action, following = TRANSITIONS[self.state, what]
        before, self.state = self.state, following
        act: Callable[[], None] = getattr(self, action)
        act()
        # An action may have led further already, and told the world of it.
        if self.state is following and following is not before:
            self._world.changed(self)
            if following is SessionState.NONE:
                self._world.gone(self)

    # What it does

    def _nothing(self) -> None:
        """Some inputs only move the state."""

    def _connect(self) -> None:
        self._limit.cancel()
        self._up_at = self._clock.seconds()
        self.junction.connect()

    def _part(self) -> None:
        if self._limit.active():
            self._limit.cancel()
        self._forget_end()
        self.junction.stop()

    def _forget_end(self) -> None:
        for call in (self._end, self._telling):
            if call is not None:
                call.cancel()
        self._end = self._telling = None

    def _release(self) -> None:
        self._forget_end()
        self._traffic = self.junction.traffic()
        self._parted = True
