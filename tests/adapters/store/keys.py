"""Public keys and devices for tests; each number is another key."""

from __future__ import annotations

import struct

from rdvtwisted.values import Device, PublicKey, Role


def key(number: int) -> PublicKey:
    """An ed25519 key of its form; nobody has its private half."""
    name = b"ssh-ed25519"
    return PublicKey.from_blob(struct.pack("!I", len(name)) + name + struct.pack("!I", 32) + number.to_bytes(32, "big"))


def onsite(id: str, *numbers: int) -> Device:
    """An onsite device with these keys."""
    return Device(id, Role.ONSITE, tuple(key(number) for number in numbers))
