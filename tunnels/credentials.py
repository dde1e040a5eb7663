"""
How the two TLS connections of a tunnel stream know whom they speak to.

TLS 1.3 only, on a socket: no session tickets, no early data, no renegotiation.
The dates in certificates are not judged, because a device may boot without
a clock: the door is known by its authority, the other device by its key, as
an SSH host is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

from rdvtwisted.errors import InvalidValue, PeerKeyChanged, TunnelFailed
from rdvtwisted.values import PublicKey

#: ALPN names of the connection to the server's door, and of the one between the two devices.
DOOR_PROTOCOL = b"rdv-tunnel/1"
PACKET_PROTOCOL = b"rdv-packets/1"

#: X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h and SSL_MODE_ENABLE_PARTIAL_WRITE
#: of openssl/ssl.h, which pyOpenSSL does not name.
_NO_CHECK_TIME = 0x200000
_ENABLE_PARTIAL_WRITE = 0x1

_CPUINFO = Path("/proc/cpuinfo")

_AES_FIRST = b"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
_CHACHA_FIRST = b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"


class Identity(Protocol):
    """The device's own key, its self-signed certificate, and the key as SSH writes it."""

    key: PrivateKeyTypes
    certificate: x509.Certificate
    public: PublicKey


def certified_key(certificate: x509.Certificate) -> PublicKey:
    """
    The key of a certificate, as SSH writes it.

    @raise InvalidValue: SSH has no way to write it.
    """
    try:
        line = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidValue("certificate", "", "its key is of no kind that SSH knows") from None
    return PublicKey.from_line(line.decode("ascii"))


def has_fast_aes(cpuinfo: str) -> bool:
    """Whether C{/proc/cpuinfo} tells of AES instructions; without them (Raspberry Pi 1 to 4) ChaCha20 is faster."""
    return any(
        "aes" in line.partition(":")[2].split()
        for line in cpuinfo.splitlines()
        if line.lower().startswith(("flags", "features"))
    )


@lru_cache(maxsize=1)
def fast_aes() -> bool:
    """Whether this machine's processor has AES instructions."""
    return has_fast_aes(_CPUINFO.read_text("utf-8", "replace"))


class PeerKey:
    """The key that the other device must have, compared with the one of its certificate."""

    def __init__(self, peer: str, expected: PublicKey) -> None:
        self.peer = peer
        self._expected = expected
        self._shown: PublicKey | None = None

    def verify(self, connection: object, certificate: Any, error: int, depth: int, ok: int) -> bool:
        """OpenSSL's question, once for each fault that it finds: only the first certificate's key matters."""
        if depth:
            return True
        try:
            self._shown = certified_key(certificate.to_cryptography())
        except (InvalidValue, ValueError):
            return False
        return self._shown == self._expected

    def check(self, connection: SSL.Connection) -> None:
        """
        Judge a finished handshake.

        @raise PeerKeyChanged: the other device has another key.
        @raise TunnelFailed: it has none.
        """
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise TunnelFailed(f"{self.peer} showed no certificate")
        self._shown = certified_key(certificate)
        refusal = self.refusal()
        if refusal is not None:
            raise refusal

    def refusal(self) -> PeerKeyChanged | None:
        """The error that says which other key was shown, if one was."""
        if self._shown is None or self._shown == self._expected:
            return None
        cure = "Compare the shown key with the device's own before you accept it."
        return PeerKeyChanged(self.peer, self._expected.fingerprint, self._shown.fingerprint, cure)


def _context(identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection gives its record buffers (2 x 17 KiB) back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)  # type: ignore[arg-type]
    return context


def door_context(identity: Identity, authority: bytes) -> SSL.Context:
    """
    For the client of a connection to the server's door.

    @param authority: the only certificate authority trusted, DER. It signs
        nothing but this server, so no host name is compared.
    @raise InvalidValue: C{authority} is not a certificate.
    """
    context = _context(identity)
    store = context.get_cert_store()
    assert store is not None, "a new context always has a store"
    try:
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(authority)))
    except ValueError:
        raise InvalidValue("certificate authority", "", "it is not a DER certificate") from None
    store.set_flags(_NO_CHECK_TIME)
    context.set_alpn_protos([DOOR_PROTOCOL])
    context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, error, depth, ok: bool(ok))
    return context


def packet_context(identity: Identity, peer: PeerKey, server: bool, fast_aes: bool) -> SSL.Context:
    """
    For one end of the connection between the two devices.

    @param server: this end is TLS server (the onsite device).
    @param fast_aes: this machine has AES instructions. If one of the two has
        not, ChaCha20 is used.
    """
    context = _context(identity)
    # One write sends as many records as it takes; pyOpenSSL would stop after each.
    context.clear_mode(_ENABLE_PARTIAL_WRITE)
    context.set_tls13_ciphersuites(_AES_FIRST if fast_aes else _CHACHA_FIRST)
    if server:
        if not fast_aes:
            context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_alpn_select_callback(_choose)
    else:
        context.set_alpn_protos([PACKET_PROTOCOL])
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, peer.verify)
    return context


def _choose(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PACKET_PROTOCOL if PACKET_PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS
