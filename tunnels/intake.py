"""Packets from the network interface into the tunnel, as fast as the tunnel takes them and no faster."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.interfaces import IPacketDevice
from tunnels.packets import HEADER, PACKETS_PER_BATCH, VNET_HEADER, PacketBatch

#: Batches taken in one turn of the reactor: bounds how long the other direction and timers wait.
BATCHES_PER_TURN = 8


class Outlet(Protocol):
    """Where batches go."""

    def transmit(self, frames: memoryview) -> bool:
        """Send these frames; L{False} if they have to wait: they stay untouched, and no more come, until resumed."""

    def interface_lost(self, problem: object) -> None:
        """The interface is gone."""


@implementer(IReadDescriptor)
class Intake:
    """Reads a packet device whenever the outlet can send; else the kernel keeps, then drops, what comes."""

    def __init__(self, reactor: Any, device: IPacketDevice, outlet: Outlet) -> None:
        self._reactor = reactor
        self._device = device
        self._read_into = device.read_into
        self._outlet = outlet
        self._batch = PacketBatch()
        self._stopped = False
        #: What was sent, without tunnel headers.
        self.packets = 0
        self.bytes = 0

    def resume(self) -> None:
        """The outlet can send."""
        if not self._stopped:
            self._reactor.addReader(self)

    def pause(self) -> None:
        """The outlet cannot send now."""
        self._reactor.removeReader(self)

    def stop(self) -> None:
        """Leave the device alone from now on. Idempotent."""
        self._stopped = True
        self.pause()

    def fileno(self) -> int:
        """The packet device's descriptor."""
        return int(self._device.fileno())

    def doRead(self) -> None:
        """There are packets: the first leaves at once, before it is known whether more come; these leave in batches."""
        gather, read_into = self._batch.gather, self._read_into
        most = 1
        for _ in range(BATCHES_PER_TURN):
            try:
                frames = gather(read_into, most)
            except OSError as error:
                self._outlet.interface_lost(error)
                return
            size = len(frames)
            if not size:
                return
            packets = self._batch.packets
            self.packets += packets
            self.bytes += size - packets * (HEADER + VNET_HEADER)
            if not self._outlet.transmit(frames):
                self.pause()
                return
            most = PACKETS_PER_BATCH

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the descriptor broken, or stops."""
        if not self._stopped:
            self._outlet.interface_lost(reason.value)

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "tunnel"
