"""The memory twins that are published for writers of tunnel backends keep their interfaces' promises."""

from __future__ import annotations

from ipaddress import IPv4Address

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.errors import MissingPrivilege, NetworkError
from rdvtwisted.interfaces import IDeviceTunnel, INetwork, IPacketDevice, ITunnelBackend, ITunnelSite
from rdvtwisted.plan import FirewallTable, Plan, Site
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.packets import ALL_OFFLOADS, MemoryPacketDevice
from rdvtwisted.testing.tunnels import MemoryTunnelSite, identity, packet, parameters
from rdvtwisted.values import Mode, Role
from tunnels.credentials import certified_key
from tunnels.tls import TLSBackend


class PacketDeviceTests(SynchronousTestCase):
    """The packet device in memory."""

    def setUp(self) -> None:
        self.device = MemoryPacketDevice("rdv7")
        self.addCleanup(self.device.close)
        self.buffer = bytearray(65_600)

    def test_provides(self) -> None:
        """It is a packet device."""
        verifyObject(IPacketDevice, self.device)
        self.assertEqual(self.device.supported(), ALL_OFFLOADS)

    def test_read(self) -> None:
        """Packets come one by one as the kernel has handed them over, then none."""
        for each in (b"one", b"x" * 65_600):
            self.assertTrue(self.device.inject(each))
        self.assertEqual(self.device.read_into(self.buffer), 3)
        self.assertEqual(self.buffer[:3], b"one")
        self.assertEqual(self.device.read_into(memoryview(self.buffer)), 65_600)
        self.assertEqual(self.device.read_into(self.buffer), 0)

    def test_short_buffer(self) -> None:
        """A buffer in which a packet might not fit is a mistake that does not wait for such a packet."""
        self.assertRaises(ValueError, self.device.read_into, bytearray(65_535))

    def test_queue(self) -> None:
        """A device that nobody reads drops packets after a while."""
        self.assertFalse(all(self.device.inject(b"x" * 60_000) for _ in range(1000)))

    def test_write(self) -> None:
        """What is written can be waited for, but for what the kernel refuses."""
        waiting = self.device.when_written(2)
        self.device.refuses = 1
        self.assertEqual([self.device.write(each) for each in (b"1", b"2")], [False, True])
        self.assertNoResult(waiting)
        self.assertTrue(self.device.write(memoryview(b"3")))
        self.assertEqual(self.successResultOf(waiting), [b"2", b"3"])

    def test_gone(self) -> None:
        """A device that is deleted or closed can neither be read nor written."""
        other = MemoryPacketDevice()
        other.vanish()
        self.device.close()
        self.device.close()
        for device in (self.device, other):
            self.assertRaises(OSError, device.read_into, self.buffer)
            self.assertRaises(OSError, device.write, b"x")
        other.close()


