"""A device with its bridged plan, alone in real network namespaces: what it lets pass and what it stops by itself."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

from rdvtwisted.bridged import FLOOD_BURST, FLOOD_RATE
from rdvtwisted.plan import interface_name
from tests.lab.frames import EXPERIMENT, IN_VAIN, SO_RCVBUFFORCE, FramesCase, hardware
from tests.lab.hosts import PREFIX, run
from tests.lab.rehearsal import OWNER, TUNNEL

ADDRESS = "192.168.7.50"


class AloneCase(FramesCase):
    """One device, between what is at its extremity and what is in its tunnel: it does not rely on the other one."""

    role: str

    def setUp(self) -> None:
        """Build it."""
        super().setUp()
        for name in ("device", "outside", "tunnel"):
            self.host(name)
        self.cable("outside", "eth0", "device", "eth0")
        self.cable("tunnel", "eth0", "device", TUNNEL)
        self.address("device", "eth0", f"{ADDRESS}/24")
        for name in ("outside", "tunnel"):
            run("ip", "-n", f"{PREFIX}-{name}", "link", "set", "eth0", "up")
        self.build(self.role)

    def build(self, role: str) -> None:
        """Have it carry out its plan."""
        self.assertFalse(self.held("device", "eth0", "", role).line()["as before"])

    def ways(self) -> Iterator[tuple[str, str, str]]:
        """Each way through it: in at one host's interface, out at the other's."""
        yield "outside", "eth0", "tunnel"
        yield "tunnel", "eth0", "outside"

    def not_for_the_next_switch(self) -> None:
        """See that what is for the next switch only goes none of the ways."""
        kept = ("01:80:c2:00:00:00", "01:80:c2:00:00:03", "01:80:c2:00:00:0e", "01:00:0c:cc:cc:cc", "01:00:0c:cc:cc:cd")
        for near, interface, far in self.ways():
            ear = self.packets(far, "eth0")
            loads = {}
            for to in (*kept, "01:80:c2:00:00:10"):
                mouth, frame, loads[to] = self.speech(near, interface, to)
                mouth.send(frame)
            last = loads.pop("01:80:c2:00:00:10")
            frames = self.hears_until(ear, last)
            self.assertEqual([to for to in kept if any(loads[to] in each for each in frames)], [], near)

    def flood(self) -> None:
        """See that of a storm of broadcasts only so many a second go each of the ways."""
        for near, interface, far in self.ways():
            mouth, frame, load = self.speech(near, interface)
            ear = self.packets(far, "eth0")
            ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            began, number = time.monotonic(), 20_000
            for _ in range(number):
                mouth.send(frame)
            passed = 0
            while self.hears(ear, load, IN_VAIN):
                passed += 1
            allowed = FLOOD_BURST + FLOOD_RATE * (time.monotonic() - began)
            self.assertGreaterEqual(passed, FLOOD_BURST / 2, near)
            self.assertLess(passed, min(allowed * 1.1, number / 2), near)

    def not_in_two_places(self) -> None:
        """See that who has been heard at the extremity is not heard out of the tunnel, as he would be in a loop."""
        outside, frame, load = self.speech("outside", "eth0")
        tunnel, other, last = self.speech("tunnel", "eth0")
        ear = self.packets("tunnel", "eth0")
        outside.send(frame)
        self.assertIsNotNone(self.hears(ear, load))
        ear = self.packets("outside", "eth0")
        tunnel.send(frame)
        tunnel.send(other)
        self.assertEqual([each for each in self.hears_until(ear, last) if load in each], [])


class MasterAloneTests(AloneCase):
    """A master."""

    role = "bridged-master"

    def test_not_in_two_places(self) -> None:
        """Who is at the PC's side is not in the tunnel."""
        self.not_in_two_places()

    def test_not_for_the_next_switch(self) -> None:
        """Spanning tree, 802.1X, LLDP and Cisco's kinds of them stay where they are, in both directions."""
        self.not_for_the_next_switch()

    def test_flood(self) -> None:
        """Of a storm of broadcasts only so many a second pass, in both directions."""
        self.flood()


