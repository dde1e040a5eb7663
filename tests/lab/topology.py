"""
The lab on paper: which machines there are, which cables join them, and the
text that C{ip}, C{nft} and C{sh} are fed to build them.

Nothing in here touches the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

SERVER_ADDRESS = IPv4Interface("203.0.113.10/24")
"""The RDV server, in a documentation network (RFC 5737)."""

SERVER_NAME = "rdv.example.net"
"""What every machine's hosts file calls the RDV server."""

ACCESS_NETWORK = IPv4Network("198.51.100.0/24")
"""Where the Internet's customers get their /30 links from (RFC 5737)."""

CUSTOMER_LAN = IPv4Network("192.168.1.0/24")
"""What every site uses unless told otherwise: the same, as in real life."""

SUPPORT_LAN = IPv4Network("192.168.50.0/24")
EXTREMITY_LINK = IPv4Network("192.168.38.224/29")

MAX_SITES = 31
"""How many /30 links of customers fit into their half of the access network, and of engineers into theirs."""

ONSITE_HOST, WEB_HOST = 10, 20
"""Host numbers inside a customer's LAN; the router is number 1."""

_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")

_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": 1,
    "net/ipv6/conf/default/disable_ipv6": 1,
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 2,
    "net/bridge/bridge-nf-call-iptables": 0,
    "net/bridge/bridge-nf-call-arptables": 0,
}
"""
What Debian sets, and no IPv6, so that no packet flows that nobody sent. (The
bridge's are 1 where something on this machine has loaded br_netfilter.)
"""


@dataclass(frozen=True)
class Port:
    """One end of a cable: an interface of a host, alone or in a bridge."""

    host: str
    name: str
    address: IPv4Interface | None = None
    bridge: str | None = None


@dataclass(frozen=True)
class Cable:
    """What joins two hosts; C{near} is the end further from the Internet."""

    near: Port
    far: Port

    def other(self, host: str, interface: str) -> Port | None:
        """The end opposite to an interface of C{host}, or L{None} if the cable does not end there."""
        for this, that in ((self.near, self.far), (self.far, self.near)):
            if (this.host, this.name) == (host, interface):
                return that
        return None


@dataclass(frozen=True)
class Host:
    """A machine: its uplink is always C{eth0}."""

    name: str
    part: str
    gateway: IPv4Address | None = None
    nameserver: IPv4Address | None = None
    forwards: bool = False
    bridge: tuple[str, IPv4Interface] | None = None
    firewall: str = ""


def router_rules(inside: str) -> str:
    """
    The rule set of a NAT router whose uplink is C{eth0}: hides what is behind
    C{inside}, lets nothing in that was not asked for, and forgets a connection
    for good when its table is flushed. Chain C{outgoing} is for restrictions.
    """
    return f"""table ip router {{
    chain input {{
        type filter hook input priority 0; policy drop
        iifname {{ "lo", "{inside}" }} accept
        ct state established,related accept
    }}
    chain outgoing {{
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop
        ct state invalid drop
        iifname "{inside}" oifname "eth0" jump outgoing
        iifname "{inside}" oifname "eth0" accept
        ct state established,related accept
    }}
    chain postrouting {{
        type nat hook postrouting priority 100
        oifname "eth0" masquerade
    }}
}}
"""


def outgoing_rules(tcp: frozenset[int] | None) -> str:
    """
    The transaction that lets only these TCP ports out of a router, from now on
    and for connections that exist; L{None} lets everything out again.
    """
    rules = "flush chain ip router outgoing\n"
    if tcp is not None:
        ports = ", ".join(str(port) for port in sorted(tcp))
        allowed = f"tcp dport {{ {ports} }} return; " if tcp else ""
        rules += f"table ip router {{ chain outgoing {{ {allowed}drop; }}\n}}\n"
    return rules


_INTERNET_RULES = """table ip internet {
    set private { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 } }
    chain forward {
        type filter hook forward priority 0; policy accept
        ip saddr @private drop
        ip daddr @private drop
    }
}
"""


_FILE_SCRIPT = """place=$(readlink -m /etc/{name})
case $place in
    /run/*) mkdir -p "${{place%/*}}"; cp {source}/{name} "$place" ;;
    *) if [ -e "$place" ]; then mount --bind {source}/{name} "$place"; fi ;;
esac"""
"""Gives a host its own C{/etc/NAME}, also where that is a link into C{/run} (as with systemd-resolved)."""


