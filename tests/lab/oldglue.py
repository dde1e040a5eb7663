"""How an old server joins two tunnels: with fixed tables, and a fixed bridge, so one session at a time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

TO_ONSITE, TO_MASTER = "1", "2"
"""The routing tables for what comes from the master, and from the onsite."""

BRIDGE = "br0"


@dataclass(frozen=True)
class End:
    """A tunnel's interface on the server; C{address} is the server's own there, if it is known."""

    interface: str
    address: str | None


def glue(master: End, onsite: End) -> None:
    """Route, or bridge, between two tunnels that are up."""
    _run(_bridging(master, onsite) if _ethernet(master, onsite) else _routing(master, onsite))


def unglue(master: End, onsite: End) -> None:
    """Undo L{glue}; what has gone with an interface is gone already."""
    steps = _unbridging(master, onsite) if _ethernet(master, onsite) else _unrouting(master, onsite)
    _run(steps, complain=False)


def _ethernet(master: End, onsite: End) -> bool:
    return {end.interface[:3] for end in (master, onsite)} == {"tap"}


def _routing(master: End, onsite: End) -> list[str]:
    m, o = master.interface, onsite.interface
    return [
        "sysctl -q net.ipv4.ip_forward=1",
        f"iptables -A FORWARD -i {m} -o {o} -j ACCEPT",
        f"iptables -A FORWARD -i {o} -o {m} -j ACCEPT",
        f"iptables -t nat -A POSTROUTING -o {o} -j MASQUERADE",
        f"ip route add table {TO_ONSITE} default via {onsite.address} dev {o}",
        f"ip rule add unicast iif {m} table {TO_ONSITE}",
        f"ip route add table {TO_MASTER} default via {master.address} dev {m}",
        f"ip rule add unicast iif {o} table {TO_MASTER}",
    ]


def _unrouting(master: End, onsite: End) -> list[str]:
    m, o = master.interface, onsite.interface
    return [
        f"iptables -D FORWARD -i {m} -o {o} -j ACCEPT",
        f"iptables -D FORWARD -i {o} -o {m} -j ACCEPT",
        f"iptables -t nat -D POSTROUTING -o {o} -j MASQUERADE",
        "sysctl -q net.ipv4.ip_forward=0",
        f"ip route del table {TO_ONSITE} default dev {o}",
        f"ip rule del unicast iif {m} table {TO_ONSITE}",
        f"ip route del table {TO_MASTER} default dev {m}",
        f"ip rule del unicast iif {o} table {TO_MASTER}",
    ]


def _bridging(master: End, onsite: End) -> list[str]:
    return [
        f"ip link add {BRIDGE} type bridge",
        f"ip link set {onsite.interface} master {BRIDGE}",
        f"ip link set {master.interface} master {BRIDGE}",
        f"ip link set {BRIDGE} up",
        f"iptables -A FORWARD -i {BRIDGE} -j ACCEPT",
    ]


def _unbridging(master: End, onsite: End) -> list[str]:
    return [
        f"iptables -D FORWARD -i {BRIDGE} -j ACCEPT",
        f"ip link set {BRIDGE} down",
        f"ip link set {onsite.interface} nomaster",
        f"ip link set {master.interface} nomaster",
        f"ip link del {BRIDGE}",
    ]


def forbid_forwarding() -> None:
    """What an old server's manager does when it starts."""
    _run(["iptables -P FORWARD DROP"])


def allow_forwarding() -> None:
    """What it does when it ends."""
    _run(["iptables -P FORWARD ACCEPT"])


def _run(steps: list[str], complain: bool = True) -> None:
    for step in steps:
        result = subprocess.run(step.split(), capture_output=True, text=True, check=False)
        if result.returncode and complain:
            sys.stderr.write(f"{step}: {result.stderr.strip()}\n")
