"""
Access rules as a file that people read and write (TOML)::

    [groups]
    support = ["ann", "bob"]
    lyon = ["rpi1100", "rpi1102"]

    [[rule]]
    effect = "allow"
    master = "@support"
    onsite = "@lyon"
    modes = ["L3"]
    destinations = ["192.168.1.0/24:tcp/80,443"]
    until = 2030-07-01T18:00:00Z
    comment = "the press in hall 3"

C{modes}, C{destinations}, C{until} and C{comment} may be left out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rdvtwisted.access import Effect, Policy, Rule
from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import Destination
from rdvtwisted.values import Mode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Bytes of a file; a rule has some 200.
LARGEST_FILE = 1 << 24

_TITLE = """\
# Access rules of an RDV server; 'rdvctl access import FILE' puts them in place of those that it has.
# What no rule allows is denied, and a deny beats every allow, in whatever order they stand.
"""
_HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")


class RuleFileError(InvalidValue):
    """
    A file of rules cannot be used.

    @ivar line: where the trouble is, from 1; C{None} if that is not known.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        self.line = line
        where = "" if line is None else f"line {line}: "
        super().__init__("file of rules", "", f"{where}{problem}")


def moment(value: float) -> str:
    """A moment as ISO 8601 has it, in UTC, in whole seconds."""
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def dump(policy: Policy) -> str:
    """A file that L{load} makes the same rules of, numbered anew, with ends in whole seconds."""
    parts = [_TITLE]
    if policy.groups:
        lines = [f"{name} = {_list(members)}" for name, members in sorted(policy.groups.items())]
        parts.append("\n".join(["[groups]", *lines, ""]))
    for rule in policy.rules:
        lines = ["[[rule]]", f'effect = "{rule.effect}"', f'master = "{rule.master}"', f'onsite = "{rule.onsite}"']
        if rule.modes != tuple(Mode):
            lines.append(f"modes = {_list(rule.modes)}")
        if rule.destinations:
            lines.append(f"destinations = {_list(rule.destinations)}")
        if rule.until is not None:
            lines.append(f"until = {moment(rule.until)}")
        if rule.comment:
            lines.append(f"comment = {_text(rule.comment)}")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def load(text: str) -> Policy:
    """
    The rules of a file, all of them or none.

    @raise RuleFileError: something in it cannot be used; which, and on what line.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        raise RuleFileError(f"it is not TOML: {error}") from None
    except RecursionError:
        raise RuleFileError("it is nested too deeply") from None
    places = _Places(text)
    for key in tree:
        if key not in ("groups", "rule"):
            raise RuleFileError(f"there is no such thing as {key!r}: use [groups] and [[rule]]", places.of(key))
    groups = _groups(tree.get("groups", {}), places)
    records = tree.get("rule", [])
    if not isinstance(records, list):
        raise RuleFileError("write [[rule]], in two brackets, above each rule", places.of("rule"))
    rules = tuple(_rule(number, record, places) for number, record in enumerate(records, 1))
    for rule in rules:
        for named in ("master", "onsite"):
            group = getattr(rule, named)
            if group.startswith("@") and group[1:] not in groups:
                raise RuleFileError(f"there is no group {group[1:]!r}", places.of(named, rule.number))
    try:
        return Policy(rules, groups)
    except InvalidValue as error:
        raise RuleFileError(str(error)) from None


def place(text: str, name: str) -> int | None:
    """The first line on which a text names a device; for complaints about one that L{load} cannot know of."""
    wanted = re.compile(rf"""["']{re.escape(name)}["']""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if wanted.search(line)), None)


class _Places:
    """Where in a text a key stands. Good for people: a key of such form inside a text of several lines misleads it."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._headers = [number for number, line in enumerate(self._lines) if _HEADER.match(line)]

    def of(self, key: str, rule: int = 0) -> int | None:
        """The line of a key, in the rule of this number or (0) anywhere; else that of the rule."""
        first, last = 0, len(self._lines)
        if rule:
            if rule > len(self._headers):
                return None
            first = self._headers[rule - 1]
            last = self._headers[rule] if rule < len(self._headers) else last
        pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
        found = next((number for number in range(first, last) if pattern.match(self._lines[number])), None)
        if found is not None:
            return found + 1
        return first + 1 if rule else None


def _groups(value: object, places: _Places) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise RuleFileError("groups is a section: write [groups], and the groups below", places.of("groups"))
    found: dict[str, tuple[str, ...]] = {}
    for name, members in value.items():
        try:
            found.update(Policy().with_group(name, _texts(members)).groups)
        except (InvalidValue, ValueError) as error:
            problem = str(error) or f"the group {name!r} is a list of device ids in quotes"
            raise RuleFileError(problem, places.of(name)) from None
    return found


def _rule(number: int, record: object, places: _Places) -> Rule:
    if not isinstance(record, dict):
        raise RuleFileError("write [[rule]], in two brackets, above each rule", places.of("rule"))
    values: dict[str, object] = {"number": number}
    for key, value in record.items():
        if key not in _KEYS:
            raise RuleFileError(f"a rule has no {key!r}: use {', '.join(_KEYS)}", places.of(key, number))
        form, read = _KEYS[key]
        try:
            values[key] = read(value)
        except InvalidValue as error:
            raise RuleFileError(str(error), places.of(key, number)) from None
        except ValueError:
            raise RuleFileError(f"{key} is {form}", places.of(key, number)) from None
    for key in ("effect", "master", "onsite"):
        if key not in values:
            raise RuleFileError(f"the rule has no {key}", places.of(key, number))
    for key in ("master", "onsite", "modes", "destinations", "until", "comment"):
        # One by one, so that the complaint is about the right line.
        if key in values:
            try:
                Rule(**{**_PLAIN, key: values[key]})
            except InvalidValue as error:
                raise RuleFileError(str(error), places.of(key, number)) from None
    return Rule(**values)  # type: ignore[arg-type]


#: A rule that only lacks what is to be looked at.
_PLAIN: Mapping[str, Any] = {"effect": Effect.ALLOW, "master": "*", "onsite": "*"}


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _texts(value: object) -> Sequence[str]:
    if not isinstance(value, list):
        raise ValueError
    return [_string(each) for each in value]


def _modes(value: object) -> tuple[Mode, ...]:
    named = {Mode(each) for each in _texts(value)}
    return tuple(mode for mode in Mode if mode in named)


def _until(value: object) -> float:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError
    return value.timestamp()


#: How a key's value is written, and read.
_KEYS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "effect": ('"allow" or "deny"', lambda value: Effect(_string(value))),
    "master": ('a device id, "@group" or "*"', _string),
    "onsite": ('a device id, "@group" or "*"', _string),
    "modes": ('a list of "L3" and "L2"', _modes),
    "destinations": (
        'a list such as ["192.168.1.0/24:tcp/80"]',
        lambda value: tuple(map(Destination.parse, _texts(value))),
    ),
    "until": ("a date and time with its offset, such as 2030-07-01T18:00:00Z", _until),
    "comment": ("a text", _string),
}


def _list(values: Sequence[object]) -> str:
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def _text(text: str) -> str:
    # JSON's escapes are TOML's, if nothing but the necessary is escaped.
    return json.dumps(text, ensure_ascii=False)
