"""What a device says it is attached to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network.site import dns_servers, kind_of, nameservers, site
from rdvtwisted.plan import Attachment, Route
from tests.adapters.network.memory import device

RESOLV_CONF = """\
# made by somebody
search example.net
nameserver 192.168.1.1
nameserver fd00::1
nameserver 192.168.1.2 # the other one
nameserver 192.168.1.1
nameserver
nameserver fritz.box
options edns0
"""


class SiteTests(SynchronousTestCase):
    """A machine is described by files and by its kernel."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())

    def file(self, path: str, text: str = "") -> None:
        """Make a file below the test's root."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def test_dns_servers(self) -> None:
        """The IPv4 servers of resolv.conf, in order, each once; what is no address is passed over."""
        self.file("etc/resolv.conf", RESOLV_CONF)
        self.assertEqual(dns_servers(self.root), (IPv4Address("192.168.1.1"), IPv4Address("192.168.1.2")))

    def test_dns_behind_the_stub(self) -> None:
        """Where systemd-resolved answers on loopback, the servers behind it are told."""
        self.file("etc/resolv.conf", "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
        self.assertEqual(dns_servers(self.root), ())
        self.file("run/systemd/resolve/resolv.conf", "nameserver 192.168.7.1\n")
        self.assertEqual(dns_servers(self.root), (IPv4Address("192.168.7.1"),))

    def test_dns_on_loopback(self) -> None:
        """A server that only this machine can reach is of no use to others."""
        self.file("etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 9.9.9.9\n")
        self.assertEqual(dns_servers(self.root), (IPv4Address("9.9.9.9"),))

    def test_no_resolv_conf(self) -> None:
        """Without the file there are no servers; a file that is not text harms nobody."""
        self.assertEqual(dns_servers(self.root), ())
        self.file("etc/resolv.conf")
        (self.root / "etc/resolv.conf").write_bytes(b"\xff\xfe\nnameserver 9.9.9.9\n")
        self.assertEqual(dns_servers(self.root), (IPv4Address("9.9.9.9"),))

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.text())
    def test_any_resolv_conf(self, text: str) -> None:
        """Whatever stands in the file, only addresses come out."""
        for server in nameservers(text + "\nnameserver 9.9.9.9"):
            self.assertIsInstance(server, IPv4Address)

    def test_kinds(self) -> None:
        """Wireless interfaces and modems are told from wired ones."""
        self.file("sys/class/net/wlan0/wireless/x")
        self.file("sys/class/net/wlx0/phy80211/x")
        self.file("sys/class/net/serial/type", "512\n")
        self.file("sys/class/net/usb0/uevent", "DEVTYPE=wwan\nINTERFACE=usb0\n")
        self.file("sys/class/net/eth0/type", "1\n")
        kinds = {
            name: kind_of(name, self.root) for name in ("wlan0", "wlx0", "serial", "usb0", "eth0", "ppp0", "wwan0")
        }
        modems = dict.fromkeys(("serial", "usb0", "ppp0", "wwan0"), "3g")
        self.assertEqual(kinds, {"wlan0": "wlan", "wlx0": "wlan", "eth0": "lan", **modems})

    def test_site(self) -> None:
        """The interface of the default route, its first address, and every other attachment."""
        kernel = device()
        lan, second = IPv4Interface("192.168.1.50/24"), IPv4Interface("10.1.1.1/8")
        kernel.state.addresses += [("lo", IPv4Interface("127.0.0.1/8")), ("eth0", second), ("eth1", second)]
        kernel.state.sysctls["net/ipv4/conf/eth1/forwarding"] = "1"
        self.file("etc/resolv.conf", RESOLV_CONF)
        with kernel() as ends:
            found = site(ends, self.root)
        self.assertEqual((found.interface, found.lan, found.uplink), ("eth0", lan, "lan"))
        self.assertEqual(found.dns, dns_servers(self.root))
        self.assertTrue(found.hostname)
        self.assertEqual(found.attachments, (Attachment("eth0", lan), Attachment("eth1", second, forwards=True)))

    def test_routes(self) -> None:
        """Where the machine has a route to, but no default route, and none of a table of its own."""
        kernel = device()
        wanted = IPv4Network("10.9.0.0/24")
        default = IPv4Network("0.0.0.0/0")
        kernel.state.routes |= {Route(254, wanted, "eth0"), Route(254, default, "eth0"), Route(20000, wanted, "rdv-t")}
        with kernel() as ends:
            self.assertEqual(site(ends, self.root).routes, ((wanted, "eth0"),))

    def test_unattached(self) -> None:
        """A machine without default route, or without address on it, says so."""
        kernel = device()
        kernel.state.default = None
        with kernel() as ends:
            found = site(ends, self.root)
        self.assertEqual((found.interface, found.lan, found.uplink), (None, None, None))
        kernel.state.default = "ppp0"
        with kernel() as ends:
            found = site(ends, self.root)
        self.assertEqual((found.interface, found.lan, found.uplink), ("ppp0", None, "3g"))
