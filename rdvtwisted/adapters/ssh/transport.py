"""
The transport layer of both ends (RFC 4253): Conch's key exchange, in a packet loop of our own.

What this adds to Conch: AES-GCM; strict key exchange
(C{kex-strict-*-v00@openssh.com}, OpenSSH's C{PROTOCOL}, section 1.10), hence
sequence numbers that begin anew; keys that take effect for each direction at
its own NEWKEYS; a check that each message may come now; bounds on
what a peer can make us keep; rekeying; and knowledge of whether the
connection takes more.
"""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh import transport as conch
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.ssh import algorithms, ciphers, identification
from rdvtwisted.adapters.ssh.settings import LineSettings
from rdvtwisted.adapters.ssh.wire import Octets, Reader, string, uint32
from rdvtwisted.errors import ProtocolError

#: Bytes of the largest packet we take: from a stranger (RFC 4253, section 6.1, asks for 35,000), and afterwards.
STRANGER_PACKET = 40_000
LARGEST_PACKET = 264_000
#: Packets of one direction after which new keys are exchanged; far from 2**32, where sequence numbers repeat.
REKEY_PACKETS = 1 << 28
#: Bytes of replies that may wait for a peer that does not read, or that is slow to exchange keys.
LARGEST_BACKLOG = 1 << 20
#: Characters that we keep of what a peer says when it leaves.
LONGEST_REASON = 200
#: Seconds that a peer has to take leave before the connection is cut.
GOODBYE_SECONDS = 5.0

_SEQUENCE_MASK = 0xFFFFFFFF
_NUMBERS = tuple(bytes((number,)) for number in range(256))
#: Messages that may come at any time, and those of them that strict key exchange forbids in the first one.
_ALWAYS = frozenset({conch.MSG_DISCONNECT, conch.MSG_IGNORE, conch.MSG_UNIMPLEMENTED, conch.MSG_DEBUG})
_IDLE_TALK = _ALWAYS - {conch.MSG_DISCONNECT}
_NEWKEYS = frozenset({conch.MSG_NEWKEYS})
_KEXINIT = frozenset({conch.MSG_KEXINIT})