class WithoutDHCPTests(AloneCase):
    """A master whose operator wants no addresses from the LAN."""

    role = "without-dhcp"

    def configuration(self, load: bytes) -> Iterator[tuple[bytes, int]]:
        """
        What addresses are given with (DHCP, DHCPv6, router solicitation and advertisement), as Ethernet type and
        packet; and where in it the port or type is.
        """
        for port in (67, 68):
            packet = bytes.fromhex("0800 4500") + (28 + len(load)).to_bytes(2, "big")
            packet += bytes.fromhex("0000 0000 40 11 0000 00000000 ffffffff 0000") + port.to_bytes(2, "big") + bytes(4)
            yield packet + load, 24
        for kind, head in (
            (17, bytes(2) + (546).to_bytes(2, "big") + bytes(4)),
            (17, bytes(2) + (547).to_bytes(2, "big") + bytes(4)),
            (58, bytes((133, 0)) + bytes(6)),
            (58, bytes((134, 0)) + bytes(6)),
        ):
            length = (len(head) + len(load)).to_bytes(2, "big")
            packet = bytes.fromhex("86dd 6000 0000") + length + bytes((kind, 255))
            packet += bytes.fromhex("fe80").ljust(16, b"\1") + bytes.fromhex("ff02").ljust(16, b"\1")
            yield packet + head + load, 44 if kind == 17 else 42

    def test_address_configuration(self) -> None:
        """None of it passes, either way, with a VLAN tag or without; the same with another type or port does."""
        for near, interface, far in self.ways():
            ear = self.packets(far, "eth0")
            mouth, frame, last = self.speech(near, interface)
            sent = {}
            for tag in (b"", bytes.fromhex("8100 0064")):
                load, other = os.urandom(20), os.urandom(20)
                for packet, place in self.configuration(load):
                    mouth.send(frame[:12] + tag + packet)
                    harmless = bytearray(packet.replace(load, other))
                    harmless[place] ^= 0x20
                    mouth.send(frame[:12] + tag + harmless)
                sent[load], sent[other] = 0, 6
            mouth.send(frame)
            frames = self.hears_until(ear, last)
            self.assertEqual({load: sum(load in each for each in frames) for load in sent}, sent, near)


class OnsiteAloneTests(AloneCase):
    """An onsite, which is a way in by itself."""

    role = "bridged-onsite"

    def ways(self) -> Iterator[tuple[str, str, str]]:
        yield from super().ways()
        yield "device", "eth0", "tunnel"

    def test_not_for_the_next_switch(self) -> None:
        """Spanning tree, 802.1X, LLDP and Cisco's kinds of them stay where they are, in all directions."""
        self.not_for_the_next_switch()

    def test_flood(self) -> None:
        """Of a storm of broadcasts only so many a second pass; the onsite itself hears all of the LAN's."""
        self.flood()
        mouth, frame, load = self.speech("outside", "eth0")
        ear = self.packets("device", "eth0")
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        for _ in range(2 * FLOOD_BURST):
            mouth.send(frame)
        for _ in range(2 * FLOOD_BURST):
            self.assertIsNotNone(self.hears(ear, load))

    def test_not_in_two_places(self) -> None:
        """Who is on the LAN is not in the tunnel."""
        self.not_in_two_places()

    def test_impossible_source(self) -> None:
        """A frame out of the tunnel that claims to come from a group of machines, or from the onsite, goes nowhere."""
        mouth, frame, load = self.speech("tunnel", "eth0")
        ears = [self.packets("outside", "eth0"), self.packets("device", "eth0")]
        for source in (hardware("03:00:00:00:00:01"), self.hardware("device", "eth0")):
            mouth.send(frame[:6] + source + frame[12:])
        for ear in ears:
            self.assertIsNone(self.hears(ear, load, IN_VAIN))

    def test_says_nothing(self) -> None:
        """What a program on the onsite sends by an interface of ours gets neither into the tunnel nor to the LAN."""
        ears = [self.packets("tunnel", "eth0"), self.packets("outside", "eth0"), self.packets("device", "eth0")]
        load = EXPERIMENT + os.urandom(16)
        for interface in (TUNNEL, interface_name("rdvi", OWNER), interface_name("rdvo", OWNER)):
            mouth, frame, _ = self.speech("device", interface)
            with contextlib.suppress(OSError):  # the kernel says that it was dropped
                mouth.send(frame[:14] + load.ljust(60))
        for ear in ears:
            self.assertIsNone(self.hears(ear, load, IN_VAIN))

    def test_among_themselves(self) -> None:
        """What two machines in the tunnel say to each other stays out of the LAN."""
        ear = self.packets("outside", "eth0")
        mouth, frame, load = self.speech("tunnel", "eth0")
        other = hardware("02:00:00:00:00:77")
        mouth.send(frame[:6] + other + frame[12:])
        self.assertIsNotNone(self.hears(ear, load))
        mouth.send(other + frame[6:])
        self.assertIsNone(self.hears(ear, load, IN_VAIN))
