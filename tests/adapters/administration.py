"""A server as its administrator's command sees it, with nothing behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface

from attrs import define, field
from zope.interface import implementer

from rdvtwisted.adapters.control import IAdministration
from rdvtwisted.errors import NetworkError
from rdvtwisted.values import EndReason, Mode, Presence, Profile, Role, SessionState, SessionView
from tests.adapters.store.keys import key

ONSITE = Presence(
    "rpi1100",
    Role.ONSITE,
    "192.0.2.1:4711",
    "tls",
    1000.0,
    1090.0,
    Profile(Mode.L3, IPv4Interface("10.1.2.3/24"), (IPv4Address("10.1.2.1"),), "plc\x1b[31m", "lan", ("tls", "vtun")),
    key(1),
    "s1",
    0.0125,
)
MASTER = Presence("rpi1101", Role.MASTER, "192.0.2.9:4712", "ssh", 1060.0, 1099.0, Profile(), key(2), "s1")
SESSION = SessionView(
    SessionState.UP, "s1", "rpi1101", "rpi1100", Mode.L3, "tls", "relay", 1060.0, 1062.0, 1500, 2_500_000
)
PENDING = SessionView(SessionState.PENDING, "s2", "rpi1101", "rpi1102", Mode.L2, selected_at=1099.0)


@implementer(IAdministration)
@define
class MemoryAdministration:
    """Answers with what it was given, and notes what it was asked to do."""

    online: Sequence[Presence] = ()
    sessions: Sequence[SessionView] = ()
    seen: Sequence[Mapping[str, object]] = ()
    dropped: int = 0
    certificate: str = "valid until 2036-01-01"
    done: list[tuple[object, ...]] = field(factory=list)

    def status(self) -> Mapping[str, object]:
        return {"version": "0.1.0", "online": len(self.online), "doors": {"ssh": "port 22", "tls": "port 443"}}

    def presences(self) -> Sequence[Presence]:
        return self.online

    def sightings(self) -> Sequence[Mapping[str, object]]:
        return self.seen

    def views(self) -> Sequence[SessionView]:
        return self.sessions

    def end_session(self, id: str, reason: EndReason) -> bool:
        self.done.append(("end", id, reason))
        return any(id in (view.id, view.master, view.onsite) for view in self.sessions)

    def refresh(self) -> int:
        self.done.append(("refresh",))
        return self.dropped

    def renew_certificate(self) -> str:
        self.done.append(("renew-certificate",))
        if not self.certificate:
            raise NetworkError("the disk is full")
        return self.certificate

    def record(self, action: str, actor: str, target: str) -> None:
        self.done.append((action, actor, target))
