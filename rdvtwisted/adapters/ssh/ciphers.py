"""
Protecting packets (RFC 4253, section 6): a L{Sealer} for one direction, an L{Opener} for the other.

Three kinds: none (before the first key exchange), AES-CTR with HMAC
(RFC 4344, encrypt-and-MAC), and AES-GCM as OpenSSH's C{PROTOCOL} file,
section 1.6, defines it: the packet length goes in the clear as associated
data, and the nonce is the initial IV whose last eight bytes count packets.
The count starts anew with each key exchange, so a nonce is never used twice
under one key.
"""

from __future__ import annotations

import hashlib
import hmac
from os import urandom
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from rdvtwisted.adapters.ssh.wire import Octets
from rdvtwisted.errors import ProtocolError

#: Bytes of a packet's length field, an AES block, and a GCM tag.
LENGTH = 4
BLOCK = 16
TAG = 16
#: Alignment of packets without encryption, and the least padding of any (RFC 4253, section 6).
PLAIN_BLOCK = 8
LEAST_PADDING = 4

_KEY_SIZES = {
    b"aes128-gcm@openssh.com": 16,
    b"aes256-gcm@openssh.com": 32,
    b"aes128-ctr": 16,
    b"aes192-ctr": 24,
    b"aes256-ctr": 32,
}
_HASHES = {b"hmac-sha2-256": "sha256", b"hmac-sha2-512": "sha512", b"hmac-sha1": "sha1"}


class Sealer(Protocol):
    """Makes packets that the other end can check and read."""

    def seal(self, sequence: int, *parts: Octets) -> tuple[bytes, ...]:
        """
        The packet whose payload is C{parts} in a row.

        @param sequence: the packet's number in its direction, modulo 2**32.
        @return: what to send, in pieces.
        """


class Opener(Protocol):
    """Checks and reads the other end's packets."""

    def measure(self, inbox: bytearray, at: int) -> int:
        """
        @return: bytes from the packet that begins at C{at} to its end with
            tag or MAC; 0 if that is not known yet. A wrong length gives a
            wrong number, which the caller limits.
        """

    def open(self, sequence: int, inbox: bytearray, at: int, size: int) -> memoryview:
        """
        The payload of the packet in C{inbox[at:at + size]}.

        @raise ProtocolError: it is damaged, or padded wrongly.
        """


def _padding(size: int, block: int) -> int:
    padding = block - size % block
    return padding + block if padding < LEAST_PADDING else padding


def _frame(parts: tuple[Octets, ...], covered: int, block: int) -> tuple[bytes, bytes]:
    """Length field, and padding length, payload and padding; of the length field, C{covered} bytes count as aligned."""
    size = 1 + sum(map(len, parts))
    padding = _padding(size + covered, block)
    return (size + padding).to_bytes(LENGTH, "big"), b"".join((bytes((padding,)), *parts, urandom(padding)))


def _payload(plain: memoryview) -> memoryview:
    """The payload of C{plain}, which is a packet without its length field."""
    padding = plain[0]
    if padding < LEAST_PADDING or padding + 1 >= len(plain):
        raise ProtocolError("an SSH packet has impossible padding")
    return plain[1 : len(plain) - padding]


class PlainSealer:
    """No protection: for the first key exchange only."""

    def seal(self, sequence: int, *parts: Octets) -> tuple[bytes, ...]:
        """See L{Sealer}."""
        return _frame(parts, LENGTH, PLAIN_BLOCK)


class PlainOpener:
    """No protection: for the first key exchange only."""

    def measure(self, inbox: bytearray, at: int) -> int:
        """See L{Opener}."""
        if len(inbox) - at < LENGTH:
            return 0
        return LENGTH + int.from_bytes(inbox[at : at + LENGTH], "big")

    def open(self, sequence: int, inbox: bytearray, at: int, size: int) -> memoryview:
        """See L{Opener}."""
        if size % PLAIN_BLOCK or size < BLOCK:
            raise ProtocolError("an SSH packet has an impossible length")
        return _payload(memoryview(bytes(inbox[at + LENGTH : at + size])))


class _Nonce:
    """The nonces of one key, one after the other."""

    __slots__ = ("_count", "_fixed")

    def __init__(self, iv: bytes) -> None:
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:12], "big")

    def next(self) -> bytes:
        nonce = self._fixed + self._count.to_bytes(8, "big")
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce


class GcmSealer:
    """AES-GCM."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._encrypt = AESGCM(key).encrypt
        self._nonce = _Nonce(iv)

    def seal(self, sequence: int, *parts: Octets) -> tuple[bytes, ...]:
        """See L{Sealer}."""
        length, plain = _frame(parts, 0, BLOCK)
        return length, self._encrypt(self._nonce.next(), plain, length)


class GcmOpener:
    """AES-GCM."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._decrypt = AESGCM(key).decrypt
        self._nonce = _Nonce(iv)

    def measure(self, inbox: bytearray, at: int) -> int:
        """See L{Opener}."""
        if len(inbox) - at < LENGTH:
            return 0
        return LENGTH + int.from_bytes(inbox[at : at + LENGTH], "big") + TAG

    def open(self, sequence: int, inbox: bytearray, at: int, size: int) -> memoryview:
        """See L{Opener}."""
        if (size - LENGTH) % BLOCK or size < LENGTH + BLOCK + TAG:
            raise ProtocolError("an SSH packet has an impossible length")
        with memoryview(inbox) as view:
            try:
                plain = self._decrypt(self._nonce.next(), view[at + LENGTH : at + size], bytes(view[at : at + LENGTH]))
            except InvalidTag:
                raise ProtocolError("an SSH packet was damaged on its way") from None
        return _payload(memoryview(plain))


class _Mac:
    """HMAC (RFC 4253, section 6.4; RFC 6668) over sequence number and packet in the clear."""

    def __init__(self, name: bytes, key: bytes) -> None:
        digest = _HASHES[name]
        self.size = hashlib.new(digest).digest_size
        self._keyed = hmac.new(key[: self.size], digestmod=digest)

    def digest(self, sequence: int, packet: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(sequence.to_bytes(4, "big"))
        mac.update(packet)
        return mac.digest()


class CtrSealer:
    """AES-CTR, and HMAC over what was encrypted."""

    def __init__(self, key: bytes, iv: bytes, mac: _Mac) -> None:
        self._cipher: CipherContext = Cipher(AES(key), CTR(iv[:BLOCK])).encryptor()
        self._mac = mac

    def seal(self, sequence: int, *parts: Octets) -> tuple[bytes, ...]:
        """See L{Sealer}."""
        packet = b"".join(_frame(parts, LENGTH, BLOCK))
        return self._cipher.update(packet), self._mac.digest(sequence, packet)


class CtrOpener:
    """AES-CTR, and HMAC over what was encrypted."""

    def __init__(self, key: bytes, iv: bytes, mac: _Mac) -> None:
        self._cipher: CipherContext = Cipher(AES(key), CTR(iv[:BLOCK])).decryptor()
        self._mac = mac
        #: The first block of a packet whose end is not here yet, in the clear.
        self._first = b""

    def measure(self, inbox: bytearray, at: int) -> int:
        """See L{Opener}."""
        if not self._first:
            if len(inbox) - at < BLOCK:
                return 0
            self._first = self._cipher.update(bytes(inbox[at : at + BLOCK]))
        return LENGTH + int.from_bytes(self._first[:LENGTH], "big") + self._mac.size

    def open(self, sequence: int, inbox: bytearray, at: int, size: int) -> memoryview:
        """See L{Opener}."""
        end = at + size - self._mac.size
        if (end - at) % BLOCK or end - at < BLOCK:
            raise ProtocolError("an SSH packet has an impossible length")
        with memoryview(inbox) as view:
            packet = self._first + self._cipher.update(view[at + BLOCK : end])
            mac = bytes(view[end : at + size])
        self._first = b""
        if not hmac.compare_digest(mac, self._mac.digest(sequence, packet)):
            raise ProtocolError("an SSH packet was damaged on its way")
        return _payload(memoryview(packet)[LENGTH:])


def sealer(cipher: bytes, mac: bytes, key: bytes, iv: bytes, mac_key: bytes) -> Sealer:
    """What protects packets to the other end; C{mac} counts only for a cipher without one of its own."""
    key = key[: _KEY_SIZES[cipher]]
    return GcmSealer(key, iv) if b"gcm" in cipher else CtrSealer(key, iv, _Mac(mac, mac_key))


def opener(cipher: bytes, mac: bytes, key: bytes, iv: bytes, mac_key: bytes) -> Opener:
    """What reads packets of the other end; C{mac} counts only for a cipher without one of its own."""
    key = key[: _KEY_SIZES[cipher]]
    return GcmOpener(key, iv) if b"gcm" in cipher else CtrOpener(key, iv, _Mac(mac, mac_key))