def _member(network: IPv4Network, number: int) -> IPv4Interface:
    """Host C{number} of a network, with the network's prefix length."""
    return IPv4Interface(f"{network[number]}/{network.prefixlen}")


@dataclass(frozen=True)
class Topology:
    """
    Every host and cable of one lab.

    Host names: C{inet}, C{server}, per engineer C{support-router}, C{master},
    C{pc}, and per site C{site-router}, C{onsite}, C{web}; from the second
    engineer or site on with its number behind (C{onsite2}).

    @ivar prefix: what every name on this machine starts with; no dash, so that
        no lab's prefix is the start of another lab's names.
    @ivar lans: one customer LAN a site, in order.
    @ivar engineers: how many there are, each behind a router of his own, with the same addresses.
    """

    prefix: str = "rdvlab"
    lans: tuple[IPv4Network, ...] = (CUSTOMER_LAN,)
    engineers: int = 1
    hosts: dict[str, Host] = field(init=False, compare=False)
    cables: tuple[Cable, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None:
            raise ValueError(f"prefix {self.prefix!r}: use 1 to 16 of a-z 0-9, starting with a letter")
        if not 1 <= len(self.lans) <= MAX_SITES:
            raise ValueError(f"{len(self.lans)} sites: use 1 to {MAX_SITES}")
        if not 1 <= self.engineers <= MAX_SITES:
            raise ValueError(f"{self.engineers} engineers: use 1 to {MAX_SITES}")
        for lan in self.lans:
            if lan.num_addresses <= WEB_HOST + 1:
                raise ValueError(f"LAN {lan} is too small: use a /27 or wider")
        hosts = [
            Host("inet", "the Internet", forwards=True, firewall=_INTERNET_RULES),
            Host("server", "RDV server", gateway=SERVER_ADDRESS.network[1]),
        ]
        cables = [
            Cable(
                Port("server", "eth0", SERVER_ADDRESS),
                Port("inet", "server", _member(SERVER_ADDRESS.network, 1)),
            )
        ]
        for number, lan in enumerate(self.lans, 1):
            self._site(number, lan, hosts, cables)
        for number in range(1, self.engineers + 1):
            self._support(number, hosts, cables)
        object.__setattr__(self, "hosts", {host.name: host for host in hosts})
        object.__setattr__(self, "cables", tuple(cables))

    @staticmethod
    def _site(number: int, lan: IPv4Network, hosts: list[Host], cables: list[Cable]) -> None:
        """A customer: a NAT router, whose LAN ports are bridged, and two machines."""
        router, onsite, web = (name + site_suffix(number) for name in ("site-router", "onsite", "web"))
        link = IPv4Network((int(ACCESS_NETWORK[4 * number]), 30))
        inside = _member(lan, 1)
        hosts += [
            Host(router, "customer's router", link[1], None, True, ("br-lan", inside), router_rules("br-lan")),
            Host(onsite, "onsite device", inside.ip, inside.ip),
            Host(web, "machine on the customer's LAN", inside.ip, inside.ip),
        ]
        cables += [
            Cable(Port(router, "eth0", _member(link, 2)), Port("inet", f"site{number}", _member(link, 1))),
            Cable(Port(onsite, "eth0", _member(lan, ONSITE_HOST)), Port(router, "lan1", bridge="br-lan")),
            Cable(Port(web, "eth0", _member(lan, WEB_HOST)), Port(router, "lan2", bridge="br-lan")),
        ]

    @staticmethod
    def _support(number: int, hosts: list[Host], cables: list[Cable]) -> None:
        """An engineer's side: a NAT router, the master device, and the PC on its second interface."""
        router, master, pc = (name + site_suffix(number) for name in ("support-router", "master", "pc"))
        link = IPv4Network((int(ACCESS_NETWORK[128 + 4 * (number - 1)]), 30))
        inside, extremity = _member(SUPPORT_LAN, 1), _member(EXTREMITY_LINK, 1)
        hosts += [
            Host(router, "support's router", link[1], None, True, None, router_rules("eth1")),
            Host(master, "master device", inside.ip, inside.ip),
            Host(pc, "engineer's PC", extremity.ip, extremity.ip),
        ]
        cables += [
            Cable(
                Port(router, "eth0", _member(link, 2)), Port("inet", f"support{site_suffix(number)}", _member(link, 1))
            ),
            Cable(Port(master, "eth0", _member(SUPPORT_LAN, 2)), Port(router, "eth1", inside)),
            Cable(Port(pc, "eth0", _member(EXTREMITY_LINK, 2)), Port(master, "eth1", extremity)),
        ]

    def namespace(self, host: str) -> str:
        """The name of a host's network namespace on this machine."""
        return f"{self.prefix}-{host}"

    def ports(self, host: str) -> Iterator[Port]:
        """Every interface of a host that a cable ends in, the uplink first."""
        ends = [end for cable in self.cables for end in (cable.near, cable.far) if end.host == host]
        yield from sorted(ends, key=lambda port: (port.name != "eth0", port.name))

    def address(self, host: str, interface: str = "eth0") -> IPv4Address | None:
        """The address of one interface, a bridge included; L{None} if there is none."""
        bridge = self.hosts[host].bridge
        if bridge is not None and bridge[0] == interface:
            return bridge[1].ip
        for port in self.ports(host):
            if port.name == interface and port.address is not None:
                return port.address.ip
        return None

    def opposite(self, host: str, interface: str) -> Port:
        """
        The far end of the cable in an interface.

        @raise LookupError: if no cable ends there.
        """
        for cable in self.cables:
            end = cable.other(host, interface)
            if end is not None:
                return end
        raise LookupError(f"no cable ends in {interface} of {host}")

    def cable_batch(self) -> str:
        """The C{ip -batch} text that lays every cable, both ends straight into their namespaces."""
        return "".join(
            f"link add name {cable.near.name} netns {self.namespace(cable.near.host)} type veth"
            f" peer name {cable.far.name} netns {self.namespace(cable.far.host)}\n"
            for cable in self.cables
        )

    def address_batch(self, host: str) -> str:
        """The C{ip -batch} text, run inside, that addresses a host and raises its links."""
        machine = self.hosts[host]
        lines = ["link set lo up"]
        if machine.bridge is not None:
            name, inside = machine.bridge
            lines += [
                f"link add {name} type bridge forward_delay 0",
                f"address add {inside} broadcast + dev {name}",
                f"link set {name} up",
            ]
        for port in self.ports(host):
            lines += self.raise_port(port)
        return "\n".join(lines) + "\n"

    def raise_port(self, port: Port) -> list[str]:
        """The C{ip -batch} lines that give a port its place and raise it, also after it was lowered."""
        lines = []
        if port.bridge is not None:
            lines.append(f"link set {port.name} master {port.bridge}")
        if port.address is not None:
            lines.append(f"address replace {port.address} broadcast + dev {port.name}")
        lines.append(f"link set {port.name} up")
        gateway = self.hosts[port.host].gateway
        if port.name == "eth0" and gateway is not None:
            lines.append(f"route replace default via {gateway} dev eth0")
        return lines

    def files(self, host: str) -> dict[str, str]:
        """What lies in C{/etc/netns/<namespace>/}, by file name; C{ip netns exec} shows it as C{/etc}."""
        nameserver = self.hosts[host].nameserver
        return {
            "resolv.conf": f"nameserver {nameserver}\n" if nameserver is not None else "# no name server here\n",
            "hosts": f"127.0.0.1 localhost {host}\n{SERVER_ADDRESS.ip} {SERVER_NAME}\n",
            "hostname": f"{host}\n",
        }

    def machine_script(self, host: str, directory: str) -> str:
        """
        The shell text that turns a fresh set of namespaces into this machine:
        its name, C{/run} and C{/etc} files, its own view of C{/sys}, and the
        settings that interfaces made later inherit.

        @param directory: the lab's, below C{/run}, which stays in sight; in it
            C{hosts/<host>/run} is what the host has for C{/run}.
        """
        run = f"{directory}/hosts/{host}/run"
        lines = [
            f"hostname {host}",
            "mount -t sysfs sysfs /sys",
            f"mkdir -p {run}/lock {run}/netns {run}/{directory.removeprefix('/run/')}",
            f"mount --bind {directory} {run}/{directory.removeprefix('/run/')}",
            f"mount --rbind {run} /run",
        ]
        lines += [
            _FILE_SCRIPT.format(source=f"/etc/netns/{self.namespace(host)}", name=name) for name in self.files(host)
        ]
        settings = _SYSCTLS | {"net/ipv4/ip_forward": int(self.hosts[host].forwards)}
        for path, value in settings.items():
            lines.append(f"if [ -e /proc/sys/{path} ]; then echo {value} >/proc/sys/{path}; fi")
        return "\n".join(lines) + "\n"


def site_suffix(number: int) -> str:
    """What the names of site, or engineer, C{number} end in: nothing for the first."""
    return "" if number == 1 else str(number)
