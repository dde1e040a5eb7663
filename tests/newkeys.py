"""A TLS 1.3 end that asks for new keys as often as it likes, which no TLS library lets its users do."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_NONCE_BYTES = 12
#: Content types (RFC 8446, section 5.1), and update_requested in its header (section 4.6.3).
_HANDSHAKE = 22
_APPLICATION_DATA = 23
_KEY_UPDATE = bytes([24, 0, 0, 1, 1])

#: Bytes of such a request on the wire: header, message, content type, tag.
REQUEST_BYTES = 5 + len(_KEY_UPDATE) + 1 + 16


class Asker:
    """Writes the records of one end of a TLS 1.3 connection, from behind its handshake on."""

    def __init__(self, secret: bytes, sent: int = 0) -> None:
        """
        @param secret: what the end's keys are made of: its traffic secret, by its length of AES-256-GCM with SHA-384.
        @param sent: records that were sent already.
        """
        assert len(secret) == hashes.SHA384.digest_size, "another cipher than AES-256-GCM"
        self._use(secret)
        self._sequence = sent

    @classmethod
    def of_client(cls, keylog: Path, sent: int = 0) -> Asker:
        """The client of which this is the key log (SSLKEYLOGFILE)."""
        secrets = {line.split()[0]: line.split()[2] for line in keylog.read_text().splitlines() if line[0] != "#"}
        return cls(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]), sent)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(self._derived(b"key", 32))
        self._iv = int.from_bytes(self._derived(b"iv", _NONCE_BYTES), "big")
        self._sequence = 0

    def _derived(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label of RFC 8446, section 7.1, without a context."""
        name = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + bytes(1)
        return HKDFExpand(hashes.SHA384(), length, info).derive(self._secret)

    def _record(self, kind: int, data: bytes) -> bytes:
        inner = data + bytes([kind])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(_NONCE_BYTES, "big")
        self._sequence += 1
        return header + self._aead.encrypt(nonce, inner, header)

    def ask(self, times: int = 1) -> bytes:
        """Ask for new keys, and use new ones for what follows; so many times."""
        records = []
        for _ in range(times):
            records.append(self._record(_HANDSHAKE, _KEY_UPDATE))
            self._use(self._derived(b"traffic upd", len(self._secret)))
        return b"".join(records)

    def data(self, text: bytes) -> bytes:
        """Say something."""
        return self._record(_APPLICATION_DATA, text)
