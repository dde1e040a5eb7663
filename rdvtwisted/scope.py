"""
Which packets may go where: sets of (IPv4 address, protocol, port), and their algebra.

People name a L{Destination}: addresses, and if they like a protocol and ports::

    192.168.1.0/24            every protocol and port of these addresses
    192.168.1.10:tcp/80,443   two TCP ports of one machine
    192.168.1.20-192.168.1.29:udp/5000-5999
    192.168.1.10:icmp         echo and its like
    *:tcp/22                  one port of every machine

A L{Scope} is any number of them as one set, always in the same form, so that
two which allow the same are equal. IPv4 only, as the routed mode is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from typing import TypeVar

from attrs import field, frozen

from rdvtwisted.errors import InvalidValue
from rdvtwisted.segments import Segments, overlay

#: Ports that one destination names, each range being one; and characters of its text.
MOST_PORTS = 64
LONGEST_DESTINATION = 1000
#: Characters of a scope's text, wherever one is passed on: two thousand destinations fit, more than a session needs.
LONGEST_SCOPE = 65_536

#: Ranges of ports of all ranges of addresses of a scope that somebody else has written: ten times what fits there.
MOST_INTERVALS = 200_000

#: Every address, as text.
EVERYWHERE = "*"
_FORM = "use ADDRESS, NETWORK/PREFIX, FIRST-LAST or *, then if wanted :tcp, :udp, :icmp, with ports :tcp/80,8000-8080"

PROTOCOLS = ("any", "tcp", "udp", "icmp", "other")
#: Those that have ports.
PORTED = ("tcp", "udp")
_PORTS = range(65536)
_ADDRESSES = range(2**32)
_NUMBER = re.compile(r"[0-9]{1,5}")

V = TypeVar("V")
Range = tuple[int, int]


@frozen
class Destination:
    """
    Addresses, a protocol, ports.

    @ivar protocol: one of L{PROTOCOLS}; C{other} is all but TCP, UDP and ICMP.
    @ivar ports: first and last of each range; empty for all.
    """

    first: IPv4Address
    last: IPv4Address
    protocol: str = "any"
    ports: tuple[Range, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Destination:
        """
        The destination that a text names.

        @raise InvalidValue: it names none.
        """
        where, colon, what = text.strip().partition(":")
        protocol, slash, ports = what.partition("/")
        protocol = protocol.lower() if colon else "any"
        if (
            len(text) > LONGEST_DESTINATION
            or protocol not in PROTOCOLS
            or (slash and protocol not in PORTED)
            or ports.count(",") >= MOST_PORTS
        ):
            raise InvalidValue("destination", text, _FORM)
        try:
            first, last = _addresses(where)
            return cls(first, last, protocol, tuple(map(_port, ports.split(","))) if slash else ())
        except ValueError:
            raise InvalidValue("destination", text, _FORM) from None

    @classmethod
    def typed(cls, text: str) -> Destination:
        """
        The same, as somebody has typed it: who names port 0, at which nothing listens, means something else. It is
        part of what is left when other ports are taken away, so L{parse} must know it.

        @raise InvalidValue: it names none, or that port.
        """
        found = cls.parse(text)
        if (0, 0) in found.ports:
            raise InvalidValue("destination", text, "port 0 is none")
        return found

    def __str__(self) -> str:
        what = "" if self.protocol == "any" else f":{self.protocol}"
        ports = ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self.ports)
        return _addresses_text(self.first, self.last) + what + (f"/{ports}" if ports else "")


def _addresses(text: str) -> tuple[IPv4Address, IPv4Address]:
    if text == EVERYWHERE:
        return IPv4Address(_ADDRESSES[0]), IPv4Address(_ADDRESSES[-1])
    low, dash, high = text.partition("-")
    if dash:
        first, last = IPv4Address(low), IPv4Address(high)
        if first > last:
            raise ValueError
        return first, last
    # Host bits are forgiven: 192.168.1.7/24 is how a machine knows its own network.
    network = IPv4Network(text, strict=False)
    return network[0], network[-1]


def _addresses_text(first: IPv4Address, last: IPv4Address) -> str:
    if first == last:
        return str(first)
    networks = summarize_address_range(first, last)
    network = next(networks)
    if network[-1] != last:
        return f"{first}-{last}"
    return EVERYWHERE if network.prefixlen == 0 else str(network)


def _port(text: str) -> Range:
    low, dash, high = text.partition("-")
    if _NUMBER.fullmatch(low) is None or (dash and _NUMBER.fullmatch(high) is None):
        raise ValueError
    first, last = int(low), int(high if dash else low)
    if not first <= last <= _PORTS[-1]:
        raise ValueError
    return first, last


# What an address may be used for, as numbers in a row: the TCP ports, the UDP
# ports, ICMP, everything else.
Services = Segments[bool]

_START = {"tcp": 0, "udp": len(_PORTS), "icmp": 2 * len(_PORTS), "other": 2 * len(_PORTS) + 1}
_END = {"tcp": _PORTS[-1], "udp": _START["icmp"] - 1, "icmp": _START["icmp"], "other": _START["other"]}
_ALL: Services = ((0, _END["other"], True),)


@lru_cache(4096)
def _either(one: Services, other: Services) -> Services:
    return overlay(one, other, lambda a, b: a or b, False)


@lru_cache(4096)
def _both(one: Services, other: Services) -> Services:
    return overlay(one, other, lambda a, b: a and b, False)


@lru_cache(4096)
def _but(one: Services, other: Services) -> Services:
    return overlay(one, other, lambda a, b: a and not b, False)


def _services(destination: Destination) -> Services:
    if destination.protocol == "any":
        return _ALL
    start, end = _START[destination.protocol], _END[destination.protocol]
    if not destination.ports:
        return ((start, end, True),)
    return _merged([((start + first, start + last, True),) for first, last in destination.ports], _either)


def _merged(parts: list[Segments[V]], join: Callable[[Segments[V], Segments[V]], Segments[V]]) -> Segments[V]:
    """The union of all; in halves, so that it takes little more than one look at each."""
    if len(parts) < 2:
        return parts[0] if parts else ()
    middle = len(parts) // 2
    return join(_merged(parts[:middle], join), _merged(parts[middle:], join))


def _united(one: Segments[Services], other: Segments[Services]) -> Segments[Services]:
    return overlay(one, other, _either, ())


def _united_within_reason(one: Segments[Services], other: Segments[Services]) -> Segments[Services]:
    found = _united(one, other)
    if sum(len(services) for _, _, services in found) > MOST_INTERVALS:
        raise InvalidValue("list of destinations", "", "too many of them overlap")
    return found


def _segments(destination: Destination) -> Segments[Services]:
    return ((int(destination.first), int(destination.last), _services(destination)),)


@frozen
class Scope:
    """
    A set of (address, protocol, port). Make one of destinations, and others of it by C{|}, C{&} and C{-}.

    @ivar segments: addresses as numbers, each range with what it may be used for.
    """

    segments: Segments[Services] = field(default=(), repr=False)

    @classmethod
    def of(cls, destinations: Iterable[Destination]) -> Scope:
        """The union of C{destinations}; of none it is nothing."""
        return cls(_merged([_segments(each) for each in destinations], _united))

    @classmethod
    def parse(cls, text: str) -> Scope:
        """
        The scope that C{str} has written: destinations separated by blanks.

        @raise InvalidValue: a destination is none, the text is too long, or its destinations overlap so much that it
            would take long to make one set of them; C{str} writes none that overlap.
        """
        if len(text) > LONGEST_SCOPE:
            raise InvalidValue("list of destinations", "", f"it has more than {LONGEST_SCOPE} characters")
        return cls(_merged([_segments(Destination.parse(word)) for word in text.split()], _united_within_reason))

    def __or__(self, other: Scope) -> Scope:
        return Scope(_united(self.segments, other.segments))

    def __and__(self, other: Scope) -> Scope:
        return Scope(overlay(self.segments, other.segments, _both, ()))

    def __sub__(self, other: Scope) -> Scope:
        return Scope(overlay(self.segments, other.segments, _but, ()))

    def __bool__(self) -> bool:
        return bool(self.segments)

    def __str__(self) -> str:
        return " ".join(map(str, self.destinations()))

    def permits(self, address: IPv4Address, protocol: str, port: int = 0) -> bool:
        """
        Whether it has this address, protocol and port.

        @param protocol: one of L{PROTOCOLS} but C{any}.
        @param port: of TCP and UDP.
        """
        place, service = int(address), _START[protocol] + (port if protocol in PORTED else 0)
        return any(
            first <= place <= last and any(low <= service <= high for low, high, _ in services)
            for first, last, services in self.segments
        )

    def destinations(self) -> Iterator[Destination]:
        """Destinations that make up the scope; no two of them overlap."""
        for first, last, services in self.segments:
            ends = IPv4Address(first), IPv4Address(last)
            if services == _ALL:
                yield Destination(*ends)
                continue
            for protocol in PROTOCOLS[1:]:
                yield from _of_protocol(ends, protocol, services)


def _of_protocol(ends: tuple[IPv4Address, IPv4Address], protocol: str, services: Services) -> Iterator[Destination]:
    start, end = _START[protocol], _END[protocol]
    ports = [(max(first, start) - start, min(last, end) - start) for first, last, _ in services]
    ports = [(first, last) for first, last in ports if first <= last]
    if not ports:
        return
    if ports == [(0, end - start)]:
        yield Destination(*ends, protocol)
        return
    for place in range(0, len(ports), MOST_PORTS):
        yield Destination(*ends, protocol, tuple(ports[place : place + MOST_PORTS]))


#: Every address, protocol and port.
ALL = Scope.of([Destination.parse(EVERYWHERE)])
