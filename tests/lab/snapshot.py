"""The network configuration of a host, as a value that two moments can be compared by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

_SEPARATOR = "=== next ==="

_SYSCTLS = (
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/conf/*/forwarding",
    "/proc/sys/net/ipv4/conf/*/rp_filter",
    "/proc/sys/net/ipv4/conf/*/proxy_arp",
    "/proc/sys/net/ipv4/conf/*/arp_ignore",
    "/proc/sys/net/ipv4/conf/*/arp_announce",
    "/proc/sys/net/ipv4/conf/*/accept_local",
    "/proc/sys/net/ipv4/conf/*/accept_redirects",
    "/proc/sys/net/ipv4/conf/*/send_redirects",
    "/proc/sys/net/ipv4/conf/*/src_valid_mark",
    "/proc/sys/net/ipv6/conf/*/disable_ipv6",
    "/proc/sys/net/ipv6/conf/*/forwarding",
    "/proc/sys/net/bridge/*",
)
"""What programs that route or bridge are known to change."""

SCRIPT = f"\necho '{_SEPARATOR}'\n".join(
    (
        "ip -json -details link",
        "ip -json address",
        "ip -json route show table all",
        "ip -json rule",
        "nft --stateless list ruleset",
        "ls /run/netns",
        f"grep -s . /dev/null {' '.join(_SYSCTLS)} || :",
    )
)
"""The shell text that looks; L{Snapshot.parse} understands what it prints."""

_LINK_FIELDS = ("mtu", "address", "master", "txqlen", "promiscuity", "allmulti")


@dataclass(frozen=True)
class Snapshot:
    """
    All that a host's network is set to: links, addresses, routes, rules, the nft
    rule set (without counters), named namespaces and settings of the kernel.

    @ivar lines: one fact each, as text that starts with its kind.
    """

    lines: tuple[str, ...]

    @classmethod
    def parse(cls, output: str) -> Snapshot:
        """What L{SCRIPT} printed, without what differs between two equal states (indexes, counters)."""
        links, addresses, routes, rules, ruleset, names, sysctls = output.split(f"{_SEPARATOR}\n")
        lines = [*_links(links), *_addresses(addresses)]
        lines += sorted(f"route {_flat(route)}" for route in json.loads(routes or "[]"))
        lines += [f"rule {_flat(rule)}" for rule in json.loads(rules or "[]")]
        lines += [f"nft {line.rstrip()}" for line in ruleset.splitlines() if line.strip()]
        lines += [f"namespace {name}" for name in sorted(names.split())]
        lines += [f"sysctl {line.removeprefix('/proc/sys/')}" for line in sorted(sysctls.splitlines())]
        return cls(tuple(lines))

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def only(self, kind: str) -> list[str]:
        """The facts of one kind: link, address, route, rule, nft, namespace or sysctl."""
        return [line.removeprefix(f"{kind} ") for line in self.lines if line.startswith(f"{kind} ")]

    def changes(self, later: Snapshot) -> list[str]:
        """What it takes to get from here to C{later}: facts gone (C{- }) and facts new (C{+ }); empty if none."""
        gone = [f"- {line}" for line in self.lines if line not in later.lines]
        new = [f"+ {line}" for line in later.lines if line not in self.lines]
        if not gone and not new and self != later:
            return [f"the same facts in another order or number:\n{self}\n---\n{later}"]
        return gone + new


def _flat(fact: dict[str, object]) -> str:
    """A route or rule in one line, its keys in one order."""
    return " ".join(f"{key} {fact[key]}" for key in sorted(fact))


def _links(text: str) -> Iterator[str]:
    """A line for each interface, by name."""
    for link in sorted(json.loads(text), key=lambda link: str(link["ifname"])):
        facts = {key: link[key] for key in _LINK_FIELDS if key in link}
        facts["kind"] = link.get("linkinfo", {}).get("info_kind", link["link_type"])
        facts["flags"] = ",".join(sorted(link["flags"]))
        yield f"link {link['ifname']} {_flat(facts)}"


def _addresses(text: str) -> Iterator[str]:
    """A line for each address, by interface."""
    for link in sorted(json.loads(text), key=lambda link: str(link.get("ifname"))):
        for info in link.get("addr_info", ()):
            peer = f" peer {info['address']}" if "address" in info else ""
            yield f"address {link['ifname']} {info['local']}{peer}/{info['prefixlen']} scope {info['scope']}"
