"""A packet device in memory."""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred
from zope.interface import implementer

from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.values import Offloads

#: Everything that a recent kernel can do.
ALL_OFFLOADS = Offloads(checksum=True, tso4=True, tso6=True, uso=True)

#: Bytes of the longest packet with its headers, as L{IPacketDevice} bounds it.
LONGEST_PACKET = 65_600


@implementer(IPacketDevice)
class MemoryPacketDevice:
    """
    A TUN or TAP device whose kernel is the test: L{inject} what the kernel is
    to hand over, look at what it was given in C{written}.

    Its descriptor is a real one, a socket pair's, so that a reactor can wait
    on it. Like the kernel it keeps a bounded queue and drops what is too much.
    """

    def __init__(self, name: str = "rdv0", supported: Offloads = ALL_OFFLOADS) -> None:
        """
        @param supported: what this kernel knows.
        """
        self.name = name
        self._supported = supported
        self._device, self._kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._device.setblocking(False)
        self._kernel.setblocking(False)
        self._awaited: list[tuple[int, Deferred[list[bytes]]]] = []
        #: All packets that were written, the oldest first.
        self.written: list[bytes] = []
        #: What may be read now; L{None} until somebody has said so.
        self.offloads: Offloads | None = None
        #: How many packets the kernel refuses from now on.
        self.refuses = 0
        self.closed = False

    # The kernel's side

    def inject(self, packet: bytes) -> bool:
        """
        Hand a packet, with its header, to who reads the device.

        @return: L{False} if the queue is full: the packet is dropped.
        """
        try:
            return self._kernel.send(packet) == len(packet)
        except BlockingIOError:
            return False

    def vanish(self) -> None:
        """Somebody deletes the interface: reading and writing fail from now on."""
        self._kernel.close()

    def when_written(self, count: int) -> Deferred[list[bytes]]:
        """
        @return: a Deferred of all packets written so far, once there are C{count}.
        """
        waiting: Deferred[list[bytes]] = Deferred()
        self._awaited.append((count, waiting))
        self._tell()
        return waiting

    def _tell(self) -> None:
        ready = [waiting for count, waiting in self._awaited if count <= len(self.written)]
        self._awaited = [each for each in self._awaited if each[1] not in ready]
        for waiting in ready:
            waiting.callback(list(self.written))

    # IPacketDevice

    def fileno(self) -> int:
        return self._device.fileno()

    def read_into(self, buffer: bytearray | memoryview) -> int:
        if len(buffer) < LONGEST_PACKET:
            raise ValueError(f"a buffer of {len(buffer)} bytes cannot hold every packet")
        try:
            count = self._device.recv_into(buffer)
        except BlockingIOError:
            return 0
        if not count:
            raise OSError(77, "File descriptor in bad state")  # EBADFD, as the tun driver says it
        return count

    def write(self, packet: bytes | bytearray | memoryview) -> bool:
        if self.closed or self._kernel.fileno() == -1:
            raise OSError(77, "File descriptor in bad state")
        if self.refuses:
            self.refuses -= 1
            return False
        self.written.append(bytes(packet))
        self._tell()
        return True

    def supported(self) -> Offloads:
        return self._supported

    def set_offloads(self, offloads: Offloads) -> None:
        self.offloads = offloads

    def close(self) -> None:
        self.closed = True
        self._device.close()
        self._kernel.close()
