"""The plans of the bridged mode: what is in them, in which order, and where they are refused."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import bridged
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
)

OWNER = "rpi1100"
HARDWARE = "dc:a6:32:00:00:01"
PORT = Port("eth0", HARDWARE, addresses=(IPv4Interface("192.168.38.225/29"), IPv6Interface("2001:db8::1/64")))
SITE = Site(ports=(PORT, Port("eth1", "dc:a6:32:00:00:02", addresses=(IPv4Interface("192.168.50.2/24"),))))


def rules_of(plan: Plan) -> str:
    """The firewall rules of a plan."""
    (table,) = (step for step in plan.steps if isinstance(step, FirewallTable))
    return table.rules


def silent(interface: str) -> tuple[Step, ...]:
    """What keeps a device from speaking by an interface."""
    return (
        Sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1", optional=True),
        Sysctl(f"net/ipv4/conf/{interface}/arp_ignore", "8"),
    )


class MasterTests(SynchronousTestCase):
    """The plan of a master."""

    def plan(self, *, dhcp: bool = True) -> Plan:
        """It."""
        return bridged.master(OWNER, "rdv-t", "eth0", 1500, SITE, dhcp=dhcp)

    def test_steps(self) -> None:
        """The rules are in place before the tunnel is up; nothing that the extremity has is touched."""
        plan = self.plan()
        self.assertEqual(
            plan.steps,
            (
                *silent("rdv-t"),
                FirewallTable("netdev", firewall_name(OWNER), rules_of(plan)),
                LinkUp("rdv-t", 1500),
                Promiscuous("eth0"),
            ),
        )

    def test_dhcp(self) -> None:
        """By default the LAN gives the PC its addresses; without, nothing that gives addresses passes either way."""
        self.assertNotIn("dport", rules_of(self.plan()))
        rules = rules_of(self.plan(dhcp=False))
        self.assertEqual(rules.count("udp dport { 67, 68, 546, 547 } drop"), 2)
        self.assertEqual(rules.count("icmpv6 type { nd-router-solicit, nd-router-advert } drop"), 2)


class OnsiteTests(SynchronousTestCase):
    """The plan of an onsite."""

    def test_steps(self) -> None:
        """Rules and redirection are in place before anything flows; no step is about an address or a route."""
        plan = bridged.onsite(OWNER, "rdv-t", "eth0", 1500, SITE)
        here, there = interface_name("rdvi", OWNER), interface_name("rdvo", OWNER)
        self.assertEqual(
            plan.steps,
            (
                *silent("rdv-t"),
                Pair(here, there),
                *silent(here),
                *silent(there),
                FirewallTable("netdev", firewall_name(OWNER), rules_of(plan)),
                Redirection(there, "eth0"),
                LinkUp(there, 1500),
                LinkUp(here, 1500),
                LinkUp("rdv-t", 1500),
                Promiscuous("eth0"),
            ),
        )

    def test_own_address(self) -> None:
        """The onsite's own frames are told from others' by the hardware address of its LAN interface."""
        rules = rules_of(bridged.onsite(OWNER, "rdv-t", "eth0", 1500, SITE))
        self.assertIn(f"ether daddr {HARDWARE} fwd", rules)
        self.assertIn(f"ether saddr {HARDWARE} drop", rules)


class RefusalTests(SynchronousTestCase):
    """What cannot be bridged is refused in one line that says what to do."""

    def refusal(self, extremity: str, **changes: object) -> str:
        """What the operator reads; the same from both roles."""
        site = Site(ports=(evolve(PORT, **changes),))
        lines = {
            str(self.assertRaises(InvalidValue, build, OWNER, "rdv-t", extremity, 1500, site))
            for build in (bridged.master, bridged.onsite)
        }
        (line,) = lines
        self.assertNotIn("\n", line)
        return line

    def test_absent(self) -> None:
        """An interface that is not there."""
        self.assertEqual(self.refusal("eth7"), "invalid extremity 'eth7': there is no such interface")

    def test_wireless(self) -> None:
        """A client of a Wi-Fi network: it may not send in others' names."""
        self.assertIn("Wi-Fi carries its own frames only: use L3, or a cable", self.refusal("eth0", kind="wlan"))

    def test_not_ethernet(self) -> None:
        """A modem has no frames."""
        self.assertIn("it is no Ethernet interface", self.refusal("eth0", hardware=None))

    def test_in_a_bridge(self) -> None:
        """A port of a bridge belongs to that."""
        self.assertIn("it is a part of br-lan already", self.refusal("eth0", upper="br-lan"))

    def test_own_uplink(self) -> None:
        """A master's own way to the server; an onsite's is no trouble."""
        site = evolve(SITE, interface="eth0")
        error = self.assertRaises(InvalidValue, bridged.master, OWNER, "rdv-t", "eth0", 1500, site)
        self.assertIn("this device's own way to the server leads through it", str(error))
        self.assertTrue(bridged.onsite(OWNER, "rdv-t", "eth0", 1500, site).steps)


class TerminalTests(SynchronousTestCase):
    """The operator's own terminal is never cut off."""

    def refused(self, connection: str | None) -> bool:
        """Whether a terminal of this connection is said to come through the extremity."""
        try:
            bridged.refuse_own_terminal("eth0", SITE, connection)
        except InvalidValue as error:
            assert connection is not None
            self.assertIn(f"SSH from {connection.split()[0]}) and would be cut off", str(error))
            return True
        return False

    def test_through_it(self) -> None:
        """From its network, to one of its addresses, over IPv4, IPv6 or link-local."""
        for connection in (
            "192.168.38.226 50000 192.168.38.225 22",
            "192.168.38.226 50000 192.168.50.2 22",
            "10.9.9.9 50000 192.168.38.225 22",
            "2001:db8::2 50000 2001:db8::1 22",
            "fe80::2%eth0 50000 fe80::1%eth0 22",
        ):
            self.assertTrue(self.refused(connection), connection)

    def test_by_another_way(self) -> None:
        """A terminal on the spot, or through another interface, stays; nonsense is not believed."""
        for connection in (
            None,
            "",
            "192.168.50.9 50000 192.168.50.2 22",
            "fe80::2%eth1 50000 fe80::1%eth1 22",
            "somebody 50000 somewhere 22",
            "192.168.38.226",
        ):
            self.assertFalse(self.refused(connection), connection)
