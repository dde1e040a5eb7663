"""TUN and TAP devices, over a kernel's driver in memory."""

from __future__ import annotations

import errno
import os
import struct

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.network import tuntap
from rdvtwisted.adapters.network.tuntap import PacketDevice, make_persistent
from rdvtwisted.errors import InvalidValue, MissingPrivilege, MissingProgram, NetworkError, RDVError
from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.values import Mode, Offloads
from tests.adapters.network.memory import refuse

#: struct virtio_net_hdr of a packet that needs nothing, and a packet.
PACKET = bytes(10) + b"\x45" + bytes(27)


class MemorySystem:
    """The driver of one device, which knows the offloads of C{known}."""

    def __init__(self, known: int = 0x67) -> None:
        self.known = known
        self.node: int = 0
        self.refusals: dict[int, int] = {}
        self.flags = 0
        self.opened: list[int] = []
        self.ioctls: list[tuple[int, int | bytes]] = []
        self.waiting: list[bytes] = []
        self.written: list[bytes] = []
        self.answer: int = 0

    def open(self, path: str, flags: int, /) -> int:
        """Open the node, or refuse with C{node}."""
        if self.node:
            raise refuse(self.node)
        assert path == "/dev/net/tun"
        self.flags = flags
        self.opened.append(7)
        return 7

    def ioctl(self, fd: int, request: int, argument: int | bytes, /) -> int | bytes:
        """Take note; refuse with C{refusals}, or unknown offloads."""
        assert fd in self.opened
        if request in self.refusals:
            raise refuse(self.refusals[request])
        if request == tuntap.TUNSETOFFLOAD:
            assert isinstance(argument, int)
            if argument & ~self.known or (argument and not argument & tuntap.TUN_F_CSUM):
                raise refuse(errno.EINVAL)
        self.ioctls.append((request, argument))
        return 0

    def readv(self, fd: int, buffers: list[bytearray | memoryview], /) -> int:
        """Hand over the next packet."""
        if fd not in self.opened:
            raise refuse(errno.EBADF)
        if self.answer:
            raise refuse(self.answer)
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        packet = self.waiting.pop(0)
        buffers[0][: len(packet)] = packet
        return len(packet)

    def write(self, fd: int, data: bytes | bytearray | memoryview, /) -> int:
        """Take a packet, or refuse with C{answer}."""
        if fd not in self.opened:
            raise refuse(errno.EBADF)
        if self.answer:
            raise refuse(self.answer)
        self.written.append(bytes(data))
        return len(data)

    def close(self, fd: int, /) -> None:
        """Close."""
        self.opened.remove(fd)


