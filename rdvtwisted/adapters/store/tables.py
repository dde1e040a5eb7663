"""The inventory's tables, and how a device becomes rows and rows become a device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, ForeignKey, Integer, MetaData, Row, String, Table, delete, insert, select

from rdvtwisted.errors import InvalidValue
from rdvtwisted.values import Device, PublicKey, Role, device_id

#: Version of all tables; a database that says another is not touched, but for those that can be completed.
SCHEMA_VERSION = 2
#: Versions to which nothing but tables is to be added: 1 had no access rules.
COMPLETED_VERSIONS = frozenset({1})
#: Characters of what stands in a column, or of an error about it, that are shown.
LONGEST_SHOWN = 200

METADATA = MetaData()
#: One row. C{revision} counts the changes, and updating it first is what lets one writer in at a time.
SCHEMA = Table(
    "rdv_schema",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
)
DEVICES = Table(
    "devices",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("role", String(16), nullable=False),
    # 0 or 1, checked when read: a flag that is neither must not pass for one.
    Column("enabled", Integer, nullable=False),
    Column("legacy", Integer, nullable=False),
    Column("label", String(200), nullable=False),
)
#: C{line} is the key as authorized_keys has it; its uniqueness is what makes a key belong to one device.
KEYS = Table(
    "device_keys",
    METADATA,
    Column("line", String(4096), primary_key=True),
    Column("device", String(32), ForeignKey("devices.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
)


def read(connection: Connection) -> tuple[dict[str, Device], list[str]]:
    """
    All devices by id, and one line for each row that cannot be used. A device whose own row is damaged is left
    out; a damaged key costs its device just that key.
    """
    problems: list[str] = []
    lines: dict[str, list[str]] = defaultdict(list)
    for line, owner in connection.execute(select(KEYS.c.line, KEYS.c.device).order_by(KEYS.c.position)):
        lines[owner].append(line)
    devices: dict[str, Device] = {}
    for row in connection.execute(select(DEVICES)):
        keys = _keys(row.id, lines.pop(row.id, ()), problems)
        try:
            devices[row.id] = _device(row, keys)
        except (InvalidValue, ValueError, TypeError, AttributeError) as error:
            problems.append(f"device {shown(row.id)} is left out: its record is damaged: {shortened(error)}")
    problems += [f"keys of device {shown(owner)} are left out: there is no such device" for owner in lines]
    return devices, problems


def shown(value: object) -> str:
    """What stands in a column, for a line about it."""
    return shortened(repr(value))


def shortened(text: object) -> str:
    """C{text}, which may hold what stands in a column, on one line and no longer than L{LONGEST_SHOWN}."""
    return " ".join(str(text)[:LONGEST_SHOWN].split())


def write(connection: Connection, device: Device) -> None:
    """Insert the rows of C{device}."""
    connection.execute(
        insert(DEVICES).values(
            id=device.id,
            role=device.role.value,
            enabled=int(device.enabled),
            legacy=int(device.legacy),
            label=device.label,
        )
    )
    for position, key in enumerate(device.keys):
        connection.execute(insert(KEYS).values(line=key.line, device=device.id, position=position))


def erase(connection: Connection, id: str) -> int:
    """Delete the rows of a device, damaged or not. How many there were."""
    keys = connection.execute(delete(KEYS).where(KEYS.c.device == id)).rowcount
    return keys + connection.execute(delete(DEVICES).where(DEVICES.c.id == id)).rowcount


def _device(row: Row[Any], keys: tuple[PublicKey, ...]) -> Device:
    if not isinstance(row.label, str):
        raise ValueError("its label is not text")
    return Device(
        device_id(row.id), Role(row.role), keys, _flag("enabled", row.enabled), _flag("legacy", row.legacy), row.label
    )


def _flag(name: str, value: object) -> bool:
    if value not in (0, 1):
        raise InvalidValue(name, str(value), "it is 0 or 1")
    return bool(value)


def _keys(owner: str, lines: Sequence[str], problems: list[str]) -> tuple[PublicKey, ...]:
    keys = []
    for line in lines:
        try:
            keys.append(PublicKey.from_line(line))
        except (InvalidValue, ValueError, TypeError, AttributeError) as error:
            problems.append(f"a key of device {shown(owner)} is left out: {shortened(error)}")
    return tuple(keys)
