"""The tables of access rules and groups, and how a policy becomes rows and rows become a policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, Float, Integer, Row, String, Table, Text, delete, insert, select

from rdvtwisted.access import EVERYBODY, GROUP_SIGN, Effect, Policy, Rule, group_name, subject
from rdvtwisted.adapters.store.tables import METADATA, shortened, shown
from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import Destination
from rdvtwisted.values import Mode, device_id

GROUPS = Table("access_groups", METADATA, Column("name", String(32), primary_key=True))
MEMBERS = Table(
    "access_members",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("device", String(32), primary_key=True),
)
#: C{modes} and C{destinations} are words separated by blanks; no destination means all.
RULES = Table(
    "access_rules",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("effect", String(16), nullable=False),
    Column("master", String(40), nullable=False),
    Column("onsite", String(40), nullable=False),
    Column("modes", String(16), nullable=False),
    Column("destinations", Text, nullable=False),
    Column("until", Float(53)),
    Column("comment", String(200), nullable=False),
)


def read(connection: Connection) -> tuple[Policy, list[str]]:
    """
    The policy, and one line for each row that cannot be used.

    What is damaged never permits more than it did: an allow is left out, and anything else is taken for a deny of
    all that it can have meant.
    """
    problems: list[str] = []
    members: dict[str, set[str]] = defaultdict(set)
    for (name,) in connection.execute(select(GROUPS.c.name)):
        _take_in(members, name, (), problems)
    for name, device in connection.execute(select(MEMBERS.c.name, MEMBERS.c.device)):
        _take_in(members, name, (device,), problems)
    groups = {name: tuple(sorted(ids)) for name, ids in members.items()}
    rules = []
    for row in connection.execute(select(RULES).order_by(RULES.c.number)):
        try:
            rules.append(_rule(row, groups))
        except (InvalidValue, ValueError, TypeError, AttributeError) as error:
            rules += _instead(row, groups)
            problems.append(
                f"access rule {shown(row.number)} is damaged, and denies what it may have denied: {shortened(error)}"
            )
    try:
        return Policy(tuple(rules), groups), problems
    except (InvalidValue, TypeError) as error:
        return Policy(), [*problems, f"the access rules are damaged, and nobody has access: {shortened(error)}"]


def write(connection: Connection, policy: Policy) -> None:
    """Store C{policy} in place of the one that is there."""
    for table in (RULES, MEMBERS, GROUPS):
        connection.execute(delete(table))
    rows = [{"name": name, "device": each} for name, ids in policy.groups.items() for each in ids]
    for table, records in (
        (GROUPS, [{"name": name} for name in policy.groups]),
        (MEMBERS, rows),
        (RULES, [_record(rule) for rule in policy.rules]),
    ):
        if records:
            connection.execute(insert(table), records)


def _take_in(members: dict[str, set[str]], name: str, devices: tuple[str, ...], problems: list[str]) -> None:
    try:
        members[group_name(name)].update(map(device_id, devices))
    except (InvalidValue, TypeError) as error:
        problems.append(f"a row of the access groups is left out: {shortened(error)}")


def _record(rule: Rule) -> dict[str, object]:
    return {
        "number": rule.number,
        "effect": rule.effect.value,
        "master": rule.master,
        "onsite": rule.onsite,
        "modes": " ".join(mode.value for mode in rule.modes),
        "destinations": " ".join(map(str, rule.destinations)),
        "until": rule.until,
        "comment": rule.comment,
    }


def _rule(row: Row[Any], groups: Mapping[str, object]) -> Rule:
    if type(row.until) not in (float, int, type(None)):
        raise InvalidValue("end", repr(row.until), "it is a number")
    return Rule(
        effect=Effect(row.effect),
        master=_named(row.master, groups),
        onsite=_named(row.onsite, groups),
        modes=tuple(map(Mode, row.modes.split())),
        destinations=tuple(map(Destination.parse, row.destinations.split())),
        until=row.until,
        comment=row.comment,
        number=row.number,
    )


def _named(text: str, groups: Mapping[str, object]) -> str:
    name = subject(text)
    if name.startswith(GROUP_SIGN) and name[1:] not in groups:
        raise InvalidValue("group", name[1:], "there is no such group")
    return name


def _instead(row: Row[Any], groups: Mapping[str, object]) -> list[Rule]:
    """What stands for a damaged rule: nothing for an allow, else a deny of no less than it has denied."""
    if row.effect == Effect.ALLOW.value:
        return []
    master, onsite = (_named_or_all(text, groups) for text in (row.master, row.onsite))
    return [Rule(Effect.DENY, master, onsite, comment="damaged in the inventory", number=row.number)]


def _named_or_all(text: str, groups: Mapping[str, object]) -> str:
    try:
        return _named(text, groups)
    except (InvalidValue, TypeError, AttributeError):
        return EVERYBODY
