"""The inventory's twin in memory."""

from __future__ import annotations

from collections.abc import Iterable

from zope.interface import implementer

from rdvtwisted.access import Policy
from rdvtwisted.accounts import absent, check, check_policy, taken
from rdvtwisted.interfaces import IInventory
from rdvtwisted.values import Device


@implementer(IInventory)
class MemoryInventory:
    """An L{IInventory} that refuses what the real one refuses, and forgets everything at the end."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._devices: dict[str, Device] = {}
        self._policy = Policy()
        for device in devices:
            self.add(device)

    def device(self, id: str) -> Device | None:
        """The device of this id, or C{None}."""
        return self._devices.get(id)

    def devices(self) -> list[Device]:
        """All devices, by id."""
        return [self._devices[id] for id in sorted(self._devices)]

    def add(self, device: Device) -> None:
        """Take in a new device; see L{IInventory}."""
        if device.id in self._devices:
            raise taken(device.id)
        check(device, self._devices.values())
        self._devices[device.id] = device

    def replace(self, device: Device) -> None:
        """Take C{device} in place of the one with its id; see L{IInventory}."""
        if device.id not in self._devices:
            raise absent(device.id)
        check(device, self._devices.values())
        self._devices[device.id] = device

    def remove(self, id: str) -> None:
        """Forget a device; see L{IInventory}."""
        if self._devices.pop(id, None) is None:
            raise absent(id)
        self._policy = self._policy.without_device(id)

    def policy(self) -> Policy:
        """The access rules; see L{IInventory}."""
        return self._policy

    def replace_policy(self, policy: Policy) -> None:
        """Take in access rules; see L{IInventory}."""
        self._policy = check_policy(policy, self._policy, self._devices)
