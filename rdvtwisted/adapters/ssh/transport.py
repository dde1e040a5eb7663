"""
The transport layer of both ends (RFC 4253): Conch's key exchange over packets of our own.

What this adds to Conch: strict key exchange (C{kex-strict-*-v00@openssh.com},
OpenSSH's C{PROTOCOL}, section 1.10), hence sequence numbers that begin anew;
keys that take effect for each direction at its own NEWKEYS; a check that each
message may come now; and new keys after so many bytes or hours.
"""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh import transport as conch
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh import algorithms, ciphers
from rdvtwisted.adapters.ssh.packets import PacketTransport
from rdvtwisted.adapters.ssh.settings import LineSettings
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.errors import ProtocolError

#: Bytes of the largest packet from somebody who has logged in.
LARGEST_PACKET = 264_000
#: Key exchanges that the peer may begin in a row. Each costs about as much as a login; one more is granted for so
#: many seconds, and for so many bytes that have passed since the last one.
REKEY_BURST = 8
REKEY_SECONDS = 10.0
REKEY_BYTES = 1 << 16

_STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
_STRICT_SERVER = b"kex-strict-s-v00@openssh.com"

#: Messages that may come at any time, and those of them that strict key exchange forbids in the first one.
_ALWAYS = frozenset({conch.MSG_DISCONNECT, conch.MSG_IGNORE, conch.MSG_UNIMPLEMENTED, conch.MSG_DEBUG})
_IDLE_TALK = _ALWAYS - {conch.MSG_DISCONNECT}
_KEXINIT = frozenset({conch.MSG_KEXINIT})
_NEWKEYS = frozenset({conch.MSG_NEWKEYS})
#: Messages that belong to key exchanges (RFC 4251, section 7), but for the one that begins them.
_EXCHANGE = range(conch.MSG_NEWKEYS, 50)


class SecureTransport(PacketTransport):
    """One end of an SSH connection; mixed in front of Conch's server or client class."""

    #: The message, 30 or 31, by which the other end takes part in a key exchange.
    exchange_message: int
    _strict = False
    _encrypted = False
    _next_opener: ciphers.Opener | None = None
    _exchange_limit: IDelayedCall | None = None
    _rekey_call: IDelayedCall | None = None
    _rekeys = float(REKEY_BURST)
    _rekeyed_at = 0.0

    def __init__(self, settings: LineSettings, clock: IReactorTime, offer: algorithms.Offer) -> None:
        super().__init__(settings, clock)
        self.supportedKeyExchanges = [*offer.key_exchanges, _STRICT_CLIENT if self.isClient else _STRICT_SERVER]
        self.supportedCiphers = list(offer.ciphers)
        self.supportedMACs = list(offer.macs)
        #: What the peer must say next for a key exchange to go on; L{None} outside of one.
        self._awaited: frozenset[int] | None = _KEXINIT

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone."""
        self._stop_timers()
        super().connectionLost(reason)

    def _stop_timers(self) -> None:
        for call in (self._exchange_limit, self._rekey_call):
            if call is not None and call.active():
                call.cancel()
        self._exchange_limit = self._rekey_call = None

    def admit(self, number: int) -> None:
        """A message may come if it is not in the way of a key exchange, nor part of one that is not."""
        if self._awaited is None:
            if number in _EXCHANGE:
                raise ProtocolError(f"it sent message {number} without a key exchange")
        elif number not in self._awaited and (
            number not in _ALWAYS or (self._strict and not self._encrypted and number in _IDLE_TALK)
        ):
            raise ProtocolError(f"it sent message {number} in the middle of a key exchange")

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
                seconds, self.overdue, f"the key exchange took longer than {seconds:g} s"
            )

    def overdue(self, reason: str) -> None:
        """End the connection because a key exchange does not come to its end: C{reason}."""
        self.fail(reason)

    def ssh_KEXINIT(self, packet: bytes) -> Any:
        """The peer begins a key exchange, or joins ours."""
        self.begin_exchange(packet)
        return super().ssh_KEXINIT(packet)

    def begin_exchange(self, packet: bytes) -> None:
        """Note that the peer takes part in a key exchange from now on, if it may."""
        names = Reader(packet[16:]).names()
        if (_STRICT_CLIENT if self.isClient else _STRICT_SERVER) in names:
            raise ProtocolError("it takes itself for the other end")
        if self.sessionID is None:
            self._strict = (_STRICT_SERVER if self.isClient else _STRICT_CLIENT) in names
            if self._strict and self.incomingPacketSequence != 1:
                raise ProtocolError("it said something before its key exchange")
        elif not self.logged_in:
            raise ProtocolError("it wants new keys before it is logged in")
        elif self._keyExchangeState == self._KEY_EXCHANGE_NONE:
            self._charge_rekey()
        self._awaited = frozenset({self.exchange_message})

    def _charge_rekey(self) -> None:
        now = self.clock.seconds()
        earned = (now - self._rekeyed_at) / REKEY_SECONDS + self._carried / REKEY_BYTES
        self._rekeys, self._rekeyed_at = min(self._rekeys + earned, REKEY_BURST) - 1, now
        if self._rekeys < 0:
            raise ProtocolError("it wants new keys too often")

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
        self._carried = 0
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
        # Two kilobytes that nobody needs before the next exchange makes them anew.
        self.ourKexInitPayload = self.otherKexInitPayload = b""
        self._stop_timers()
        self._rekey_call = self.clock.callLater(self.settings.rekey_hours * 3600, self.rekey)
        self.secured()

    def secured(self) -> None:
        """Both directions use new keys; for the first time, or once more."""
