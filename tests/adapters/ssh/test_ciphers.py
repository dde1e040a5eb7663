"""Packets are read as they were written, and nothing else is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh import ciphers
from rdvtwisted.errors import ProtocolError

NAMES = (
    b"aes128-gcm@openssh.com",
    b"aes256-gcm@openssh.com",
    b"aes128-ctr",
    b"aes192-ctr",
    b"aes256-ctr",
)
MACS = (b"hmac-sha2-256", b"hmac-sha2-512", b"hmac-sha1")
KEY, IV, MAC_KEY = bytes(range(64)), bytes(range(100, 164)), bytes(range(64, 128))

pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(MACS))


def pair(cipher: bytes, mac: bytes) -> tuple[ciphers.Sealer, ciphers.Opener]:
    """Both ends of one direction."""
    return (
        ciphers.sealer(cipher, mac, KEY, IV, MAC_KEY),
        ciphers.opener(cipher, mac, KEY, IV, MAC_KEY),
    )


def plain() -> tuple[ciphers.Sealer, ciphers.Opener]:
    """Both ends before any key exchange."""
    return ciphers.PlainSealer(), ciphers.PlainOpener()


def read(opener: ciphers.Opener, sequence: int, inbox: bytearray) -> bytes | None:
    """The first payload of C{inbox}, which is taken out; L{None} if it is not whole."""
    size = opener.measure(inbox, 0)
    if not size or size > len(inbox):
        return None
    payload = bytes(opener.open(sequence, inbox, 0, size))
    del inbox[:size]
    return payload


class CiphersTests(SynchronousTestCase):
    """L{ciphers.Sealer} and L{ciphers.Opener} belong together."""

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(pairs, st.lists(st.binary(min_size=1, max_size=200), max_size=6), st.integers(1, 40))
    def test_round_trip(self, names: tuple[bytes, bytes], payloads: list[bytes], piece: int) -> None:
        """What is sealed is opened again, in order, in whatever pieces it comes."""
        for sealer, opener in (pair(*names), plain()):
            stream = b"".join(b"".join(sealer.seal(number, payload)) for number, payload in enumerate(payloads))
            inbox = bytearray()
            got: list[bytes] = []
            for at in range(0, len(stream), piece):
                inbox += stream[at : at + piece]
                while (payload := read(opener, len(got), inbox)) is not None:
                    got.append(payload)
            self.assertEqual((got, inbox), (payloads, b""))

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(pairs, st.binary(min_size=1, max_size=100), st.integers(0), st.integers(1, 255))
    def test_damage(self, names: tuple[bytes, bytes], payload: bytes, where: int, flip: int) -> None:
        """A packet in which any byte was changed is not accepted."""
        sealer, opener = pair(*names)
        inbox = bytearray(b"".join(sealer.seal(7, payload)))
        inbox[where % len(inbox)] ^= flip
        try:
            self.assertIsNone(read(opener, 7, inbox))
        except ProtocolError:
            return
        # A length that was changed may promise more than is there; such a packet never becomes whole.
        self.assertGreater(opener.measure(inbox, 0), len(inbox))

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(pairs, st.binary(min_size=1, max_size=100))
    def test_replay(self, names: tuple[bytes, bytes], payload: bytes) -> None:
        """A packet that comes a second time is not accepted."""
        sealer, opener = pair(*names)
        packet = b"".join(sealer.seal(0, payload))
        self.assertEqual(read(opener, 0, bytearray(packet)), payload)
        try:
            self.assertNotEqual(read(opener, 1, bytearray(packet)), payload)
        except ProtocolError:
            return

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """Whatever a stranger sends as first packet, reading it ends with a payload, an error, or the wish for more."""
        for _, opener in (plain(), *(pair(name, MACS[0]) for name in NAMES)):
            inbox = bytearray(data)
            try:
                read(opener, 0, inbox)
            except ProtocolError:
                continue

    def test_known_answer(self) -> None:
        """The nonce of AES-GCM is the IV, its last eight bytes counted on for each packet, over the end as well."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        iv = b"\x01\x02\x03\x04" + b"\xff" * 8
        sealer = ciphers.sealer(NAMES[0], b"", KEY, iv + bytes(52), b"")
        for nonce in (iv, iv[:4] + bytes(8), iv[:4] + bytes(7) + b"\x01"):
            length, sealed = sealer.seal(0, b"payload")
            opened = AESGCM(KEY[:16]).decrypt(nonce, sealed, length)
            self.assertEqual(opened[1 : 1 + len(b"payload")], b"payload")
            self.assertEqual(len(opened) % 16, 0)
            self.assertGreaterEqual(opened[0], 4)
