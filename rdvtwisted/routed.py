"""
The plans of the routed mode (L3): what joins the extremity and the tunnel of a device.

What both ends promise:

  - Only packets that enter by the extremity take the tunnel. The device's own
    traffic finds the same routes as before: the network of the tunnel's
    addresses, which the server chooses, has no route. What a program of the
    device sends there it has bound to the tunnel's interface itself.
  - The tunnel's other end speaks for itself: it cannot answer in the place of
    others what the device has asked of them, nor tell it of routes.
  - What comes out of the tunnel leaves by the extremity only (on an onsite
    also: reaches the device itself). Connections are opened from the master's
    side only.
  - Forwarding is switched on for the two interfaces, never for the machine, and
    the firewall is in place before it is.
  - IPv4 only: the tunnel interface has no IPv6, so none leaves by it.
  - An onsite refuses what is not within its scope, to whomever the server has joined it.

Packets out of the tunnel bear addresses that the device may know from
elsewhere, so the tunnel's reverse path filter is loose: it asks for some route
to the source, which a device with a default route always has.
"""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network, collapse_addresses

from rdvtwisted import gate
from rdvtwisted.errors import InvalidValue
from rdvtwisted.plan import (
    DEFAULT_ROUTE,
    Address,
    Connections,
    FirewallTable,
    LinkUp,
    Plan,
    Route,
    Rule,
    Site,
    Step,
    Sysctl,
    firewall_name,
    mark_number,
    rule_priority,
    table_number,
)
from rdvtwisted.scope import ALL, Scope

#: IPv4 and TCP headers without options, in bytes: what a segment leaves of the MTU.
_HEADERS = 40

#: Connections out of the tunnel that an onsite keeps in mind at a time, and new ones in a second; others are not
#: opened. Its table has room for all connections of the machine: some ten thousand.
CONNECTIONS = 4096
NEW_CONNECTIONS = 1000

#: Prefix length above which a route is a reason to refuse addresses. A shorter one is for many networks at once: all
#: private ones (RFC 1918), a company's, half the Internet.
_WIDE_ROUTE = 16

_LOOPBACK = IPv4Network("127.0.0.0/8")


def master(owner: str, tunnel: str, extremity: str, address: IPv4Interface, mtu: int, site: Site) -> Plan:
    """
    The plan of a master: what enters by the extremity goes into the tunnel, or nowhere.

    Never translates addresses. Nothing can be opened out of the tunnel, neither
    to the engineer's PC nor to the master itself.

    @param tunnel: the tunnel interface, which exists already.
    @param extremity: the interface towards the engineer's PC.
    @param address: the tunnel interface's own.
    @param mtu: the tunnel interface's, in bytes.
    @raise InvalidValue: the tunnel's addresses are those of a network that this machine is attached to or has a
        route to, or of its DNS servers.
    """
    rules = _MASTER_RULES.format(
        tunnel=tunnel, extremity=extremity, mss=mtu - _HEADERS, mark=f"{mark_number(owner):#x}"
    )
    steering = Rule(rule_priority(owner), table_number(owner), incoming=extremity)
    return _routed(owner, tunnel, extremity, address, mtu, site, rules, steering)


def onsite(
    owner: str, tunnel: str, extremity: str, address: IPv4Interface, mtu: int, site: Site, scope: Scope = ALL
) -> Plan:
    """
    The plan of an onsite: what comes out of the tunnel reaches the LAN, with
    the onsite's own LAN address as source, and the onsite itself.

    Connections out of the tunnel are marked, and their replies alone go back
    into it, from the LAN and from the device itself. Other traffic that enters
    by the LAN interface is forwarded as before: if the machine did so already.

    Parameters and errors: as L{master}; the extremity is the interface towards the LAN.

    @param scope: where connections out of the tunnel may go; the device itself is a place as any other. Of plans
        that differ in it alone one can follow another without a moment in which more could pass than either says,
        and what it does not permit any more ends.
    """
    attachment = site.attachment(extremity)
    names = {
        "tunnel": tunnel,
        "extremity": extremity,
        "mark": f"{mark_number(owner):#x}",
        "permitted": gate.CHAIN,
    }
    limited = scope != ALL
    rules = gate.chain(scope) + _ONSITE_RULES.format(
        **names,
        mss=mtu - _HEADERS,
        most=CONNECTIONS,
        rate=NEW_CONNECTIONS,
        neighbours=_neighbours(site, tunnel),
        others="accept" if attachment is not None and attachment.forwards else "drop",
        entrance=_ONSITE_ENTRANCE.format(**names) if limited else "",
        exit=_ONSITE_EXIT.format(**names) if limited else "",
        passage=_ONSITE_PASSAGE.format(**names) if limited else "",
    )
    steering = Rule(rule_priority(owner), table_number(owner), mark=mark_number(owner))
    return _routed(owner, tunnel, extremity, address, mtu, site, rules, steering)


def _routed(
    owner: str,
    tunnel: str,
    extremity: str,
    address: IPv4Interface,
    mtu: int,
    site: Site,
    rules: str,
    steering: Rule,
) -> Plan:
    _refuse_taken(address, tunnel, site)
    steps: tuple[Step, ...] = (
        Sysctl(f"net/ipv6/conf/{tunnel}/disable_ipv6", "1", optional=True),
        Sysctl(f"net/ipv4/conf/{tunnel}/rp_filter", "2"),
        Sysctl(f"net/ipv4/conf/{tunnel}/accept_redirects", "0"),
        Connections(mark_number(owner)),
        FirewallTable("inet", firewall_name(owner), rules),
        # By itself: with its network it would bring a route along, for the device's own traffic, too.
        Address(tunnel, IPv4Interface(address.ip)),
        LinkUp(tunnel, mtu),
        Route(table_number(owner), DEFAULT_ROUTE, tunnel),
        Sysctl(f"net/ipv4/conf/{tunnel}/forwarding", "1"),
        Sysctl(f"net/ipv4/conf/{extremity}/forwarding", "1"),
        steering,
    )
    return Plan(owner, steps)


