"""
Sessions whose tunnels the server ends, by the real process in real namespaces.

The test plays the two devices: it writes what would come out of their tunnels
into the session's packet devices, and reads what would go in.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from rdvtwisted.adapters.network.gluer_client import Glue, start
from rdvtwisted.bridged import FLOOD_BURST, FLOOD_RATE
from rdvtwisted.glue import CONNECTIONS, LONGEST_MESSAGE, Close, GlueSpec, Open, request_to_bytes
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.testing.glue import BRIDGED, ROUTED, GlueContract
from tests.lab.hosts import PATIENCE, PREFIX, ROOT, NamespaceTestCase, entered, inside
from tests.lab.processes import eventually
from tests.lab.snapshot import SCRIPT, Snapshot

#: How long a packet that must not come is waited for, in seconds; one that may takes a millisecond.
IN_VAIN = 0.3

PC, LAN_HOST, ONSITE_END, MASTER_END = "192.168.38.226", "192.168.1.50", "192.168.128.1", "192.168.128.5"
ONSITE_DEVICE, MASTER_DEVICE = "192.168.128.2", "192.168.128.6"
ICMP, TCP, UDP = 1, 6, 17

#: What a session could change of the machine's own network.
KINDS = ("link", "address", "route", "rule", "nft", "sysctl")


def obstacle() -> str | None:
    """Why there can be no session namespaces here."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    return "needs the program nft" if shutil.which("nft") is None else None


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(data[::2]) * 256 + sum(data[1::2])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """A packet (RFC 791)."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ends
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp(source: str, destination: str, ports: tuple[int, int], data: bytes) -> bytes:
    """A datagram without checksum (RFC 768)."""
    return ipv4(source, destination, UDP, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data)


def ping(source: str, destination: str, data: bytes = b"ping") -> bytes:
    """An echo request (RFC 792)."""
    message = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + data
    return ipv4(source, destination, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def syn(source: str, destination: str, mss: int) -> bytes:
    """What opens a connection (RFC 9293), with its largest segment."""
    segment = struct.pack("!HHIIBBHHHBBH", 4000, 80, 1, 0, 0x60, 0x02, 65_535, 0, 0, 2, 4, mss)
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    right = checksum(ends + struct.pack("!HH", TCP, len(segment)) + segment)
    return ipv4(source, destination, TCP, segment[:16] + struct.pack("!H", right) + segment[18:])


def source(packet: bytes) -> str:
    """Where a packet is from."""
    return str(IPv4Address(packet[12:16]))


def destination(packet: bytes) -> str:
    """Where a packet goes."""
    return str(IPv4Address(packet[16:20]))


def read(device: Any, wait: float = PATIENCE) -> bytes:
    """What comes out of a device next; nothing if nothing does."""
    buffer = bytearray(65_600)
    select.select([device], [], [], wait)
    return bytes(buffer[: device.read_into(buffer)])


class GlueTestCase(TestCase):
    """Has the process."""

    limit = 12

    def setUp(self) -> None:
        """Start it, unless it could do nothing here."""
        if (why := obstacle()) is not None:
            raise SkipTest(why)
        self.gluer = start(self.limit)
        self.made = Glue(self.gluer, reactor)
        self.addCleanup(self.made.stop)

    async def opened(self, spec: GlueSpec) -> tuple[Any, Any]:
        """A session's two devices, closed when the test is over."""
        pair = await self.made.open(spec)
        for device in pair:
            self.addCleanup(device.close)
        return pair


class ContractTests(GlueContract, TestCase):
    """The real thing keeps the contract that the twin keeps."""

    def setUp(self) -> None:
        """Skip where it could do nothing."""
        if (why := obstacle()) is not None:
            raise SkipTest(why)

    def glue(self) -> Glue:
        glue = Glue(start(self.limit), reactor)
        self.addCleanup(glue.stop)
        return glue


