"""
The plans of the bridged mode (L2): the engineer's PC is on the customer's LAN.

No bridge of the kernel's is made, and no address moves. Rules at the network
interfaces themselves take frames over between the extremity and the tunnel,
which docs/l2.md compares with a bridge. What both ends promise:

  - Ethernet frames pass as they are: ARP, DHCP, IPv6, VLAN tags. What is meant
    for the next switch only, such as spanning tree, does not pass.
  - Nothing of the device itself enters the tunnel: what an interface of ours
    lets out bears our mark, or goes nowhere.
  - Who has just been heard at the extremity is not in the tunnel, so that a
    loop through both devices is cut before its first round is over.
  - Broadcasts and multicasts pass at a limited rate, so a loop that only one of
    the devices could cut, the other being an old one, fills no tunnel.

An onsite stays on its LAN with the addresses, routes and connections it has:
frames for it are copied or handed to it, never taken away.

A master has no part in the customer's LAN: what enters by the extremity goes
into the tunnel and nowhere else, and the master sends nothing by it.
"""

from __future__ import annotations

from ipaddress import ip_address

from rdvtwisted.errors import InvalidValue
from rdvtwisted.plan import (
    FirewallTable,
    LinkUp,
    Pair,
    Plan,
    Port,
    Promiscuous,
    Redirection,
    Site,
    Step,
    Sysctl,
    firewall_name,
    interface_name,
    mark_number,
)

#: Broadcasts and multicasts a second that pass in each direction, and how many more at once. A busy LAN has some
#: hundred; a loop in a cabling has as many as the cable holds.
FLOOD_RATE = 1_000
FLOOD_BURST = 2_000
#: How many hardware addresses an onsite remembers of the PC's side; further ones are heard but not answered.
ADDRESSES = 4_096
#: For how long after its last frame, as nft writes it. Longer than any ARP cache, since unknown addresses get nothing.
ADDRESS_AGE = "1h"
#: For how long after a machine has been heard at the extremity nothing in the tunnel may bear its address.
NEIGHBOUR_AGE = "1m"


def port(extremity: str, site: Site) -> Port:
    """
    The extremity as a port that can be bridged.

    @raise InvalidValue: it cannot; why, and what to do.
    """
    found = site.port(extremity)
    if found is None:
        raise InvalidValue("extremity", extremity, "there is no such interface")
    if found.kind == "wlan":
        raise InvalidValue("extremity", extremity, "Wi-Fi carries its own frames only: use L3, or a cable")
    if found.hardware is None:
        raise InvalidValue("extremity", extremity, "it is no Ethernet interface: use L3")
    if found.upper is not None:
        raise InvalidValue("extremity", extremity, f"it is a part of {found.upper} already: use L3, or take it out")
    return found


def apart(extremity: str, site: Site) -> Port:
    """
    The extremity of a master, which has no other use while it is bridged.

    @raise InvalidValue: it cannot be bridged, or has another use.
    """
    if extremity == site.interface:
        raise InvalidValue("extremity", extremity, "this device's own way to the server leads through it: use L3")
    return port(extremity, site)


def refuse_own_terminal(extremity: str, site: Site, connection: str | None) -> None:
    """
    Refuse to cut off the terminal that the operator sits at.

    @param connection: what sshd has told about it (C{SSH_CONNECTION}: address and port of the client, then of the
        server), if it comes over the network.
    @raise InvalidValue: it comes through the extremity.
    """
    words = (connection or "").split()
    if len(words) != 4:
        return
    for text in (words[0], words[2]):
        host, _, scope = text.partition("%")
        try:
            address = ip_address(host)
        except ValueError:
            continue
        found = site.port(extremity)
        here = found is not None and any(address == each.ip or address in each.network for each in found.addresses)
        if scope == extremity or (here and not scope):
            raise InvalidValue(
                "extremity",
                extremity,
                f"your own terminal comes through it (SSH from {words[0]}) and would be cut off: come by another way",
            )


def master(owner: str, tunnel: str, extremity: str, mtu: int, site: Site, *, dhcp: bool = True) -> Plan:
    """
    The plan of a master: extremity and tunnel are the two ends of a wire.

    @param tunnel: the tunnel interface, a TAP, which exists already.
    @param extremity: the interface towards the engineer's PC.
    @param mtu: the tunnel interface's, in bytes.
    @param dhcp: the LAN may give the PC its addresses.
    @raise InvalidValue: the extremity cannot be bridged.
    """
    apart(extremity, site)
    rules = _MASTER_RULES.format(
        tunnel=tunnel, extremity=extremity, apart="" if dhcp else _APART, mark=f"{mark_number(owner):#x}", **_COMMON
    )
    steps: tuple[Step, ...] = (
        *_silent(tunnel),
        FirewallTable("netdev", firewall_name(owner), rules),
        LinkUp(tunnel, mtu),
        Promiscuous(extremity),
    )
    return Plan(owner, steps)


