"""Links, addresses, routes, rules and tracked connections, through netlink (pyroute2)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from socket import AF_INET
from typing import Any

from pyroute2 import IPRoute, NetlinkError, NFCTSocket
from zope.interface import implementer

from rdvtwisted.adapters.network.kernel import IRouting, Link
from rdvtwisted.plan import Route, Rule

_IFF_UP = 1
_MAIN_TABLE = 254
#: Scope of a route without gateway (RT_SCOPE_LINK, linux/rtnetlink.h).
_SCOPE_LINK = 253
#: What the kernel says of an interface, address, route or rule that is not there.
_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})


@contextmanager
def refusals() -> Iterator[None]:
    """Turn pyroute2's error into the L{OSError} that the kernel meant."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, error.args[1]) from None


def removed(remove: Any, *arguments: Any, **attributes: Any) -> bool:
    """Call, and say whether there was something to remove."""
    try:
        with refusals():
            remove(*arguments, **attributes)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


@implementer(IRouting)
class Routing:
    """
    The network namespace of a netlink socket.

    Belongs to the thread that made the socket: pyroute2 runs an event loop of
    its own inside each call.
    """

    def __init__(self, netlink: IPRoute) -> None:
        self._netlink = netlink

    # -- links and addresses

    def _message(self, name: str) -> Any:
        with refusals():
            (message,) = self._netlink.link("get", ifname=name)
        return message

    def _index(self, name: str) -> int:
        return int(self._message(name)["index"])

    def link(self, name: str) -> Link | None:
        try:
            message = self._message(name)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return Link(up=bool(message["flags"] & _IFF_UP), mtu=int(message.get_attr("IFLA_MTU")))

    def set_link(self, name: str, link: Link) -> None:
        with refusals():
            self._netlink.link("set", index=self._index(name), mtu=link.mtu, state="up" if link.up else "down")

    def addresses(self) -> list[tuple[str, IPv4Interface]]:
        with refusals():
            names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in self._netlink.get_links()}
            found = list(self._netlink.get_addr(family=AF_INET))
        # IFA_LOCAL is the own address; IFA_ADDRESS is the other end's where there is one.
        return [
            (
                names.get(message["index"], ""),
                IPv4Interface(f"{message.get_attr('IFA_LOCAL')}/{message['prefixlen']}"),
            )
            for message in sorted(found, key=lambda message: bool(message["flags"] & 1))  # IFA_F_SECONDARY last
        ]

    def add_address(self, name: str, address: IPv4Interface) -> None:
        with refusals():
            self._netlink.addr(
                "add", index=self._index(name), address=str(address.ip), prefixlen=address.network.prefixlen
            )

    def remove_address(self, name: str, address: IPv4Interface) -> bool:
        def remove() -> None:
            self._netlink.addr(
                "del", index=self._index(name), address=str(address.ip), prefixlen=address.network.prefixlen
            )

        return removed(remove)

    # -- routes

    def _route(self, route: Route) -> dict[str, object]:
        return {
            "family": AF_INET,
            "dst": str(route.destination),
            "oif": self._index(route.interface),
            "table": route.table,
            "scope": _SCOPE_LINK,
        }

    def has_route(self, route: Route) -> bool:
        if self.link(route.interface) is None:
            return False
        index = self._index(route.interface)
        with refusals():
            found = list(self._netlink.get_routes(family=AF_INET, table=route.table))
        # A default route has no RTA_DST.
        destination = None if route.destination.prefixlen == 0 else str(route.destination.network_address)
        return any(
            message.get_attr("RTA_OIF") == index
            and message.get_attr("RTA_DST") == destination
            and message["dst_len"] == route.destination.prefixlen
            for message in found
        )

    def add_route(self, route: Route) -> None:
        with refusals():
            self._netlink.route("add", **self._route(route))

    def remove_route(self, route: Route) -> bool:
        return removed(lambda: self._netlink.route("del", **self._route(route)))

    def default_interface(self) -> str | None:
        with refusals():
            routes = [
                message
                for message in self._netlink.get_routes(family=AF_INET, table=_MAIN_TABLE)
                if message["dst_len"] == 0
            ]
            best = min(routes, key=lambda message: message.get_attr("RTA_PRIORITY") or 0, default=None)
            if best is None:
                return None
            hops = best.get_attr("RTA_MULTIPATH")
            index = hops[0]["oif"] if hops else best.get_attr("RTA_OIF")
            if index is None:
                return None
            (link,) = self._netlink.link("get", index=index)
            return str(link.get_attr("IFLA_IFNAME"))

    def destinations(self) -> list[tuple[IPv4Network, str]]:
        with refusals():
            names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in self._netlink.get_links()}
            found = list(self._netlink.get_routes(family=AF_INET, table=_MAIN_TABLE))
        # What leads nowhere, or by several ways at once, names no interface of its own.
        return [
            (
                IPv4Network((message.get_attr("RTA_DST"), message["dst_len"])),
                names.get(message.get_attr("RTA_OIF"), ""),
            )
            for message in found
            if message["dst_len"]
        ]

    # -- rules

    @staticmethod
    def _rule(rule: Rule) -> dict[str, object]:
        attributes: dict[str, object] = {"family": AF_INET, "priority": rule.priority, "table": rule.table}
        if rule.incoming is not None:
            attributes["iifname"] = rule.incoming
        if rule.mark is not None:
            attributes["fwmark"] = rule.mark
        return attributes

    def has_rule(self, rule: Rule) -> bool:
        with refusals():
            found = list(self._netlink.get_rules(family=AF_INET))
        return any(
            message.get_attr("FRA_PRIORITY") == rule.priority
            and message.get_attr("FRA_TABLE") == rule.table
            and message.get_attr("FRA_IIFNAME") == rule.incoming
            and message.get_attr("FRA_FWMARK") == rule.mark
            for message in found
        )

    def add_rule(self, rule: Rule) -> None:
        with refusals():
            self._netlink.rule("add", **self._rule(rule))

    def remove_rule(self, rule: Rule) -> bool:
        return removed(lambda: self._netlink.rule("del", **self._rule(rule)))

    # -- tracked connections

    def forget_connections(self, mark: int) -> None:
        with NFCTSocket() as conntrack, refusals():
            conntrack.flush(mark=mark, mark_mask=0xFFFFFFFF)
