"""
Bridged plans in real network namespaces: the PC is on the LAN, the onsite never leaves it, the master has no part.

The path: a PC, a master, an onsite, a LAN; a cable plays the tunnel.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from tests.lab.frames import BROADCAST, EXPERIMENT, IN_VAIN, Echo, FramesCase, hardware
from tests.lab.hosts import PATIENCE, PREFIX, Held, NamespaceTestCase, inside, run
from tests.lab.rehearsal import TUNNEL

PC, LAN_HOST, ONSITE, MASTER = "192.168.7.99", "192.168.7.77", "192.168.7.50", "192.168.38.225"


class KilledTests(NamespaceTestCase):
    """An unattended onsite, or a master, whose process is killed while it builds a session."""

    def setUp(self) -> None:
        """A device, and a neighbour of its LAN that it has a connection to."""
        super().setUp()
        self.host("device")
        self.host("far")
        self.cable("device", "eth0", "far", "eth0")
        self.cable("device", "eth1", "far", "eth1")
        self.address("device", "eth0", "192.168.7.50/24")
        self.address("far", "eth0", "192.168.7.1/24")
        run("ip", "-n", f"{PREFIX}-device", "route", "add", "default", "via", "192.168.7.1", "metric", "100")
        run("ip", "-n", f"{PREFIX}-device", "link", "set", "eth1", "up")
        self.echo = Echo(self.socket("far", socket.SOCK_STREAM, "192.168.7.1", 7))
        self.echo.start()
        self.addCleanup(self.echo.join, PATIENCE)

    def rounds(self, role: str, extremity: str) -> int:
        """Kill it everywhere; how many changes there are."""
        rounds = json.loads(
            self.rehearse("device", "kill", str(self.directory), role, extremity, "", "192.168.7.1", "7")
        )
        for found in rounds:
            self.assertEqual(found["signal"], signal.SIGKILL)
            self.assertEqual((found["again"], found["clean"], found["alive"]), ([], True, [True, True]))
        self.assertFalse(rounds[0]["touched"])
        self.assertTrue(rounds[-1]["touched"])
        return len({tuple(found["lines"]) for found in rounds})

    def test_onsite(self) -> None:
        """
        Wherever the kill strikes, the onsite's old connection by the very interface that is bridged goes on, before
        the next start and after it; that sweeps everything away, and finds nothing more.
        """
        self.assertGreaterEqual(self.rounds("bridged-onsite", "eth0"), 4)

    def test_master(self) -> None:
        """The same for a master, which is bridged by another interface than it works with."""
        self.assertGreaterEqual(self.rounds("bridged-master", "eth1"), 3)


class BridgedCase(FramesCase):
    """From the engineer's PC to the customer's LAN, which is one LAN."""

    def setUp(self) -> None:
        """Build the path, with the strictest reverse path filter at both devices."""
        super().setUp()
        for name in ("pc", "master", "onsite", "lan"):
            self.host(name)
        for host in ("master", "onsite"):
            self.setting(host, "net/ipv4/conf/all/rp_filter", "1")
        self.cable("pc", "eth0", "master", "eth1")
        self.cable("master", TUNNEL, "onsite", TUNNEL)
        self.cable("onsite", "eth0", "lan", "eth0")
        self.address("master", "eth1", f"{MASTER}/29")
        self.address("lan", "eth0", f"{LAN_HOST}/24")
        self.address("onsite", "eth0", f"{ONSITE}/24", LAN_HOST)
        run("ip", "-n", f"{PREFIX}-pc", "link", "set", "eth0", "up")

    def build(self, master: str = "bridged-master") -> None:
        """Both devices carry out their plans."""
        self.master = self.device("master", "eth1", master)
        self.onsite = self.device("onsite", "eth0", "bridged-onsite")

    def device(self, host: str, extremity: str, role: str) -> Held:
        """One of them."""
        held = self.held(host, extremity, "", role)
        self.assertFalse(held.line()["as before"])
        return held


class LanTests(BridgedCase):
    """What the PC has of it."""

    def setUp(self) -> None:
        """The PC has an address of the LAN."""
        super().setUp()
        self.address("pc", "eth0", f"{PC}/24")

    def test_one_lan(self) -> None:
        """PC, LAN and onsite reach each other both ways; a machine of the LAN sees the PC's own addresses."""
        self.build()
        for host, address in (
            ("pc", LAN_HOST), ("pc", ONSITE), ("lan", PC), ("onsite", PC), ("lan", ONSITE), ("onsite", LAN_HOST),
        ):  # fmt: skip
            self.assertTrue(self.pings(host, address), f"{host} to {address}")
        (neighbour,) = json.loads(run("ip", "-n", f"{PREFIX}-lan", "-j", "neigh", "show", PC))
        self.assertEqual(hardware(neighbour["lladdr"]), self.hardware("pc", "eth0"))
        for host, address in (("lan", LAN_HOST), ("onsite", ONSITE)):
            listening = self.socket(host, socket.SOCK_STREAM, address, 8000)
            opening = self.socket("pc", socket.SOCK_STREAM)
            opening.connect((address, 8000))
            accepted, source = listening.accept()
            self.addCleanup(accepted.close)
            self.assertEqual(source[0], PC)

    def test_apart_before_and_after(self) -> None:
        """Before a session and after it the PC does not reach the LAN."""
        self.assertFalse(self.pings("pc", LAN_HOST, IN_VAIN))
        self.build()
        # The PC asks but each second for the address of a machine that did not answer just now.
        self.assertTrue(any(self.pings("pc", LAN_HOST) for _ in range(5)))
        self.onsite.let_go()
        self.master.let_go()
        self.assertFalse(self.pings("pc", LAN_HOST, IN_VAIN))

    def test_ipv6(self) -> None:
        """Neighbours find each other by IPv6, too, and the master is none of them."""
        for host in ("pc", "lan", "onsite"):
            self.setting(host, "net/ipv6/conf/eth0/disable_ipv6", "0")
            self.setting(host, "net/ipv6/conf/eth0/accept_dad", "0")
            run("ip", "-n", f"{PREFIX}-{host}", "addr", "add", f"fd00::{len(host)}/64", "dev", "eth0", "nodad")
        self.setting("master", "net/ipv6/conf/eth1/disable_ipv6", "0")
        run("ip", "-n", f"{PREFIX}-master", "addr", "add", "fd00::99/64", "dev", "eth1", "nodad")
        self.build()
        pc, lan, onsite = "fd00::2", "fd00::3", "fd00::6"
        for host, address in (("pc", lan), ("pc", onsite), ("lan", pc), ("onsite", pc)):
            self.assertTrue(self.pings(host, address), f"{host} to {address}")
        for host in ("pc", "lan", "onsite"):
            self.assertFalse(self.pings(host, "fd00::99", IN_VAIN), host)

    def test_full_size(self) -> None:
        """Packets of 1500 bytes that may not be fragmented pass, to the LAN and to the onsite; so does a megabyte."""
        self.build()
        for host, address in (("lan", LAN_HOST), ("onsite", ONSITE)):
            self.assertTrue(self.pings("pc", address, PATIENCE, "-Mdo", "-s1472"))
            echo = Echo(self.socket(host, socket.SOCK_STREAM, address, 8000))
            echo.start()
            with self.socket("pc", socket.SOCK_STREAM) as opening:
                opening.connect((address, 8000))
                sending = threading.Thread(target=opening.sendall, args=(bytes(1_000_000),))
                sending.start()
                left = 1_000_000
                while left:
                    left -= len(opening.recv(65_536))
                sending.join()
            echo.join()

    def test_vlan(self) -> None:
        """Frames with a VLAN tag pass as they are, both ways, with 1500 bytes behind the tag."""
        self.build()
        pc, lan = self.packets("pc", "eth0"), self.packets("lan", "eth0")
        self.assertTrue(self.pings("pc", LAN_HOST))
        ends = {pc: self.hardware("pc", "eth0"), lan: self.hardware("lan", "eth0")}
        for near, far in ((pc, lan), (lan, pc)):
            for to in (ends[far], BROADCAST):
                load = EXPERIMENT + os.urandom(16)
                frame = to + ends[near] + bytes.fromhex("8100 6064") + load.ljust(2 + 1500, b"\0")
                self.assertEqual(len(frame), 1518)
                near.send(frame)
                self.assertEqual(self.hears(far, load), frame)

    def test_no_echo(self) -> None:
        """What the PC sends to all comes to the LAN and to the onsite once, and never back."""
        self.build()
        pc, lan, onsite = self.packets("pc", "eth0"), self.packets("lan", "eth0"), self.packets("onsite", "eth0")
        load = EXPERIMENT + os.urandom(16)
        pc.send(BROADCAST + self.hardware("pc", "eth0") + load.ljust(60))
        for ear in (lan, onsite):
            self.assertIsNotNone(self.hears(ear, load))
        for ear in (lan, onsite, pc):
            self.assertIsNone(self.hears(ear, load, IN_VAIN))


