"""
A scope as a chain of a firewall (nftables), which lets through what the scope permits and refuses the rest.

It looks at the destination that a connection was opened to, in every packet
and in both directions, so that it also ends connections which were permitted
when they were opened. What is refused is told so at once: a TCP connection is
reset, anything else is answered by ICMP (administratively prohibited).
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv4Address

from rdvtwisted.scope import ALL, Scope

#: The chain's name, for rules that jump to it.
CHAIN = "permitted"

_REFUSE = """\
    meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
"""


def chain(scope: Scope) -> str:
    """
    The chain, as text of a table of the family C{inet}; empty if everything is permitted.

    Whoever jumps to it comes back with what is permitted. It is for packets that belong to a connection.
    """
    if scope == ALL:
        return ""
    permitted = "".join(f"    {rule} return\n" for rule in _rules(scope))
    return f"chain {CHAIN} {{\n{permitted}{_REFUSE}}}\n"


def _rules(scope: Scope) -> list[str]:
    """
    One for each protocol and range of ports, with all addresses that have it.

    nft knows no type for the ports of a connection, so they cannot be in a set. ICMP errors belong to the connection
    that they are about, whose protocol is another one: who may be reached may be told of, too.
    """
    if not scope:
        return []
    whole: list[tuple[IPv4Address, IPv4Address]] = []
    parts: dict[str, list[tuple[IPv4Address, IPv4Address]]] = defaultdict(list)
    for each in scope.destinations():
        ends = each.first, each.last
        if each.protocol == "any":
            whole.append(ends)
        elif each.protocol == "other":
            parts["meta l4proto != { tcp, udp, icmp }"].append(ends)
        elif each.ports:
            for first, last in each.ports:
                ports = f"{first}" if first == last else f"{first}-{last}"
                parts[f"meta l4proto {each.protocol} ct original proto-dst {ports}"].append(ends)
        else:
            parts[f"meta l4proto {each.protocol}"].append(ends)
    rules = [_to(whole)] if whole else []
    rules += [f"{what} {_to(places)}" for what, places in parts.items()]
    known = [(IPv4Address(first), IPv4Address(last)) for first, last, _ in scope.segments]
    return [*rules, f"meta l4proto icmp ct state related {_to(known)}"]


def _to(places: list[tuple[IPv4Address, IPv4Address]]) -> str:
    """The condition that a connection was opened to one of some ranges of addresses, which rise."""
    merged: list[tuple[IPv4Address, IPv4Address]] = []
    for first, last in places:
        if merged and int(merged[-1][1]) + 1 == int(first):
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in merged]
    return f"ct original ip daddr {{ {', '.join(texts)} }}"
