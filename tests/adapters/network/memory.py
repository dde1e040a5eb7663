"""A kernel in memory, as strict as the real one about what a plan can do to it."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network

from attrs import define, field
from zope.interface import implementer

from rdvtwisted.adapters.network.kernel import IFirewall, IRouting, ISysctls, IWiring, Kernel, Link
from rdvtwisted.errors import NetworkError
from rdvtwisted.plan import FirewallTable, Port, Route, Rule
from rdvtwisted.values import Mode


class Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


def refuse(number: int) -> OSError:
    """What the kernel says."""
    return OSError(number, os.strerror(number))


@define
class State:
    """All that can be seen of a machine."""

    links: dict[str, Link] = field(factory=dict)
    addresses: list[tuple[str, IPv4Interface]] = field(factory=list)
    routes: set[Route] = field(factory=set)
    rules: set[Rule] = field(factory=set)
    sysctls: dict[str, str] = field(factory=dict)
    tables: dict[tuple[str, str], str] = field(factory=dict)
    connections: set[int] = field(factory=set)
    hardware: dict[str, str] = field(factory=dict)
    pairs: dict[str, str] = field(factory=dict)
    redirections: dict[str, str] = field(factory=dict)
    promiscuous: set[str] = field(factory=set)
    default: str | None = None


@implementer(IRouting, IWiring, ISysctls, IFirewall)
class MemoryKernel:
    """
    One machine. C{before_change} is called with the number of each attempt to
    change something, from 0, before it is made: it may raise.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.changes: list[str] = []
        self.attempts = 0
        self.before_change: Callable[[int], None] = lambda number: None

    @contextmanager
    def __call__(self) -> Iterator[Kernel]:
        yield Kernel(self, self, self, self)

    def snapshot(self) -> State:
        """What can be seen, to compare with later."""
        return copy.deepcopy(self.state)

    def _change(self, what: str) -> None:
        number, self.attempts = self.attempts, self.attempts + 1
        self.before_change(number)
        self.changes.append(what)

    def _need(self, name: str) -> Link:
        if name not in self.state.links:
            raise refuse(errno.ENODEV)
        return self.state.links[name]

    def unplug(self, name: str) -> None:
        """The interface is gone, and what hangs on it; its rules stay."""
        state = self.state
        del state.links[name]
        state.addresses = [pair for pair in state.addresses if pair[0] != name]
        state.routes = {route for route in state.routes if route.interface != name}
        state.sysctls = {path: value for path, value in state.sysctls.items() if f"/{name}/" not in path}
        state.hardware.pop(name, None)
        state.redirections.pop(name, None)
        state.promiscuous.discard(name)

    # -- IRouting

    def link(self, name: str) -> Link | None:
        return self.state.links.get(name)

    def set_link(self, name: str, link: Link) -> None:
        self._need(name)
        self._change(f"set {name} {link}")
        self.state.links[name] = link
        if not link.up:
            self.state.routes = {route for route in self.state.routes if route.interface != name}

    def addresses(self) -> list[tuple[str, IPv4Interface]]:
        return list(self.state.addresses)

    def add_address(self, name: str, address: IPv4Interface) -> None:
        self._need(name)
        if (name, address) in self.state.addresses:
            raise refuse(errno.EEXIST)
        self._change(f"add {address} {name}")
        self.state.addresses.append((name, address))

    def remove_address(self, name: str, address: IPv4Interface) -> bool:
        if (name, address) not in self.state.addresses:
            return False
        self._change(f"remove {address} {name}")
        self.state.addresses.remove((name, address))
        return True

    def has_route(self, route: Route) -> bool:
        return route in self.state.routes

    def add_route(self, route: Route) -> None:
        if not self._need(route.interface).up:
            raise refuse(errno.ENETDOWN)
        if any((each.table, each.destination) == (route.table, route.destination) for each in self.state.routes):
            raise refuse(errno.EEXIST)
        self._change(f"add {route}")
        self.state.routes.add(route)

    def remove_route(self, route: Route) -> bool:
        if route not in self.state.routes:
            return False
        self._change(f"remove {route}")
        self.state.routes.remove(route)
        return True

    def has_rule(self, rule: Rule) -> bool:
        return rule in self.state.rules

    def add_rule(self, rule: Rule) -> None:
        if rule in self.state.rules:
            raise refuse(errno.EEXIST)
        self._change(f"add {rule}")
        self.state.rules.add(rule)

    def remove_rule(self, rule: Rule) -> bool:
        if rule not in self.state.rules:
            return False
        self._change(f"remove {rule}")
        self.state.rules.remove(rule)
        return True

    def default_interface(self) -> str | None:
        return self.state.default

    def destinations(self) -> list[tuple[IPv4Network, str]]:
        return [
            (route.destination, route.interface)
            for route in sorted(self.state.routes, key=str)
            if route.table == 254 and route.destination.prefixlen
        ]

    def forget_connections(self, mark: int) -> None:
        self._change(f"forget {mark:#x}")
        self.state.connections.discard(mark)

    # -- IWiring

    def ports(self) -> list[Port]:
        return [
            Port(
                name,
                self.state.hardware.get(name),
                addresses=tuple(own for at, own in self.state.addresses if at == name),
            )
            for name in self.state.links
        ]

    def add_pair(self, name: str, peer: str) -> None:
        if {name, peer} & set(self.state.links):
            raise refuse(errno.EEXIST)
        self._change(f"add {name} and {peer}")
        self.state.pairs[name] = peer
        for end in (name, peer):
            self.state.links[end] = Link(up=False, mtu=1500)
            self.state.sysctls.update(_settings(end))

    def add_tuntap(self, name: str, mode: Mode) -> None:
        if name in self.state.links:
            raise NetworkError(f"there is an interface {name} already")
        self._change(f"add {name} {mode}")
        self.state.links[name] = Link(up=False, mtu=1500)
        self.state.sysctls.update(_settings(name))

    def remove_link(self, name: str) -> bool:
        if name not in self.state.links:
            return False
        self._change(f"remove {name}")
        if name in self.state.pairs:
            self.unplug(self.state.pairs.pop(name))
        self.unplug(name)
        return True

    def redirect(self, name: str, target: str) -> None:
        self._need(name)
        self._need(target)
        if name in self.state.redirections:
            raise refuse(errno.EEXIST)
        self._change(f"redirect {name} to {target}")
        self.state.redirections[name] = target

    def redirects(self, name: str, target: str) -> bool:
        return self.state.redirections.get(name) == target

    def stop_redirection(self, name: str) -> bool:
        if name not in self.state.redirections:
            return False
        self._change(f"stop redirecting {name}")
        del self.state.redirections[name]
        return True

    def promiscuous(self, name: str) -> bool | None:
        return name in self.state.promiscuous if name in self.state.links else None

    def set_promiscuous(self, name: str, on: bool) -> None:
        self._need(name)
        self._change(f"set {name} promiscuous {on}")
        (self.state.promiscuous.add if on else self.state.promiscuous.discard)(name)

    # -- ISysctls

    def read(self, path: str) -> str | None:
        return self.state.sysctls.get(path)

    def write(self, path: str, value: str) -> None:
        if path not in self.state.sysctls:
            raise refuse(errno.ENOENT)
        self._change(f"write {path} {value}")
        self.state.sysctls[path] = value

    # -- IFirewall

    def replace(self, table: FirewallTable) -> None:
        self._change(f"replace {table}")
        self.state.tables[table.family, table.name] = table.rules

    def listing(self, table: FirewallTable) -> str | None:
        return self.state.tables.get((table.family, table.name))

    def remove(self, table: FirewallTable) -> bool:
        if (table.family, table.name) not in self.state.tables:
            return False
        self._change(f"remove {table}")
        del self.state.tables[table.family, table.name]
        return True


def _settings(name: str) -> dict[str, str]:
    """What a new interface has."""
    return {
        f"net/ipv6/conf/{name}/disable_ipv6": "0",
        f"net/ipv4/conf/{name}/rp_filter": "1",
        f"net/ipv4/conf/{name}/accept_redirects": "1",
        f"net/ipv4/conf/{name}/forwarding": "0",
        f"net/ipv4/conf/{name}/arp_ignore": "0",
    }


def device(tunnel: str = "rdv-t", extremity: str = "eth0") -> MemoryKernel:
    """
    A device with an extremity that is in use, a tunnel interface that is not
    yet, and configuration of somebody else's.
    """
    state = State(
        links={extremity: Link(up=True, mtu=1500), tunnel: Link(up=False, mtu=1500)},
        addresses=[(extremity, IPv4Interface("192.168.1.50/24"))],
        rules={Rule(100, 77, incoming="eth9")},
        tables={("inet", "site"): "chain input { }\n"},
        default=extremity,
    )
    for name in (tunnel, extremity):
        state.hardware[name] = f"02:00:00:00:00:{len(state.hardware):02x}"
        state.sysctls.update(_settings(name))
    return MemoryKernel(state)
