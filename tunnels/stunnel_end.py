"""The server's end of a C{stunnel} tunnel: frames inside the TLS of the server's door."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted import __version__
from rdvtwisted.errors import RequestRefused, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice, IServerSite, IServerTunnel, ITunnelStream
from rdvtwisted.values import TunnelTerms
from tunnels.complaints import Complaints
from tunnels.ending import Ending
from tunnels.framed import FramedStream
from tunnels.hello import SERVER, Hello
from tunnels.passage import HELLO_LIMIT


@implementer(IServerTunnel)
class StunnelServerTunnel:
    """
    Waits for the packet device and for a stream, then carries packets between the two.

    Who the device is was proved at the door, where its ticket was redeemed
    with its key.
    """

    _log = Logger()

    secret = ""

    def __init__(self, terms: TunnelTerms, site: IServerSite, pulse: tuple[float, float]) -> None:
        """
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        """
        self._terms = terms
        self._reactor = site.reactor
        self._pulse = pulse
        self._complaints = Complaints(site.reactor, f"The stunnel tunnel of {terms.device} turned a stream away")
        self._device: IPacketDevice | None = None
        self._stream: ITunnelStream | None = None
        self._link: FramedStream | None = None
        self._late: IDelayedCall | None = None
        self._traffic = (0, 0)
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
        self._carry_if_ready()

    def accept(self) -> IProtocol:
        """There is no port to connect to; see L{IServerTunnel}."""
        raise RequestRefused("this tunnel has no port: it is a stream through the TLS door")

    def occupy(self, stream: ITunnelStream) -> None:
        """The device's stream is here; see L{IServerTunnel}."""
        if self._ending.begun:
            stream.abort()
        elif self._stream is not None:
            self._refuse(stream, "another one is in already")
        else:
            self._stream = stream
            self._carry_if_ready()

    def _refuse(self, stream: ITunnelStream, reason: str) -> None:
        self._complaints.add(reason)
        stream.abort()

    def _carry_if_ready(self) -> None:
        device, stream, terms = self._device, self._stream, self._terms
        if device is None or stream is None:
            return
        hello = Hello(SERVER, terms.mode, terms.mtu, device.supported(), __version__)
        link = FramedStream(self._reactor, device, hello, terms.device, self._pulse, self._opened, self._ending.begin)
        self._late = self._reactor.callLater(HELLO_LIMIT, self._not_greeted)
        self._link = link
        try:
            stream.deliver(link)
        except RuntimeError:
            self._stop_waiting()
            self._link = self._stream = None
            self._refuse(stream, "it has left the TLS of the door")

    def _opened(self) -> None:
        self._stop_waiting()
        self._log.info("The stunnel tunnel of {device} carries packets", device=self._terms.device)
        self.opened.callback(None)

    def _not_greeted(self) -> None:
        self._ending.begin(TunnelFailed(f"{self._terms.device} did not say hello within {HELLO_LIMIT:.0f} s"), "late")

    def _stop_waiting(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def traffic(self) -> tuple[int, int]:
        """Bytes of packets from the device, to the device; see L{IServerTunnel}."""
        if self._link is not None:
            self._traffic = self._link.traffic()
        return self._traffic

    def close(self) -> Deferred[None]:
        """Say goodbye and leave nothing behind; see L{IServerTunnel}."""
        return self._ending.close()

    async def _release(self, word: str | None) -> None:
        self._stop_waiting()
        self._complaints.flush()
        left = None if self._link is None else self._link.leave(word)
        self.traffic()
        if self._device is not None:
            self._device.close()
        if left is not None:
            await left
        elif self._stream is not None:
            self._stream.abort()
        self._device = self._link = self._stream = None
