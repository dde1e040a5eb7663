"""What engineers need of bridged sessions, over each tunnel backend: addresses from the LAN, IPv6, VLANs, no storm."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

from tests.lab.deployment import END_SECONDS
from tests.lab.frames import BROADCAST, EXPERIMENT, hears, packets
from tests.lab.hosts import PATIENCE
from tests.lab.processes import eventually
from tests.lab.programs import PROGRAMS, obstacles
from tests.lab.topology import CUSTOMER_LAN, EXTREMITY_LINK
from tests.lab.traffic import TrafficTestCase

POOL = (str(CUSTOMER_LAN[150]), str(CUSTOMER_LAN[160]))
"""The addresses that the customer's LAN gives."""

GUEST = f"{CUSTOMER_LAN[200]}/{CUSTOMER_LAN.prefixlen}"
"""The address that the PC has there when it is given none."""

PREFIX = "fd00:1:2:3"
"""Of the customer's LAN in IPv6, by router advertisements; the web server's address in it ends in 20."""

TAG = bytes.fromhex("8100 0007")
"""Of a frame in VLAN 7 (IEEE 802.1Q)."""

FULL = 1500 - 28
"""Bytes in a ping that fills an Ethernet frame."""

IN_VAIN = 3
"""For how many seconds something is waited for that must not come."""


