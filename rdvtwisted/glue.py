"""
What the server holds of a session whose two tunnels end at the server, as a value.

All of it lies in one network namespace of its own, in which there is nothing
but the two tunnels: no uplink, no loopback, no other session. So two customers
with the same addresses cannot meet, and nothing of the server's own network is
used, changed or reached.

L3: what comes out of the master's tunnel leaves by the onsite's, with the
server's address in the onsite's block as source; replies come back. The end of
each tunnel at the server answers the pings of its device, as old devices want
to see. Where the onsite's LAN is limited to a scope the rest of it is refused
here, too; an old onsite does not do that itself. Everything else is dropped.

L2: one bridge of both tunnels, without an address. Devices of any age are at
its ends, so what must not pass is kept back here, too: frames that are for the
next switch only, and floods.

The words of L{Open}, L{Confine} and L{Close} are all that may be asked of the
process that makes such namespaces; whatever they hold is checked here, at both ends.
"""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Interface, IPv4Network
from typing import Any, Union

from attrs import Attribute, field, frozen
from attrs.validators import instance_of, optional

from rdvtwisted import gate
from rdvtwisted.bridged import FLOOD_BURST, FLOOD_RATE
from rdvtwisted.errors import InvalidValue
from rdvtwisted.plan import DEFAULT_ROUTE, Address, FirewallTable, LinkUp, Route, Rule, Step, Sysctl
from rdvtwisted.scope import ALL, LONGEST_SCOPE, Scope
from rdvtwisted.values import Lease, Mode

#: Names of the interfaces; the same in each namespace.
ONSITE, MASTER, BRIDGE = "onsite", "master", "bridge"

#: Bytes that the MTU of a tunnel may have: from what every IPv4 host must take (RFC 791) to the most that a
#: TAP device takes (65,535 with its Ethernet header).
MTUS = range(576, 65_522)
#: MTU of an old device's tunnel, in bytes.
DEFAULT_MTU = 1450
#: Connections through one session that the kernel remembers at a time; it drops what would open more.
CONNECTIONS = 4096
#: Bytes of the longest message of the two processes; most of it may be a scope.
LONGEST_MESSAGE = LONGEST_SCOPE + 4096
#: The firewall table of the namespace.
TABLE_NAME = "rdv"

#: Prefix length of a device's block: the server's end, the device's end.
_BLOCK_PREFIX = 30
#: The table of routes that everybody looks into.
_MAIN_TABLE = 254
#: The table of what comes out of the master's tunnel, and the priority of the rule that says so.
_TABLE, _PRIORITY = 20_000, 20_000
#: IPv4 and TCP headers without options, in bytes: what a segment leaves of the MTU; and those of IPv6.
_HEADERS, _HEADERS_6 = 40, 60

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


def session_name(text: object) -> str:
    """
    C{text} if it can be the id of a session.

    @raise InvalidValue: it is not 1 to 64 letters, digits, C{_ -}.
    """
    if not isinstance(text, str) or _SESSION.fullmatch(text) is None:
        raise InvalidValue("session", str(text), "use 1 to 64 letters, digits, _ -")
    return text


def _block(_: Any, attribute: Attribute[Lease | None], lease: Lease | None) -> None:
    if lease is None:
        return
    network = lease.network
    if network.prefixlen != _BLOCK_PREFIX:
        raise InvalidValue(f"{attribute.name} block", str(network), f"it should have the prefix /{_BLOCK_PREFIX}")
    if (
        network.is_loopback
        or network.is_link_local
        or network.is_multicast
        or network.is_reserved
        or network.overlaps(IPv4Network("0.0.0.0/8"))
    ):
        raise InvalidValue(f"{attribute.name} block", str(network), "no host can have such addresses")


