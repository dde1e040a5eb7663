"""When and how each device was here last: what there is to say of those that are not here now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import asdict, define, evolve, field, fields, frozen
from zope.interface import implementer

from rdvtwisted.events import DeviceLeft, Event
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.values import Presence

#: What is said of a device that was here when a server ended without a word.
SERVER_ENDED = "the server has ended"
#: Characters of a reason that are kept.
LONGEST_REASON = 200


@frozen
class Sighting:
    """
    A device's latest registration. Times are seconds since the epoch.

    @ivar since: when it came.
    @ivar seen: its last sign of life.
    @ivar lost: when it had gone; C{None}: it is here.
    @ivar reason: why it had gone.
    @ivar uplink: C{lan}, C{wlan} or C{3g}, if it has told.
    @ivar round_trip: as it was measured last, seconds.
    """

    device: str
    role: str
    address: str
    door: str
    since: float
    seen: float
    uplink: str | None = None
    round_trip: float | None = None
    lost: float | None = None
    reason: str = ""

    @classmethod
    def of(cls, presence: Presence) -> Sighting:
        """That of a device that is here."""
        return cls(
            device=presence.id,
            role=presence.role.value,
            address=presence.address,
            door=presence.door,
            since=presence.since,
            seen=presence.last_heard,
            uplink=presence.profile.uplink,
            round_trip=presence.round_trip,
        )


_TYPES: Mapping[str, tuple[type, ...]] = {
    "device": (str,),
    "role": (str,),
    "address": (str,),
    "door": (str,),
    "since": (int, float),
    "seen": (int, float),
    "uplink": (str, type(None)),
    "round_trip": (int, float, type(None)),
    "lost": (int, float, type(None)),
    "reason": (str,),
}


@implementer(IEventSink)
@define(eq=False)
class Sightings:
    """
    Remembers the latest registration of each device.

    @ivar present: tells the registrations that there are now.
    @ivar wall: the wall clock.
    """

    present: Callable[[], Iterable[Presence]]
    wall: Callable[[], float]
    _gone: dict[str, Sighting] = field(factory=dict, init=False)

    def emit(self, event: Event) -> None:
        """Take note of a device that has left."""
        if isinstance(event, DeviceLeft) and event.presence is not None:
            self._gone[event.device] = evolve(
                Sighting.of(event.presence), lost=self.wall(), reason=event.reason[:LONGEST_REASON]
            )

    def all(self) -> list[Sighting]:
        """Of each device that was ever here, by id."""
        here = {presence.id: Sighting.of(presence) for presence in self.present()}
        return [sighting for _, sighting in sorted((self._gone | here).items())]

    def keep(self, devices: Iterable[str]) -> None:
        """Forget all devices but these."""
        kept = set(devices)
        self._gone = {id: sighting for id, sighting in self._gone.items() if id in kept}

    def document(self) -> list[dict[str, Any]]:
        """All of them, as JSON can hold them."""
        return [asdict(sighting) for sighting in self.all()]

    def recall(self, document: Iterable[object], saved: float) -> int:
        """
        Remember what an earlier server has left as its L{document}; what cannot be understood is left out.

        @param saved: when it did that: who was here then, was seen last by that server.
        @return: how many are left out.
        """
        left_out = 0
        for entry in document:
            sighting = _understood(entry)
            if sighting is None:
                left_out += 1
            else:
                if sighting.lost is None:
                    sighting = evolve(sighting, lost=saved, reason=SERVER_ENDED)
                self._gone[sighting.device] = sighting
        return left_out


def _understood(entry: object) -> Sighting | None:
    if not isinstance(entry, dict):
        return None
    found: dict[str, Any] = {each.name: entry.get(each.name) for each in fields(Sighting)}
    if any(isinstance(value, bool) or not isinstance(value, _TYPES[name]) for name, value in found.items()):
        return None
    return Sighting(**found)
