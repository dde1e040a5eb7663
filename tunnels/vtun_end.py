"""The server's end of one device's C{vtun} tunnel, in this process: for whoever runs a stock vtund as client."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.errors import RDVError, RequestRefused, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice, IServerSite, IServerTunnel, ITunnelStream
from rdvtwisted.values import Offloads, TunnelTerms
from tunnels.complaints import Complaints
from tunnels.ending import Ending
from tunnels.packets import VNET_HEADER
from tunnels.vtun_client import new_secret
from tunnels.vtun_frames import LONGEST_PACKET
from tunnels.vtun_guest import Guest
from tunnels.vtun_handshake import answer, session_name
from tunnels.vtun_intake import VtunIntake
from tunnels.vtun_server import VtunServer

#: Connections to one tunnel at a time, the device's own included.
MOST_GUESTS = 4


@implementer(IServerTunnel)
class VtunServerTunnel:
    """
    A seat for one client that knows the secret, and some room before it.

    The client that has proved to know it waits in the seat until the packet
    device is there; only then it is let in, so that the first packet of either
    side finds an interface that is up.
    """

    _log = Logger()

    def __init__(self, terms: TunnelTerms, site: IServerSite) -> None:
        """
        @raise MissingProgram: the OpenSSL of this machine cannot do Blowfish any more.
        """
        self._terms = terms
        self._reactor = site.reactor
        self.secret = new_secret()
        answer(bytes(16), self.secret)
        self._complaints = Complaints(site.reactor, f"The vtun tunnel of {terms.device} turned a client away")
        self._guests: set[Guest] = set()
        self._seated: Guest | None = None
        self._device: IPacketDevice | None = None
        self._intake: VtunIntake | None = None
        #: Room for one packet, behind a header that says nothing: neither checksum nor segments are left to do.
        self._packet = bytearray(VNET_HEADER + LONGEST_PACKET)
        self._received = 0
        #: Fires when the last guest is gone, once the tunnel ends.
        self._empty: Deferred[None] = Deferred()
        self._ending = Ending(self._release)
        self.opened: Deferred[None] = Deferred()
        self.closed = self._ending.closed

    def start(self, device: IPacketDevice) -> None:
        """The packet device is there; see L{IServerTunnel}."""
        if self._device is not None:
            raise RuntimeError("a tunnel is started once")
        if self._ending.begun:
            device.close()
            return
        self._device = device
        self._intake = VtunIntake(self._reactor, device, self._terms.mode, self._send, self._interface_lost)
        try:
            device.set_offloads(Offloads())
        except OSError as error:
            self._interface_lost(error)
            return
        if self._seated is not None:
            self._seated.admit()

    def accept(self) -> Guest:
        """The device opens a connection; see L{IServerTunnel}."""
        if self._ending.begun:
            raise RequestRefused("the tunnel is closed")
        if len(self._guests) >= MOST_GUESTS:
            raise RequestRefused(f"there are {MOST_GUESTS} connections to the tunnel already")
        terms = self._terms
        guest = Guest(self._reactor, VtunServer(session_name(terms.device), self.secret, terms.mode), self)
        self._guests.add(guest)
        return guest

    def occupy(self, stream: ITunnelStream) -> None:
        """A stream is not for this kind of tunnel; see L{IServerTunnel}."""
        stream.abort()

    def traffic(self) -> tuple[int, int]:
        """Bytes of packets from the device, to the device; see L{IServerTunnel}."""
        return self._received, 0 if self._intake is None else self._intake.bytes

    def close(self) -> Deferred[None]:
        """Say goodbye and leave nothing behind; see L{IServerTunnel}."""
        return self._ending.close()

    # Told by guests

    def proved(self, guest: Guest) -> None:
        """Seat it, if the seat is free; see L{tunnels.vtun_guest.House}."""
        if self._seated is not None:
            self._complaints.add("another one is in already")
            guest.dismiss()
            return
        self._seated = guest
        if self._device is not None:
            guest.admit()

    def take(self, packets: list[memoryview]) -> None:
        """Hand packets to the kernel; see L{tunnels.vtun_guest.House}."""
        device = self._device
        if device is None or self._ending.begun:
            return
        buffer, write = self._packet, device.write
        view = memoryview(buffer)
        received = 0
        try:
            for packet in packets:
                end = VNET_HEADER + len(packet)
                view[VNET_HEADER:end] = packet
                if write(view[:end]):
                    received += end - VNET_HEADER
        except OSError as error:
            self._interface_lost(error)
        self._received += received

    def flowing(self, guest: Guest) -> None:
        """Read the device just when the client takes packets; see L{tunnels.vtun_guest.House}."""
        if self._intake is None or self._ending.begun or guest is not self._seated:
            return
        self._intake.flow(guest.takes_packets)
        if guest.takes_packets and not self.opened.called:
            self._log.info("The vtun tunnel of {device} carries packets", device=self._terms.device)
            self.opened.callback(None)

    def left(self, guest: Guest, error: RDVError | None) -> None:
        """One that was let in takes the tunnel with it; see L{tunnels.vtun_guest.House}."""
        if guest is self._seated and self._device is not None:
            self._ending.begin(error)
            return
        if guest is self._seated:
            self._seated = None
        self._complaints.add(error or "it said goodbye")

    def gone(self, guest: Guest) -> None:
        """There is room for another; see L{tunnels.vtun_guest.House}."""
        self._guests.discard(guest)
        if self._ending.begun and not self._guests:
            self._empty.callback(None)

    # The end

    def _send(self, frames: bytes) -> None:
        if self._seated is not None:
            self._seated.send(frames)

    def _interface_lost(self, problem: object) -> None:
        self._ending.begin(TunnelFailed(f"the network interface of the vtun tunnel is gone: {problem}"))

    async def _release(self, word: str | None) -> None:
        self._complaints.flush()
        if self._intake is not None:
            self._intake.flow(False)
        if self._device is not None:
            self._device.close()
        for guest in list(self._guests):
            guest.dismiss()
        if self._guests:
            await self._empty
        self._seated = None
