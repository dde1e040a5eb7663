"""Plans as values: what is in them, in which order, and that they survive being written down."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import routed
from rdvtwisted.errors import InvalidValue
from rdvtwisted.plan import (
    MARKS,
    PRIORITIES,
    TABLES,
    Address,
    Attachment,
    Connections,
    FirewallTable,
    LinkUp,
    Pair,
    Plan,
    Promiscuous,
    Redirection,
    Route,
    Rule,
    Site,
    Step,
    Sysctl,
    TunTap,
    firewall_name,
    interface,
    interface_name,
    mark_number,
    owner_name,
    rule_priority,
    step_from_json,
    step_to_json,
    table_number,
)
from rdvtwisted.values import Mode

OWNER = "rpi1100"
TUNNEL_ADDRESS = IPv4Interface("192.168.128.2/30")

names = st.from_regex(r"[A-Za-z0-9_+-]{1,15}", fullmatch=True).filter(lambda name: name not in ("all", "default"))
numbers = st.integers(0, 2**32 - 1)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Address, names, st.builds(IPv4Interface, st.tuples(numbers, st.integers(0, 32)))),
    st.builds(LinkUp, names, st.integers(68, 65535)),
    st.builds(Route, numbers, st.builds(IPv4Network, st.tuples(numbers, st.just(32))), names),
    st.builds(Rule, numbers, numbers, incoming=names, mark=st.none() | numbers),
    st.builds(Rule, numbers, numbers, mark=numbers),
    st.builds(Sysctl, st.just("net/ipv4/conf/eth0.7/forwarding"), st.text(), optional=st.booleans()),
    st.builds(FirewallTable, st.just("inet"), st.just("rdv_1"), st.text()),
    st.builds(Connections, numbers),
    st.builds(Pair, names, names),
    st.builds(TunTap, names, st.sampled_from(Mode)),
    st.builds(Redirection, names, names),
    st.builds(Promiscuous, names),
)


def rules_of(plan: Plan) -> str:
    """The firewall rules of a plan with one table."""
    (table,) = (step for step in plan.steps if isinstance(step, FirewallTable))
    return table.rules


class NameTests(SynchronousTestCase):
    """Names and numbers that belong to an owner."""

    def test_interface_name_fits(self) -> None:
        """However long an owner's name is, the interface name fits the kernel and is the same each time."""
        name = interface_name("rdv", "x" * 64)
        self.assertEqual((len(name), name), (12, interface_name("rdv", "x" * 64)))
        self.assertNotEqual(name, interface_name("rdv", "x" * 63))

    def test_interface_name_too_long(self) -> None:
        """A prefix that leaves no room for the hash is refused rather than cut off."""
        self.assertEqual(len(interface_name("tunnel", OWNER)), 15)
        self.assertRaises(InvalidValue, interface_name, "tunnels", OWNER)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.text(min_size=1))
    def test_numbers_in_range(self, owner: str) -> None:
        """Tables, priorities and marks stay in our ranges, and rules come before the main table."""
        self.assertIn(table_number(owner), TABLES)
        self.assertIn(rule_priority(owner), PRIORITIES)
        self.assertIn(mark_number(owner), MARKS)
        self.assertLess(rule_priority(owner), 32766)

    def test_owner_is_a_file_name(self) -> None:
        """An owner that would leave the journal's directory, or hide in it, is refused."""
        self.assertEqual(owner_name("rpi1100.onsite"), "rpi1100.onsite")
        for text in ("", ".", "..", "a/b", "../a", ".hidden", "a b", "a\n", "x" * 65, "é"):
            self.assertRaises(InvalidValue, owner_name, text)
            self.assertRaises(InvalidValue, Plan, text, ())

    def test_interface_cannot_speak_nft(self) -> None:
        """An interface name that could end nft's quotes, or stand for many interfaces, is refused."""
        self.assertEqual(interface("eth0.100"), "eth0.100")
        for text in ('a"b', "eth*", "a;b", "a b", "a/b", ".", "..", "", "all", "default", "x" * 16, "é"):
            self.assertRaises(InvalidValue, interface, text)
            self.assertRaises(InvalidValue, routed.master, OWNER, "rdv-t", text, TUNNEL_ADDRESS, 1400, Site())
            self.assertRaises(InvalidValue, routed.onsite, OWNER, text, "eth0", TUNNEL_ADDRESS, 1400, Site())


