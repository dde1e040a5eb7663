"""
Run in a host: the network of a device, without the device around it.

C{python -m tests.lab.rehearsal}, and a verb: C{hold} a plan until a line comes
in, C{kill} a process between any two changes of one, or try it C{unprivileged}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from rdvtwisted import bridged, routed
from rdvtwisted.adapters.network import site as surroundings
from rdvtwisted.adapters.network import transaction
from rdvtwisted.adapters.network.journal import Journal
from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.linux import LinuxNetwork, linux
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import RDVError
from rdvtwisted.plan import Connections, Plan, Site, mark_number
from rdvtwisted.values import Mode
from tests.lab.hosts import run

TUNNEL, OWNER, MTU = "rdv-t", "rdvnet", 1400


def snapshot() -> dict[str, Any]:
    """All that a plan could change in the namespace that this process is in."""
    links = [
        (
            *(link["ifname"], link["mtu"], "UP" in link["flags"], link["promiscuity"], link.get("address")),
            [(a["local"], a["prefixlen"]) for a in link["addr_info"]],
        )
        for link in json.loads(run("ip", "-j", "-d", "addr"))
    ]
    settings = ("forwarding", "rp_filter", "accept_redirects", "src_valid_mark", "disable_ipv6", "arp_ignore")
    return {
        "links": links,
        "routes": [json.loads(run("ip", "-j", family, "route", "show", "table", "all")) for family in ("-4", "-6")],
        "rules": [json.loads(run("ip", "-j", family, "rule")) for family in ("-4", "-6")],
        "firewall": run("nft", "list", "ruleset"),
        "redirections": [line for line in run("tc", "qdisc", "show").splitlines() if " ingress " in line],
        "sysctls": {
            str(path): path.read_text().strip()
            for name in settings
            for path in sorted(Path("/proc/sys/net").glob(f"ipv[46]/conf/*/{name}"))
        },
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "connections": [line for line in _connections() if f"mark={mark_number(OWNER)} " in line],
    }


def _connections() -> list[str]:
    table = Path("/proc/net/nf_conntrack")
    return table.read_text().splitlines() if table.exists() else []


#: The roles of a path, in mode L3 and in mode L2; without-dhcp is a master, too.
ROUTED: dict[str, Callable[..., Plan]] = {"master": routed.master, "onsite": routed.onsite}
BRIDGED: dict[str, Callable[..., Plan]] = {
    "bridged-master": bridged.master,
    "without-dhcp": partial(bridged.master, dhcp=False),
    "bridged-onsite": bridged.onsite,
}
BRIDGED_MTU = 1500


def plan_for(role: str, extremity: str, address: str, site: Site) -> Plan:
    """The plan of a device of the path."""
    if role in BRIDGED:
        return BRIDGED[role](OWNER, TUNNEL, extremity, BRIDGED_MTU, site)
    return ROUTED[role](OWNER, TUNNEL, extremity, IPv4Interface(address), MTU, site)


async def hold(reactor: Any, directory: str, role: str, extremity: str, address: str) -> None:
    """Apply a plan, then undo it when a line comes in; each time says in a JSON line how it went."""
    network = LinuxNetwork(reactor, Path(directory))
    before = snapshot()
    site = await network.site()
    plan = plan_for(role, extremity, address, site)

    async def timed(call: Callable[[], Deferred[None]]) -> None:
        began = time.perf_counter()
        await call()
        took = (time.perf_counter() - began) * 1000
        report = {"ms": took, "as before": snapshot() == before, "site": f"{site.interface} {site.lan}"}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()

    await timed(lambda: network.apply(plan))
    sys.stdin.readline()
    await timed(lambda: network.undo(OWNER))
    network.close()


class _Saboteur:
    """Passes calls on, and kills the process before the change with a certain number."""

    CHANGES = frozenset(
        "set_link add_address add_route add_rule write replace add_pair redirect set_promiscuous".split()
    )

    def __init__(self, parts: tuple[Any, ...], number: list[int]) -> None:
        self._parts = parts
        self._number = number

    def __getattr__(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(part, name):
                if name in self.CHANGES:
                    if self._number[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    self._number[0] -= 1
                return getattr(part, name)
        raise AttributeError(name)


def _apply_and_die(directory: str, plan: Plan, mode: Mode, number: int) -> None:
    device = PacketDevice(TUNNEL, mode)
    with linux() as kernel:
        left = [number]
        wrapped: Any = _Saboteur((kernel.routing, kernel.wiring, kernel.sysctls, kernel.firewall), left)
        transaction.apply(Kernel(wrapped, wrapped, wrapped, wrapped), Journal(Path(directory)), plan)
    os.kill(os.getpid(), signal.SIGKILL)
    device.close()


def kill_everywhere(directory: str, role: str, extremity: str, address: str, *neighbour: str) -> None:
    """
    For each number of changes: a process that makes a device, applies a plan
    and is killed after that many, then a sweep. Prints what was found as JSON.

    @param neighbour: address and port of an echo; whether an old connection to
        it is alive is found out after each kill and after each sweep.
    """
    before, found = snapshot(), []
    with linux() as kernel:
        plan = plan_for(role, extremity, address, surroundings.site(kernel))
    mode = Mode.L2 if role in BRIDGED else Mode.L3
    connection = socket.create_connection((neighbour[0], int(neighbour[1])), 5.0) if neighbour else None

    def alive() -> bool:
        if connection is None:
            return True
        connection.sendall(b"!")
        return connection.recv(1) == b"!"

    for number in range(1 + sum(not isinstance(step, Connections) for step in plan.steps)):
        child = os.fork()
        if child == 0:
            _apply_and_die(directory, plan, mode, number)
        _, status = os.waitpid(child, 0)
        touched, lived = snapshot() != before, alive()
        journal = Journal(Path(directory))
        with linux() as kernel:
            lines = transaction.undo(kernel, journal, OWNER)
            again = transaction.undo(kernel, journal, OWNER)
        journal.close()
        clean, lives = snapshot() == before, alive()
        entry = {"signal": status, "touched": touched, "lines": lines, "again": again, "clean": clean}
        found.append({**entry, "alive": (lived, lives)})
    sys.stdout.write(json.dumps(found) + "\n")


def unprivileged(directory: str, extremity: str, address: str) -> None:
    """
    As nobody, open a device and take each step by itself; as root first, so that
    all is loaded that nobody may not be able to read. Prints the errors as JSON.
    """
    plan = plan_for("onsite", extremity, address, Site())
    with linux() as kernel:
        journal = Journal(Path(directory))
        transaction.apply(kernel, journal, plan)
        transaction.undo(kernel, journal, OWNER)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    errors: list[tuple[str, str]] = []
    for number, step in enumerate(plan.steps):
        try:
            with linux() as kernel:
                transaction.apply(kernel, Journal(Path(directory)), Plan(str(number), (step,)))
        except RDVError as error:
            errors.append((type(error).__name__, str(error)))
    try:
        PacketDevice("rdv-u", Mode.L3)
    except RDVError as error:
        errors.append((type(error).__name__, str(error)))
    sys.stdout.write(json.dumps(errors) + "\n")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "hold":
        react(lambda reactor, *words: Deferred.fromCoroutine(hold(reactor, *words)), arguments)
    elif verb == "unprivileged":
        unprivileged(*arguments)
    else:
        kill_everywhere(*arguments)
