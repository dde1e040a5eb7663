"""L{tests.lab.topology}: the lab on paper."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.topology import ACCESS_NETWORK, CUSTOMER_LAN, MAX_SITES, Topology


class TopologyTests(SynchronousTestCase):
    """What is where, without building it."""

    def test_no_address_twice(self) -> None:
        """However many sites there are, no two interfaces outside the customers' LANs share an address."""
        topology = Topology("lab", (CUSTOMER_LAN,) * MAX_SITES)
        outside = [
            port.address.ip
            for host in topology.hosts
            for port in topology.ports(host)
            if port.address is not None and port.address.ip not in CUSTOMER_LAN
        ]
        self.assertEqual(len(outside), len(set(outside)))
        self.assertGreater(len(outside), 2 * MAX_SITES)

    def test_engineers(self) -> None:
        """However many engineers there are, none shares a public address with another; at home all have the same."""
        topology = Topology("lab", (CUSTOMER_LAN,) * MAX_SITES, MAX_SITES)
        public = [
            port.address.ip
            for host in topology.hosts
            for port in topology.ports(host)
            if port.address is not None and port.address.ip in ACCESS_NETWORK
        ]
        self.assertEqual(len(public), len(set(public)))
        self.assertEqual(len(public), 4 * MAX_SITES)
        self.assertEqual(topology.address("pc"), topology.address(f"pc{MAX_SITES}"))

    def test_gateways_are_neighbours(self) -> None:
        """Every host's default gateway is in the network of its own uplink and belongs to the next host."""
        topology = Topology("lab", (CUSTOMER_LAN, IPv4Network("10.9.0.0/16")), 3)
        for host in topology.hosts.values():
            if host.gateway is None:
                continue
            uplink = next(topology.ports(host.name))
            far = topology.opposite(host.name, uplink.name)
            assert uplink.address is not None
            self.assertIn(host.gateway, uplink.address.network)
            self.assertEqual(host.gateway, topology.address(far.host, far.bridge or far.name))

    def test_names_fit(self) -> None:
        """No interface name is longer than the kernel's 15 characters."""
        topology = Topology("lab", (CUSTOMER_LAN,) * MAX_SITES, MAX_SITES)
        names = {port.name for host in topology.hosts for port in topology.ports(host)}
        self.assertLessEqual(max(map(len, names)), 15)

    def test_extremity(self) -> None:
        """The engineer's PC sits on 192.168.38.224/29, and its gateway is the master's second interface."""
        topology = Topology()
        self.assertEqual(topology.address("master", "eth1"), IPv4Address("192.168.38.225"))
        self.assertEqual(topology.address("pc"), IPv4Address("192.168.38.226"))
        self.assertEqual(topology.hosts["pc"].gateway, IPv4Address("192.168.38.225"))

    def test_prefix_refused(self) -> None:
        """A prefix that could be mistaken for another lab's, or leave its directory, is refused."""
        for prefix in ("", "a-b", "../x", "A", "1a", "x" * 17):
            self.assertRaises(ValueError, Topology, prefix)

    def test_sites_refused(self) -> None:
        """No site, more sites than links, and a LAN too small for its hosts are refused."""
        for lans in ((), (CUSTOMER_LAN,) * (MAX_SITES + 1), (IPv4Network("10.0.0.0/28"),)):
            self.assertRaises(ValueError, Topology, "lab", lans)
        for engineers in (0, MAX_SITES + 1):
            self.assertRaises(ValueError, Topology, "lab", (CUSTOMER_LAN,), engineers)

    def test_no_such_cable(self) -> None:
        """To pull a cable that is not there is an error that says so."""
        error = self.assertRaises(LookupError, Topology().opposite, "pc", "eth7")
        self.assertEqual(str(error), "no cable ends in eth7 of pc")