class NetworkTests(SynchronousTestCase):
    """The network in memory."""

    def setUp(self) -> None:
        self.network = MemoryNetwork(Site(dns=(IPv4Address("192.0.2.53"),)))

    def test_provides(self) -> None:
        """It is a network, and says what it is attached to."""
        verifyObject(INetwork, self.network)
        self.assertEqual(self.successResultOf(self.network.site()).dns, (IPv4Address("192.0.2.53"),))

    def test_plans(self) -> None:
        """A plan is applied once, undone any number of times, and swept if it was left behind."""
        plan = Plan("master", ())
        self.successResultOf(self.network.apply(plan))
        self.assertEqual(self.network.applied, {"master": plan})
        self.failureResultOf(self.network.apply(plan), NetworkError)
        self.successResultOf(self.network.undo("master"))
        self.successResultOf(self.network.undo("master"))
        self.assertEqual(self.network.applied, {})
        self.successResultOf(self.network.apply(plan))
        self.assertEqual(self.successResultOf(self.network.sweep("master")), [])
        self.assertEqual(self.network.applied, {})

    def test_devices(self) -> None:
        """An interface is made once, and again after it has vanished."""
        device = self.successResultOf(self.network.packet_device("rdv0", Mode.L2))
        self.addCleanup(device.close)
        self.assertEqual((device.name, self.network.modes), ("rdv0", {"rdv0": Mode.L2}))
        self.failureResultOf(self.network.packet_device("rdv0", Mode.L2), NetworkError)
        device.close()
        self.successResultOf(self.network.packet_device("rdv0", Mode.L3)).close()

    def test_amended(self) -> None:
        """The rules of a plan that is applied can be changed, and nothing else."""
        tables = [FirewallTable("inet", "rdv_x", rules) for rules in ("one", "two")]
        first, second = (Plan("onsite", (table,)) for table in tables)
        self.failureResultOf(self.network.amend(second), NetworkError)
        self.successResultOf(self.network.apply(first))
        self.successResultOf(self.network.amend(second))
        self.assertEqual(self.network.applied, {"onsite": second})
        self.failureResultOf(self.network.amend(Plan("onsite", ())), NetworkError)

    def test_interfaces(self) -> None:
        """An interface for another program is there until its owner's work is undone, or swept with its superior's."""
        self.successResultOf(self.network.make_interface("master.tunnel", "rdv0", Mode.L2))
        self.assertEqual(self.network.interfaces, {"rdv0": Mode.L2})
        self.failureResultOf(self.network.make_interface("other", "rdv0", Mode.L2), NetworkError)
        self.successResultOf(self.network.undo("master"))
        self.assertEqual(self.network.interfaces, {"rdv0": Mode.L2})
        self.successResultOf(self.network.undo("master.tunnel"))
        self.assertEqual(self.network.interfaces, {})
        self.successResultOf(self.network.make_interface("master.tunnel", "rdv0", Mode.L3))
        self.assertEqual(self.successResultOf(self.network.sweep("mas")), [])
        self.assertEqual(self.successResultOf(self.network.sweep("master")), ["interface rdv0 (TUN)"])
        self.assertEqual(self.network.interfaces, {})

    def test_refusal(self) -> None:
        """It refuses once what it is told to refuse."""
        self.network.refusal = MissingPrivilege("not here")
        self.failureResultOf(self.network.site(), MissingPrivilege)
        self.successResultOf(self.network.site())


class SiteTests(SynchronousTestCase):
    """What a backend's test case builds ends with."""

    def test_provides(self) -> None:
        """A site in memory is a tunnel site, and a tunnel built on it a device tunnel."""
        own, other = identity("rpi1"), identity("rpi2")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", 9)
        site = MemoryTunnelSite("rpi1", Role.MASTER, reactor, own, endpoint, b"")
        verifyObject(ITunnelSite, site)
        backend = TLSBackend()
        verifyObject(ITunnelBackend, backend)
        said = parameters("tls", Mode.L3, Role.MASTER, "rpi2", other.public, "t")
        self.assertEqual((said.peer_role, said.peer_address), (Role.ONSITE, IPv4Address("100.64.0.1")))
        tunnel = backend.device_end(said, site)
        verifyObject(IDeviceTunnel, tunnel)
        self.successResultOf(tunnel.close())

    def test_identity(self) -> None:
        """An identity's certificate holds its own key."""
        for key in (None, ec.generate_private_key(ec.SECP384R1())):
            own = identity("rpi1", key)
            self.assertEqual(certified_key(own.certificate), own.public)

    def test_packet(self) -> None:
        """Packets are IPv4 with a right checksum, in an Ethernet frame in mode L2."""
        plain = packet(Mode.L3, b"abc")
        self.assertEqual((len(plain), plain[10] >> 4), (10 + 20 + 8 + 3, 4))
        total = sum(int.from_bytes(plain[n : n + 2], "big") for n in range(10, 30, 2))
        self.assertEqual((total & 0xFFFF) + (total >> 16), 0xFFFF)
        framed = packet(Mode.L2, b"abc")
        self.assertEqual((framed[22:24], framed[24:]), (b"\x08\x00", plain[10:]))