class DHCPTests(BridgedCase):
    """Who gives the PC its address."""

    def setUp(self) -> None:
        """The LAN has a DHCP server, and so has the master for its PC."""
        super().setUp()
        lacking = [program for program in ("dnsmasq", "busybox") if shutil.which(program) is None]
        if lacking:
            self.skipTest(f"needs the programs {', '.join(lacking)}")
        self.script = self.directory / "told"
        self.script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "$ip $router"\nexit 0\n')
        self.script.chmod(0o755)
        self.serve("lan", "eth0", "192.168.7.100,192.168.7.110", LAN_HOST)
        self.serve("master", "eth1", "192.168.38.226,192.168.38.230", MASTER)

    def serve(self, host: str, interface: str, pool: str, router: str) -> None:
        """Run dnsmasq in a host."""
        words = [
            *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--no-ping"),
            *(f"--interface={interface}", f"--dhcp-range={pool},1h", f"--dhcp-option=3,{router}"),
            *(f"--dhcp-leasefile={self.directory / host}.leases", "--user=root", "--dhcp-authoritative"),
        ]
        server = subprocess.Popen(inside(host, *words), stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        assert server.stderr is not None
        for line in server.stderr:
            if "sockets bound exclusively" in line:
                break

    def lease(self, tries: int) -> str:
        """What address and router the PC is given; empty if none."""
        words = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(self.script)]
        ended = subprocess.run(
            inside("pc", *words, "-t", str(tries), "-T", "1"), capture_output=True, text=True, check=False, cwd="/"
        )
        return ended.stdout.strip()

    def leases(self, host: str) -> str:
        """What a server has given away so far."""
        path = Path(f"{self.directory / host}.leases")
        return path.read_text() if path.exists() else ""

    def test_from_the_lan(self) -> None:
        """The LAN's server gives the PC an address; the master's is out of it, and is back afterwards."""
        self.build()
        address, router = self.lease(10).split()
        self.assertEqual((address.rpartition(".")[0], router), ("192.168.7", LAN_HOST))
        self.assertEqual(self.leases("master"), "")
        self.master.let_go()
        self.assertEqual(self.lease(10).split()[1], MASTER)

    def test_kept_apart(self) -> None:
        """If the operator wants no addresses from the LAN, the PC is given none, and reaches it by its own."""
        self.build("without-dhcp")
        self.assertEqual(self.lease(2), "")
        self.assertEqual((self.leases("lan"), self.leases("master")), ("", ""))
        self.address("pc", "eth0", f"{PC}/24")
        self.assertTrue(self.pings("pc", LAN_HOST))


