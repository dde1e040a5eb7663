"""The keys by which clients know the server."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rdvtwisted.adapters.ssh import keyfile
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key
from rdvtwisted.values import PublicKey

#: Bits of the RSA key, which only clients without ECDSA and ed25519 ask for.
RSA_BITS = 3072


@frozen
class HostKeys:
    """Private keys, the preferred kind first."""

    keys: tuple[PrivateKey, ...]

    @property
    def public(self) -> tuple[PublicKey, ...]:
        """Their public halves, for C{known_hosts} files and for comparing fingerprints."""
        return tuple(map(public_key, self.keys))


def _make_rsa() -> PrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def _make_ecdsa() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


_FILES = (
    ("ssh_host_ed25519_key", Ed25519PrivateKey.generate),
    ("ssh_host_ecdsa_key", _make_ecdsa),
    ("ssh_host_rsa_key", _make_rsa),
)


def host_keys(directory: Path) -> HostKeys:
    """
    The host keys kept in C{directory} under the names that OpenSSH gives them; those that are missing are made.

    @raise rdvtwisted.errors.StateDirectoryError: a file cannot be used or written.
    """
    return HostKeys(tuple(keyfile.load_or_make(directory / name, make) for name, make in _FILES))
