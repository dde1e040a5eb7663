"""Carries packets between a packet device and a wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvplain.wire import PACKET, Wire, frame
from rdvtwisted.errors import RDVError, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.values import Offloads

#: The C{struct virtio_net_hdr} in front of each packet. Without offloads it says nothing.
HEADER = bytes(10)
#: Bytes of the longest packet that a packet device may hand over.
LONGEST = 65_600
#: Packets that are read before others have their turn.
BATCH = 32


@implementer(IReadDescriptor, IPushProducer)
class Carriage:
    """
    Reads the packet device just as fast as the wire takes packets.

    @ivar flowing: the wire takes packets now.
    @ivar sent: packets and bytes that went into the wire; C{received}: that came out of it.
    """

    def __init__(self, reactor: Any, device: IPacketDevice, failed: Callable[[RDVError], None]) -> None:
        """
        @param failed: called if the interface is gone.
        """
        self._reactor = reactor
        self._device = device
        self._failed = failed
        self._wire: Wire | None = None
        self._buffer = memoryview(bytearray(LONGEST))
        self.flowing = False
        self.sent = (0, 0)
        self.received = (0, 0)

    def start(self, wire: Wire) -> None:
        """Carry packets from now on."""
        try:
            self._device.set_offloads(Offloads())
        except OSError as error:
            self._lost(error)
            return
        self._wire, self.flowing = wire, True
        wire.transport.registerProducer(self, True)
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Carry none any more. Idempotent."""
        wire, self._wire, self.flowing = self._wire, None, False
        if wire is not None:
            self._reactor.removeReader(self)
            if not wire.gone:
                wire.transport.unregisterProducer()

    def take(self, packet: bytes) -> None:
        """A packet has come out of the wire."""
        try:
            taken = self._device.write(HEADER + packet)
        except OSError as error:
            self._lost(error)
            return
        if taken:
            packets, size = self.received
            self.received = packets + 1, size + len(packet)

    def _lost(self, error: OSError) -> None:
        self._failed(TunnelFailed(f"the network interface of the tunnel is gone: {error}"))

    # IReadDescriptor

    def fileno(self) -> int:
        """The packet device's descriptor."""
        number: int = self._device.fileno()
        return number

    def logPrefix(self) -> str:
        """A word for the log."""
        return "plain"

    def doRead(self) -> None:
        """There are packets."""
        for _ in range(BATCH):
            wire = self._wire
            if wire is None:
                return
            try:
                size = self._device.read_into(self._buffer)
            except OSError as error:
                self._lost(error)
                return
            if not size:
                return
            packet = self._buffer[len(HEADER) : size]
            packets, total = self.sent
            self.sent = packets + 1, total + len(packet)
            wire.transport.write(frame(PACKET, packet))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor finds the descriptor closed."""

    # IPushProducer

    def pauseProducing(self) -> None:
        """The wire is full."""
        self.flowing = False
        self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """The wire takes more."""
        if self._wire is not None:
            self.flowing = True
            self._reactor.addReader(self)

    def stopProducing(self) -> None:
        """The wire is gone."""
        self._reactor.removeReader(self)
