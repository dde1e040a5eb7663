"""
What happens on the server, as deeds for the audit trail: who, from where, how long, how much.

Whoever does the same again and again fills no disk with it: from some number on in a minute only the count is kept.
Sessions are not hidden so: an entry that counts says between whom, how many and how many bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from rdvtwisted.audit import Deed
from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    Event,
    SessionEnded,
    SessionOpened,
    SessionRefused,
    SessionUp,
)
from rdvtwisted.interfaces import IAuditTrail, IEventSink
from rdvtwisted.openings import Opening
from rdvtwisted.origin import origin
from rdvtwisted.values import SessionView

#: Seconds that count as one interval.
INTERVAL_SECONDS = 60.0
#: Entries in an interval: on strangers at one door in all, and on those from one address.
STRANGERS = 30
STRANGERS_PER_ADDRESS = 3
#: Entries in an interval on one device that comes, or goes, at one address; on sessions of one master with one onsite.
MOVES = 20
SESSIONS = 20
#: Things that are counted at one time: bounds the memory, whoever comes from wherever.
MAX_COUNTED = 10_000


@frozen
class _Whence:
    """Where a device is, as it said when it arrived."""

    address: str
    door: str
    fingerprint: str


@define
class _More:
    """What was counted only."""

    deed: Deed
    #: By the clock that nobody sets.
    since: float
    count: int = 0
    to_onsite: int = 0
    to_master: int = 0


@implementer(IEventSink)
@define(eq=False)
class Chronicle:
    """
    Records events in a trail.

    @ivar clock: goes on whatever becomes of the wall clock; what lasts is measured by it.
    @ivar wall: the wall clock, in seconds since the epoch, for the times of entries.
    """

    _trail: IAuditTrail
    _clock: IReactorTime
    _wall: Callable[[], float]
    #: Where the devices are that are here: their number bounds it.
    _whence: dict[str, _Whence] = field(factory=dict, init=False)
    #: The sessions whose beginning was recorded, so that their ends will be.
    _open: dict[str, Opening] = field(factory=dict, init=False)
    _begun: float = field(default=0.0, init=False)
    _counts: dict[Hashable, int] = field(factory=dict, init=False)
    _more: dict[tuple[str, str, str], _More] = field(factory=dict, init=False)
    _summing: IDelayedCall | None = field(default=None, init=False)

    def emit(self, event: Event) -> None:
        """Take note of C{event}; see L{IEventSink}."""
        _RECORDED[type(event)](self, event)

    def open(self) -> list[Opening]:
        """The sessions whose opening is recorded, and whose end is not yet."""
        return list(self._open.values())

    def stop(self) -> None:
        """Record what was counted so far. Idempotent."""
        if self._summing is not None and self._summing.active():
            self._summing.cancel()
        self._sum_up()

    # One method for each kind of event

    def _arrived(self, event: DeviceArrived) -> None:
        whence = self._whence[event.device] = _Whence(event.address, event.door, event.fingerprint)
        self._move(self._deed("device-arrived", f"device:{event.device}", event.device, whence), event.address)

    def _left(self, event: DeviceLeft) -> None:
        whence = self._whence.pop(event.device, None)
        deed = self._deed("device-left", f"device:{event.device}", event.device, whence, reason=event.reason)
        self._move(deed, "" if whence is None else whence.address)

    def _refused(self, event: EntryRefused) -> None:
        deed = self._deed(
            "refused", f"stranger:{event.account}", "", _Whence(event.address, event.door, ""), reason=event.reason
        )
        door, near = ("refused", event.door), ("refused", event.door, origin(_host(event.address)))
        # In this order one address cannot use up the entries for all, nor all addresses the memory.
        if self._left_of(door, STRANGERS) and self._allowed(near, STRANGERS_PER_ADDRESS):
            self._allowed(door, STRANGERS)
            self._trail.record(deed)
        else:
            self._count("refused", event.door, "", self._deed("more", "server", "", None, door=event.door))

    def _opened(self, event: SessionOpened) -> None:
        view = event.session
        if not self._allowed(("session", view.master, view.onsite), SESSIONS):
            self._count("session-opened", view.master, view.onsite, self._more_sessions(view))
            return
        self._open[view.id] = Opening.of(view, self._wall())
        self._trail.record(
            self._session("session-opened", view, f"device:{view.master}", self._whence.get(view.master))
        )

    def _denied(self, event: SessionRefused) -> None:
        whence = self._whence.get(event.master) or _Whence(event.address, "", "")
        deed = self._deed(
            "session-refused",
            f"device:{event.master}",
            event.onsite,
            evolve(whence, address=event.address),
            master=event.master,
            reason=event.reason,
        )
        if self._allowed(("session-refused", event.master), SESSIONS):
            self._trail.record(deed)
        else:
            self._count(
                "session-refused", event.master, "", self._deed("more", "server", "", None, master=event.master)
            )

    def _up(self, event: SessionUp) -> None:
        opening = self._open.get(event.session.id)
        if opening is not None:
            self._open[event.session.id] = evolve(opening, up=self._wall())
            waited = self._clock.seconds() - event.session.selected_at
            self._trail.record(self._session("session-up", event.session, "server", None, duration=max(0.0, waited)))

    def _ended(self, event: SessionEnded) -> None:
        view, reason = event.session, event.reason.value
        traffic = {"bytes_to_onsite": view.to_onsite, "bytes_to_master": view.to_master}
        if view.id in self._open:
            del self._open[view.id]
            lasted = max(0.0, self._clock.seconds() - view.up_at) if view.up_at else 0.0
            self._trail.record(
                self._session("session-ended", view, "server", None, duration=lasted, reason=reason, **traffic)
            )
        else:
            more = self._count("session-ended", view.master, view.onsite, self._more_sessions(view))
            more.to_onsite += view.to_onsite
            more.to_master += view.to_master

    # Inside

    def _deed(self, action: str, actor: str, device: str, whence: _Whence | None, **facts: Any) -> Deed:
        if whence is not None:
            facts.update(address=whence.address, door=whence.door, fingerprint=whence.fingerprint)
        return Deed(action, actor, self._wall(), device=device, **facts)

    def _session(self, action: str, view: SessionView, actor: str, whence: _Whence | None, **facts: Any) -> Deed:
        place = {"session": view.id, "master": view.master, "mode": view.mode.value}
        return self._deed(action, actor, view.onsite, whence, **place, backend=view.backend, join=view.join, **facts)

    def _more_sessions(self, view: SessionView) -> Deed:
        return self._deed("more", "server", view.onsite, None, master=view.master)

    def _move(self, deed: Deed, address: str) -> None:
        if self._allowed((deed.action, deed.device, origin(_host(address))), MOVES):
            self._trail.record(deed)
        else:
            self._count(deed.action, deed.device, "", self._deed("more", "server", deed.device, None))

    def _allowed(self, what: Hashable, limit: int) -> bool:
        """Whether there is to be an entry of its own on this; counts it."""
        if not self._left_of(what, limit):
            return False
        self._counts[what] = self._counts.get(what, 0) + 1
        return True

    def _left_of(self, what: Hashable, limit: int) -> bool:
        now = self._clock.seconds()
        if not 0 <= now - self._begun < INTERVAL_SECONDS:
            self._begun = now
            self._counts.clear()
        return self._counts.get(what, 0) < limit and (what in self._counts or len(self._counts) < MAX_COUNTED)

    def _count(self, action: str, subject: str, other: str, deed: Deed) -> _More:
        """Count what gets no entry of its own."""
        more = self._more.get((action, subject, other))
        if more is None:
            if len(self._more) >= MAX_COUNTED:
                subject, other, deed = "", "", Deed("more", "server", deed.time)
            more = self._more.setdefault((action, subject, other), _More(deed, self._clock.seconds()))
        more.count += 1
        if self._summing is None:
            self._summing = self._clock.callLater(INTERVAL_SECONDS, self._sum_up)
        return more

    def _sum_up(self) -> None:
        self._summing = None
        counted, self._more = self._more, {}
        now = self._clock.seconds()
        wall = self._wall()
        for (action, _, _), more in counted.items():
            self._trail.record(
                evolve(
                    more.deed,
                    time=wall,
                    duration=max(0.0, now - more.since),
                    count=more.count,
                    reason=action,
                    bytes_to_onsite=more.to_onsite or None,
                    bytes_to_master=more.to_master or None,
                )
            )


_RECORDED: dict[type, Callable[[Chronicle, Any], None]] = {
    DeviceArrived: Chronicle._arrived,
    DeviceLeft: Chronicle._left,
    EntryRefused: Chronicle._refused,
    SessionOpened: Chronicle._opened,
    SessionRefused: Chronicle._denied,
    SessionUp: Chronicle._up,
    SessionEnded: Chronicle._ended,
}


def _host(address: str) -> str:
    """The host of an address that may have a port behind it."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