class StepTests(SynchronousTestCase):
    """Steps as values."""

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(steps)
    def test_json_round_trip(self, step: Step) -> None:
        """What is written down is read back as the same step."""
        self.assertEqual(step_from_json(json.loads(json.dumps(step_to_json(step)))), step)

    def test_nonsense_is_refused(self) -> None:
        """What no step has written is refused with our error, whatever it is."""
        good = step_to_json(Route(20000, IPv4Network("0.0.0.0/0"), "eth0"))
        nonsense: list[object] = [
            None,
            [],
            {},
            {"kind": "Reboot"},
            {"kind": []},
            {"kind": "Route"},
            {**good, "interface": "a/b"},
            {**good, "interface": None},
            {**good, "destination": "somewhere"},
            {**good, "table": "x"},
            {**good, "more": 1},
            {"kind": "Rule", "priority": 1, "table": 2, "incoming": None, "mark": None},
            {"kind": "Sysctl", "path": "net/../kernel/core_pattern", "value": "|x", "optional": False},
            {"kind": "Sysctl", "path": "kernel/core_pattern", "value": "|x", "optional": False},
            {"kind": "FirewallTable", "family": "inet", "name": "a { }", "rules": ""},
            {"kind": "TunTap", "interface": "t", "mode": "L4"},
        ]
        for record in nonsense:
            self.assertRaises(InvalidValue, step_from_json, record)

    def test_text(self) -> None:
        """Each step says in a line what it is about, as an operator would look it up."""
        self.assertEqual(
            [
                str(step)
                for step in (
                    Address("t", IPv4Interface("10.0.0.1/30")),
                    LinkUp("t", 1400),
                    Route(20001, IPv4Network("0.0.0.0/0"), "t"),
                    Rule(20002, 20001, incoming="eth1"),
                    Rule(20002, 20001, mark=0x52000001),
                    Sysctl("net/ipv4/conf/t/forwarding", "1"),
                    FirewallTable("inet", "rdv_1", "chain c { }"),
                    Connections(0x52000001),
                    Pair("a", "b"),
                    TunTap("t", Mode.L3),
                    TunTap("t", Mode.L2),
                    Redirection("b", "eth0"),
                    Promiscuous("eth0"),
                )
            ],
            [
                "address 10.0.0.1/30 on t",
                "interface t up, MTU 1400",
                "route 0.0.0.0/0 dev t table 20001",
                "rule 20002 iif eth1 table 20001",
                "rule 20002 fwmark 0x52000001 table 20001",
                "sysctl net/ipv4/conf/t/forwarding=1",
                "firewall table inet rdv_1",
                "tracked connections with mark 0x52000001",
                "interfaces a and b",
                "interface t (TUN)",
                "interface t (TAP)",
                "redirection of b to eth0",
                "interface eth0 promiscuous",
            ],
        )


