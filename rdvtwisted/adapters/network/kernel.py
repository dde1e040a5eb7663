"""
What the steps of a plan ask of the kernel.

Refusals are L{OSError}, with the kernel's errno and reason. What is not there
(any more) when it is to be removed is no refusal: the method says C{False}.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

from attrs import define, frozen
from zope.interface import Interface

from rdvtwisted.plan import FirewallTable, Port, Route, Rule
from rdvtwisted.values import Mode


@frozen
class Link:
    """A network interface: whether it is up, and its MTU in bytes."""

    up: bool
    mtu: int


class IRouting(Interface):
    """Links, addresses, routes and rules: IPv4 only."""

    def link(name: str) -> Link | None:
        """The interface's state, or L{None} if there is no such interface."""

    def set_link(name: str, link: Link) -> None:
        """Give the interface this state."""

    def addresses() -> list[tuple[str, IPv4Interface]]:
        """Every address, with the name of its interface; the primary ones first."""

    def add_address(name: str, address: IPv4Interface) -> None:
        """Add an address, with the route to its block."""

    def remove_address(name: str, address: IPv4Interface) -> bool:
        """Whether there was one, which is gone now."""

    def has_route(route: Route) -> bool:
        """Whether there is such a route."""

    def add_route(route: Route) -> None:
        """Add a route."""

    def remove_route(route: Route) -> bool:
        """Whether there was one, which is gone now."""

    def has_rule(rule: Rule) -> bool:
        """Whether there is such a rule."""

    def add_rule(rule: Rule) -> None:
        """Add a rule."""

    def remove_rule(rule: Rule) -> bool:
        """Whether there was one, which is gone now."""

    def default_interface() -> str | None:
        """The interface of the best default route of the table C{main}, or L{None}."""

    def destinations() -> list[tuple[IPv4Network, str]]:
        """Where the table C{main} has a route to, the default routes apart, each with the name of its interface."""

    def forget_connections(mark: int) -> None:
        """Have the kernel forget all tracked connections with this mark."""


class IWiring(Interface):
    """What interfaces there are, and how frames get from one to another."""

    def ports() -> list[Port]:
        """Every interface, with what netlink knows of it; of what kind it is stays unsaid."""

    def add_pair(name: str, peer: str) -> None:
        """Make two Ethernet interfaces, each of which receives what the other sends; both down."""

    def add_tuntap(name: str, mode: Mode) -> None:
        """
        Make a persistent TUN (L3) or TAP (L2) interface, down, in the network namespace of the calling thread.

        @raise rdvtwisted.errors.RDVError: there is no such driver, or an interface of this name.
        """

    def remove_link(name: str) -> bool:
        """Whether there was such an interface; it is gone now, and with it the other one of a pair."""

    def redirect(name: str, target: str) -> None:
        """Have what one interface receives taken as if another had received it."""

    def redirects(name: str, target: str) -> bool:
        """Whether what one interface receives is taken as if another had received it."""

    def stop_redirection(name: str) -> bool:
        """Whether there was a redirection of what this interface receives; it is gone now."""

    def promiscuous(name: str) -> bool | None:
        """Whether somebody has made the interface promiscuous; L{None} if there is no such interface."""

    def set_promiscuous(name: str, on: bool) -> None:
        """Make the interface promiscuous, or no longer."""


class ISysctls(Interface):
    """The files below C{/proc/sys}, named with slashes."""

    def read(path: str) -> str | None:
        """The value without its newline, or L{None} if there is no such file."""

    def write(path: str, value: str) -> None:
        """Write a value."""


class IFirewall(Interface):
    """Tables of nftables."""

    def replace(table: FirewallTable) -> None:
        """
        Load a table in place of one of its name, in one transaction.

        @raise rdvtwisted.errors.MissingProgram: there is no C{nft}.
        """

    def listing(table: FirewallTable) -> str | None:
        """
        What is in a table of this name, without what packets have changed in it; C{None} if there is none.

        @raise rdvtwisted.errors.MissingProgram: there is no C{nft}.
        """

    def remove(table: FirewallTable) -> bool:
        """Whether there was one, which is gone now."""


@define
class Kernel:
    """The four, as one."""

    routing: IRouting
    wiring: IWiring
    sysctls: ISysctls
    firewall: IFirewall
