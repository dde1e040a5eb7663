"""
What happened on the server, for the log, the audit trail and statistics.

Events are values; what a peer said in them is data. None holds a secret.
"""

from __future__ import annotations

from typing import Union

from attrs import frozen

from rdvtwisted.values import EndReason, Presence, Role, SessionView


@frozen
class DeviceArrived:
    """A device registered, or registered anew."""

    device: str
    role: Role
    address: str
    door: str
    fingerprint: str


@frozen
class DeviceLeft:
    """
    A registration ended.

    @ivar presence: as it was then.
    """

    device: str
    role: Role
    reason: str
    presence: Presence | None = None


@frozen
class SessionOpened:
    """A master selected an onsite."""

    session: SessionView


@frozen
class SessionRefused:
    """A master was refused a session: the onsite is not for it, not here or busy, or cannot be joined with it."""

    master: str
    onsite: str
    address: str
    reason: str


@frozen
class SessionUp:
    """Both tunnels of a session are joined."""

    session: SessionView


@frozen
class SessionEnded:
    """A session is over and everything that it held is given back."""

    session: SessionView
    reason: EndReason


@frozen
class EntryRefused:
    """Somebody was refused at a door."""

    door: str
    address: str
    account: str
    reason: str


Event = Union[DeviceArrived, DeviceLeft, SessionOpened, SessionRefused, SessionUp, SessionEnded, EntryRefused]
