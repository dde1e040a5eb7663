"""The running server, as its administrator sees it through the control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from attrs import define, field
from zope.interface import implementer

import rdvtwisted
from rdvtwisted.adapters.control import IAdministration
from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.store.inventory import SqlInventory
from rdvtwisted.audit import Deed
from rdvtwisted.interfaces import IAuditTrail
from rdvtwisted.registry import Registry
from rdvtwisted.services.concessions import Concessions
from rdvtwisted.sightings import Sightings
from rdvtwisted.values import EndReason, Presence, SessionView


@implementer(IAdministration)
@define(eq=False)
class Administration:
    """What C{rdvctl} may ask of the running server."""

    _inventory: SqlInventory
    _registry: Registry
    _authority: Authority
    _door: Door
    _ports: Mapping[str, int]
    _trail: IAuditTrail
    _concessions: Concessions
    _sightings: Sightings
    _started_at: float = field(factory=time.time, init=False)

    def status(self) -> Mapping[str, object]:
        """Version, uptime, ports, counts, whether the audit trail is written and all there, and what lacks for glue."""
        return {
            "version": rdvtwisted.__version__,
            "pid": os.getpid(),
            "up_seconds": round(time.time() - self._started_at),
            **{f"{door}_port": port for door, port in self._ports.items()},
            "devices": len(self._inventory.devices()),
            "online": len(self._registry.presences()),
            "sessions": len(self._registry.views()),
            "audit": self._audit(),
            "glue": "available" if self._registry.ends.glue is not None else self._registry.ends.lacking,
            "leases": self._registry.leases.held,
            "tickets": self._registry.tickets.outstanding,
        }

    def _audit(self) -> str:
        trail = self._trail
        trail.look()
        words = f"not written: {trail.trouble}" if trail.trouble else "written"
        return f"{words}; cut off: {trail.loss}" if trail.loss else words

    def presences(self) -> Sequence[Presence]:
        """Each registered device."""
        return self._registry.presences()

    def sightings(self) -> Sequence[Mapping[str, object]]:
        """The latest registration of each device that was ever here."""
        return self._sightings.document()

    def views(self) -> Sequence[SessionView]:
        """Each session."""
        return self._registry.views()

    def end_session(self, id: str, reason: EndReason) -> bool:
        """End the session with this id, or of this device."""
        return self._registry.end_session(id, reason)

    def refresh(self) -> int:
        """Read the inventory again, drop who may not be here any more, and hold sessions to the access rules."""
        self._inventory.refresh()
        # Whoever has changed it has recorded that, which is to be missed if it is taken away.
        self._trail.look()
        self._concessions.review()
        dropped = self._registry.drop_disentitled()
        self._registry.review_access()
        return dropped

    def renew_certificate(self) -> str:
        """Issue the TLS door a new certificate, and show it from now on."""
        credentials = self._authority.renew()
        self._door.show(credentials)
        until = credentials.certificate.not_valid_after_utc
        return f"the TLS door shows a certificate that is valid until {until:%Y-%m-%d}"

    def record(self, action: str, actor: str, target: str) -> None:
        """Have the audit trail say that an administrator has done something to a session or device."""
        device, session = ("", target) if self._inventory.device(target) is None else (target, "")
        self._trail.record(Deed(action, actor, time.time(), device=device, session=session))