@frozen
class GlueSpec:
    """
    The namespace of one session.

    Of each block the first host is the server's end, the second the device's.

    @raise InvalidValue: a field cannot be used.
    """

    session: str = field(converter=session_name)
    mode: Mode = field(validator=instance_of(Mode))
    #: The block of each device's tunnel; L{None} in L2.
    onsite: Lease | None = field(default=None, validator=[optional(instance_of(Lease)), _block])
    master: Lease | None = field(default=None, validator=[optional(instance_of(Lease)), _block])
    #: Of both tunnels, in bytes.
    mtu: int = DEFAULT_MTU
    #: Packets come and go with a C{struct virtio_net_hdr} in front; without, none is larger than the MTU.
    headers: bool = False
    #: In L2: the largest packets that a device which cannot say so lets through, in bytes; L{None}: those of the MTU.
    path: int | None = None
    #: Where the master's packets may go; everywhere in L2.
    scope: Scope = field(default=ALL, validator=instance_of(Scope))

    def __attrs_post_init__(self) -> None:
        for mtu in (self.mtu, self.mtu if self.path is None else self.path):
            if type(mtu) is not int or mtu not in MTUS:
                raise InvalidValue("MTU", str(mtu), f"use {MTUS.start} to {MTUS.stop - 1} bytes")
        if type(self.headers) is not bool:
            raise InvalidValue("headers", str(self.headers), "use true or false")
        if self.mode is Mode.L2:
            if self.onsite is not None or self.master is not None:
                raise InvalidValue("mode", self.mode.value, "a bridged session has no addresses")
            if self.scope != ALL:
                raise InvalidValue("mode", self.mode.value, "destinations cannot be kept in a bridged session")
        elif self.onsite is None or self.master is None:
            raise InvalidValue("mode", self.mode.value, "a routed session needs a block for each device")
        elif self.onsite.network.overlaps(self.master.network):
            raise InvalidValue("master block", str(self.master.network), "it is the onsite's, too")

    @property
    def steps(self) -> tuple[Step, ...]:
        """What to do with the interfaces once they are there (in L2 with both tunnels in the bridge), in this order."""
        if self.onsite is None or self.master is None:
            return self._bridged()
        return self._routed(self.onsite, self.master)

    @property
    def firewall(self) -> FirewallTable | None:
        """What of the steps depends on the scope; in L2 nothing."""
        if self.onsite is None or self.master is None:
            return None
        return self._firewall(self.onsite, self.master)

    def _firewall(self, onsite: Lease, master: Lease) -> FirewallTable:
        names = {"onsite": ONSITE, "master": MASTER, "permitted": gate.CHAIN}
        limited = self.scope != ALL
        rules = gate.chain(self.scope) + _RULES.format(
            **names,
            onsite_server=onsite.first.ip,
            onsite_device=onsite.second.ip,
            master_server=master.first.ip,
            master_device=master.second.ip,
            mss=self.mtu - _HEADERS,
            connections=CONNECTIONS,
            refusals=_REFUSALS if limited else "",
            passage=_PASSAGE.format(**names) if limited else "",
        )
        return FirewallTable("inet", TABLE_NAME, rules)

    def _bridged(self) -> tuple[Step, ...]:
        names = (ONSITE, MASTER, BRIDGE)
        path = self.mtu if self.path is None else self.path
        rules = "".join(
            _BRIDGED_RULES.format(
                name=name, rate=FLOOD_RATE, burst=FLOOD_BURST, mss=path - _HEADERS, mss_6=path - _HEADERS_6
            )
            for name in (ONSITE, MASTER)
        )
        return (
            # Frames pass the bridge without the detour by the rules for routed packets.
            *(Sysctl(f"net/bridge/bridge-nf-call-{kind}tables", "0", optional=True) for kind in ("ip", "ip6", "arp")),
            *(_no_ipv6(name) for name in names),
            FirewallTable("netdev", "rdv", rules),
            *(LinkUp(name, self.mtu) for name in names),
        )

    def _routed(self, onsite: Lease, master: Lease) -> tuple[Step, ...]:
        ends = ((ONSITE, onsite), (MASTER, master))
        return (
            *(_no_ipv6(name) for name, _ in ends),
            # A new namespace inherits these from the server's own. Any address may come out of either tunnel,
            # whatever the way back; and what should not is no matter for the server's kernel log.
            *(
                Sysctl(f"net/ipv4/conf/{name}/{setting}", "0")
                for name in ("all", ONSITE, MASTER)
                for setting in ("rp_filter", "log_martians")
            ),
            self._firewall(onsite, master),
            *(step for name, lease in ends for step in _end(name, lease, self.mtu)),
            # Where replies go, once their addresses are translated back ...
            Route(_MAIN_TABLE, DEFAULT_ROUTE, MASTER),
            # ... and where everything goes that the master sends.
            Route(_TABLE, DEFAULT_ROUTE, ONSITE),
            Rule(_PRIORITY, _TABLE, incoming=MASTER),
            *(Sysctl(f"net/ipv4/conf/{name}/forwarding", "1") for name, _ in ends),
        )


def _no_ipv6(name: str) -> Step:
    return Sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1", optional=True)


def _end(name: str, lease: Lease, mtu: int) -> tuple[Step, ...]:
    """A tunnel's end at the server: point to point, so that the block's other two addresses mean nothing."""
    return (
        Address(name, IPv4Interface(lease.first.ip)),
        LinkUp(name, mtu),
        Route(_MAIN_TABLE, IPv4Network(lease.second.ip), name),
    )


# The largest segment is written into SYN packets of both directions: old
# devices do not, and a PC that thinks of 1500 bytes would wait for ICMP.
# "ct direction reply" is what tells an answer from what the onsite's side opens.
_RULES = """\
chain input {{
    type filter hook input priority filter; policy drop;
    iifname "{onsite}" ip saddr {onsite_device} ip daddr {onsite_server} icmp type echo-request accept
    iifname "{master}" ip saddr {master_device} ip daddr {master_server} icmp type echo-request accept
}}
chain output {{
    type filter hook output priority filter; policy drop;
    icmp type echo-reply accept
{refusals}\
}}
chain forward {{
    type filter hook forward priority filter; policy drop;
    meta nfproto != ipv4 drop
{passage}\
    tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    iifname "{master}" oifname "{onsite}" ct state established,related accept
    iifname "{master}" oifname "{onsite}" ct state new ct count over {connections} drop
    iifname "{master}" oifname "{onsite}" ct state new accept
    iifname "{onsite}" oifname "{master}" ct state established,related ct direction reply accept
}}
chain source {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{onsite}" masquerade
}}
"""