def address_text(address: IAddress) -> str:
    """C{host:port}, an IPv6 host in brackets; whatever the address says of itself if it has no port."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        return str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@implementer(ILogObserver)
def _discard(event: LogEvent) -> None:
    """Conch tells a dozen lines about each login, none of them for an operator."""


@implementer(IPushProducer)
class SecureTransport(conch.SSHTransportBase):
    """
    One end of an SSH connection; mixed in front of Conch's server or client class.

    C{service} gets the messages of its own, by C{packetReceived(number, body)},
    where C{body} is a memoryview; it is told by C{unblocked()} when L{writable}
    has become true again.
    """

    _log = Logger(observer=_discard)
    log = Logger()
    ourVersionString = identification.OURS
    supportedCompressions = [b"none"]

    #: The message, 30 or 31, by which the other end takes part in a key exchange.
    exchange_message: int
    settings: LineSettings
    clock: IReactorTime
    service: Any = None
    transport: Any

    #: Why the connection ends, in words, once that is known.
    end_reason = ""
    packet_limit = STRANGER_PACKET
    congested = False
    closing = False
    #: Whether authentication is over; nobody exchanges keys anew before.
    logged_in = False
    _strict = False
    _encrypted = False
    _carried = 0
    _carried_packets = 0
    _backlog = 0
    _next_opener: ciphers.Opener | None = None
    _exchange_limit: IDelayedCall | None = None
    _rekey_call: IDelayedCall | None = None
    _goodbye_call: IDelayedCall | None = None

    def __init__(self, settings: LineSettings, clock: IReactorTime, offer: algorithms.Offer) -> None:
        self.settings = settings
        self.clock = clock
        marker = b"kex-strict-c-v00@openssh.com" if self.isClient else b"kex-strict-s-v00@openssh.com"
        self.supportedKeyExchanges = [*offer.key_exchanges, marker]
        self.supportedCiphers = list(offer.ciphers)
        self.supportedMACs = list(offer.macs)
        self._inbox = bytearray()
        self._sealer: ciphers.Sealer = ciphers.PlainSealer()
        self._opener: ciphers.Opener = ciphers.PlainOpener()
        #: What the peer must say next for a key exchange to go on; L{None} outside of one.
        self._awaited: frozenset[int] | None = _KEXINIT

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
        for call in (self._exchange_limit, self._rekey_call, self._goodbye_call):
            if call is not None and call.active():
                call.cancel()
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
            self._backlog += len(payload)
            self._blockedByKeyExchange.append((number, payload))
        else:
            self._emit(number, *parts)
        if self._backlog > LARGEST_BACKLOG:
            self.fail("it does not read what it is sent")
        elif self._carried >= self.settings.rekey_bytes or self._carried_packets >= REKEY_PACKETS:
            self.rekey()

    def _emit(self, number: int, *parts: Octets) -> None:
        pieces = self._sealer.seal(self.outgoingPacketSequence, _NUMBERS[number], *parts)
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & _SEQUENCE_MASK
        size = sum(map(len, pieces))
        self._carried += size
        self._carried_packets += 1
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
                payload = self._opener.open(self.incomingPacketSequence, inbox, at, size)
                at += size
                self.incomingPacketSequence = (self.incomingPacketSequence + 1) & _SEQUENCE_MASK
                self._carried += size
                self._carried_packets += 1
                self._dispatch(payload[0], payload[1:])
        finally:
            del inbox[:at]
        if at and not self.closing:
            self.heard()

    def heard(self) -> None:
        """At least one whole packet has come."""

    def _dispatch(self, number: int, body: memoryview) -> None:
        if self._awaited is not None:
            if number not in self._awaited and (
                number not in _ALWAYS or (self._strict and not self._encrypted and number in _IDLE_TALK)
            ):
                raise ProtocolError(f"it sent message {number} in the middle of a key exchange")
        elif number > conch.MSG_KEXINIT and number < 50:
            raise ProtocolError(f"it sent message {number} without a key exchange")
        if number >= 50:
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
        self.end_reason = self.end_reason or reader.text()[:LONGEST_REASON] or "the other end closed it"
        self._close()

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The peer does not know a message of ours; all that we send may stay without effect."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """The peer talks to its programmers."""

    # Key exchange

    def welcome(self) -> None:
        """Authentication is over: from now on this is no stranger."""
        self.logged_in = True
        self.packet_limit = LARGEST_PACKET

    def rekey(self) -> None:
        """Exchange keys anew, unless that is under way, or it is too early or too late for it."""
        idle = self._awaited is None and self._keyExchangeState == self._KEY_EXCHANGE_NONE
        if idle and self.logged_in and not self.closing:
            self.sendKexInit()

    def sendKexInit(self) -> None:
        """Begin a key exchange, or join the one that the peer has begun."""
        super().sendKexInit()
        if self._exchange_limit is None:
            seconds = self.settings.exchange_seconds
            self._exchange_limit = self.clock.callLater(
                seconds, self.fail, f"the key exchange took longer than {seconds:g} s"
            )

    def ssh_KEXINIT(self, packet: bytes) -> Any:
        """The peer begins a key exchange, or joins ours."""
        self.begin_exchange(packet)
        return super().ssh_KEXINIT(packet)

    def begin_exchange(self, packet: bytes) -> None:
        """Note that the peer takes part in a key exchange from now on, if it may."""
        if self.sessionID is None:
            marker = b"kex-strict-s-v00@openssh.com" if self.isClient else b"kex-strict-c-v00@openssh.com"
            self._strict = marker in Reader(packet[16:]).names()
            if self._strict and self.incomingPacketSequence != 1:
                raise ProtocolError("it said something before its key exchange")
        elif not self.logged_in:
            raise ProtocolError("it wants new keys before it is logged in")
        self._awaited = frozenset({self.exchange_message})

    def _keySetup(self, sharedSecret: bytes, exchangeHash: bytes) -> None:
        """The exchange has succeeded at this end: use the new keys for what we send from now on."""
        first = self.sessionID is None
        if self.sessionID is None:
            self.sessionID = exchangeHash
        # Letters of RFC 4253, section 7.2: IV, key and MAC key from client to server, and back.
        ours, theirs = ((b"A", b"C", b"E"), (b"B", b"D", b"F"))[:: 1 if self.isClient else -1]
        iv_out, key_out, mac_out = (self._getKey(letter, sharedSecret, exchangeHash) for letter in ours)
        iv_in, key_in, mac_in = (self._getKey(letter, sharedSecret, exchangeHash) for letter in theirs)
        chosen = self.nextEncryptions
        self._next_opener = ciphers.opener(chosen.inCipType, chosen.inMACType, key_in, iv_in, mac_in)
        self._emit(conch.MSG_NEWKEYS)
        self._sealer = ciphers.sealer(chosen.outCipType, chosen.outMACType, key_out, iv_out, mac_out)
        if self._strict:
            self.outgoingPacketSequence = 0
        self._awaited = _NEWKEYS
        self._keyExchangeState = self._KEY_EXCHANGE_NONE
        blocked, self._blockedByKeyExchange = self._blockedByKeyExchange, []
        self._backlog = 0
        if first:
            self.introduce()
        for number, payload in blocked:
            self.send(number, payload)
        self._unblocked()

    def introduce(self) -> None:
        """Our first keys are in use: say what else the peer should know (RFC 8308)."""

    def ssh_NEWKEYS(self, packet: bytes) -> None:
        """From here on the peer uses the new keys."""
        if packet or self._next_opener is None:
            raise ProtocolError("its change to new keys makes no sense")
        self._opener = self._next_opener
        self._next_opener = None
        if self._strict:
            self.incomingPacketSequence = 0
        self._awaited = None
        self._encrypted = True
        self._carried = self._carried_packets = 0
        for call in (self._exchange_limit, self._rekey_call):
            if call is not None and call.active():
                call.cancel()
        self._exchange_limit = None
        self._rekey_call = self.clock.callLater(self.settings.rekey_hours * 3600, self.rekey)
        self.secured()

    def secured(self) -> None:
        """Both directions use new keys; for the first time, or once more."""
