"""Packets of the server's packet device on their way to a vtun client, as fast as it takes them and no faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.values import Mode
from tunnels.packets import LONGEST_PACKET as LONGEST_READ
from tunnels.packets import VNET_HEADER
from tunnels.vtun_frames import HEADER, LONGEST_PACKET

#: Bytes of the shortest packet of each mode: less has no IP header (RFC 791), or no Ethernet header, and a
#: stock vtund ends over it.
SHORTEST_PACKET = {Mode.L3: 20, Mode.L2: 14}
#: Packets of one turn of the reactor, which leave in one write: bounds how long the other direction, other
#: devices and timers wait.
PACKETS_PER_TURN = 64


@implementer(IReadDescriptor)
class VtunIntake:
    """Reads a packet device while it is told to; else the kernel keeps, then drops, what comes."""

    #: For one packet at a time; nothing stays in it between turns, so that all tunnels can share it.
    _buffer = bytearray(LONGEST_READ)

    def __init__(
        self,
        reactor: Any,
        device: IPacketDevice,
        mode: Mode,
        send: Callable[[bytes], None],
        lost: Callable[[object], None],
    ) -> None:
        """
        @param send: takes frames as vtun has them, some at a time.
        @param lost: called with the problem when the device is gone.
        """
        self._reactor = reactor
        self._device = device
        self._shortest = SHORTEST_PACKET[mode]
        self._send = send
        self._lost = lost
        self._reading = False
        #: Bytes of packets that were sent.
        self.bytes = 0

    def flow(self, wanted: bool) -> None:
        """Whether packets are wanted now."""
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._reactor.addReader(self)
            else:
                self._reactor.removeReader(self)

    def doRead(self) -> None:
        """There are packets."""
        read_into, shortest = self._device.read_into, self._shortest
        buffer = self._buffer
        view = memoryview(buffer)
        frames = bytearray()
        packets = 0
        try:
            for _ in range(PACKETS_PER_TURN):
                end = read_into(view)
                if not end:
                    break
                length = end - VNET_HEADER
                if shortest <= length <= LONGEST_PACKET:  # else no stock client could take it
                    # The frame's header takes the place of the end of the packet's own, which says nothing here.
                    buffer[VNET_HEADER - HEADER] = length >> 8
                    buffer[VNET_HEADER - 1] = length & 0xFF
                    frames += view[VNET_HEADER - HEADER : end]
                    packets += 1
        except OSError as error:
            self._lost(error)
            return
        if packets:
            self.bytes += len(frames) - packets * HEADER
            self._send(bytes(frames))

    def fileno(self) -> int:
        """The packet device's descriptor."""
        return int(self._device.fileno())

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the descriptor broken, or stops."""
        if self._reading:
            self._lost(reason.value)

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "tunnel"