_PASSAGE = """\
    iifname "{master}" oifname "{onsite}" ct state new,established,related jump {permitted}
    iifname "{onsite}" oifname "{master}" ct state established,related jump {permitted}
"""

# To the master alone: here is no way to the other side for what comes from here.
_REFUSALS = """\
    ct direction reply tcp flags & rst == rst accept
    ct direction reply icmp type destination-unreachable accept
"""


# Cisco's are not among the addresses that a bridge keeps back by itself. A
# bridge cannot send the ICMP that tells of a packet too large, so at least TCP
# learns how large a segment may be.
_BRIDGED_RULES = """\
chain {name} {{
    type filter hook ingress device "{name}" priority 0; policy accept;
    ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
    ether daddr & ff:ff:ff:ff:ff:fe == 01:00:0c:cc:cc:cc drop
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 limit rate over {rate}/second burst {burst} packets drop
    ether type ip tcp flags & (syn | rst) == syn tcp option maxseg size set {mss}
    ether type ip6 tcp flags & (syn | rst) == syn tcp option maxseg size set {mss_6}
}}
"""


# ---------------------------------------------------------------- what may be asked


@frozen
class Open:
    """Make this namespace, and answer with the descriptors of its tunnels: the onsite's, the master's."""

    spec: GlueSpec


@frozen
class Confine:
    """From now on the packets of a routed session go where this scope says, and nowhere else."""

    session: str = field(converter=session_name)
    scope: Scope = field(validator=instance_of(Scope))


@frozen
class Close:
    """Remove the namespace of this session, if there is one."""

    session: str = field(converter=session_name)


GlueRequest = Union[Open, Confine, Close]

_OPEN = frozenset(["do", "session", "mode", "onsite", "master", "mtu", "headers", "path", "scope"])
_CONFINE = frozenset(["do", "session", "scope"])
_CLOSE = frozenset(["do", "session"])


def request_to_bytes(request: GlueRequest) -> bytes:
    """A request as one message: a JSON object."""
    if isinstance(request, Close):
        return json.dumps({"do": "close", "session": request.session}).encode("ascii")
    if isinstance(request, Confine):
        return json.dumps({"do": "confine", "session": request.session, "scope": str(request.scope)}).encode("ascii")
    spec = request.spec
    blocks = {
        name: None if lease is None else str(lease.network)
        for name, lease in (("onsite", spec.onsite), ("master", spec.master))
    }
    record: dict[str, object] = {"do": "open", "session": spec.session, "mode": spec.mode.value, **blocks}
    record |= {"mtu": spec.mtu, "headers": spec.headers, "path": spec.path, "scope": str(spec.scope)}
    return json.dumps(record).encode("ascii")


def request_from_bytes(data: bytes) -> GlueRequest:
    """
    The request that a message holds.

    @raise InvalidValue: it is none, or holds a value that cannot be used.
    """
    if len(data) > LONGEST_MESSAGE:
        raise InvalidValue("request", "", f"it should have at most {LONGEST_MESSAGE} bytes")
    try:
        record = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        raise InvalidValue("request", "", "it should be a JSON object") from None
    if isinstance(record, dict):
        if record.get("do") == "close" and record.keys() == _CLOSE:
            return Close(record["session"])
        if record.get("do") == "confine" and record.keys() == _CONFINE:
            return Confine(record["session"], _scope(record["scope"]))
        if record.get("do") == "open" and record.keys() == _OPEN:
            return Open(_spec(record))
    raise InvalidValue("request", repr(record), "it should open, confine or close a session, and have all its fields")


def _spec(record: dict[str, Any]) -> GlueSpec:
    if record["mode"] not in ("L3", "L2"):
        raise InvalidValue("mode", str(record["mode"]), "use L3 or L2")
    return GlueSpec(
        session=record["session"],
        mode=Mode(record["mode"]),
        onsite=_lease("onsite", record["onsite"]),
        master=_lease("master", record["master"]),
        mtu=record["mtu"],
        headers=record["headers"],
        path=record["path"],
        scope=_scope(record["scope"]),
    )


def _scope(text: object) -> Scope:
    if not isinstance(text, str):
        raise InvalidValue("scope", str(text), "use a text")
    return Scope.parse(text)


def _lease(name: str, text: object) -> Lease | None:
    if text is None:
        return None
    try:
        if not isinstance(text, str):
            raise ValueError("not text")
        return Lease(IPv4Network(text))
    except ValueError:
        raise InvalidValue(f"{name} block", str(text), "use an IPv4 network such as 192.168.128.0/30") from None