class RoutedTests(GlueTestCase):
    """A session in L3."""

    async def test_quiet(self) -> None:
        """Nothing comes out of a session by itself: an old device's vtund would not survive it."""
        for spec in (ROUTED, BRIDGED):
            for device in await self.opened(spec):
                self.assertEqual(read(device, IN_VAIN), b"")

    async def test_ping(self) -> None:
        """Each device's ping of the server's end of its own tunnel is answered, from the moment it is open."""
        for headers in (False, True):
            onsite, master = await self.opened(evolve(ROUTED, session=f"s{headers}", headers=headers))
            header = bytes(10) if headers else b""
            for device, own, end in ((onsite, ONSITE_DEVICE, ONSITE_END), (master, MASTER_DEVICE, MASTER_END)):
                self.assertTrue(device.write(header + ping(own, end)))
                answer = read(device)
                self.assertEqual(answer[: len(header)], header)
                answer = answer[len(header) :]
                self.assertEqual((source(answer), destination(answer), answer[20]), (end, own, 0))
                self.assertEqual(answer[-4:], b"ping")
                self.assertEqual(checksum(answer[20:]), 0)

    async def test_there_and_back(self) -> None:
        """What the PC sends leaves to the onsite, from the server's end of its tunnel; the reply finds the PC."""
        onsite, master = await self.opened(ROUTED)
        self.assertTrue(master.write(udp(PC, LAN_HOST, (4000, 53), b"question")))
        there = read(onsite)
        self.assertEqual((source(there), destination(there), there[28:]), (ONSITE_END, LAN_HOST, b"question"))
        (port,) = struct.unpack("!H", there[20:22])
        self.assertTrue(onsite.write(udp(LAN_HOST, ONSITE_END, (53, port), b"answer")))
        back = read(master)
        self.assertEqual((source(back), destination(back), back[28:]), (LAN_HOST, PC, b"answer"))
        self.assertEqual(struct.unpack("!HH", back[20:24]), (53, 4000))

    async def test_ping_through(self) -> None:
        """The PC can ping the LAN, and the master's and the PC's pings are told apart."""
        onsite, master = await self.opened(ROUTED)
        for sender in (PC, MASTER_DEVICE):
            self.assertTrue(master.write(ping(sender, LAN_HOST)))
            there = read(onsite)
            self.assertEqual(source(there), ONSITE_END)
            message = b"\0\0\0\0" + there[24:]
            reply = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
            self.assertTrue(onsite.write(ipv4(LAN_HOST, ONSITE_END, ICMP, reply)))
            back = read(master)
            self.assertEqual((destination(back), back[20]), (sender, 0))

    async def test_largest_segment(self) -> None:
        """A connection's segments fit the tunnel, whatever the PC thinks; smaller ones stay."""
        onsite, master = await self.opened(ROUTED)
        for mss, expected in ((1460, 1410), (500, 500)):
            self.assertTrue(master.write(syn(PC, LAN_HOST, mss)))
            self.assertEqual(struct.unpack("!H", read(onsite)[42:44]), (expected,))

    async def test_nothing_else(self) -> None:
        """The onsite's side opens nothing, and only what is allowed gets in: no third address, no other service."""
        onsite, master = await self.opened(ROUTED)
        for device, packet in (
            (onsite, udp(LAN_HOST, PC, (53, 4000), b"not asked for")),
            (onsite, syn(LAN_HOST, PC, 1000)),
            (onsite, udp(ONSITE_DEVICE, MASTER_DEVICE, (1, 2), b"neighbour")),
            (onsite, ping(LAN_HOST, ONSITE_END)),
            (onsite, ping(ONSITE_DEVICE, MASTER_END)),
            (onsite, ping("192.168.128.3", ONSITE_END)),
            (onsite, ping(MASTER_DEVICE, ONSITE_END)),
            (onsite, ping(ONSITE_DEVICE, "192.168.128.3")),
            (onsite, ping(ONSITE_DEVICE, "255.255.255.255")),
            (onsite, syn(ONSITE_DEVICE, ONSITE_END, 1000)),
            (onsite, udp(ONSITE_DEVICE, ONSITE_END, (1, 2), b"closed port")),
            (master, ping(MASTER_DEVICE, ONSITE_END)),
            (master, ping(PC, MASTER_END)),
            (master, syn(MASTER_DEVICE, MASTER_END, 1000)),
            (master, udp(MASTER_DEVICE, "224.0.0.251", (5353, 5353), b"multicast")),
            (master, b"\x60" + bytes(3) + struct.pack("!HBB", 0, 59, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"),
            (master, b"\xff" * 40),
        ):
            device.write(packet)
        for device in (onsite, master):
            self.assertEqual(read(device, IN_VAIN), b"")
        self.assertTrue(master.write(udp(PC, LAN_HOST, (4000, 53), b"still")))
        self.assertEqual(read(onsite)[28:], b"still")

    async def test_confined(self) -> None:
        """
        In a session that is limited to a scope the rest of the LAN is refused at once, towards the master and with
        nothing towards the onsite; a change also ends what is under way.
        """
        onsite, master = await self.opened(evolve(ROUTED, scope=Scope.parse(f"{LAN_HOST}:udp/53")))
        self.assertTrue(master.write(udp(PC, LAN_HOST, (4000, 53), b"allowed")))
        self.assertEqual(read(onsite)[28:], b"allowed")
        for packet in (
            udp(PC, LAN_HOST, (4000, 54), b"next"),
            ping(PC, LAN_HOST),
            udp(PC, "192.168.1.51", (1, 53), b""),
        ):
            self.assertTrue(master.write(packet))
            refusal = read(master)
            # ICMP: destination unreachable, administratively prohibited; with the packet that it is about.
            self.assertEqual((destination(refusal), refusal[9], refusal[20:22]), (PC, ICMP, b"\x03\x0d"))
            self.assertEqual(refusal[40:48], packet[12:20])
        self.assertTrue(master.write(syn(PC, LAN_HOST, 1460)))
        reset = read(master)
        self.assertEqual((source(reset), destination(reset), reset[9], reset[33] & 4), (LAN_HOST, PC, TCP, 4))
        # An answer is let through as long as its question would be.
        answer = udp(LAN_HOST, ONSITE_END, (53, 4000), b"answer")
        self.assertTrue(onsite.write(answer))
        self.assertEqual(read(master)[28:], b"answer")
        await self.made.confine(ROUTED.session, Scope.parse(f"{LAN_HOST}:udp/54"))
        self.assertTrue(onsite.write(answer))
        self.assertEqual((read(onsite, IN_VAIN), read(master, IN_VAIN)), (b"", b""))
        self.assertTrue(master.write(udp(PC, LAN_HOST, (4000, 54), b"now")))
        self.assertEqual(read(onsite)[28:], b"now")
        await self.made.confine(ROUTED.session, ALL)
        self.assertTrue(onsite.write(answer))
        self.assertEqual(read(master)[28:], b"answer")

    async def test_sessions_do_not_meet(self) -> None:
        """Ten sessions at once with the same addresses: each packet stays in its own."""
        sessions = [await self.opened(evolve(ROUTED, session=f"s{number}")) for number in range(10)]
        for number, (_, master) in enumerate(sessions):
            self.assertTrue(master.write(udp(PC, LAN_HOST, (4000, 53), b"%d" % number)))
        for number, (onsite, _) in enumerate(sessions):
            self.assertEqual(read(onsite)[28:], b"%d" % number)
        for number, (onsite, _) in enumerate(sessions):
            self.assertTrue(onsite.write(udp(LAN_HOST, ONSITE_END, (53, 4000), b"reply %d" % number)))
        for number, (_, master) in enumerate(sessions):
            self.assertEqual(read(master)[28:], b"reply %d" % number)
        for device in (device for pair in sessions for device in pair):
            self.assertEqual(read(device, 0), b"")
        await self.made.close("s3")
        self.assertTrue(sessions[4][1].write(udp(PC, LAN_HOST, (4000, 53), b"more")))
        self.assertEqual(read(sessions[4][0])[28:], b"more")

    async def test_crowd(self) -> None:
        """One PC cannot have the server remember connections without end; what has been answered works on."""
        onsite, master = await self.opened(ROUTED)
        self.assertTrue(master.write(udp(PC, LAN_HOST, (1, 53), b"question")))
        self.assertEqual(read(onsite)[28:], b"question")
        self.assertTrue(onsite.write(udp(LAN_HOST, ONSITE_END, (53, 1), b"answer")))
        self.assertEqual(read(master)[28:], b"answer")
        through = 1
        for port in range(2, 5001):
            self.assertTrue(master.write(udp(PC, LAN_HOST, (port, 53), b"x")))
            through += bool(read(onsite, 0))
        self.assertEqual(through, CONNECTIONS)
        self.assertTrue(master.write(udp(PC, LAN_HOST, (1, 53), b"more")))
        self.assertEqual(read(onsite)[28:], b"more")


class BridgedTests(GlueTestCase):
    """A session in L2."""

    async def test_frames(self) -> None:
        """Frames of any kind, to one or to all, come out at the other end as they went in, and only there."""
        onsite, master = await self.opened(BRIDGED)
        a, b = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
        for here, there, frame in (
            (master, onsite, b"\xff" * 6 + a + b"\x08\x06" + bytes(46)),
            (onsite, master, a + b + b"\x08\x00" + ping(LAN_HOST, PC) + bytes(20)),
            (master, onsite, b + a + b"\x81\x00\x00\x07\x08\x00" + bytes(1486)),
            (onsite, master, b"\x33\x33\0\0\0\1" + b + b"\x86\xdd" + bytes(60)),
        ):
            self.assertTrue(here.write(frame))
            self.assertEqual(read(there), frame)
            self.assertEqual(read(here, 0), b"")

    async def test_two_bridges(self) -> None:
        """Two sessions with the same hardware addresses do not meet."""
        first, second = await self.opened(BRIDGED), await self.opened(evolve(BRIDGED, session="s3"))
        frame = b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x08\x06" + bytes(46)
        self.assertTrue(first[1].write(frame))
        self.assertEqual(read(first[0]), frame)
        for device in second:
            self.assertEqual(read(device, IN_VAIN), b"")

    async def test_not_for_the_next_switch(self) -> None:
        """Spanning tree, 802.1X, LLDP and Cisco's kinds of them are kept back, whatever the devices let through."""
        onsite, master = await self.opened(BRIDGED)
        source, rest = bytes.fromhex("020000000001"), b"\x08\x06" + bytes(46)
        for here, there in ((onsite, master), (master, onsite)):
            for number in ("0180c2000000", "0180c2000003", "0180c200000e", "01000ccccccc", "01000ccccccd"):
                self.assertTrue(here.write(bytes.fromhex(number) + source + rest))
            last = bytes.fromhex("0180c2000010") + source + rest
            self.assertTrue(here.write(last))
            self.assertEqual(read(there), last)

    async def test_flood(self) -> None:
        """Of a storm of broadcasts only so many a second pass, either way; what is for one machine is not held up."""
        onsite, master = await self.opened(BRIDGED)
        source, rest = bytes.fromhex("020000000001"), b"\x08\x06" + bytes(46)
        for here, there in ((onsite, master), (master, onsite)):
            began, passed, buffer = time.monotonic(), 0, bytearray(2_000)
            for _ in range(5 * FLOOD_BURST):
                here.write(b"\xff" * 6 + source + rest)
                passed += bool(there.read_into(buffer))
            allowed = FLOOD_BURST + FLOOD_RATE * (time.monotonic() - began)
            self.assertGreaterEqual(passed, FLOOD_BURST / 2)
            self.assertLess(passed, min(allowed * 1.1, 4 * FLOOD_BURST))
            single = bytes.fromhex("020000000009") + source + rest
            self.assertTrue(here.write(single))
            self.assertEqual(read(there), single)

    async def test_largest_segment(self) -> None:
        """TCP learns what fits through an old device, which lets no larger frames through and cannot say so."""
        ethernet = bytes.fromhex("020000000002 020000000001 0800")
        for session, path, fits in (("s3", None, 1460), ("s4", 1450, 1410)):
            onsite, master = await self.opened(evolve(BRIDGED, session=session, path=path))
            for here, there in ((master, onsite), (onsite, master)):
                for offered, left in ((8960, fits), (500, 500)):
                    self.assertTrue(here.write(ethernet + syn(PC, LAN_HOST, offered)))
                    self.assertEqual(read(there), ethernet + syn(PC, LAN_HOST, left))


class HostileTests(GlueTestCase):
    """What a server that somebody has taken over can make of it."""

    limit = 2

    def ask(self, message: bytes, descriptors: int = 0) -> dict[str, Any]:
        """Send whatever, past all checks; the answer."""
        socket.send_fds(self.gluer.connection, [message], [0] * descriptors)
        select.select([self.gluer.connection], [], [], PATIENCE)
        data, received, _, _ = socket.recv_fds(self.gluer.connection, LONGEST_MESSAGE, 10)
        for descriptor in received:
            self.addCleanup(os.close, descriptor)
        answer: dict[str, Any] = json.loads(data)
        return answer

    def test_hostile(self) -> None:
        """Anything but a proper request is refused with one line, opens nothing, and the next one is served."""
        reactor.removeReader(self.made)
        self.addCleanup(reactor.addReader, self.made)
        record = json.loads(request_to_bytes(Open(ROUTED)))
        process = Path(f"/proc/{self.gluer.process.pid}/fd")
        before = len(list(process.iterdir()))
        for message in (
            b"\0" * 100_000,
            b"[" * LONGEST_MESSAGE,
            *(json.dumps({**record, **changes}).encode() for changes in (
                {"session": "../../etc"},
                {"session": 'x"; flush ruleset; #'},
                {"onsite": "0.0.0.0/0"},
                {"onsite": "192.168.128.0/30 accept; }"},
                {"onsite": record["master"]},
                {"mtu": 10**9},
                {"mtu": -1},
                {"mode": "L3_multi"},
                {"do": "run"},
                {"program": "/bin/sh"},
            )),
        ):  # fmt: skip
            answer = self.ask(message, 3)
            self.assertEqual(answer["kind"], "InvalidValue")
            self.assertNotIn("\n", answer["error"])
        self.assertEqual(len(list(process.iterdir())), before)
        for number in range(self.limit):
            record["session"] = f"s{number}"
            self.assertEqual(self.ask(json.dumps(record).encode()), {"done": True})
            self.assertEqual(self.ask(json.dumps(record).encode())["kind"], "NetworkError")
        self.assertIn("limit", self.ask(json.dumps({**record, "session": "more"}).encode())["error"])
        self.assertEqual(self.ask(request_to_bytes(Close("s0"))), {"done": True})
        self.assertEqual(len(list(process.iterdir())), before + self.limit - 1)


class Owner:
    """A server in a process of its own that has sessions."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.owner", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return facts

    def end(self) -> None:
        """Have it end, whatever it does."""
        self.process.kill()
        self.process.communicate()


def holders(namespaces: list[str]) -> Iterator[int]:
    """The processes that keep one of these network namespaces, by being in it or by a descriptor."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(path) for path in (process / "ns" / "net", *(process / "fd").iterdir())]
        except OSError:
            continue
        if set(links) & set(namespaces):
            yield int(process.name)


def running(pid: int) -> bool:
    """Whether a process is there, and no corpse."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class KilledTests(SynchronousTestCase):
    """Whoever is killed, nothing is left."""

    def setUp(self) -> None:
        """Skip where there can be no sessions."""
        if (why := obstacle()) is not None:
            raise SkipTest(why)

    def owner(self, *words: str) -> Owner:
        """A server, gone when the test is over."""
        owner = Owner(*words)
        self.addCleanup(owner.end)
        return owner

    def test_server_killed(self) -> None:
        """When the server is killed with three sessions, the process and its namespaces are gone within 5 s."""
        owner = self.owner("own", "3")
        found = owner.says()
        self.assertEqual(len(found["namespaces"]), 2 + 3)  # the one it is in, and that once more to come back to
        self.assertEqual(len(set(found["namespaces"])), 1 + 3)
        self.assertEqual(list(holders(found["namespaces"])), [found["pid"]])
        owner.process.kill()
        eventually(lambda: not running(found["pid"]), 5.0, "the end of the process")
        self.assertEqual(list(holders(found["namespaces"])), [])

    def test_process_killed(self) -> None:
        """When the process is killed the server is told, and its sessions' packets flow until it ends them."""
        owner = self.owner("own", "2")
        found = owner.says()
        os.kill(found["pid"], signal.SIGKILL)
        self.assertEqual(owner.says(), {"ended": True, "readable": [0, 0]})
        self.assertEqual(list(holders(found["namespaces"])), [])
        descriptors = Path(f"/proc/{owner.process.pid}/fd")
        eventually(
            lambda: not [path for path in descriptors.iterdir() if os.readlink(path).endswith("/net/tun")],
            5.0,
            "the end of the packet devices",
        )

    def test_socket_elsewhere(self) -> None:
        """Even if another process keeps the socket open, the process ends with the server that started it."""
        owner = self.owner("outlive", "sleep")
        found = owner.says()
        self.addCleanup(os.kill, found["heir"], signal.SIGKILL)
        owner.process.kill()
        eventually(lambda: not running(found["pid"]), 5.0, "the end of the process")
        self.assertTrue(running(found["heir"]))


#: A program's words for: open sessions where nobody can make a user namespace.
_ELSEWHERE = ("without-user-namespaces", "opened")


class PrivilegeTests(SynchronousTestCase):
    """Who holds what."""

    def setUp(self) -> None:
        """Skip where there can be no sessions."""
        if (why := obstacle()) is not None:
            raise SkipTest(why)

    def said(self, *words: str) -> list[dict[str, Any]]:
        """What a program says until it ends."""
        program = [sys.executable, "-m", "tests.lab.owner", *words]
        ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=6 * PATIENCE, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def test_dropped(self) -> None:
        """A server without its privileges, even if it is root, makes no TUN, binds no port 80, enters no namespace."""
        for identity in ((), ("65534", "65534")):
            (found,) = self.said("dropped", *identity)
            self.assertEqual((found["before"], found["after"]), (["tun", "bind", "setns"], []))
            self.assertEqual((found["child"], found["empty"], found["held"]), (0, True, "no capability"))
            self.assertTrue(found["no_new_privileges"])
            self.assertEqual(set(found["user"]), {int(identity[0]) if identity else 0})

    def test_kept(self) -> None:
        """Some capabilities can be kept as another user, and one be lent to programs, and no more."""
        (found,) = self.said("kept", "12", "21")
        self.assertEqual((found["effective"], found["bounding"], found["user"]), ([12, 21], [12, 21], 65534))
        self.assertEqual(found["child"], 1 << 12)

    def test_process(self) -> None:
        """
        The process holds CAP_NET_ADMIN and CAP_SYS_ADMIN in a user namespace of its own, where one can be
        made even for a server without privileges; elsewhere the machine's; and is never in its network.
        """
        for words, own in ((("opened",), True), (("without-privileges", "opened"), True), (_ELSEWHERE, False)):
            found, last = self.said(*words)
            self.assertEqual((found["permitted"], found["bounding"], found["ambient"]), ([12, 21], [12, 21], [12]))
            self.assertEqual((found["no_new_privileges"], found["user"], found["network"]), (True, own, True))
            self.assertEqual(last, {"status": 0})

    def test_other_user(self) -> None:
        """The process can be another user's than the server."""
        found, last = self.said("opened", "nobody")
        self.assertEqual((found["uids"], found["permitted"], last["status"]), (["65534"] * 4, [12, 21], 0))

    def test_refused(self) -> None:
        """Where neither is possible, the operator reads in one line what is lacking."""
        (found,) = self.said("without-user-namespaces", "without-privileges", "refused")
        self.assertEqual(found["kind"], "MissingPrivilege")
        self.assertIn("CAP_NET_ADMIN and CAP_SYS_ADMIN", found["error"])
        self.assertNotIn("\n", found["error"])


class MachineTests(NamespaceTestCase, TestCase):
    """The machine's own network."""

    async def test_untouched(self) -> None:
        """Before, during and after two sessions the server's own links, routes, firewall and settings are the same."""
        self.host("server")
        self.host("uplink")
        self.cable("server", "eth0", "uplink", "eth0")
        self.address("server", "eth0", "192.168.128.2/24")
        with entered("server"):
            glue = Glue(start(), reactor)
        self.addCleanup(glue.stop)
        looks = [self.look()]
        for spec in (ROUTED, BRIDGED):
            for device in await glue.open(spec):
                self.addCleanup(device.close)
        looks.append(self.look())
        await glue.stop()
        looks.append(self.look())
        self.assertIn("eth0", str(looks[0]))
        self.assertEqual((looks[1], looks[2]), (looks[0], looks[0]))

    def look(self) -> list[str]:
        """The server's configuration."""
        output = subprocess.run(
            inside("server", "sh", "-c", SCRIPT), check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout
        snapshot = Snapshot.parse(output)
        return [f"{PREFIX} {fact}" for kind in KINDS for fact in snapshot.only(kind)]
