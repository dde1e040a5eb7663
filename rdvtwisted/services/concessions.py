"""What the doors concede to old devices: algorithms that nobody else needs, as long as there are such devices."""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger

from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.ssh.server import SSHServer
from rdvtwisted.config import ServerSettings
from rdvtwisted.interfaces import IInventory


@define(eq=False)
class Concessions:
    """
    SHA-1 in SSH and TLS 1.2, which a device marked as legacy may need before it
    can say who it is; the settings may grant them to everybody for good.
    """

    _log = Logger()

    _inventory: IInventory
    _ssh: SSHServer
    _door: Door
    _settings: ServerSettings
    _made: bool = field(default=False, init=False)

    def review(self) -> None:
        """Look at the inventory, and make them or withdraw them for whoever comes from now on."""
        needed = any(device.legacy and device.enabled for device in self._inventory.devices())
        self._ssh.accept_legacy(needed or self._settings.ssh.legacy_algorithms)
        self._door.accept_tls12(needed or self._settings.tls.minimum_version == "1.2")
        if needed is not self._made:
            self._made = needed
            self._log.info(
                "TLS 1.2 and SSH's old algorithms are {what}: {why}",
                what="offered" if needed else "not offered any more",
                why="a registered device is marked legacy" if needed else "no device is marked legacy",
            )
