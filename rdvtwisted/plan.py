"""
What a device changes in its network configuration for a session, as values.

A L{Plan} is a list of steps. Each step says what is to be there; what must be
remembered so that it can be taken back is found out, and journalled, before
the first step is taken (see L{rdvtwisted.adapters.network.steps}).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Any, Union, get_args

from attrs import Attribute, field, fields, frozen
from attrs.converters import optional

from rdvtwisted.errors import InvalidValue
from rdvtwisted.values import Mode

# ---------------------------------------------------------------- names

#: Longest name of a network interface, in characters (IFNAMSIZ - 1, linux/if.h).
INTERFACE_NAME_LENGTH = 15
#: Our routing tables: above the 256 that files under C{/etc/iproute2} usually name.
TABLES = range(20_000, 120_000)
#: Our rules: looked at after the table C{local}, before C{main} (32766).
PRIORITIES = range(20_000, 30_000)
#: Our packet and connection marks; the low 24 bits are the owner's.
MARKS = range(0x52000000, 0x53000000)

_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_INTERFACE = re.compile(rf"[A-Za-z0-9_.+-]{{1,{INTERFACE_NAME_LENGTH}}}")
_SYSCTL = re.compile(r"net(/[A-Za-z0-9_.+-]+)+")
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")


def owner_name(text: str) -> str:
    """
    C{text} if it can own a plan; it is also a file name.

    @raise InvalidValue: it is not 1 to 64 letters, digits, C{_ . -}, or starts with a dot or dash.
    """
    if _OWNER.fullmatch(text) is None:
        raise InvalidValue("owner", text, "use 1 to 64 letters, digits, _ . -, not starting with . or -")
    return text


def interface(text: str) -> str:
    """
    C{text} if it can be the name of a network interface in a plan.

    Narrower than the kernel's rule (any byte but slash, colon and white
    space), because the name is written into nft's language and into paths.

    @raise InvalidValue: otherwise.
    """
    if _INTERFACE.fullmatch(text) is None or text in (".", "..", "all", "default"):
        raise InvalidValue("interface", text, f"use 1 to {INTERFACE_NAME_LENGTH} letters, digits, _ . + -")
    return text


def _number(owner: str, numbers: range) -> int:
    return numbers[int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big") % len(numbers)]


def interface_name(prefix: str, owner: str) -> str:
    """
    The interface name of an owner, such as C{rdv-1a2b3c4d}: always the same,
    at most L{INTERFACE_NAME_LENGTH} characters.

    @raise InvalidValue: C{prefix} is longer than 6 characters.
    """
    return interface(f"{prefix}-{hashlib.sha256(owner.encode()).hexdigest()[:8]}")


def table_number(owner: str) -> int:
    """The routing table of an owner, in L{TABLES}: always the same."""
    return _number(owner, TABLES)


def rule_priority(owner: str) -> int:
    """The priority of an owner's routing rules, in L{PRIORITIES}: always the same."""
    return _number(owner, PRIORITIES)


def mark_number(owner: str) -> int:
    """The mark of an owner's packets and connections, in L{MARKS}: always the same."""
    return _number(owner, MARKS)


def firewall_name(owner: str) -> str:
    """The nft table of an owner: always the same."""
    return f"rdv_{hashlib.sha256(owner.encode()).hexdigest()[:8]}"


# ---------------------------------------------------------------- steps

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")