class PacketDeviceTests(SynchronousTestCase):
    """A device as a tunnel uses it."""

    def test_provides(self) -> None:
        """It is a packet device."""
        self.assertTrue(verifyObject(IPacketDevice, PacketDevice("rdv-t", Mode.L3, MemorySystem())))

    def test_open(self) -> None:
        """It is opened non-blocking, hidden from programs that we start, with a little-endian header of 10 bytes."""
        for mode, flags in ((Mode.L3, 0xD001), (Mode.L2, 0xD002)):
            system = MemorySystem()
            device = PacketDevice("rdv-t", mode, system)
            self.assertEqual((device.name, device.fileno()), ("rdv-t", 7))
            self.assertEqual(system.flags, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self.assertEqual(
                system.ioctls[:3],
                [
                    (tuntap.TUNSETIFF, b"rdv-t".ljust(16, b"\0") + struct.pack("H", flags) + bytes(22)),
                    (tuntap.TUNSETVNETHDRSZ, struct.pack("i", 10)),
                    (tuntap.TUNSETVNETLE, struct.pack("i", 1)),
                ],
            )

    def test_bare(self) -> None:
        """A device without headers is opened without; it has no offloads, and nothing is said of them."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L2, system, headers=False)
        self.assertEqual([request for request, _ in system.ioctls], [tuntap.TUNSETIFF])
        self.assertEqual(system.ioctls[0][1], b"rdv-t".ljust(16, b"\0") + struct.pack("H", 0x9002) + bytes(22))
        self.assertEqual(device.supported(), Offloads())

    def test_adopt(self) -> None:
        """One that another process has opened needs no more than to be asked what it can do."""
        for headers, known in ((True, 0x67), (False, 0)):
            system = MemorySystem()
            system.opened.append(9)
            device = PacketDevice.adopt(9, "rdv-t", headers=headers, system=system)
            self.assertTrue(verifyObject(IPacketDevice, device))
            self.assertEqual((device.name, device.fileno()), ("rdv-t", 9))
            self.assertEqual(system.ioctls, [(tuntap.TUNSETOFFLOAD, known), (tuntap.TUNSETOFFLOAD, 0)][: 2 * headers])
            self.assertEqual(device.supported().uso, headers)
            device.close()
            self.assertEqual(system.opened, [])

    def test_adopt_gone(self) -> None:
        """One that is gone already is refused, and its descriptor is closed."""
        system = MemorySystem()
        system.opened.append(9)
        system.refusals[tuntap.TUNSETOFFLOAD] = errno.EBADFD
        self.assertRaises(NetworkError, PacketDevice.adopt, 9, "rdv-t", headers=True, system=system)
        self.assertEqual(system.opened, [])

    def test_offloads_of_new_and_old_kernels(self) -> None:
        """What the kernel knows is found out by trying, and nothing of it is switched on at first."""
        for known, expected in (
            (0x67, Offloads(checksum=True, tso4=True, tso6=True, uso=True)),
            (0x07, Offloads(checksum=True, tso4=True, tso6=True)),
            (0x01, Offloads(checksum=True)),
            (0x00, Offloads()),
        ):
            system = MemorySystem(known)
            self.assertEqual(PacketDevice("rdv-t", Mode.L3, system).supported(), expected)
            self.assertEqual(system.ioctls[-1], (tuntap.TUNSETOFFLOAD, 0))

    def test_set_offloads(self) -> None:
        """The kernel is told which large packets may be read."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        device.set_offloads(Offloads(checksum=True, tso4=True))
        device.set_offloads(device.supported())
        self.assertEqual(system.ioctls[-2:], [(tuntap.TUNSETOFFLOAD, 0x03), (tuntap.TUNSETOFFLOAD, 0x67)])

    def test_read(self) -> None:
        """A packet is read in place; 0 says that there is none now."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        buffer = bytearray(65_600)
        self.assertEqual(device.read_into(buffer), 0)
        system.waiting.append(PACKET)
        self.assertEqual(device.read_into(memoryview(buffer)[100:]), len(PACKET))
        self.assertEqual(buffer[100 : 100 + len(PACKET)], PACKET)

    def test_write(self) -> None:
        """A packet is written whole, from whatever holds it."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        for packet in (PACKET, bytearray(PACKET), memoryview(PACKET)):
            self.assertIs(device.write(packet), True)
        self.assertEqual((system.written, device.refused), ([PACKET] * 3, 0))

    def test_refused_packet(self) -> None:
        """A packet that the kernel does not take is dropped and counted, and the device works on."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        reasons = (errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)
        for system.answer in reasons:
            self.assertIs(device.write(PACKET), False)
        system.answer = 0
        self.assertIs(device.write(PACKET), True)
        self.assertEqual(device.refused, len(reasons))

    def test_gone(self) -> None:
        """When the interface is deleted, reading and writing say so."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        system.answer = errno.EBADFD
        self.assertRaises(OSError, device.write, PACKET)
        self.assertRaises(OSError, device.read_into, bytearray(65_600))

    def test_close(self) -> None:
        """Closing twice is closing once, and then there is nothing to read from or write to."""
        system = MemorySystem()
        device = PacketDevice("rdv-t", Mode.L3, system)
        device.close()
        device.close()
        self.assertEqual(system.opened, [])
        self.assertRaises(OSError, device.write, PACKET)

    def _refused(self, system: MemorySystem, error: type[RDVError], text: str) -> None:
        raised = self.assertRaises(error, PacketDevice, "rdv-t", Mode.L3, system)
        self.assertIn(text, str(raised))
        self.assertNotIn("\n", str(raised))
        self.assertEqual(system.opened, [])

    def test_cannot_open(self) -> None:
        """What is missing is said in one line with its cure, and no descriptor is left open."""
        for number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            system = MemorySystem()
            system.node = number
            self._refused(system, MissingProgram, "load the kernel module tun")
        system = MemorySystem()
        system.node = errno.EACCES
        self._refused(system, MissingPrivilege, "CAP_NET_ADMIN")
        for number, error, text in (
            (errno.EPERM, MissingPrivilege, "CAP_NET_ADMIN"),
            (errno.EBUSY, NetworkError, "there is an interface rdv-t already"),
            (errno.EINVAL, NetworkError, "Invalid argument"),
        ):
            system = MemorySystem()
            system.refusals[tuntap.TUNSETIFF] = number
            self._refused(system, error, text)
        system = MemorySystem()
        system.refusals[tuntap.TUNSETOFFLOAD] = errno.EBADFD
        self._refused(system, NetworkError, "rdv-t")

    def test_persistent(self) -> None:
        """An interface for another program is made without headers, is this user's, stays, and is left closed."""
        for mode, flags in ((Mode.L3, 0x9001), (Mode.L2, 0x9002)):
            system = MemorySystem()
            make_persistent("rdv-t", mode, system)
            ((request, name), own, keep) = system.ioctls
            assert isinstance(name, bytes)
            self.assertEqual((request, name), (0x400454CA, struct.pack("16sH22x", b"rdv-t", flags)))
            self.assertEqual((own, keep), ((0x400454CC, os.geteuid()), (0x400454CB, 1)))
            self.assertEqual(system.opened, [])

    def test_persistent_refused(self) -> None:
        """One that cannot be made is refused in one line, and nothing is left open."""
        for request in (tuntap.TUNSETIFF, tuntap.TUNSETOWNER, tuntap.TUNSETPERSIST):
            system = MemorySystem()
            system.refusals[request] = errno.EBUSY
            error = self.assertRaises(NetworkError, make_persistent, "rdv-t", Mode.L3, system)
            self.assertEqual(str(error), "there is an interface rdv-t already: is another process at work?")
            self.assertEqual(system.opened, [])
        system = MemorySystem()
        system.node = errno.ENOENT
        self.assertRaises(MissingProgram, make_persistent, "rdv-t", Mode.L3, system)
        self.assertRaises(InvalidValue, make_persistent, "tun%d", Mode.L3, system)

    def test_bad_name(self) -> None:
        """A name that the kernel would fill in or cut off is refused before anything is opened."""
        for name in ("tun%d", "x" * 16, ""):
            system = MemorySystem()
            self.assertRaises(InvalidValue, PacketDevice, name, Mode.L3, system)
            self.assertEqual(system.flags, 0)
