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
from zope.interface import Interface, implementer

from rdvtwisted.errors import RequestRefused
from rdvtwisted.interfaces import IJoin, ITunnelSeat, ITunnelStream
from rdvtwisted.values import EndReason, Lease, Mode, Role, SessionState, SessionView


class ISessionWorld(Interface):
    """What a session asks of the world."""

    def join(onsite: ITunnelStream, master: ITunnelStream) -> IJoin:
        """
        Join two L{ITunnelStream}s.

        @return: an L{IJoin}.
        """

    def changed(session: Session) -> None:
        """The session's state is another one now."""

    def gone(session: Session) -> None:
        """The session holds nothing any more; called once, after L{changed}."""


@frozen
class Terms:
    """What is agreed when a session is opened, and never changes."""

    id: str
    master: str
    onsite: str
    mode: Mode
    backend: str
    join: str
    mtu: int
    lease: Lease


class Input(Enum):
    """What can happen to a session."""

    #: A device asks for the parameters of its tunnel.
    ASKED = auto()
    #: The tunnel stream of one device is here, the other's is not.
    FIRST_STREAM = auto()
    #: Both tunnel streams are here.
    BOTH_STREAMS = auto()
    #: Somebody, or the time limit, ends the session.
    ENDED = auto()
    #: The two streams are joined no more.
    PARTED = auto()


_S = SessionState
#: (state, input) to (name of the L{Session} method that acts, next state).
TRANSITIONS: dict[tuple[SessionState, Input], tuple[str, SessionState]] = {
    (_S.PENDING, Input.ASKED): ("_nothing", _S.BUILDING),
    (_S.PENDING, Input.ENDED): ("_release", _S.NONE),
    (_S.BUILDING, Input.ASKED): ("_nothing", _S.BUILDING),
    (_S.BUILDING, Input.FIRST_STREAM): ("_nothing", _S.BUILDING),
    (_S.BUILDING, Input.BOTH_STREAMS): ("_connect", _S.UP),
    (_S.BUILDING, Input.ENDED): ("_release", _S.NONE),
    (_S.UP, Input.ENDED): ("_part", _S.CLOSING),
    (_S.UP, Input.PARTED): ("_release", _S.NONE),
    (_S.CLOSING, Input.ENDED): ("_nothing", _S.CLOSING),
    (_S.CLOSING, Input.PARTED): ("_release", _S.NONE),
    (_S.NONE, Input.ENDED): ("_nothing", _S.NONE),
    (_S.NONE, Input.PARTED): ("_nothing", _S.NONE),
}


@implementer(ITunnelSeat)
@define(eq=False)
class Seat:
    """The place of one device's tunnel stream in its session."""

    _session: Session
    role: Role

    def occupy(self, stream: ITunnelStream) -> None:
        """Put the stream in; when both seats are taken the session is joined."""
        self._session._arrived(self.role, stream)


@define(eq=False)
class Session:
    """
    One master joined to one onsite, from the selection to the last byte.

    @ivar build_seconds: how long it may take from the selection to both streams.
    """

    terms: Terms
    _world: ISessionWorld
    _clock: IReactorTime
    build_seconds: float
    state: SessionState = field(default=SessionState.PENDING, init=False)
    reason: EndReason | None = field(default=None, init=False)
    seats: dict[Role, Seat] = field(init=False)
    _streams: dict[Role, ITunnelStream] = field(factory=dict, init=False)
    _join: IJoin | None = field(default=None, init=False)
    _selected_at: float = field(init=False)
    _up_at: float = field(default=0.0, init=False)
    _traffic: tuple[int, int] = field(default=(0, 0), init=False)
    _limit: IDelayedCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.seats = {role: Seat(self, role) for role in Role}
        self._selected_at = self._clock.seconds()
        self._limit = self._clock.callLater(self.build_seconds, self.end, EndReason.BUILD_TIMEOUT)

    # What happens to it

    def ask(self) -> None:
        """
        A device is about to build its tunnel.

        @raise RequestRefused: it is too late, the session is joined or over.
        """
        if self.state not in (SessionState.PENDING, SessionState.BUILDING):
            raise RequestRefused(f"SessionIs{self.state.value.capitalize()}: it is too late to build a tunnel for it")
        self._happens(Input.ASKED)

    def end(self, reason: EndReason) -> None:
        """End the session, whatever its state. The first reason counts. Idempotent."""
        if self.reason is None:
            self.reason = reason
        self._happens(Input.ENDED)

    def view(self) -> SessionView:
        """The session as it is now."""
        traffic = self._traffic if self._join is None else self._join.traffic()
        return SessionView(
            state=self.state,
            id=self.terms.id,
            master=self.terms.master,
            onsite=self.terms.onsite,
            mode=self.terms.mode,
            backend=self.terms.backend,
            join=self.terms.join,
            selected_at=self._selected_at,
            up_at=self._up_at,
            to_onsite=traffic[0],
            to_master=traffic[1],
            reason=self.reason,
        )

    def _arrived(self, role: Role, stream: ITunnelStream) -> None:
        if self.state is not SessionState.BUILDING or role in self._streams:
            stream.abort()
            return
        self._streams[role] = stream
        self._happens(Input.FIRST_STREAM if len(self._streams) == 1 else Input.BOTH_STREAMS)

    def _parted(self, _: object) -> None:
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
        self._join = self._world.join(self._streams[Role.ONSITE], self._streams[Role.MASTER])
        self._join.ended.addBoth(self._parted)

    def _part(self) -> None:
        assert self._join is not None
        self._join.stop()

    def _release(self) -> None:
        if self._limit.active():
            self._limit.cancel()
        if self._join is not None:
            self._traffic = self._join.traffic()
            self._join = None
        for stream in self._streams.values():
            stream.abort()
        self._streams.clear()
