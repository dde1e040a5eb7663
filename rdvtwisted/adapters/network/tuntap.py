"""
TUN and TAP devices of the Linux kernel.

Numbers: linux/if_tun.h, as every architecture has them that we know devices
of (on mips, powerpc, sparc and alpha the ioctl numbers differ).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from typing import Protocol

from zope.interface import implementer

from rdvtwisted.errors import MissingPrivilege, MissingProgram, NetworkError, RDVError
from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.plan import interface
from rdvtwisted.values import Mode, Offloads

NODE = "/dev/net/tun"

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC

IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
#: Refuse a device that exists already, e.g. another process's.
IFF_TUN_EXCL = 0x8000

TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40

#: Size of struct virtio_net_hdr (linux/virtio_net.h) in bytes.
HEADER_SIZE = 10

#: struct ifreq: a name, flags, padding to its 40 bytes on 64-bit machines (32 on others).
_IFREQ = struct.Struct("16sH22x")
_INT = struct.Struct("i")

#: What write(2) says of one packet that it does not take: malformed (EINVAL), the
#: interface is down (EIO), no room now.
_REFUSED = frozenset({errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})

#: Tried in this order at opening; a kernel that does not know one of them
#: refuses the set with EINVAL. USO came with Linux 6.2.
_CANDIDATES = (
    Offloads(checksum=True, tso4=True, tso6=True, uso=True),
    Offloads(checksum=True, tso4=True, tso6=True),
    Offloads(checksum=True),
)


class System(Protocol):
    """The system calls that a packet device makes; see L{os} and L{fcntl}."""

    def open(self, path: str, flags: int, /) -> int:
        """A descriptor."""
        ...

    def ioctl(self, fd: int, request: int, argument: int | bytes, /) -> int | bytes:
        """Ask the driver something."""
        ...

    def readv(self, fd: int, buffers: list[bytearray | memoryview], /) -> int:
        """Read into buffers; the number of bytes."""
        ...

    def write(self, fd: int, data: bytes | bytearray | memoryview, /) -> int:
        """Write; the number of bytes taken."""
        ...

    def close(self, fd: int, /) -> None:
        """Give a descriptor back."""
        ...


class LinuxSystem(System):
    """The real ones; those that are called for each packet without a frame of Python in between."""

    def open(self, path: str, flags: int, /) -> int:
        return os.open(path, flags)

    def ioctl(self, fd: int, request: int, argument: int | bytes, /) -> int | bytes:
        return fcntl.ioctl(fd, request, argument)

    readv = staticmethod(os.readv)
    write = staticmethod(os.write)
    close = staticmethod(os.close)


def _unopened(name: str, error: OSError) -> RDVError:
    """The line that a user reads when the device cannot be opened."""
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return MissingProgram(f"{NODE} is not there: load the kernel module tun, or give the container that device")
    if error.errno in (errno.EPERM, errno.EACCES):
        return MissingPrivilege(
            f"may not make the interface {name}: run as root or with the capability CAP_NET_ADMIN,"
            f" and with read and write access to {NODE}"
        )
    if error.errno == errno.EBUSY:
        return NetworkError(f"there is an interface {name} already: is another process at work?")
    return NetworkError(f"the kernel refuses to make the interface {name}: {error.strerror}")


def make_persistent(name: str, mode: Mode, system: System | None = None) -> None:
    """
    Make a TUN (L3) or TAP (L2) interface that stays until it is deleted, for another program to open: one that
    asks for a plain one, without headers in front of packets.

    It belongs to the network namespace of the calling thread. Programs of this user can open it, and those with
    CAP_NET_ADMIN.

    @raise MissingProgram: the kernel has no TUN.
    @raise MissingPrivilege: this process may not.
    @raise NetworkError: the name is taken, or refused.
    """
    system = LinuxSystem() if system is None else system
    interface(name)
    fd = -1
    try:
        fd = system.open(NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = (IFF_TUN if mode is Mode.L3 else IFF_TAP) | IFF_NO_PI | IFF_TUN_EXCL
        system.ioctl(fd, TUNSETIFF, _IFREQ.pack(name.encode("ascii"), flags))
        # One without an owner is open to everybody who may open the node, which often is everybody.
        system.ioctl(fd, TUNSETOWNER, os.geteuid())
        system.ioctl(fd, TUNSETPERSIST, 1)
    except OSError as error:
        raise _unopened(name, error) from None
    finally:
        if fd != -1:
            system.close(fd)


def _bits(offloads: Offloads) -> int:
    return (
        (TUN_F_CSUM if offloads.checksum else 0)
        | (TUN_F_TSO4 if offloads.tso4 else 0)
        | (TUN_F_TSO6 if offloads.tso6 else 0)
        | (TUN_F_USO4 | TUN_F_USO6 if offloads.uso else 0)
    )


@implementer(IPacketDevice)
class PacketDevice:
    """
    One open device, not persistent; the header in front of its packets, if
    they have one, is little-endian on every machine.

    @ivar refused: how many packets the kernel did not take.
    """

    def __init__(self, name: str, mode: Mode, system: System | None = None, *, headers: bool = True) -> None:
        """
        Open it. Blocks, for at most the kernel's lock on interfaces.

        @param headers: each packet has its header in front; without, nothing can be offloaded.
        @raise MissingProgram: the kernel has no TUN.
        @raise MissingPrivilege: this process may not.
        @raise NetworkError: the name is taken, or refused.
        """
        system = LinuxSystem() if system is None else system
        interface(name)
        try:
            fd = system.open(NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unopened(name, error) from None
        self._take(fd, name, system)
        try:
            flags = (IFF_TUN if mode is Mode.L3 else IFF_TAP) | IFF_NO_PI | IFF_TUN_EXCL
            if headers:
                flags |= IFF_VNET_HDR
            system.ioctl(fd, TUNSETIFF, _IFREQ.pack(name.encode("ascii"), flags))
            if headers:
                system.ioctl(fd, TUNSETVNETHDRSZ, _INT.pack(HEADER_SIZE))
                system.ioctl(fd, TUNSETVNETLE, _INT.pack(1))
                self._offer()
        except OSError as error:
            self.close()
            raise _unopened(name, error) from None

    @classmethod
    def adopt(cls, fd: int, name: str, *, headers: bool, system: System | None = None) -> PacketDevice:
        """
        One that another process has opened like this, and passed on. Needs no privilege.

        @param fd: its descriptor, which is the device's from now on.
        @param headers: as it was opened.
        @raise NetworkError: it is gone already.
        """
        device = cls.__new__(cls)
        device._take(fd, name, LinuxSystem() if system is None else system)
        try:
            if headers:
                device._offer()
        except OSError as error:
            device.close()
            raise _unopened(name, error) from None
        return device

    def _take(self, fd: int, name: str, system: System) -> None:
        self.name = name
        self.refused = 0
        self._system: System = system
        self._fd = fd
        self._supported = Offloads()

    def _offer(self) -> None:
        self._supported = self._try(_CANDIDATES)
        self.set_offloads(Offloads())

    def _try(self, candidates: Iterable[Offloads]) -> Offloads:
        for offloads in candidates:
            try:
                self.set_offloads(offloads)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                return offloads
        return Offloads()

    def fileno(self) -> int:
        return self._fd

    def read_into(self, buffer: bytearray | memoryview) -> int:
        try:
            return self._system.readv(self._fd, [buffer])
        except BlockingIOError:
            return 0

    def write(self, packet: bytes | bytearray | memoryview) -> bool:
        try:
            self._system.write(self._fd, packet)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self.refused += 1
            return False
        return True

    def supported(self) -> Offloads:
        return self._supported

    def set_offloads(self, offloads: Offloads) -> None:
        self._system.ioctl(self._fd, TUNSETOFFLOAD, _bits(offloads))

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            self._system.close(fd)
