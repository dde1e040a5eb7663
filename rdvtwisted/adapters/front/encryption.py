"""How the TLS door encrypts, what it offers by ALPN, and whose key a client holds."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

from rdvtwisted.adapters.negotiation import MeasuredConnection, measure
from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import PublicKey

#: ALPN names (RFC 7301) and what they ask for; SSH is also what a client without ALPN gets.
TUNNEL = b"rdv-tunnel/1"
SSH = b"ssh"
WEB = (b"h2", b"http/1.1")
#: The server's name (SNI, RFC 6066, section 3) by which a client that does no ALPN asks for a tunnel.
TUNNEL_NAME = b"rdv-tunnel"

#: What is added to words of OpenSSL.
_CURES = {"unsupported protocol": " (the client's TLS is older than what tls.minimum_version allows)"}

#: Without a callback of its own a connection keeps its context's: SSL_set_verify(3).
_TUNNEL_VERIFICATION = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

#: For TLS 1.2: forward secrecy and authenticated encryption only.
_TLS12_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"


@frozen
class Credentials:
    """What the door shows: its private key, its certificate, and the authority's certificate that signed it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    authority: x509.Certificate


def door_context(credentials: Credentials, tls12: bool, web: bool) -> SSL.Context:
    """
    The rules for connections that show C{credentials}.

    Compression does not exist in it, renegotiation is refused (OpenSSL's
    default since 3.0), and nothing is resumed, so that each connection proves
    its key anew. The key exchange is OpenSSL's choice: X25519MLKEM768 with
    who knows it.

    @param tls12: whether TLS 1.2 is good enough for SSH and the web, whose own
        encryption or logins do not rest on it; never for tunnels.
    @param web: whether there is a web server behind the door.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION if tls12 else SSL.TLS1_3_VERSION)
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.use_privatekey(credentials.key)
    context.use_certificate(credentials.certificate)
    context.add_extra_chain_cert(credentials.authority)
    context.set_verify(SSL.VERIFY_NONE, _accept_certificate)
    context.set_tlsext_servername_callback(_hear_name)
    measure(context)
    served = (TUNNEL, SSH, *WEB) if web else (TUNNEL, SSH)

    def choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        """Our first that the client offers; a tunnel's client has to show a certificate."""
        for name in served:
            if name in offered:
                break
        else:
            raise ProtocolError(f"nothing here speaks {_names(offered)}")
        if name == TUNNEL and connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            raise ProtocolError("a tunnel needs TLS 1.3")
        connection.set_verify(_TUNNEL_VERIFICATION if name == TUNNEL else SSL.VERIFY_NONE)
        return name

    context.set_alpn_select_callback(choose)
    return context


def asked_for(connection: SSL.Connection) -> bytes:
    """
    What a client has asked for, once its handshake is done: an ALPN name; empty if it has named nothing.

    @raise ProtocolError: it may not have that in this way.
    """
    name = connection.get_alpn_proto_negotiated()
    if name or connection.get_servername() != TUNNEL_NAME:
        return name
    if connection.get_protocol_version() < SSL.TLS1_3_VERSION:
        raise ProtocolError("a tunnel needs TLS 1.3")
    return TUNNEL


def _hear_name(connection: SSL.Connection) -> None:
    """A tunnel's client has to show a certificate; OpenSSL asks about the name first, then about ALPN."""
    if connection.get_servername() == TUNNEL_NAME:
        connection.set_verify(_TUNNEL_VERIFICATION)


class ServerConnection(MeasuredConnection):
    """
    The server's end of one TLS connection, in memory.

    It is that from the beginning. To OpenSSL, being told so again means to
    forget all that has happened; and Twisted's TLS transport tells it each
    connection that it gets.
    """

    def __init__(self, context: SSL.Context, seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(context, seconds)
        super().set_accept_state()

    def set_accept_state(self) -> None:
        """It is known."""


def client_key(connection: SSL.Connection) -> PublicKey:
    """
    The key that the client has proved to hold, whatever its certificate says beyond it.

    @raise ProtocolError: there is none, or SSH has no name for its kind.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise ProtocolError("no client certificate")
    try:
        line = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (UnsupportedAlgorithm, ValueError, TypeError):
        raise ProtocolError("the client's certificate has a key that SSH does not know") from None
    return PublicKey.from_line(line.decode("ascii"))


def tls_failure(error: SSL.Error) -> ProtocolError:
    """What OpenSSL complains about, in its words; and for what an old client meets, what can be done."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    if not entries:
        return ProtocolError("TLS: the connection ended too early")
    words = entries[-1][-1]
    return ProtocolError(f"TLS: {words}{_CURES.get(words, '')}")


def _accept_certificate(
    _connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int
) -> bool:
    """Every certificate will do, self-signed and expired alike: only the key counts, and TLS has it proved."""
    return True


def _names(offered: list[bytes]) -> str:
    """ALPN names for a log line, bounded."""
    return repr(b",".join(offered)[:80])[1:]
