"""
Which algorithms are offered, in the order of preference.

The client's order decides (RFC 4253, section 7.1). Names that Conch does not
know in the installed version are left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from twisted.conch.ssh import transport

#: RFC 5647 as OpenSSH does it: length in the clear, but authenticated.
GCM = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com")
CTR = (b"aes256-ctr", b"aes192-ctr", b"aes128-ctr")

HYBRID = b"mlkem768x25519-sha256"
_MODERN_KEX = (
    HYBRID,
    b"curve25519-sha256",
    b"curve25519-sha256@libssh.org",
    b"ecdh-sha2-nistp256",
    b"ecdh-sha2-nistp384",
    b"ecdh-sha2-nistp521",
)
#: The hash of each key exchange that a client of ours uses.
EXCHANGE_HASHES = {
    HYBRID: "sha256",
    b"curve25519-sha256": "sha256",
    b"curve25519-sha256@libssh.org": "sha256",
    b"ecdh-sha2-nistp256": "sha256",
    b"ecdh-sha2-nistp384": "sha384",
    b"ecdh-sha2-nistp521": "sha512",
}
_LEGACY_KEX = (b"diffie-hellman-group14-sha1",)
_MODERN_MACS = (b"hmac-sha2-256", b"hmac-sha2-512")
_LEGACY_MACS = (b"hmac-sha1",)

#: RSA signatures with SHA-1, which only old devices need.
LEGACY_SIGNATURE = "ssh-rsa"

#: Signature algorithms, by the kind of key that makes them; the preferred first (RFC 8332, RFC 5656, RFC 8709).
SIGNATURES: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


@frozen
class Offer:
    """What one end offers in its KEXINIT."""

    key_exchanges: tuple[bytes, ...]
    ciphers: tuple[bytes, ...]
    macs: tuple[bytes, ...]


def offer(legacy: bool = False) -> Offer:
    """
    The algorithms to offer.

    @param legacy: add at the end what OpenSSH before 6.5 needs: SHA-1 in key
        exchange and MAC.
    """
    known = transport.SSHServerTransport.supportedKeyExchanges
    exchanges = _MODERN_KEX + (_LEGACY_KEX if legacy else ())
    return Offer(
        tuple(name for name in exchanges if name in known),
        GCM + CTR,
        _MODERN_MACS + (_LEGACY_MACS if legacy else ()),
    )


def signatures(kinds: Iterable[str], legacy: bool = False) -> tuple[str, ...]:
    """The signature algorithms of these kinds of key; with C{legacy}, SHA-1 for RSA as the last."""
    names = [name for kind in kinds for name in SIGNATURES.get(kind, ())]
    if legacy and any(name.startswith("rsa-") for name in names):
        names.append(LEGACY_SIGNATURE)
    return tuple(names)