class OnsiteTests(BridgedCase):
    """The onsite, to which nobody can walk."""

    def setUp(self) -> None:
        """The PC has an address of the LAN."""
        super().setUp()
        self.address("pc", "eth0", f"{PC}/24")

    def carried(self) -> int:
        """How many packets the onsite has put into the tunnel."""
        (link,) = json.loads(run("ip", "-n", f"{PREFIX}-onsite", "-s", "-j", "link", "show", TUNNEL))
        return int(link["stats64"]["tx"]["packets"])

    def test_connections_go_on(self) -> None:
        """A connection by the interface that is bridged outlives the beginning and the end of a session."""
        echo = Echo(self.socket("lan", socket.SOCK_STREAM, LAN_HOST, 8000))
        echo.start()
        connection = self.socket("onsite", socket.SOCK_STREAM)
        connection.connect((LAN_HOST, 8000))

        def alive() -> bool:
            connection.sendall(b"!")
            return connection.recv(1) == b"!"

        before = run("ip", "-n", f"{PREFIX}-onsite", "addr", "show", "eth0").splitlines()[1:]
        self.assertTrue(alive())
        self.build()
        self.assertTrue(alive())
        self.assertEqual(run("ip", "-n", f"{PREFIX}-onsite", "addr", "show", "eth0").splitlines()[1:], before)
        self.assertTrue(self.pings("pc", ONSITE))
        self.onsite.let_go()
        self.assertTrue(alive())
        connection.close()
        echo.join()

    def test_own_traffic(self) -> None:
        """What the onsite and a machine of its LAN say to each other alone does not enter the tunnel."""
        self.build()
        self.assertTrue(self.pings("onsite", LAN_HOST))
        before = self.carried()
        for _ in range(5):
            self.assertTrue(self.pings("onsite", LAN_HOST))
            self.assertTrue(self.pings("lan", ONSITE))
        lan = self.packets("lan", "eth0")
        for _ in range(5):  # nor does what is for somebody whom nobody knows
            lan.send(hardware("02:00:00:00:00:77") + self.hardware("lan", "eth0") + EXPERIMENT.ljust(60))
        self.assertEqual(self.carried(), before)

    def test_neighbours_cannot_be_replaced(self) -> None:
        """Who claims, on the PC's side, to be the onsite's gateway does not get what is for it."""
        self.build()
        self.assertTrue(self.pings("onsite", LAN_HOST))
        self.packets("pc", "eth0").send(BROADCAST + self.hardware("lan", "eth0") + EXPERIMENT.ljust(60))
        before = self.carried()
        self.assertTrue(self.pings("onsite", LAN_HOST))
        self.assertEqual(self.carried(), before)

    def test_moved_to_the_lan(self) -> None:
        """A PC that was in the tunnel and is plugged into the LAN is reached there from its first frame on."""
        self.build()
        self.assertTrue(self.pings("pc", LAN_HOST))
        self.assertTrue(self.pings("onsite", PC))
        self.packets("lan", "eth0").send(BROADCAST + self.hardware("pc", "eth0") + EXPERIMENT.ljust(60))
        before = self.carried()
        self.assertFalse(self.pings("onsite", PC, IN_VAIN))
        self.assertEqual(self.carried(), before)

    def test_without_tunnel(self) -> None:
        """When the tunnel interface vanishes, the onsite stays on its LAN, and the PC reaches nobody."""
        self.build()
        self.assertTrue(self.pings("pc", LAN_HOST))
        run("ip", "-n", f"{PREFIX}-onsite", "link", "del", TUNNEL)
        self.assertTrue(self.pings("onsite", LAN_HOST))
        self.assertTrue(self.pings("lan", ONSITE))
        self.assertFalse(self.pings("pc", LAN_HOST, IN_VAIN))


