"""Interfaces and what joins them, through netlink (pyroute2)."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute
from zope.interface import implementer

from rdvtwisted.adapters.network.kernel import IWiring
from rdvtwisted.adapters.network.netlink import refusals, removed
from rdvtwisted.adapters.network.tuntap import make_persistent
from rdvtwisted.plan import Port
from rdvtwisted.values import Mode

#: linux/if.h.
_IFF_PROMISC = 0x100
_IFF_LOWER_UP = 0x10000
#: linux/if_arp.h.
_ARPHRD_ETHER = 1
#: Every protocol (linux/if_ether.h).
_ETH_P_ALL = 0x0003
#: Where the filters of what an interface receives hang (TC_H_INGRESS, linux/pkt_sched.h).
_INGRESS = 0xFFFF0000


@implementer(IWiring)
class Wiring:
    """The network namespace of a netlink socket; see L{rdvtwisted.adapters.network.netlink.Routing}."""

    def __init__(self, netlink: IPRoute) -> None:
        self._netlink = netlink

    def _message(self, name: str) -> Any:
        with refusals():
            (message,) = self._netlink.link("get", ifname=name)
        return message

    def _index(self, name: str) -> int:
        return int(self._message(name)["index"])

    def ports(self) -> list[Port]:
        addresses: dict[int, list[IPv4Interface | IPv6Interface]] = {}
        with refusals():
            links = list(self._netlink.get_links())
            for family in (AF_INET, AF_INET6):
                for message in self._netlink.get_addr(family=family):
                    own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    addresses.setdefault(message["index"], []).append(ip_interface(f"{own}/{message['prefixlen']}"))
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in links}
        return [
            Port(
                interface=message.get_attr("IFLA_IFNAME"),
                hardware=message.get_attr("IFLA_ADDRESS") if message["ifi_type"] == _ARPHRD_ETHER else None,
                upper=names.get(message.get_attr("IFLA_MASTER")),
                addresses=tuple(addresses.get(message["index"], ())),
                carrier=bool(message["flags"] & _IFF_LOWER_UP),
            )
            for message in links
        ]

    def add_pair(self, name: str, peer: str) -> None:
        with refusals():
            self._netlink.link("add", ifname=name, kind="veth", peer=peer)

    def add_tuntap(self, name: str, mode: Mode) -> None:
        make_persistent(name, mode)

    def remove_link(self, name: str) -> bool:
        def remove() -> None:
            self._netlink.link("del", index=self._index(name))

        return removed(remove)

    def redirect(self, name: str, target: str) -> None:
        index, to = self._index(name), self._index(target)
        action = {"kind": "mirred", "direction": "ingress", "action": "redirect", "ifindex": to}
        with refusals():
            self._netlink.tc("add", "ingress", index=index)
            # The one filter that every kernel for small devices has, with a pattern that anything fits.
            self._netlink.tc(
                "add-filter",
                "u32",
                index=index,
                parent=_INGRESS,
                prio=1,
                protocol=_ETH_P_ALL,
                target=0,
                keys=["0x0/0x0+0"],
                action=[action],
            )

    def redirects(self, name: str, target: str) -> bool:
        try:
            index, to = self._index(name), self._index(target)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        with refusals():
            filters = list(self._netlink.get_filters(index=index, parent=_INGRESS))
        return any(_target(message) == to for message in filters)

    def stop_redirection(self, name: str) -> bool:
        def remove() -> None:
            self._netlink.tc("del", "ingress", index=self._index(name))

        try:
            return removed(remove)
        except OSError as error:
            if error.errno == errno.EINVAL:  # where there was one once
                return False
            raise

    def promiscuous(self, name: str) -> bool | None:
        try:
            return bool(self._message(name)["flags"] & _IFF_PROMISC)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def set_promiscuous(self, name: str, on: bool) -> None:
        with refusals():
            self._netlink.link("set", index=self._index(name), flags=_IFF_PROMISC if on else 0, change=_IFF_PROMISC)


def _target(message: Any) -> int | None:
    """The interface to which a filter of L{Wiring.redirect} leads; C{None} of another message."""
    options = message.get_attr("TCA_OPTIONS")
    actions = options.get_attr("TCA_U32_ACT") if options is not None else None
    action = actions.get_attr("TCA_ACT_PRIO_1") if actions is not None else None
    redirection = action.get_attr("TCA_ACT_OPTIONS") if action is not None else None
    parameters = redirection.get_attr("TCA_MIRRED_PARMS") if redirection is not None else None
    return int(parameters["ifindex"]) if parameters is not None else None
