"""The server's end of one device's C{tls} tunnel: TLS with the device straight on the socket of its stream."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted import __version__
from rdvtwisted.errors import RDVError, RequestRefused
from rdvtwisted.interfaces import IPacketDevice, IServerSite, IServerTunnel, ITunnelStream
from rdvtwisted.values import Role, TunnelReport, TunnelTerms
from tunnels.carrier import prepare
from tunnels.complaints import Complaints
from tunnels.credentials import PeerKey, fast_aes, packet_context
from tunnels.ending import Ending
from tunnels.hello import SERVER, Hello
from tunnels.meeting import meet
from tunnels.passage import Passage


@implementer(IServerTunnel)
class TLSServerTunnel:
    """
    Waits for the packet device and for a stream, then is to the device what
    the other device would be: TLS server to a master, TLS client to an onsite.

    A stream whose other end does not prove to have the device's key is closed, and the next one may come.
    """

    _log = Logger()

    secret = ""

    def __init__(self, terms: TunnelTerms, site: IServerSite, pulse: tuple[float, float]) -> None:
        """
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        """
        self._terms = terms
        self._site = site
        self._pulse = pulse
        self._complaints = Complaints(site.reactor, f"The tls tunnel of {terms.device} turned a stream away")
        self._device: IPacketDevice | None = None
        self._stream: ITunnelStream | None = None
        self._passage: Passage | None = None
        self._building: Deferred[None] = succeed(None)
        self._report = TunnelReport(backend="tls")
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
        self._build_if_ready()

    def accept(self) -> IProtocol:
        """There is no port to connect to; see L{IServerTunnel}."""
        raise RequestRefused("this tunnel has no port: it is a stream through the TLS door")

    def occupy(self, stream: ITunnelStream) -> None:
        """The device's stream is here; see L{IServerTunnel}."""
        if self._ending.begun:
            stream.abort()
        elif self._stream is not None:
            self._refuse(stream, "another one is in already")
        elif stream.fileno() == -1:
            self._refuse(stream, "it is closed already, or inside the TLS of the door")
        else:
            self._stream = stream
            self._build_if_ready()

    def _refuse(self, stream: ITunnelStream, reason: object) -> None:
        self._complaints.add(reason)
        stream.abort()

    def _build_if_ready(self) -> None:
        device, stream = self._device, self._stream
        if device is None or stream is None:
            return

        def failed(failure: Failure) -> None:
            ending = self._ending
            # Once it is ending, this is but the consequence.
            if not ending.begun:
                error = ending.in_our_words(failure.value, f"the tunnel to {self._terms.device} failed")
                ending.begin(error, None if self._passage is None else self._passage.word)

        # Whatever it comes to, that is not to end in the stack of whoever has brought stream or device.
        self._building = Deferred.fromCoroutine(self._build(device, stream))
        self._building.addErrback(failed)

    async def _build(self, device: IPacketDevice, stream: ITunnelStream) -> None:
        terms, reactor, identity = self._terms, self._site.reactor, self._site.identity
        server = terms.role is Role.MASTER
        key = PeerKey(terms.device, terms.key)
        try:
            prepare(stream)
            connection = await meet(reactor, stream, packet_context(identity, key, server, fast_aes()), key, server)
        except (RDVError, OSError) as error:
            self._stream = None
            self._refuse(stream, error)
            return
        hello = Hello(SERVER, terms.mode, terms.mtu, device.supported(), __version__)
        self._passage = Passage(
            reactor, stream, connection, device, hello, terms.device, self._pulse, self._ending.begin
        )
        await self._passage.carry()
        self._log.info(
            "The tls tunnel of {device} carries packets: {key_exchange}, {cipher}",
            device=terms.device,
            key_exchange=connection.get_group_name() or "",
            cipher=connection.get_cipher_name() or "",
        )
        self.opened.callback(None)

    def traffic(self) -> tuple[int, int]:
        """Bytes of packets from the device, to the device; see L{IServerTunnel}."""
        if self._passage is not None:
            self._report = self._passage.report(self._report)
        return self._report.received_bytes, self._report.sent_bytes

    def close(self) -> Deferred[None]:
        """Say goodbye and leave nothing behind; see L{IServerTunnel}."""
        return self._ending.close()

    async def _release(self, word: str | None) -> None:
        self._building.cancel()
        self._complaints.flush()
        left = None if self._passage is None else self._passage.leave(word)
        self.traffic()
        if self._device is not None:
            self._device.close()
        if left is not None:
            await left
        if self._stream is not None:
            if word is not None or self._ending.error is None:
                self._stream.close()
            else:
                self._stream.abort()
        self._device = self._passage = self._stream = None
