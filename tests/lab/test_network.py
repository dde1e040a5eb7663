"""
Plans in real network namespaces: what they let pass, what they stop, and that they leave no trace.

The path: a PC, a master, an onsite, a LAN; a cable plays the tunnel. Beside
it, the master's own Internet and a second network of the onsite's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import threading

from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import NetworkError
from rdvtwisted.values import Mode, Offloads
from tests.lab.forgery import datagram, icmp, send
from tests.lab.hosts import PATIENCE, PREFIX, NamespaceTestCase, entered, run
from tests.lab.rehearsal import MTU, TUNNEL

PC, LAN_HOST, ONSITE, ELSEWHERE, INTERNET = "192.168.38.226", "192.168.7.77", "192.168.7.50", "10.9.9.2", "203.0.113.1"

#: An address on the Internet behind that.
BEYOND = "198.51.100.9"

#: How long a packet that must not arrive is waited for, in seconds; one that may takes a millisecond.
IN_VAIN = 0.7


class KilledTests(NamespaceTestCase):
    """A device whose process is killed while it builds a session."""

    def test_killed_between_any_two_changes(self) -> None:
        """Wherever the kill strikes, the next start sweeps everything away, says what, and finds nothing more."""
        self.host("device")
        self.host("far")
        self.cable("device", "eth0", "far", "eth0")
        self.address("device", "eth0", "192.168.7.50/24")
        for role in ("master", "onsite"):
            rounds = json.loads(self.rehearse("device", "kill", str(self.directory), role, "eth0", "192.168.128.1/30"))
            self.assertEqual(len(rounds), 11)
            for number, found in enumerate(rounds):
                self.assertEqual(found["signal"], signal.SIGKILL)
                # The tunnel interface is gone with its process, and with it what hung on it.
                self.assertEqual(len(found["lines"]), (number >= 4) + (number >= 9) + (number >= 10))
                self.assertEqual((found["touched"], found["again"], found["clean"]), (number >= 4, [], True))


class PrivilegeTests(NamespaceTestCase):
    """A device that runs without privileges."""

    def test_unprivileged(self) -> None:
        """Every step, and opening a device, is refused with one line that says what is lacking."""
        self.host("device")
        run("ip", "-n", f"{PREFIX}-device", "link", "add", TUNNEL, "type", "veth", "peer", "name", "eth0")
        os.chown(self.directory, 65534, 65534)
        errors = json.loads(self.rehearse("device", "unprivileged", str(self.directory), "eth0", "192.168.128.1/30"))
        # All but the step that does nothing, and the device.
        self.assertEqual(len(errors), 11)
        for kind, text in errors:
            self.assertEqual(kind, "MissingPrivilege", text)
            self.assertIn("run as root or with the capability CAP_NET_ADMIN", text)
            self.assertNotIn("\n", text)


class DeviceTests(NamespaceTestCase):
    """A real TUN device."""

    def test_device(self) -> None:
        """A packet goes out and comes in with its header; the name is taken meanwhile, and free afterwards."""
        self.host("device")
        with entered("device"):
            for mode in (Mode.L3, Mode.L2):
                device = PacketDevice(TUNNEL, mode)
                self.addCleanup(device.close)
                self.assertTrue(device.supported().tso4)
                device.set_offloads(device.supported())
                device.set_offloads(Offloads())
                self.assertRaises(NetworkError, PacketDevice, TUNNEL, mode)
                self.assertFalse(device.write(bytes(70)))  # the interface is down
                device.close()
            device = PacketDevice(TUNNEL, Mode.L3)
            self.addCleanup(device.close)
            buffer = bytearray(65_600)
            self.setting("device", f"net/ipv6/conf/{TUNNEL}/disable_ipv6", "1")
            self.address("device", TUNNEL, "192.168.128.1/30")
            self.assertEqual(device.read_into(buffer), 0)
            asking = self.socket("device", socket.SOCK_DGRAM, "192.168.128.1", 4000)
            asking.sendto(b"question", ("192.168.128.2", 4001))
            length = device.read_into(buffer)
            self.assertEqual(length, 10 + 20 + 8 + len(b"question"))
            # Back with addresses and ports exchanged, which leaves both checksums right.
            answer = bytearray(buffer[:length])
            answer[22:26], answer[26:30] = buffer[26:30], buffer[22:26]
            answer[30:32], answer[32:34] = buffer[32:34], buffer[30:32]
            self.assertTrue(device.write(answer))
            self.assertEqual(asking.recv(100), b"question")
            self.assertFalse(device.write(b"\0" * 11))
            self.assertEqual(device.refused, 1)
            run("ip", "link", "del", TUNNEL)
            self.assertRaises(OSError, device.write, answer)
            self.assertRaises(OSError, device.read_into, buffer)


class PathTests(NamespaceTestCase):
    """From the engineer's PC to the customer's LAN."""

    def setUp(self) -> None:
        """Build the path, with the strictest reverse path filter for every interface of both devices."""
        super().setUp()
        for name in ("pc", "master", "internet", "onsite", "lan", "elsewhere"):
            self.host(name)
        for host in ("master", "onsite"):
            self.setting(host, "net/ipv4/conf/all/rp_filter", "1")
        self.cable("pc", "eth0", "master", "eth1")
        self.cable("master", "eth0", "internet", "eth0")
        self.cable("master", TUNNEL, "onsite", TUNNEL)
        self.cable("onsite", "eth0", "lan", "eth0")
        self.cable("onsite", "eth9", "elsewhere", "eth0")
        self.address("master", "eth1", "192.168.38.225/29")
        self.address("pc", "eth0", f"{PC}/29", "192.168.38.225")
        self.address("internet", "eth0", f"{INTERNET}/24")
        self.address("master", "eth0", "203.0.113.2/24", INTERNET)
        self.address("lan", "eth0", f"{LAN_HOST}/24")
        run("ip", "-n", f"{PREFIX}-lan", "addr", "add", "192.168.7.1/24", "dev", "eth0")
        self.address("onsite", "eth0", f"{ONSITE}/24", "192.168.7.1")
        self.address("elsewhere", "eth0", f"{ELSEWHERE}/24")
        self.address("onsite", "eth9", "10.9.9.1/24")
        # Without ARP a frame goes to the sender's own hardware address, which is the receiver's too: a tunnel.
        for host in ("master", "onsite"):
            ip = ("ip", "-n", f"{PREFIX}-{host}", "link", "set", TUNNEL)
            run(*ip, "address", "02:00:00:00:00:01", "arp", "off")
            self.setting(host, f"net/ipv6/conf/{TUNNEL}/disable_ipv6", "0")
        self.master = self.held("master", "eth1", "192.168.128.2/30")
        self.onsite = self.held("onsite", "eth0", "192.168.128.1/30")
        for device, site in ((self.master, "eth0 203.0.113.2/24"), (self.onsite, f"eth0 {ONSITE}/24")):
            said = device.line()
            self.assertEqual((said["as before"], said["site"]), (False, site))

    def carried(self) -> int:
        """How many packets have gone into the tunnel, at both ends."""
        return sum(
            json.loads(run("ip", "-n", f"{PREFIX}-{host}", "-s", "-j", "link", "show", TUNNEL))[0]["stats64"]["tx"][
                "packets"
            ]
            for host in ("master", "onsite")
        )

    def arrives(self, host: str, address: str, sender: str, wait: float = PATIENCE) -> bool:
        """Whether a datagram gets from one host to another's address."""
        receiving = self.socket(host, socket.SOCK_DGRAM, address, 0)
        sending = self.socket(sender, socket.SOCK_DGRAM)
        sending.sendto(b"!", (address, receiving.getsockname()[1]))
        return bool(select.select([receiving], [], [], wait)[0])

    def connects(self, host: str, address: str, sender: str, wait: float = PATIENCE) -> bool:
        """Whether a TCP connection can be opened from one host to another's address."""
        listening = self.socket(host, socket.SOCK_STREAM, address, 0)
        opening = self.socket(sender, socket.SOCK_STREAM)
        opening.setblocking(False)
        opening.connect_ex((address, listening.getsockname()[1]))
        return bool(select.select([], [opening], [], wait)[1])

    def test_pc_reaches_the_lan(self) -> None:
        """TCP, UDP and ICMP get from the PC to a machine of the LAN and back; it sees the onsite's address."""
        self.assertTrue(self.pings("pc", LAN_HOST))
        listening = self.socket("lan", socket.SOCK_STREAM, LAN_HOST, 8000)
        opening = self.socket("pc", socket.SOCK_STREAM)
        opening.connect((LAN_HOST, 8000))
        accepted, source = listening.accept()
        self.addCleanup(accepted.close)
        self.assertEqual((source[0], opening.getsockname()[0]), (ONSITE, PC))
        accepted.sendall(b"hello")
        self.assertEqual(opening.recv(5), b"hello")
        receiving = self.socket("lan", socket.SOCK_DGRAM, LAN_HOST, 8001)
        sending = self.socket("pc", socket.SOCK_DGRAM)
        sending.sendto(b"hello", (LAN_HOST, 8001))
        self.assertEqual((receiving.recvfrom(10)[1])[0], ONSITE)

    def test_pc_reaches_the_onsite(self) -> None:
        """The onsite itself is reached by its LAN address, by TCP, UDP and ICMP, and answers into the tunnel."""
        self.assertTrue(self.pings("pc", ONSITE))
        listening = self.socket("onsite", socket.SOCK_STREAM, ONSITE, 8000)
        opening = self.socket("pc", socket.SOCK_STREAM)
        opening.connect((ONSITE, 8000))
        accepted, source = listening.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(source[0], PC)
        serving = self.socket("onsite", socket.SOCK_DGRAM, "0.0.0.0", 8001)
        sending = self.socket("pc", socket.SOCK_DGRAM)
        sending.sendto(b"hello", (ONSITE, 8001))
        question, source = serving.recvfrom(10)
        serving.sendto(question, source)
        self.assertEqual(sending.recvfrom(10), (b"hello", (ONSITE, 8001)))

    def test_large_transfer(self) -> None:
        """
        A megabyte that may not be fragmented gets through the smaller tunnel in both
        directions, to the LAN and to the onsite itself, and the segments fit from the first.
        """
        for host, address in (("lan", LAN_HOST), ("onsite", ONSITE)):
            listening = self.socket(host, socket.SOCK_STREAM, address, 8000)
            opening = self.socket("pc", socket.SOCK_STREAM)
            opening.connect((address, 8000))
            accepted, _ = listening.accept()
            self.addCleanup(accepted.close)
            for end in (opening, accepted):
                self.assertLessEqual(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), MTU - 40)
            for source, sink in ((opening, accepted), (accepted, opening)):
                sending = threading.Thread(target=source.sendall, args=(bytes(1_000_000),))
                sending.start()
                left = 1_000_000
                while left:
                    left -= len(sink.recv(65_536))
                sending.join()
            listening.close()

    def test_lan_cannot_reach_the_pc(self) -> None:
        """
        A machine of the LAN that routes to the PC by the onsite cannot open a connection:
        the onsite lets nothing into the tunnel, and the master nothing out of it.
        """
        network = "192.168.38.224/29"
        run("ip", "-n", f"{PREFIX}-lan", "route", "add", network, "via", ONSITE)
        run("ip", "-n", f"{PREFIX}-onsite", "route", "add", network, "dev", TUNNEL)
        before = self.carried()
        self.assertFalse(self.connects("pc", PC, "lan", IN_VAIN))
        self.assertEqual(self.carried(), before)
        self.tear_firewall("onsite")
        self.assertFalse(self.connects("pc", PC, "lan", IN_VAIN))
        self.assertGreater(self.carried(), before)
        self.tear_firewall("master")
        self.assertTrue(self.connects("pc", PC, "lan"))

    def test_tunnel_cannot_reach_the_master(self) -> None:
        """Nothing that comes out of the tunnel opens a connection to the master itself."""
        run("ip", "-n", f"{PREFIX}-onsite", "route", "add", "192.168.128.2/32", "dev", TUNNEL)
        run("ip", "-n", f"{PREFIX}-master", "route", "add", "192.168.128.1/32", "dev", TUNNEL)
        self.assertFalse(self.connects("master", "192.168.128.2", "onsite", IN_VAIN))
        self.tear_firewall("master")
        self.assertTrue(self.connects("master", "192.168.128.2", "onsite"))

    def test_tunnel_speaks_for_itself(self) -> None:
        """What the master has asked elsewhere is not answered out of the tunnel, nor are its own ways changed there."""
        asking = self.socket("master", socket.SOCK_DGRAM, "203.0.113.2", 4000)
        asking.sendto(b"?", (INTERNET, 4001))
        asking.sendto(b"?", (BEYOND, 4001))
        way = ("ip", "-n", f"{PREFIX}-master", "route", "get", BEYOND)
        before = run(*way)
        self.assertIn(f"via {INTERNET} ", before)
        forged = datagram(INTERNET, 4001, "203.0.113.2", 4000, b"!")
        asked = datagram("203.0.113.2", 4000, BEYOND, 4001, b"?")
        errors = (
            icmp(INTERNET, "203.0.113.2", 5, 1, socket.inet_aton("203.0.113.7"), asked),
            icmp(INTERNET, "203.0.113.2", 3, 4, struct.pack("!HH", 0, 600), asked),
        )
        send("onsite", TUNNEL, forged, *errors)
        self.assertEqual(select.select([asking], [], [], IN_VAIN)[0], [])
        self.assertEqual(run(*way), before)
        self.tear_firewall("master")
        send("onsite", TUNNEL, forged)
        self.assertEqual(asking.recv(1), b"!")
        send("onsite", TUNNEL, errors[0])
        self.assertEqual(run(*way), before)
        send("onsite", TUNNEL, errors[1])
        self.assertIn("mtu 600", run(*way))

    def test_master_may_ask(self) -> None:
        """A program of the master that wishes so speaks to the tunnel's other end; others' packets do not get there."""
        self.assertTrue(self.pings("master", "192.168.128.1", PATIENCE, "-I", TUNNEL))
        before = self.carried()
        for host, address in (("master", "192.168.128.1"), ("onsite", "192.168.128.2")):
            self.assertFalse(self.pings(host, address, IN_VAIN))
        self.assertEqual(self.carried(), before)

    def test_tunnel_leaves_by_the_extremity_only(self) -> None:
        """The PC does not reach the onsite's other networks, nor the other end of the tunnel the master's."""
        self.assertFalse(self.arrives("elsewhere", ELSEWHERE, "pc", IN_VAIN))
        self.tear_firewall("onsite")
        self.assertTrue(self.arrives("elsewhere", ELSEWHERE, "pc"))
        run("ip", "-n", f"{PREFIX}-onsite", "route", "add", f"{INTERNET}/32", "dev", TUNNEL)
        self.assertFalse(self.arrives("internet", INTERNET, "onsite", IN_VAIN))
        self.tear_firewall("master")
        self.assertTrue(self.arrives("internet", INTERNET, "onsite"))

    def test_others_cannot_enter(self) -> None:
        """Hosts behind other interfaces of the devices do not get into the tunnel, even if these route for them."""
        self.setting("onsite", "net/ipv4/conf/eth9/forwarding", "1")
        self.setting("master", "net/ipv4/conf/eth0/forwarding", "1")
        run("ip", "-n", f"{PREFIX}-elsewhere", "route", "add", "default", "via", "10.9.9.1")
        run("ip", "-n", f"{PREFIX}-onsite", "route", "add", f"{PC}/32", "dev", TUNNEL)
        run("ip", "-n", f"{PREFIX}-internet", "route", "add", "default", "via", "203.0.113.2")
        run("ip", "-n", f"{PREFIX}-master", "route", "add", f"{LAN_HOST}/32", "dev", TUNNEL)
        for host, address, sender, guard in (
            ("pc", PC, "elsewhere", "onsite"),
            ("lan", LAN_HOST, "internet", "master"),
        ):
            before = self.carried()
            self.assertFalse(self.arrives(host, address, sender, IN_VAIN))
            self.assertEqual(self.carried(), before)
            self.tear_firewall(guard)
            self.arrives(host, address, sender, IN_VAIN)
            self.assertGreater(self.carried(), before)

    def test_router_stays_router(self) -> None:
        """An onsite that did not forward for its LAN does not start to; one that did goes on, past the tunnel."""
        run("ip", "-n", f"{PREFIX}-lan", "route", "add", "10.9.9.0/24", "via", ONSITE)
        self.assertFalse(self.arrives("elsewhere", ELSEWHERE, "lan", IN_VAIN))
        self.onsite.let_go()
        self.onsite.end()
        self.setting("onsite", "net/ipv4/conf/eth0/forwarding", "1")
        self.assertFalse(self.held("onsite", "eth0", "192.168.128.1/30").line()["as before"])
        before = self.carried()
        self.assertTrue(self.arrives("elsewhere", ELSEWHERE, "lan"))
        self.assertEqual(self.carried(), before)
        self.assertTrue(self.pings("pc", LAN_HOST))

    def test_own_traffic(self) -> None:
        """The master's own ping to the LAN does not take the tunnel, and the onsite's own traffic is as ever."""
        before = self.carried()
        self.assertFalse(self.pings("master", LAN_HOST, IN_VAIN))
        self.assertTrue(self.pings("master", INTERNET))
        self.assertTrue(self.pings("onsite", LAN_HOST))
        self.assertTrue(self.connects("lan", LAN_HOST, "onsite"))
        self.assertTrue(self.connects("onsite", ONSITE, "lan"))
        self.assertEqual(self.carried(), before)

    def test_pc_without_tunnel(self) -> None:
        """When the tunnel interface vanishes, the PC's packets go nowhere rather than out of the master's uplink."""
        run("ip", "-n", f"{PREFIX}-master", "link", "del", TUNNEL)
        self.assertFalse(self.arrives("internet", INTERNET, "pc", IN_VAIN))
        self.tear_firewall("master")
        self.assertTrue(self.arrives("internet", INTERNET, "pc"))

    def test_no_trace(self) -> None:
        """After a session with traffic, addresses, routes, rules, firewall, settings and connections are as before."""
        listening = self.socket("lan", socket.SOCK_STREAM, LAN_HOST, 8000)
        opening = self.socket("pc", socket.SOCK_STREAM)
        opening.connect((LAN_HOST, 8000))
        self.addCleanup(listening.accept()[0].close)
        for device in (self.master, self.onsite):
            self.assertTrue(device.let_go()["as before"])
