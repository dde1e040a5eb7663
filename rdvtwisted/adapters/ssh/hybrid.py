"""
The client's half of C{mlkem768x25519-sha256} (draft-ietf-sshm-mlkem-hybrid-kex).

Conch has the server's half only. The shared secret holds as long as one of
X25519 and ML-KEM-768 does.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from rdvtwisted.adapters.ssh.wire import string
from rdvtwisted.errors import ProtocolError

#: Bytes of an ML-KEM-768 ciphertext (FIPS 203, table 3) and of an X25519 public key (RFC 7748).
CIPHERTEXT = 1088
CLASSICAL = 32


class HybridExchange:
    """One exchange: C{initial} goes to the server, whose reply gives the secret."""

    def __init__(self) -> None:
        # Only cryptography 48 and later know it; with an earlier one, it is not offered.
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        self._post_quantum = MLKEM768PrivateKey.generate()
        self._classical = X25519PrivateKey.generate()
        self.initial = (
            self._post_quantum.public_key().public_bytes_raw() + self._classical.public_key().public_bytes_raw()
        )

    def secret(self, reply: bytes) -> bytes:
        """
        The shared secret as the key derivation wants it: an SSH string of its SHA-256.

        @raise ProtocolError: C{reply} is none.
        """
        if len(reply) != CIPHERTEXT + CLASSICAL:
            raise ProtocolError("its part of the key exchange has the wrong length")
        try:
            classical = self._classical.exchange(X25519PublicKey.from_public_bytes(reply[CIPHERTEXT:]))
        except ValueError:
            raise ProtocolError("its part of the key exchange is worthless") from None
        return string(hashlib.sha256(self._post_quantum.decapsulate(reply[:CIPHERTEXT]) + classical).digest())