def _tuple(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(steps)


def _matches(pattern: re.Pattern[str]) -> Any:
    def check(_: Any, attribute: Attribute[str], value: str) -> None:
        if pattern.fullmatch(value) is None:
            raise InvalidValue(attribute.name, value, f"it should match {pattern.pattern}")

    return check


@frozen
class Address:
    """The interface has this address; its block is reached through it."""

    interface: str = field(converter=interface)
    address: IPv4Interface = field(converter=IPv4Interface)

    def __str__(self) -> str:
        return f"address {self.address} on {self.interface}"


@frozen
class LinkUp:
    """The interface is up, with this MTU in bytes."""

    interface: str = field(converter=interface)
    mtu: int = field(converter=int)

    def __str__(self) -> str:
        return f"interface {self.interface} up, MTU {self.mtu}"


@frozen
class Route:
    """A route of a table of our own."""

    table: int = field(converter=int)
    destination: IPv4Network = field(converter=IPv4Network)
    interface: str = field(converter=interface)

    def __str__(self) -> str:
        return f"route {self.destination} dev {self.interface} table {self.table}"


@frozen
class Rule:
    """Packets that came in by C{incoming}, or carry C{mark}, or both, look into this table."""

    priority: int = field(converter=int)
    table: int = field(converter=int)
    incoming: str | None = field(default=None, converter=optional(interface))
    mark: int | None = field(default=None, converter=optional(int))

    def __attrs_post_init__(self) -> None:
        if self.incoming is None and self.mark is None:
            raise InvalidValue("rule", str(self.priority), "it would match every packet")

    def __str__(self) -> str:
        incoming = "" if self.incoming is None else f" iif {self.incoming}"
        mark = "" if self.mark is None else f" fwmark {self.mark:#x}"
        return f"rule {self.priority}{incoming}{mark} table {self.table}"


@frozen
class Sysctl:
    """
    A file below C{/proc/sys}, named with slashes, holds this value. Where the
    kernel has no such file: an error, or nothing if C{optional}. A file that an
    earlier step brings about goes with what that step has made.
    """

    path: str = field(validator=_matches(_SYSCTL))
    value: str
    optional: bool = False

    def __attrs_post_init__(self) -> None:
        if {".", ".."} & set(self.path.split("/")):
            raise InvalidValue("path", self.path, "it must stay below net/")

    def __str__(self) -> str:
        return f"sysctl {self.path}={self.value}"


@frozen
class FirewallTable:
    """An nft table of our own, with this inside; takes the place of one of the same name."""

    family: str = field(validator=_matches(re.compile(r"inet|ip|ip6|bridge|netdev")))
    name: str = field(validator=_matches(_TABLE_NAME))
    rules: str = field(repr=False)

    def __str__(self) -> str:
        return f"firewall table {self.family} {self.name}"


@frozen
class Connections:
    """
    Nothing yet; but when it is taken back, the kernel forgets each tracked
    connection with this mark, and with it the translation of its addresses.
    """

    mark: int = field(converter=int)

    def __str__(self) -> str:
        return f"tracked connections with mark {self.mark:#x}"


@frozen
class Pair:
    """There are two Ethernet interfaces of our own: what one sends, the other receives."""

    near: str = field(converter=interface)
    far: str = field(converter=interface)

    def __str__(self) -> str:
        return f"interfaces {self.near} and {self.far}"


@frozen
class TunTap:
    """There is a TUN (L3) or TAP (L2) interface of our own, which stays when the program that opens it ends."""

    interface: str = field(converter=interface)
    mode: Mode = field(converter=Mode)

    def __str__(self) -> str:
        return f"interface {self.interface} ({'TAP' if self.mode is Mode.L2 else 'TUN'})"


@frozen
class Redirection:
    """What C{source}, an interface of our own, receives is taken as if C{target} had received it."""

    source: str = field(converter=interface)
    target: str = field(converter=interface)

    def __str__(self) -> str:
        return f"redirection of {self.source} to {self.target}"


@frozen
class Promiscuous:
    """The interface receives what is addressed to others, too."""

    interface: str = field(converter=interface)

    def __str__(self) -> str:
        return f"interface {self.interface} promiscuous"


Step = Union[Address, LinkUp, Route, Rule, Sysctl, FirewallTable, Connections, Pair, TunTap, Redirection, Promiscuous]

_KINDS: dict[str, type[Step]] = {kind.__name__: kind for kind in get_args(Step)}


def step_to_json(step: Step) -> dict[str, object]:
    """The step as JSON has it: its C{kind} and its fields."""
    record: dict[str, object] = {"kind": type(step).__name__}
    for each in fields(type(step)):
        value = getattr(step, each.name)
        record[each.name] = value if value is None or isinstance(value, (bool, int)) else str(value)
    return record


def step_from_json(record: object) -> Step:
    """
    The step that L{step_to_json} wrote.

    @raise InvalidValue: it is no such thing.
    """
    kind = _KINDS.get(str(record.get("kind"))) if isinstance(record, dict) else None
    if not isinstance(record, dict) or kind is None:
        raise InvalidValue("step", repr(record), f"its kind should be one of {', '.join(_KINDS)}")
    try:
        return kind(**{name: value for name, value in record.items() if name != "kind"})
    except (TypeError, ValueError) as problem:
        raise InvalidValue("step", repr(record), str(problem)) from None


@frozen
class Plan:
    """Steps in the order in which they are taken; taken back in reverse."""

    owner: str = field(converter=owner_name)
    steps: tuple[Step, ...] = field(converter=_tuple)


# ---------------------------------------------------------------- where we are


@frozen
class Attachment:
    """One network interface of this machine that has an IPv4 address."""

    interface: str
    address: IPv4Interface
    #: C{lan}, C{wlan} or C{3g}.
    kind: str = "lan"
    #: The machine forwards what enters here already, for others.
    forwards: bool = False


@frozen
class Port:
    """A network interface of this machine, as its cable sees it."""

    interface: str
    #: Its Ethernet address; L{None} if it is no Ethernet interface.
    hardware: str | None = None
    #: C{lan}, C{wlan} or C{3g}.
    kind: str = "lan"
    #: The bridge, bond or the like that it is a part of.
    upper: str | None = None
    #: Every address that it has.
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    #: It is up, and there is a link: a cable with something at its other end.
    carrier: bool = True


@frozen
class Site:
    """What this machine is attached to."""

    #: Interface of the default route, its address and its kind (C{lan}, C{wlan}, C{3g}).
    interface: str | None = None
    lan: IPv4Interface | None = None
    dns: tuple[IPv4Address, ...] = ()
    hostname: str | None = None
    uplink: str | None = None
    #: Every interface with an address, loopback apart.
    attachments: tuple[Attachment, ...] = ()
    #: Every interface, loopback apart.
    ports: tuple[Port, ...] = ()
    #: Where the table C{main} has a route to, the default route apart, and the interface that it leads to.
    routes: tuple[tuple[IPv4Network, str], ...] = ()

    def port(self, interface: str) -> Port | None:
        """The port of this name, if there is such an interface."""
        return next((each for each in self.ports if each.interface == interface), None)

    def attachment(self, interface: str) -> Attachment | None:
        """The attachment of this interface, if it has an address."""
        return next((each for each in self.attachments if each.interface == interface), None)