class RoutedTests(SynchronousTestCase):
    """The plans of the routed mode."""

    def _common(self, extremity: str, rules: str, steering: Rule) -> tuple[Step, ...]:
        return (
            Sysctl("net/ipv6/conf/rdv-t/disable_ipv6", "1", optional=True),
            Sysctl("net/ipv4/conf/rdv-t/rp_filter", "2"),
            Sysctl("net/ipv4/conf/rdv-t/accept_redirects", "0"),
            Connections(mark_number(OWNER)),
            FirewallTable("inet", firewall_name(OWNER), rules),
            Address("rdv-t", IPv4Interface("192.168.128.2/32")),
            LinkUp("rdv-t", 1400),
            Route(table_number(OWNER), IPv4Network("0.0.0.0/0"), "rdv-t"),
            Sysctl("net/ipv4/conf/rdv-t/forwarding", "1"),
            Sysctl(f"net/ipv4/conf/{extremity}/forwarding", "1"),
            steering,
        )

    def test_master(self) -> None:
        """A master steers what enters by the extremity, and guards before it forwards."""
        plan = routed.master(OWNER, "rdv-t", "eth1", TUNNEL_ADDRESS, 1400, Site())
        steering = Rule(rule_priority(OWNER), table_number(OWNER), incoming="eth1")
        self.assertEqual(plan, Plan(OWNER, self._common("eth1", rules_of(plan), steering)))

    def test_onsite(self) -> None:
        """An onsite steers the replies to what came out of the tunnel, and nothing else."""
        plan = routed.onsite(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, Site())
        steering = Rule(rule_priority(OWNER), table_number(OWNER), mark=mark_number(OWNER))
        self.assertEqual(plan, Plan(OWNER, self._common("eth0", rules_of(plan), steering)))

    def test_only_onsite_masquerades(self) -> None:
        """A master never translates an address."""
        arguments = (OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, Site())
        self.assertIn("type nat hook postrouting", rules_of(routed.onsite(*arguments)))
        self.assertNotIn("type nat", rules_of(routed.master(*arguments)))

    def test_segment_size(self) -> None:
        """TCP segments fit the tunnel: its MTU less 40 bytes of headers, in both directions, on both ends."""
        for build in (routed.master, routed.onsite):
            plan = build(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1280, Site())
            self.assertEqual(rules_of(plan).count("maxseg size set 1240"), 2)

    def test_router_stays_router(self) -> None:
        """A machine that forwarded for its LAN before goes on doing so; one that did not does not start to."""
        lan = IPv4Interface("192.168.1.50/24")
        for forwards, last in ((True, "accept"), (False, "drop")):
            site = Site(attachments=(Attachment("eth0", lan, forwards=forwards),))
            plan = routed.onsite(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, site)
            self.assertIn(f'meta nfproto ipv4 iifname "eth0" {last}', rules_of(plan))

    def test_overlap(self) -> None:
        """A tunnel address out of a network that the machine is attached to is refused, with the cure."""
        site = Site(attachments=(Attachment("eth0", IPv4Interface("192.168.128.50/24")),))
        for build in (routed.master, routed.onsite):
            error = self.assertRaises(InvalidValue, build, OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, site)
            self.assertIn("192.168.128.0/24 on eth0; let the server lease from another pool", str(error))

    def test_route(self) -> None:
        """Nor are addresses taken to which the machine has a route by another way, or its DNS servers."""
        for site, reason in (
            (Site(routes=((IPv4Network("192.168.128.0/24"), "eth1"),)), "a route to 192.168.128.0/24"),
            (Site(routes=((IPv4Network("192.168.128.1/32"), ""),)), "a route to 192.168.128.1/32"),
            (Site(dns=(IPv4Address("192.168.128.1"),)), "its DNS server 192.168.128.1 there"),
        ):
            for build in (routed.master, routed.onsite):
                error = self.assertRaises(InvalidValue, build, OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, site)
                self.assertIn(f"this machine has {reason}; let the server lease from another pool", str(error))

    def test_wide_route(self) -> None:
        """A route to all private networks, or to half the Internet, leaves room for tunnels."""
        networks = map(IPv4Network, ("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "128.0.0.0/1"))
        site = Site(routes=tuple((network, "wg0") for network in networks), dns=(IPv4Address("192.168.128.4"),))
        for build in (routed.master, routed.onsite):
            self.assertEqual(build(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, site).owner, OWNER)

    def test_neighbours(self) -> None:
        """An onsite knows all networks that it is attached to, whether they are many, one, or the same twice."""
        addresses = ("192.168.1.50/24", "10.1.2.3/16", "10.1.2.3/8")
        own = [Attachment(f"eth{number}", IPv4Interface(text)) for number, text in enumerate(addresses)]
        site = Site(attachments=(*own, Attachment("rdv-t", TUNNEL_ADDRESS)))
        for around, wanted in ((site, "10.0.0.0/8, 127.0.0.0/8, 192.168.1.0/24"), (Site(), "127.0.0.0/8")):
            plan = routed.onsite(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, around)
            self.assertIn(f"ip saddr {{ {wanted} }} drop", rules_of(plan))

    def test_own_address_is_no_overlap(self) -> None:
        """A tunnel interface that has its address already is no obstacle."""
        routes = ((TUNNEL_ADDRESS.network, "rdv-t"),)
        site = Site(attachments=(Attachment("rdv-t", TUNNEL_ADDRESS),), routes=routes)
        self.assertEqual(routed.master(OWNER, "rdv-t", "eth0", TUNNEL_ADDRESS, 1400, site).owner, OWNER)


class SiteTests(SynchronousTestCase):
    """What a machine is attached to."""

    def test_attachment(self) -> None:
        """An interface is found by its name."""
        lan = Attachment("eth0", IPv4Interface("192.168.1.50/24"))
        site = Site("eth0", lan.address, (IPv4Address("192.168.1.1"),), "rpi1100", "lan", (lan,))
        self.assertEqual((site.attachment("eth0"), site.attachment("eth1")), (lan, None))
