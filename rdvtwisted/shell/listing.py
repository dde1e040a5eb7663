"""The table of onsite devices that a master can choose from: one line a device, fields separated by tabs."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Interface

from attrs import frozen

from rdvtwisted.errors import InvalidValue, ProtocolError
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.quoting import HOSTNAME_BYTES
from rdvtwisted.values import Presence, device_id

_IDLE = "idle"
_BUSY = "busy"


@frozen
class OnsiteEntry:
    """What a master is told of an onsite before it chooses; what is unknown is empty or C{None}."""

    id: str
    hostname: str = ""
    lan: IPv4Interface | None = None
    uplink: str = ""
    busy: bool = False
    #: Address from which it reached the server.
    address: str = ""


def render_ids(onsites: Iterable[Presence]) -> str:
    """One id a line."""
    return "".join(f"{printable(onsite.id)}\n" for onsite in onsites)


def parse_ids(text: str) -> tuple[str, ...]:
    """
    The ids of L{render_ids}.

    @raise ProtocolError: a line is no device id.
    """
    try:
        return tuple(device_id(line.strip()) for line in text.split("\n") if line)
    except InvalidValue as error:
        raise ProtocolError(f"the server's answer cannot be used: {error}") from error


def render_table(onsites: Iterable[Presence]) -> str:
    """Id, hostname, LAN address, uplink, C{idle} or C{busy}, and address."""
    return "".join("\t".join(map(printable, _fields(onsite))) + "\n" for onsite in onsites)


def _fields(onsite: Presence) -> tuple[str, ...]:
    profile = onsite.profile
    return (
        onsite.id,
        profile.hostname or "",
        "" if profile.lan is None else str(profile.lan),
        profile.uplink or "",
        _BUSY if onsite.session else _IDLE,
        onsite.address,
    )


def parse_table(text: str) -> tuple[OnsiteEntry, ...]:
    """
    The entries of L{render_table}; fields that follow the known ones are skipped.

    @raise ProtocolError: a line is not of that form.
    """
    return tuple(map(_entry, text.split("\n"))) if text else ()


def _entry(line: str) -> OnsiteEntry:
    fields = line.split("\t")
    if len(fields) < 6 or fields[4] not in (_IDLE, _BUSY):
        raise ProtocolError(f"not a line of the table of onsites: {printable(line[:80])!r}")
    id, hostname, lan, uplink, state, address = (printable(field)[:HOSTNAME_BYTES] for field in fields[:6])
    try:
        interface = IPv4Interface(lan) if lan else None
        return OnsiteEntry(device_id(id), hostname, interface, uplink, state == _BUSY, address)
    except (ValueError, InvalidValue) as error:
        raise ProtocolError(f"the table of onsites cannot be used: {error}") from error
