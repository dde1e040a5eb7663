"""What an inventory takes in: the rules that hold for a device among the others, wherever it is stored."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rdvtwisted.access import Policy
from rdvtwisted.errors import InvalidValue
from rdvtwisted.values import Device, device_id

#: Keys that one device may have: its own, its successor while keys are changed, spares.
MOST_KEYS = 16
#: Characters of a device's label.
LONGEST_LABEL = 200


def check(device: Device, others: Iterable[Device]) -> None:
    """
    Refuse C{device} unless it can stand beside C{others}.

    @raise InvalidValue: its id or label cannot be used, or a key is there twice, with itself or with another.
    """
    device_id(device.id)
    if len(device.label) > LONGEST_LABEL or not device.label.isprintable():
        raise InvalidValue("label", device.label, f"use one line of at most {LONGEST_LABEL} characters")
    if len(device.keys) > MOST_KEYS:
        raise InvalidValue("number of keys", str(len(device.keys)), f"a device has at most {MOST_KEYS}")
    keys = set(device.keys)
    if len(keys) != len(device.keys):
        raise InvalidValue("public key", _first_double(device), f"{device.id} has it already")
    for other in others:
        if other.id != device.id:
            for key in keys.intersection(other.keys):
                raise InvalidValue("public key", key.fingerprint, f"it is the key of {other.id}; make a new one")


def check_policy(policy: Policy, before: Policy, devices: Container[str]) -> Policy:
    """
    C{policy}, unless it names a device that C{before} did not, and that is not among C{devices}.

    @raise InvalidValue: it does, which may be a slip of the pen that would leave somebody in or out.
    """
    for id in sorted(policy.devices() - before.devices()):
        if id not in devices:
            raise absent(id)
    return policy


def taken(id: str) -> InvalidValue:
    """The error for a device that is there already."""
    return InvalidValue("device id", id, "there is a device of this id already")


def absent(id: str) -> InvalidValue:
    """The error for a device that is not there."""
    return InvalidValue("device id", id, "there is no such device")


def _first_double(device: Device) -> str:
    return next(key.fingerprint for place, key in enumerate(device.keys) if key in device.keys[:place])
