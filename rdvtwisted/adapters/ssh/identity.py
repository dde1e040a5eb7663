"""A device's identity: one private key, for SSH and for TLS."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from rdvtwisted.adapters.ssh import keyfile
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key
from rdvtwisted.values import PublicKey

#: A device's clock may be anywhere, and the key, not the date, is what counts (RFC 5280, section 4.1.2.5).
_NOT_BEFORE = datetime(2000, 1, 1, tzinfo=timezone.utc)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)


@frozen
class Identity:
    """Who a device is. C{certificate} is self-signed by C{key} and names the device; it never leaves memory."""

    key: PrivateKey
    certificate: x509.Certificate
    public: PublicKey


def identity(path: Path, device: str) -> Identity:
    """
    The identity in the file at C{path}, an ed25519, ECDSA or RSA key; a new ed25519 key is made if there is none.

    @param device: the device's id, for the certificate.
    @raise rdvtwisted.errors.StateDirectoryError: the file cannot be used, or be read by others.
    """
    key = keyfile.load_or_make(path, Ed25519PrivateKey.generate)
    return Identity(key, _certificate(key, device), public_key(key))


def fleeting_identity(name: str) -> Identity:
    """A new identity that is kept nowhere, with an ed25519 key; C{name} is for the certificate."""
    key = Ed25519PrivateKey.generate()
    return Identity(key, _certificate(key, name), public_key(key))


def _certificate(key: PrivateKey, device: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, None if isinstance(key, Ed25519PrivateKey) else SHA256())
    )
