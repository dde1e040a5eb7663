"""
Packets of either end (RFC 4253, section 6): sent, received, and bounded.

In place of Conch's packet loop: AES-GCM, bounds on what a peer can make us
keep, knowledge of whether the connection takes more, and one line, instead of
an exception, for what a peer does wrong.
"""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh import transport as conch
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.ssh import ciphers, identification
from rdvtwisted.adapters.ssh.settings import LineSettings
from rdvtwisted.adapters.ssh.wire import Octets, Reader, string, uint32
from rdvtwisted.errors import ProtocolError
from rdvtwisted.origin import address_text

#: Bytes of the largest packet we take: from a stranger (RFC 4253, section 6.1, asks for 35,000), and afterwards.
STRANGER_PACKET = 40_000
LARGEST_PACKET = 264_000
#: Packets, and bytes of them, that a stranger may send until it is logged in. Clients that try many keys, each large,
#: send a tenth of it.
STRANGER_PACKETS = 200
STRANGER_BYTES = 1 << 18
#: Bytes of replies that may wait for a peer that does not read, or that is slow to exchange keys.
LARGEST_BACKLOG = 1 << 20
#: Bytes that a message which is kept takes beside its payload: the objects that hold it.
KEPT_BYTES = 100
#: Seconds that a peer has to take leave before the connection is cut.
GOODBYE_SECONDS = 5.0

_SEQUENCE_MASK = 0xFFFFFFFF
_NUMBERS = tuple(bytes((number,)) for number in range(256))
#: Messages from this number on are for services (RFC 4251, section 7).
_FIRST_OF_SERVICES = 50


@implementer(ILogObserver)
def _discard(event: LogEvent) -> None:
    """Conch tells a dozen lines about each login, none of them for an operator."""