def _refuse_taken(address: IPv4Interface, tunnel: str, site: Site) -> None:
    """Own addresses are found before any route is: what is at another place could not be reached there any more."""

    def refuse(reason: str) -> InvalidValue:
        return InvalidValue("tunnel address", str(address), f"{reason}; let the server lease from another pool")

    for each in site.attachments:
        if each.interface != tunnel and each.address.network.overlaps(address.network):
            raise refuse(f"this machine has {each.address.network} on {each.interface}")
    for network, interface in site.routes:
        if interface != tunnel and network.prefixlen > _WIDE_ROUTE and network.overlaps(address.network):
            raise refuse(f"this machine has a route to {network}")
    for server in site.dns:
        if server in address.network:
            raise refuse(f"this machine has its DNS server {server} there")


def _neighbours(site: Site, tunnel: str) -> str:
    """The networks that the device is attached to, as elements of a set of nft's; at least one."""
    networks = {each.address.network for each in site.attachments if each.interface != tunnel}
    return ", ".join(map(str, collapse_addresses({*networks, _LOOPBACK})))


# The largest segment is written into SYN packets of both directions, for the
# device itself too. A number, not "rt mtu": nft would take the MTU of the route
# that the device itself has to either end, and that is not by the tunnel.
#
# "ct mark" says that a connection was opened through the allowed entrance; the
# words "ct direction" alone would let a packet pass that conntrack gave up on.
# What the device itself sends by the tunnel is marked as it leaves, so that
# answers are let in to that, and not to what it has asked of others elsewhere.
#
# An ICMP redirect is never of use from afar. That a packet was too large is
# remembered for the address that it went to, whoever has that elsewhere: the
# device itself sends nothing larger into the tunnel than this takes.

_MASTER_RULES = """\
chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{tunnel}" icmp type redirect drop
    iifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
}}
chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{tunnel}" accept
    icmp type destination-unreachable icmp code frag-needed drop
    ct state established,related ct direction reply ct mark {mark} accept
    drop
}}
chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{extremity}" oifname "{tunnel}" ct state new ct mark set {mark}
    iifname "{extremity}" oifname "{tunnel}" ct mark {mark} accept
    iifname "{tunnel}" oifname "{extremity}" ct state established,related ct mark {mark} accept
    iifname {{ "{tunnel}", "{extremity}" }} drop
    oifname "{tunnel}" drop
}}
chain postrouting {{
    type filter hook postrouting priority mangle; policy accept;
    oifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    oifname "{tunnel}" ct state new ct direction original ct mark set {mark}
}}
"""

# Connections are counted when they are opened, each once, and at a limited rate:
# what was counted is looked through now and then, and that must keep up.
#
# To the device itself: answers to what it has asked the tunnel's other end, and
# what is permitted; not in the name of those whom it has on its own networks.
# From it: no more of what is not permitted any more; but the refusals are let
# out, which belong to the connections that they refuse. (A packet's interface
# is still the one of before it was steered into the tunnel.)

_ONSITE_RULES = """\
chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{tunnel}" icmp type redirect drop
    iifname "{tunnel}" ct state new ct mark != {mark} jump opening
    iifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    iifname "{extremity}" ct direction reply ct mark {mark} meta mark set {mark}
}}
chain opening {{
    limit rate over {rate}/second burst {most} packets drop
    ct count over {most} drop
    ct mark set {mark}
}}
chain output {{
    type route hook output priority mangle; policy accept;
    ct direction reply ct mark {mark} meta mark set {mark}
}}
chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{tunnel}" accept
    icmp type destination-unreachable icmp code frag-needed drop
    ct state established,related ct direction reply ct mark {mark} accept
    ip saddr {{ {neighbours} }} drop
    ip daddr {{ 224.0.0.0/4, 255.255.255.255 }} drop
{entrance}\
    ct state new,established,related ct mark {mark} accept
    drop
}}
{exit}\
chain forward {{
    type filter hook forward priority filter; policy accept;
{passage}\
    iifname "{tunnel}" oifname "{extremity}" ct state new,established,related ct mark {mark} accept
    iifname "{extremity}" oifname "{tunnel}" ct state established,related ct direction reply ct mark {mark} accept
    iifname "{tunnel}" drop
    oifname "{tunnel}" drop
    meta nfproto ipv4 iifname "{extremity}" {others}
}}
chain postrouting {{
    type filter hook postrouting priority mangle; policy accept;
    oifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    oifname "{tunnel}" ct state new ct direction original ct mark set {mark}
}}
chain source {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{extremity}" ct mark {mark} masquerade
}}
"""

_ONSITE_ENTRANCE = """\
    ct mark {mark} jump {permitted}
"""

_ONSITE_EXIT = """\
chain leaving {{
    type filter hook output priority filter; policy accept;
    ct mark != {mark} accept
    ct direction original accept
    meta l4proto icmp accept
    tcp flags & rst == rst accept
    jump {permitted}
}}
"""

_ONSITE_PASSAGE = """\
    iifname "{tunnel}" oifname "{extremity}" ct mark {mark} jump {permitted}
    iifname "{extremity}" oifname "{tunnel}" ct mark {mark} jump {permitted}
"""
