"""
The plans of the routed mode (L3): what joins the extremity and the tunnel of a device.

What both ends promise:

  - Only packets that enter by the extremity take the tunnel. The device's own
    traffic finds the same routes as before.
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

from ipaddress import IPv4Interface

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


def master(owner: str, tunnel: str, extremity: str, address: IPv4Interface, mtu: int, site: Site) -> Plan:
    """
    The plan of a master: what enters by the extremity goes into the tunnel, or nowhere.

    Never translates addresses. Nothing can be opened out of the tunnel, neither
    to the engineer's PC nor to the master itself.

    @param tunnel: the tunnel interface, which exists already.
    @param extremity: the interface towards the engineer's PC.
    @param address: the tunnel interface's own.
    @param mtu: the tunnel interface's, in bytes.
    @raise InvalidValue: the tunnel's addresses are those of a network that this machine is attached to.
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
        "block": address.network,
        "permitted": gate.CHAIN,
    }
    limited = scope != ALL
    rules = gate.chain(scope) + _ONSITE_RULES.format(
        **names,
        mss=mtu - _HEADERS,
        others="accept" if attachment is not None and attachment.forwards else "drop",
        gates=_ONSITE_GATES.format(**names) if limited else "",
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
    for each in site.attachments:
        if each.interface != tunnel and each.address.network.overlaps(address.network):
            raise InvalidValue(
                "tunnel address",
                str(address),
                f"this machine has {each.address.network} on {each.interface}; let the server lease from another pool",
            )
    steps: tuple[Step, ...] = (
        Sysctl(f"net/ipv6/conf/{tunnel}/disable_ipv6", "1", optional=True),
        Sysctl(f"net/ipv4/conf/{tunnel}/rp_filter", "2"),
        Connections(mark_number(owner)),
        FirewallTable("inet", firewall_name(owner), rules),
        Address(tunnel, address),
        LinkUp(tunnel, mtu),
        Route(table_number(owner), DEFAULT_ROUTE, tunnel),
        Sysctl(f"net/ipv4/conf/{tunnel}/forwarding", "1"),
        Sysctl(f"net/ipv4/conf/{extremity}/forwarding", "1"),
        steering,
    )
    return Plan(owner, steps)


# The largest segment is written into SYN packets of both directions, for the
# device itself too. A number, not "rt mtu": nft would take the MTU of the route
# that the device itself has to either end, and that is not by the tunnel.
#
# "ct mark" says that a connection was opened through the allowed entrance; the
# words "ct direction" alone would let a packet pass that conntrack gave up on.

_MASTER_RULES = """\
chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
}}
chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{tunnel}" accept
    ct state established,related accept
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
}}
"""

_ONSITE_RULES = """\
chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    iifname "{tunnel}" ct state new ct mark set {mark}
    iifname "{extremity}" ct direction reply ct mark {mark} meta mark set {mark}
}}
chain output {{
    type route hook output priority mangle; policy accept;
    ct direction reply ct mark {mark} meta mark set {mark}
}}
{gates}\
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
}}
chain source {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{extremity}" ct mark {mark} masquerade
}}
"""

# To the device itself: answers to what it has asked the tunnel's other end, and
# what is permitted. From it: no more of what is not permitted any more; but the
# refusals are let out, which belong to the connections that they refuse. (A
# packet's interface is still the one of before it was steered into the tunnel.)

_ONSITE_GATES = """\
chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{tunnel}" accept
    ip saddr {block} ct state established,related ct direction reply accept
    ct mark {mark} jump {permitted}
    ct state new,established,related ct mark {mark} accept
    drop
}}
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