@implementer(IPushProducer)
class PacketTransport(conch.SSHTransportBase):
    """
    One end of an SSH connection, without key exchange.

    C{service} gets the messages of its own, by C{packetReceived(number, body)},
    where C{body} is a memoryview; it is told by C{unblocked()} when L{writable}
    has become true again.
    """

    _log = Logger(observer=_discard)
    log = Logger()
    ourVersionString = identification.OURS
    supportedCompressions = [b"none"]

    settings: LineSettings
    clock: IReactorTime
    service: Any = None
    transport: Any

    #: Why the connection ends, in words, once that is known.
    end_reason = ""
    packet_limit = STRANGER_PACKET
    #: Whether authentication is over; nobody exchanges keys anew before.
    logged_in = False
    _strange_packets = 0
    _strange_bytes = 0
    congested = False
    closing = False
    _carried = 0
    _backlog = 0
    _goodbye_call: IDelayedCall | None = None

    def __init__(self, settings: LineSettings, clock: IReactorTime) -> None:
        self.settings = settings
        self.clock = clock
        self._inbox = bytearray()
        self._sealer: ciphers.Sealer = ciphers.PlainSealer()
        self._opener: ciphers.Opener = ciphers.PlainOpener()

    # For key exchange to fill in

    def rekey(self) -> None:
        """Exchange keys anew, if this is the time for it."""

    def admit(self, number: int) -> None:
        """
        A message has come.

        @raise ProtocolError: it may not come now.
        """

    # Being connected

    def connectionMade(self) -> None:
        """Say who we are, and begin the first key exchange."""
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:
            no_delay(True)
        self.transport.registerProducer(self, True)
        self.transport.write(self.ourVersionString + b"\r\n")
        self.sendKexInit()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone: stop everything that belongs to it."""
        self.closing = True
        self.end_reason = self.end_reason or "the connection was lost"
        if self._goodbye_call is not None and self._goodbye_call.active():
            self._goodbye_call.cancel()
        self._blockedByKeyExchange = []
        service, self.service = self.service, None
        if service is not None:
            service.serviceStopped()

    def sendDisconnect(self, reason: int, desc: bytes | str) -> None:
        """Tell the peer why, with one line in the log, then close; cut the connection if the peer stays."""
        if self.closing:
            return
        text = desc.decode("utf-8", "replace") if isinstance(desc, bytes) else desc
        self.end_reason = self.end_reason or text
        self.tell(text)
        if self.gotVersion:
            self._emit(conch.MSG_DISCONNECT, uint32(reason), string(text.encode()), string(b""))
        self._close()

    def fail(self, reason: str) -> None:
        """End the connection because the peer does what it must not: C{reason}."""
        self.sendDisconnect(conch.DISCONNECT_PROTOCOL_ERROR, reason)

    def tell(self, reason: str) -> None:
        """Write the one line about why this end ends the connection."""
        self.log.info("SSH connection with {peer} is ended: {reason}", peer=self.peer, reason=reason)

    @property
    def peer(self) -> str:
        """Host and port of the other end, as text."""
        return address_text(self.transport.getPeer())

    def _close(self) -> None:
        self.closing = True
        # A transport with a producer waits for it before it closes.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._goodbye_call = self.clock.callLater(GOODBYE_SECONDS, self.transport.abortConnection)

    # What the connection takes

    @property
    def writable(self) -> bool:
        """Whether bulk data may be sent now."""
        return not (self.congested or self.closing) and self._keyExchangeState == self._KEY_EXCHANGE_NONE

    def pauseProducing(self) -> None:
        """The connection takes no more for now."""
        self.congested = True

    def resumeProducing(self) -> None:
        """The connection takes more again."""
        self.congested = False
        self._backlog = 0
        self._unblocked()

    def stopProducing(self) -> None:
        """The connection is gone; C{connectionLost} follows."""
        self.congested = True

    def _unblocked(self) -> None:
        if self.writable and self.service is not None:
            self.service.unblocked()

    # Sending

    def sendPacket(self, messageType: int, payload: Octets) -> None:
        """Send one message, or keep it until the present key exchange is over."""
        self.send(messageType, payload)

    def send(self, number: int, *parts: Octets) -> None:
        """Send one message whose payload is C{parts} in a row, or keep it until the present key exchange is over."""
        if self.closing:
            return
        if self._keyExchangeState != self._KEY_EXCHANGE_NONE and not self._allowedKeyExchangeMessageType(number):
            payload = b"".join(parts)
            self._backlog += len(payload) + KEPT_BYTES
            self._blockedByKeyExchange.append((number, payload))
        else:
            self._emit(number, *parts)
        if self._backlog > LARGEST_BACKLOG:
            self.fail("it does not read what it is sent")
        elif number >= _FIRST_OF_SERVICES and self._carried >= self.settings.rekey_bytes:
            self.rekey()

    def _emit(self, number: int, *parts: Octets) -> None:
        pieces = self._sealer.seal(self.outgoingPacketSequence, _NUMBERS[number], *parts)
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & _SEQUENCE_MASK
        size = sum(map(len, pieces))
        self._carried += size
        if self.congested:
            self._backlog += size
        self.transport.writeSequence(pieces)

    # Receiving

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the peer, of any number of messages."""
        if self.closing:
            return
        self._inbox += data
        try:
            if self.gotVersion or self._identify():
                self._packets()
        except ProtocolError as error:
            self.fail(str(error))

    def _identify(self) -> bool:
        line = identification.take(self._inbox, self.isClient)
        if line is None:
            return False
        self.otherVersionString = line
        self.gotVersion = True
        return True

    def _packets(self) -> None:
        inbox = self._inbox
        at = 0
        try:
            while not self.closing:
                size = self._opener.measure(inbox, at)
                if size > self.packet_limit:
                    raise ProtocolError(f"it sent an SSH packet of {size} bytes")
                if not size or len(inbox) - at < size:
                    break
                if not self.logged_in:
                    self._count_strange(size)
                payload = self._opener.open(self.incomingPacketSequence, inbox, at, size)
                at += size
                self.incomingPacketSequence = (self.incomingPacketSequence + 1) & _SEQUENCE_MASK
                self._carried += size
                self._dispatch(payload[0], payload[1:])
        finally:
            del inbox[:at]
        if at and not self.closing:
            self.heard()

    def _count_strange(self, size: int) -> None:
        self._strange_packets += 1
        self._strange_bytes += size
        if self._strange_packets > STRANGER_PACKETS:
            raise ProtocolError(f"it sent more than {STRANGER_PACKETS} SSH packets before it was logged in")
        if self._strange_bytes > STRANGER_BYTES:
            raise ProtocolError(f"it sent more than {STRANGER_BYTES >> 10} KiB before it was logged in")

    def heard(self) -> None:
        """At least one whole packet has come."""

    def _dispatch(self, number: int, body: memoryview) -> None:
        self.admit(number)
        if number >= _FIRST_OF_SERVICES:
            if self.service is None:
                raise ProtocolError(f"it sent message {number} before it asked for a service")
            self.service.packetReceived(number, body)
            return
        name = conch.messages.get(number)
        method = getattr(self, f"ssh_{name[4:]}", None) if name else None
        if method is None:
            self.unimplemented()
            return
        try:
            method(bytes(body))
        except ProtocolError:
            raise
        except Exception as error:  # Conch answers a malformed message with whatever it trips over.
            self.log.debug("message {number} of {peer}: {error!r}", number=number, peer=self.peer, error=error)
            raise ProtocolError(f"it sent a malformed message {number} ({type(error).__name__})") from error

    def unimplemented(self) -> None:
        """The message being handled is none that we know (RFC 4253, section 11.4)."""
        sequence = (self.incomingPacketSequence - 1) & _SEQUENCE_MASK
        self.send(conch.MSG_UNIMPLEMENTED, uint32(sequence))

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        """The peer takes leave."""
        reader = Reader(packet)
        reader.uint32()
        self.end_reason = self.end_reason or reader.remark() or "the other end closed it"
        self._close()

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The peer does not know a message of ours; all that we send may stay without effect."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """The peer talks to its programmers."""