def onsite(owner: str, tunnel: str, extremity: str, mtu: int, site: Site) -> Plan:
    """
    The plan of an onsite: what comes out of the tunnel is on the LAN, and at the onsite itself.

    It remembers the hardware addresses that come out of the tunnel, as a switch
    does; what the LAN or the onsite itself sends to them goes into it, and
    nothing else that has one addressee: not what a switch sends everywhere for
    want of knowledge, and above all not the tunnel's own packets.

    For the onsite itself, frames take the way through a pair of interfaces,
    which ends as if the extremity had received them: addresses, firewall, DHCP
    client and listening programs see a neighbour on the LAN.

    Parameters and errors: as L{master}; the extremity is the interface towards the LAN.
    """
    here, there = interface_name("rdvi", owner), interface_name("rdvo", owner)
    rules = _ONSITE_RULES.format(
        tunnel=tunnel,
        extremity=extremity,
        own=port(extremity, site).hardware,
        here=here,
        there=there,
        mark=f"{mark_number(owner):#x}",
        **_COMMON,
    )
    steps: tuple[Step, ...] = (
        *_silent(tunnel),
        Pair(here, there),
        *_silent(here),
        *_silent(there),
        FirewallTable("netdev", firewall_name(owner), rules),
        Redirection(there, extremity),
        LinkUp(there, mtu),
        LinkUp(here, mtu),
        LinkUp(tunnel, mtu),
        Promiscuous(extremity),
    )
    return Plan(owner, steps)


def _silent(interface: str) -> tuple[Step, ...]:
    """The device itself says nothing by an interface of ours, even if somebody takes its rules away."""
    return (
        Sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1", optional=True),
        Sysctl(f"net/ipv4/conf/{interface}/arp_ignore", "8"),
    )


# A frame that bears the mark was put on its way by these rules. Marks do not
# leave the machine, and none is left on what the device itself receives.
#
# Addresses 01:80:c2:00:00:00 to 0f are for the next switch only (IEEE 802.1D:
# spanning tree, pause, 802.1X, LLDP), 01:00:0c:cc:cc:cc and cd are Cisco's
# (CDP, PVST+): a customer's switch that hears spanning tree where it expects a
# device may switch the port off, and the onsite with it.

_COMMON = {
    "flood": "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00",
    "next": "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00",
    "cisco": "ether daddr & ff:ff:ff:ff:ff:fe == 01:00:0c:cc:cc:cc",
    "group": "ether saddr & 01:00:00:00:00:00 == 01:00:00:00:00:00",
    "rate": f"{FLOOD_RATE}/second burst {FLOOD_BURST} packets",
    "size": f"{ADDRESSES}",
    "age": ADDRESS_AGE,
    "neighbour_age": NEIGHBOUR_AGE,
}

_APART = """\
    udp dport { 67, 68, 546, 547 } drop
    icmpv6 type { nd-router-solicit, nd-router-advert } drop
"""

_MASTER_RULES = """\
set near {{
    type ether_addr; size {size}; flags dynamic,timeout; timeout {neighbour_age};
}}
chain arriving {{
    type filter hook ingress device "{extremity}" priority 0; policy drop;
    {group} drop
    {next} drop
    {cisco} drop
    update @near {{ ether saddr }}
{apart}\
    {flood} limit rate over {rate} drop
    meta mark set {mark}
    fwd to "{tunnel}"
}}
chain tunnel {{
    type filter hook ingress device "{tunnel}" priority 0; policy drop;
    {next} drop
    {cisco} drop
    ether saddr @near drop
{apart}\
    {flood} limit rate over {rate} drop
    meta mark set {mark}
    fwd to "{extremity}"
}}
chain leaving {{
    type filter hook egress devices = {{ "{extremity}", "{tunnel}" }} priority 0; policy drop;
    meta mark {mark} accept
}}
"""

# "neighbours" are the machines that the onsite talks with over its LAN, its
# gateway among them: whatever is in the tunnel cannot take their place, or it
# would take the tunnel's own packets. So are those that the LAN hears, unless
# they have been in the tunnel before: their frames come out of it in a loop only.

_ONSITE_RULES = """\
set distant {{
    type ether_addr; size {size}; flags dynamic,timeout; timeout {age};
}}
set neighbours {{
    type ether_addr; size {size}; flags dynamic,timeout; timeout {neighbour_age};
}}
chain tunnel {{
    type filter hook ingress device "{tunnel}" priority 0; policy drop;
    {group} drop
    {next} drop
    {cisco} drop
    ether saddr {own} drop
    ether saddr @neighbours drop
    {flood} limit rate over {rate} drop
    update @distant {{ ether saddr }}
    meta mark set {mark}
    ether daddr {own} fwd to "{here}"
    {flood} dup to "{extremity}" fwd to "{here}"
    ether daddr @distant drop
    fwd to "{extremity}"
}}
chain arriving {{
    type filter hook ingress device "{extremity}" priority 0; policy accept;
    meta mark {mark} ether daddr {own} meta pkttype set host
    meta mark {mark} meta mark set 0 accept
    ether daddr {own} update @neighbours {{ ether saddr }} accept
    {next} accept
    {cisco} accept
    {flood} ether saddr != @distant update @neighbours {{ ether saddr }}
    ether saddr @distant delete @distant {{ ether saddr }}
    {flood} limit rate {rate} meta mark set {mark} dup to "{tunnel}" meta mark set 0 accept
    ether daddr @distant meta mark set {mark} fwd to "{tunnel}"
}}
chain leaving {{
    type filter hook egress device "{extremity}" priority 0; policy accept;
    meta mark {mark} accept
    {next} accept
    {cisco} accept
    {flood} limit rate {rate} meta mark set {mark} dup to "{tunnel}" meta mark set 0 accept
    ether daddr @distant update @distant {{ ether daddr }} meta mark set {mark} fwd to "{tunnel}"
}}
chain ours {{
    type filter hook egress devices = {{ "{tunnel}", "{here}", "{there}" }} priority 0; policy drop;
    meta mark {mark} accept
}}
chain apart {{
    type filter hook ingress devices = {{ "{here}", "{there}" }} priority 0; policy drop;
}}
"""