class MasterTests(BridgedCase):
    """The master, which only passes on."""

    def setUp(self) -> None:
        """The master has an address of the LAN, as if by mistake; the PC, too."""
        super().setUp()
        self.address("pc", "eth0", f"{PC}/24")
        run("ip", "-n", f"{PREFIX}-master", "addr", "add", "192.168.7.200/24", "dev", "eth1")

    def test_no_part(self) -> None:
        """Neither LAN nor PC reach the master by the extremity's addresses, nor it them."""
        self.assertTrue(self.pings("pc", "192.168.7.200"))
        self.build()
        run("ip", "-n", f"{PREFIX}-pc", "neigh", "flush", "dev", "eth0")
        for host in ("lan", "pc", "onsite"):
            self.assertFalse(self.pings(host, "192.168.7.200", IN_VAIN), host)
        for address in (LAN_HOST, PC):
            self.assertFalse(self.pings("master", address, IN_VAIN), address)
        self.assertTrue(self.pings("pc", LAN_HOST))

    def test_says_nothing(self) -> None:
        """No frame of the master's own gets out, by the extremity or into the tunnel, whoever sends it."""
        self.build()
        ears = [self.packets("pc", "eth0"), self.packets("onsite", TUNNEL), self.packets("lan", "eth0")]
        load = EXPERIMENT + os.urandom(16)
        for interface in ("eth1", TUNNEL):
            with contextlib.suppress(OSError):  # the kernel says that it was dropped
                self.packets("master", interface).send(BROADCAST + self.hardware("master", interface) + load.ljust(60))
        for ear in ears:
            self.assertIsNone(self.hears(ear, load, IN_VAIN))

    def test_rules_taken_away(self) -> None:
        """If somebody flushes the firewall, nothing passes, and the tunnel's side still finds no master."""
        self.build()
        self.assertTrue(self.pings("pc", LAN_HOST))
        self.tear_firewall("master")
        self.assertFalse(self.pings("lan", "192.168.7.200", IN_VAIN))
        self.assertFalse(self.pings("lan", PC, IN_VAIN))

    def test_no_trace(self) -> None:
        """After a session, addresses, routes, firewall, settings and interfaces of both devices are as before."""
        self.build()
        self.assertTrue(self.pings("pc", LAN_HOST))
        for device in (self.master, self.onsite):
            self.assertTrue(device.let_go()["as before"])
