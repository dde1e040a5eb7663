"""
The audit trail: who did what, when, from where, to which device, and how it ended. Pure: lines in, lines out.

An entry is one line, a JSON object in one canonical form: keys sorted, no space, ASCII, whole numbers only. Each
names the SHA-256 hash of the one before it, and its own: the hash of the line without its C{hash} member. So nothing
can be altered, taken out, put in or moved without the chain showing where. What no chain can show by itself is that
its end was cut off, or that it was written anew from some entry on: for that, a L{Mark} is to be kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Union

from attrs import field, fields, frozen

from rdvtwisted.errors import InvalidValue

#: Characters of one text of an entry, of what an administrator has set, and bytes of a line: what a peer says must
#: not fill the disk.
LONGEST_TEXT = 256
LONGEST_DETAIL = 1024
MAX_LINE = 65_536
#: Numbers are cut to what every reader of JSON takes exactly (RFC 8259, section 6).
MAX_NUMBER = 2**53 - 1
#: The action of an entry that tells that what stood before it was cut off.
LOSS = "end-lost"
#: What the first entry names as the hash before it.
NOTHING = "0" * 64

Value = Union[str, int]

_HASH = re.compile(r"[0-9a-f]{64}")
_ACTION = re.compile(r"[a-z][a-z0-9-]{0,31}")
#: A password in a URL, and a private key as PEM has it: no text that comes here should hold one.
_SECRETS = (
    (re.compile(r"(://[^/\s:@]{0,64}:)[^@\s/]+@"), r"\1***@"),
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*", re.DOTALL), "(private key)"),
)


class InvalidEntry(ValueError):
    """A line is no entry; the text says why."""


def readable(text: str, longest: int = LONGEST_TEXT) -> str:
    """C{text} in printable characters only, of bounded length, without what can be told to be a secret."""
    text = text[: 4 * longest]
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= longest else text[: longest - 3] + "..."


def timestamp(seconds: float) -> str:
    """A time in seconds since the epoch as entries have it: C{2024-01-01T00:00:00.000Z}."""
    try:
        when = datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):
        when = datetime.fromtimestamp(0, timezone.utc)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@frozen
class Deed:
    """
    What somebody did, before it has its place in the trail; what is empty or C{None} is left out there.

    @ivar action: a word of lower-case letters, digits and dashes.
    @ivar actor: C{device:rpi1101}, C{admin:root (uid 0)}, C{stranger:} and the account that was named, or C{server}.
    @ivar time: seconds since the epoch.
    @ivar device: to whom it was done; the onsite, where there is a session.
    @ivar address: from where the actor came.
    @ivar fingerprint: of the key that the actor has proved to hold, or that was given or taken.
    @ivar duration: seconds.
    @ivar count: how many alike, where one entry stands for several.
    """

    action: str
    actor: str
    time: float
    device: str = ""
    master: str = ""
    address: str = ""
    door: str = ""
    fingerprint: str = ""
    session: str = ""
    mode: str = ""
    backend: str = ""
    join: str = ""
    duration: float | None = None
    bytes_to_onsite: int | None = None
    bytes_to_master: int | None = None
    count: int | None = None
    reason: str = ""
    detail: str = ""

    def facts(self) -> dict[str, Value]:
        """
        The members that its entry has of it; C{duration_ms} in milliseconds.

        @raise ValueError: the action is no word.
        """
        if _ACTION.fullmatch(self.action) is None:
            raise ValueError(f"{self.action!r} cannot be an action")
        found: dict[str, Value] = {"time": timestamp(self.time)}
        for each in fields(Deed):
            value = getattr(self, each.name)
            if each.name == "duration" and value is not None:
                found["duration_ms"] = _number(value * 1000)
            elif isinstance(value, str):
                if value or each.name == "actor":
                    found[each.name] = readable(value, LONGEST_DETAIL if each.name == "detail" else LONGEST_TEXT)
            elif each.name != "time" and value is not None:
                found[each.name] = _number(value)
        return found


@frozen
class Mark:
    """One entry, named so that nothing before it can be changed unnoticed: its number and its hash."""

    number: int
    hash: str

    @classmethod
    def from_text(cls, text: str) -> Mark:
        """
        The mark that reads C{17:ab12...}.

        @raise InvalidValue: it does not.
        """
        number, _, digest = text.strip().partition(":")
        if not (number.isascii() and number.isdecimal() and len(number) <= 15) or _HASH.fullmatch(digest) is None:
            raise InvalidValue("mark", text, "it should read NUMBER:HASH, as rdvctl audit head prints it")
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@frozen
class Entry:
    """
    One entry in its place.

    @ivar facts: all that it says, its place (C{entry}, C{previous}, C{hash}) included.
    @ivar line: as it is written, with the newline.
    """

    facts: Mapping[str, Value]
    line: bytes = field(repr=False)

    @property
    def mark(self) -> Mark:
        """Its number and hash."""
        return Mark(int(self.facts["entry"]), str(self.facts["hash"]))

    @property
    def previous(self) -> str:
        """The hash of the entry before it, as it claims."""
        return str(self.facts["previous"])

    @classmethod
    def after(cls, mark: Mark | None, facts: Mapping[str, Value], torn: bytes = b"") -> Entry:
        """
        The entry that follows the one that C{mark} names; C{None} if it is the first.

        @param torn: what stands between the two and is no entry, such as half a line.
        """
        number, previous = (0, NOTHING) if mark is None else (mark.number + 1, mark.hash)
        whole: dict[str, Value] = {**facts, "entry": number, "previous": previous}
        if torn:
            whole["torn_bytes"], whole["torn_sha256"] = len(_bare(torn)), _digest(_bare(torn))
        whole["hash"] = _digest(_canonical(whole))
        return cls(whole, _canonical(whole) + b"\n")

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """
        The entry that a line holds, with or without its newline.

        @raise InvalidEntry: it is none, in the one form that entries have, or its hash is not its own.
        """
        text = line[:-1] if line.endswith(b"\n") else line
        if len(text) >= MAX_LINE:
            raise InvalidEntry("it is too long")
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidEntry("it is not JSON") from None
        if not isinstance(facts, dict) or not all(type(value) in (str, int) for value in facts.values()):
            raise InvalidEntry("it is not an object of texts and whole numbers")
        if _canonical(facts) != text:
            raise InvalidEntry("it is not written as entries are")
        number, texts = facts.get("entry"), [facts.get(name) for name in ("action", "actor", "time")]
        hashes = [facts.get(name) for name in ("hash", "previous")]
        if type(number) is not int or not 0 <= number <= MAX_NUMBER or not all(isinstance(text, str) for text in texts):
            raise InvalidEntry("it lacks what every entry has")
        if not all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes):
            raise InvalidEntry("it lacks its hash, or the one of the entry before it")
        rest = {name: value for name, value in facts.items() if name != "hash"}
        if _digest(_canonical(rest)) != facts["hash"]:
            raise InvalidEntry("its hash is not that of what it says")
        return cls(facts, text + b"\n")

    def explains(self, torn: bytes | bytearray) -> bool:
        """Whether it was written in the knowledge that C{torn} stands before it."""
        told = self.facts.get("torn_bytes"), self.facts.get("torn_sha256")
        return told == ((len(_bare(torn)), _digest(_bare(torn))) if torn else (None, None))


def _number(value: float) -> int:
    return max(-MAX_NUMBER, min(MAX_NUMBER, round(value))) if abs(value) < float("inf") else 0


def _canonical(facts: Mapping[str, Value]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii")


def _digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def _bare(torn: bytes | bytearray) -> bytes | bytearray:
    """What is torn, without the newline that the next writer puts behind it."""
    return torn[:-1] if torn.endswith(b"\n") else torn
