"""The real kernel's wiring, in a namespace, and the one in memory: they answer alike."""

from __future__ import annotations

import errno
import subprocess
import sys
from ipaddress import ip_interface

from pyroute2 import IPRoute
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network.kernel import IWiring
from rdvtwisted.adapters.network.wiring import Wiring
from rdvtwisted.errors import NetworkError
from rdvtwisted.values import Mode
from tests.adapters.network.memory import device
from tests.lab.hosts import PATIENCE, PREFIX, NamespaceTestCase, entered, inside, run


class Contract(SynchronousTestCase):
    """What every wiring does; C{wiring()} gives one of a machine with an Ethernet interface C{eth0}."""

    def check(self, wiring: IWiring) -> None:
        """All of it."""

        def names() -> set[str]:
            return {port.interface for port in wiring.ports()}

        before = names()
        self.assertIn("eth0", before)
        self.assertEqual((wiring.promiscuous("eth0"), wiring.promiscuous("eth7")), (False, None))
        for on in (True, True, False):
            wiring.set_promiscuous("eth0", on)
            self.assertIs(wiring.promiscuous("eth0"), on)
        wiring.add_pair("rdvi-1", "rdvo-1")
        self.assertEqual(names(), before | {"rdvi-1", "rdvo-1"})
        self.assertFalse(wiring.stop_redirection("rdvo-1"))
        wiring.redirect("rdvo-1", "eth0")
        self.assertTrue(wiring.stop_redirection("rdvo-1"))
        self.assertFalse(wiring.stop_redirection("rdvo-1"))
        wiring.redirect("rdvo-1", "eth0")
        for refused, number in (
            (lambda: wiring.add_pair("rdvi-1", "rdvo-2"), errno.EEXIST),
            (lambda: wiring.redirect("rdvo-1", "eth0"), errno.EEXIST),
            (lambda: wiring.redirect("eth7", "eth0"), errno.ENODEV),
            (lambda: wiring.redirect("rdvi-1", "eth7"), errno.ENODEV),
            (lambda: wiring.set_promiscuous("eth7", True), errno.ENODEV),
        ):
            self.assertEqual(self.assertRaises(OSError, refused).errno, number)
        self.assertTrue(wiring.remove_link("rdvi-1"))
        self.assertEqual(names(), before)
        self.assertFalse(wiring.remove_link("rdvi-1"))
        self.assertFalse(wiring.stop_redirection("rdvo-1"))

    def check_interfaces(self, wiring: IWiring) -> None:
        """What it says of TUN and TAP interfaces; this thread must be in the wiring's namespace."""
        before = {port.interface for port in wiring.ports()}
        for mode in Mode:
            wiring.add_tuntap("rdv-1", mode)
            self.assertEqual({port.interface for port in wiring.ports()}, before | {"rdv-1"})
            for taken in ("rdv-1", "eth0"):
                self.assertRaises(NetworkError, wiring.add_tuntap, taken, mode)
            self.assertTrue(wiring.remove_link("rdv-1"))
            self.assertFalse(wiring.remove_link("rdv-1"))
            self.assertEqual({port.interface for port in wiring.ports()}, before)


class MemoryTests(Contract):
    """The one in memory."""

    def test_contract(self) -> None:
        """It keeps the contract."""
        with device()() as kernel:
            self.check(kernel.wiring)
            self.check_interfaces(kernel.wiring)


class LinuxTests(NamespaceTestCase, Contract):
    """The kernel's."""

    def wiring(self) -> Wiring:
        """That of a host with two interfaces, one of which is in a bridge."""
        self.host("device")
        self.host("far")
        self.cable("device", "eth0", "far", "eth0")
        self.cable("device", "eth1", "far", "eth1")
        run("ip", "-n", f"{PREFIX}-device", "link", "add", "br0", "type", "bridge")
        run("ip", "-n", f"{PREFIX}-device", "link", "set", "eth1", "master", "br0")
        run("ip", "-n", f"{PREFIX}-device", "link", "set", "eth0", "address", "02:00:00:00:00:01")
        with entered("device"):
            netlink = IPRoute()
        self.addCleanup(netlink.close)
        return Wiring(netlink)

    def test_contract(self) -> None:
        """It keeps the contract."""
        self.check(self.wiring())

    def test_interfaces(self) -> None:
        """TUN and TAP interfaces come into being where the calling thread is."""
        wiring = self.wiring()
        with entered("device"):
            self.check_interfaces(wiring)

    def test_interface_owner(self) -> None:
        """A TUN interface that is there for a program is no other user's to open."""
        wiring = self.wiring()
        with entered("device"):
            wiring.add_tuntap("rdv-1", Mode.L3)
        attach = (
            "import fcntl, os, struct\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "node = os.open('/dev/net/tun', os.O_RDWR)\n"
            "fcntl.ioctl(node, 0x400454CA, struct.pack('16sH22x', b'rdv-1', 0x1001))\n"
        )
        stranger = subprocess.run(
            inside("device", sys.executable, "-c", attach),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertIn("PermissionError", stranger.stderr)

    def test_ports(self) -> None:
        """Each interface with its hardware address, every address of its own, and the bridge that it is in."""
        wiring = self.wiring()
        self.setting("device", "net/ipv6/conf/eth0/disable_ipv6", "0")
        own = ("192.168.7.50/24", "10.1.1.1/8", "fd00::1/64")
        for address in own:
            run("ip", "-n", f"{PREFIX}-device", "addr", "add", address, "dev", "eth0")
        ports = {port.interface: port for port in wiring.ports()}
        self.assertEqual(ports["eth0"].hardware, "02:00:00:00:00:01")
        self.assertEqual(ports["eth0"].addresses, tuple(ip_interface(address) for address in own))
        self.assertEqual((ports["eth0"].upper, ports["eth1"].upper, ports["br0"].upper), (None, "br0", None))
        self.assertIsNone(ports["lo"].hardware)
