"""Private keys, and the signatures that they make in SSH's formats."""

from __future__ import annotations

import struct
from typing import Union

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from twisted.conch.ssh.keys import BadKeyError, Key

from rdvtwisted.adapters.ssh.algorithms import LEGACY_SIGNATURE, SIGNATURES
from rdvtwisted.adapters.ssh.wire import Reader
from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import PublicKey

PrivateKey = Union[Ed25519PrivateKey, EllipticCurvePrivateKey, RSAPrivateKey]


def public_key(key: PrivateKey) -> PublicKey:
    """The public half of C{key}."""
    return PublicKey.from_blob(Key(key).public().blob())


def makes(key: PublicKey, algorithm: str) -> bool:
    """Whether C{key} is of the kind that makes signatures by C{algorithm}."""
    return algorithm in SIGNATURES.get(key.algorithm, ()) or algorithm == key.algorithm == LEGACY_SIGNATURE


def sign(key: PrivateKey, algorithm: str, data: bytes) -> bytes:
    """The signature of C{data}, with the name of its algorithm in front (RFC 4253, section 6.6)."""
    return Key(key).sign(data, signatureType=algorithm.encode("ascii"))


def verify(key: PublicKey, algorithm: str, signature: bytes, data: bytes) -> bool:
    """
    Whether C{signature} is one of C{data} by C{key}.

    @param algorithm: the one that was announced; a signature by another one
        does not count, so that SHA-1 cannot come in under a better name.
    """
    try:
        if not makes(key, algorithm) or Reader(signature).text() != algorithm:
            return False
        return bool(Key.fromString(key.blob, type="BLOB").verify(signature, data))
    except (ProtocolError, BadKeyError, UnsupportedAlgorithm, ValueError, TypeError, IndexError, struct.error):
        return False
