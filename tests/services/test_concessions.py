"""What the doors concede to old devices."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.config import ServerSettings, SSHSettings, TLSSettings
from rdvtwisted.services.concessions import Concessions
from rdvtwisted.testing.inventory import MemoryInventory
from rdvtwisted.values import Device, Role


@define
class _Doors:
    """Both doors, and what each was told last."""

    told: dict[str, bool] = field(factory=dict)

    def accept_legacy(self, accept: bool) -> None:
        self.told["ssh"] = accept

    def accept_tls12(self, accept: bool) -> None:
        self.told["tls"] = accept


class ConcessionsTests(SynchronousTestCase):
    """A server with one onsite that may be marked legacy."""

    def setUp(self) -> None:
        self.inventory = MemoryInventory([Device("rpi1100", Role.ONSITE)])

    def told(self, settings: ServerSettings | None = None, **device: Any) -> dict[str, bool]:
        """What the doors are told when the onsite is this one."""
        self.inventory.replace(Device("rpi1100", Role.ONSITE, **device))
        doors: Any = _Doors()
        Concessions(self.inventory, doors, doors, settings or ServerSettings()).review()
        told: dict[str, bool] = doors.told
        return told

    def test_nobody(self) -> None:
        """Without old devices nothing old is offered."""
        self.assertEqual(self.told(), {"ssh": False, "tls": False})

    def test_old_device(self) -> None:
        """One device that is marked is enough; one that is disabled does not count."""
        self.assertEqual(self.told(legacy=True), {"ssh": True, "tls": True})
        self.assertEqual(self.told(legacy=True, enabled=False), {"ssh": False, "tls": False})

    def test_settings(self) -> None:
        """The settings may grant each to everybody."""
        ssh, tls = (
            ServerSettings(ssh=SSHSettings(legacy_algorithms=True)),
            ServerSettings(tls=TLSSettings(minimum_version="1.2")),
        )
        self.assertEqual(self.told(ssh), {"ssh": True, "tls": False})
        self.assertEqual(self.told(tls), {"ssh": False, "tls": True})

    def test_in_turn(self) -> None:
        """They come and go with the device's mark."""
        doors: Any = _Doors()
        concessions = Concessions(self.inventory, doors, doors, ServerSettings())
        seen = []
        for legacy in (False, True, False):
            self.inventory.replace(Device("rpi1100", Role.ONSITE, legacy=legacy))
            concessions.review()
            seen.append(doors.told["tls"])
        self.assertEqual(seen, [False, True, False])