class BridgedBackendsTests(TrafficTestCase):
    """Sessions in mode L2 whose tunnels end at the server, and one that is relayed."""

    skip = obstacles([*PROGRAMS, "ping", "busybox", "dnsmasq", "stunnel4", "vtund"])

    def setUp(self) -> None:
        """A place for files that are seen in all hosts."""
        super().setUp()
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    # What there is on the LAN, and on the PC

    def give_addresses(self, host: str, interface: str, *options: str) -> Path:
        """Run a DHCP server in a host; the file of the addresses that it has given away."""
        leases = self.directory / f"{host}.leases"
        process = self.lab.start(
            host,
            [
                *("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--no-ping"),
                *(f"--interface={interface}", f"--dhcp-leasefile={leases}", "--user=root", "--dhcp-authoritative"),
                *options,
            ],
        )
        self.addCleanup(process.stop)
        process.wait_output("sockets bound exclusively")
        return leases

    def customer_gives_addresses(self) -> Path:
        """The web server gives addresses on the customer's LAN, IPv4 by DHCP, IPv6 by advertisements."""
        self.ipv6("web", f"{PREFIX}::20/64")
        return self.give_addresses(
            "web",
            "eth0",
            f"--dhcp-range={','.join(POOL)},1h",
            f"--dhcp-option=3,{CUSTOMER_LAN[1]}",
            f"--dhcp-range={PREFIX}::,ra-only",
            "--enable-ra",
        )

    def ipv6(self, host: str, address: str | None = None) -> None:
        """Switch IPv6 on at a host's first interface until the test is over, with an address, or one to be learnt."""

        def switch(value: str) -> None:
            self.lab.run(host, ["sysctl", "-qw", f"net.ipv6.conf.eth0.disable_ipv6={value}"], check=True)

        self.lab.run(host, ["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0"], check=True)
        switch("0")
        self.addCleanup(switch, "1")
        if address is not None:
            self.lab.run(host, ["ip", "address", "add", address, "dev", "eth0", "nodad"], check=True)

    def lease(self, tries: int) -> str:
        """The address and the router that the PC is given; empty if none."""
        script = self.directory / "told"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "$ip $router"\nexit 0\n')
        script.chmod(0o755)
        words = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script), "-t", str(tries), "-T", "1"]
        return self.lab.run("pc", words, timeout=tries + 10).stdout.strip()

    def learnt(self) -> bool:
        """Whether the PC has made itself an address of what the customer's LAN advertises."""
        return PREFIX in self.lab.run("pc", ["ip", "-6", "address", "show", "dev", "eth0"]).stdout

    @contextmanager
    def address(self, host: str, address: str, interface: str = "eth0") -> Iterator[None]:
        """A host has one more address."""
        words = [address, "dev", interface]
        self.lab.run(host, ["ip", "address", "add", *words], check=True)
        try:
            yield
        finally:
            self.lab.run(host, ["ip", "address", "del", *words])

    def frames(self, host: str, interface: str = "eth0") -> socket.socket:
        """A socket for whole frames at an interface of a host."""
        made = packets(f"{self.lab.prefix}-{host}", interface)
        self.addCleanup(made.close)
        return made

    def hardware(self, host: str) -> bytes:
        """The hardware address of a host's first interface."""
        text = self.lab.run(host, ["cat", "/sys/class/net/eth0/address"], check=True).stdout
        return bytes.fromhex(text.strip().replace(":", ""))

    def tagged(self) -> None:
        """A frame with a VLAN tag, as large as they are, gets to the LAN and from there to the PC, tag and all."""
        for near, far in (("pc", "web"), ("web", "pc")):
            mouth, ear, load = self.frames(near), self.frames(far), EXPERIMENT + os.urandom(1498)
            frame = self.hardware(far) + self.hardware(near) + TAG + load
            mouth.send(frame)
            self.assertEqual(hears(ear, load, PATIENCE), frame, f"{near} to {far}")

    @contextmanager
    def bridged(self, backend: str, *options: str) -> Iterator[None]:
        """A session in mode L2."""
        with self.session("--tunnel-mode", "L2", "--backend", backend, *options):
            yield

    # The stories

    def on_the_lan(self, backend: str) -> None:
        """All that a machine on the customer's LAN has, the PC has."""
        given = self.customer_gives_addresses()
        own = self.give_addresses("master", "eth1", f"--dhcp-range={EXTREMITY_LINK[3]},{EXTREMITY_LINK[5]},1h")
        self.ipv6("pc")
        with self.bridged(backend):
            address, router = self.lease(10).split()
            self.assertIn(address, given.read_text())
            self.assertEqual((router, own.read_text() if own.exists() else ""), (str(CUSTOMER_LAN[1]), ""))
            with self.address("pc", f"{address}/{CUSTOMER_LAN.prefixlen}"):
                for size in ("56", str(FULL)):
                    self.assertIn("1 received", self.ping(self.web, "-M", "do", "-s", size))
                self.assertTrue(self.lab.pings("web", address))
                self.download(3_000_000)
            eventually(self.learnt, END_SECONDS, "an IPv6 address for the PC")
            self.assertIn("1 received", self.ping(f"{PREFIX}::20", "-6", "-M", "do", "-s", str(FULL - 20)))
            self.tagged()

    def test_relayed(self) -> None:
        """By tls, relayed."""
        self.on_the_lan("tls")

    def test_stunnel(self) -> None:
        """By stunnel."""
        self.on_the_lan("stunnel")

    def test_vtun(self) -> None:
        """By vtun."""
        self.on_the_lan("vtun")

    def test_no_addresses(self) -> None:
        """With C{--no-dhcp} the PC is given none, by IPv4 or IPv6, whatever the tunnels; its own one works."""
        given = self.customer_gives_addresses()
        self.ipv6("pc")
        for backend in ("tls", "stunnel", "vtun"):
            with self.address("pc", GUEST), self.bridged(backend, "--no-dhcp"):
                self.assertEqual(self.lease(IN_VAIN), "", backend)
                self.assertIn("1 received", self.ping(self.web), backend)
                self.assertFalse(self.learnt(), backend)
        self.assertEqual(given.read_text() if given.exists() else "", "")

    # Loops

    def loop(self, host: str) -> None:
        """Plug a host into the customer's LAN, until the test is over."""
        self.lab.plug(host, "eth9", IPv4Interface("10.9.0.1/24"), "site-router", "br-lan")
        self.addCleanup(self.lab.run, host, ["ip", "link", "del", "eth9"])
        self.addCleanup(self.lab.run, host, ["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])

    def calm(self) -> None:
        """What a machine of the LAN says to all is not said over and over, and the LAN is of use to everybody."""
        ear, mouth = self.frames("site-router", "br-lan"), self.frames("web")
        onsite, loads = self.lab.addresses["onsite"], []
        for _ in range(10):
            loads.append(EXPERIMENT + os.urandom(48))
            mouth.send(BROADCAST + self.hardware("web") + loads[-1])
            self.assertTrue(self.lab.pings("web", onsite), "the onsite is not reached by its LAN")
            self.assertTrue(self.lab.pings("onsite", self.lab.addresses["server"]), "the onsite has lost its uplink")
        heard = []
        while (frame := hears(ear, EXPERIMENT, IN_VAIN)) is not None:
            heard.append(frame[12:])
        for load in loads:
            self.assertIn(heard.count(load), (1, 2))
        self.assertTrue(self.scene.sessions(), "the session is over")

    def test_same_lan(self) -> None:
        """An engineer whose master is plugged into the very LAN that it reaches makes a loop, which is cut."""
        self.loop("master")
        for backend in ("tls", "stunnel", "vtun"):
            with self.bridged(backend, "--extremity", "eth9"):
                self.calm()

    def test_pc_on_both(self) -> None:
        """So does a PC that bridges the tunnel and the LAN."""
        self.loop("pc")
        self.lab.run("pc", ["ip", "link", "add", "loop", "type", "bridge"], check=True)
        self.addCleanup(self.lab.run, "pc", ["ip", "link", "del", "loop"])
        for name in ("eth0", "eth9"):
            self.lab.run("pc", ["ip", "link", "set", name, "master", "loop"], check=True)
        self.addCleanup(self.lab.run, "pc", ["ip", "link", "set", "eth0", "nomaster"])
        self.lab.run("pc", ["ip", "link", "set", "loop", "up"], check=True)
        with self.bridged("vtun"):
            self.calm()
