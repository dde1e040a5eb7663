"""A device's way to the server's TLS door, with the server's own certificate authority pinned."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

from attrs import define, field
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint, ITCPTransport
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.negotiation import MeasuredConnection
from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import ConnectionLost, ProtocolError, RDVError, ServerKeyChanged, StateDirectoryError

#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of openssl/x509_vfy.h.
_NOT_YET_VALID = 9
_EXPIRED = 10


def fingerprint(certificate: bytes) -> str:
    """C{SHA256:} and the digest of a DER certificate in hexadecimal, as the server tells its own."""
    return "SHA256:" + hashlib.sha256(certificate).hexdigest()


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class Authority:
    """
    The certificate authority of one server, as a device knows it.

    It signs nothing but its server's certificates, so that the chain is all
    there is to check: the server may be reached by any name or address. A
    server with nothing but a self-signed certificate, as stock stunnel
    servers have it, is known by that alone: then nothing that the certificate
    says matters, as with the host key of an SSH server.

    What is shown at first use is pinned once the server has proved by SSH, inside of this TLS, who it is (L{proved}):
    a gateway that wants a guest to log in first speaks TLS, too, and must not be taken for the server for good.

    @ivar path: PEM file; given beforehand, or written at first use. C{None}: nothing is kept.
    @ivar refusal: why the last connection was refused, if it was.
    """

    _log = Logger()

    path: Path | None
    refusal: RDVError | None = field(default=None, init=False)
    _shown: bytes | None = field(default=None, init=False)
    _certificate: x509.Certificate | None = field(default=None, init=False)

    def read(self) -> None:
        """
        Read the file, if it exists: another connection is to be made.

        @raise StateDirectoryError: it cannot be read, or holds no certificate.
        """
        self._shown = None
        if self.path is None:
            self._certificate = None
            return
        try:
            pem = self.path.read_bytes()
        except FileNotFoundError:
            self._certificate = None
            return
        except OSError as error:
            raise StateDirectoryError(f"cannot read {self.path}: {error.strerror}") from None
        try:
            self._certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise StateDirectoryError(f"{self.path} holds no PEM certificate: replace or remove it") from None

    @property
    def der(self) -> bytes | None:
        """The pinned certificate, DER, or C{None} before the first use."""
        return None if self._certificate is None else self._certificate.public_bytes(Encoding.DER)

    def accept(self, certificate: bytes) -> None:
        """
        The server, authenticated otherwise, says that this (DER) is its authority: pin it at first use.

        @raise ServerKeyChanged: another one is pinned.
        @raise ProtocolError: it is no certificate.
        @raise StateDirectoryError: it cannot be written.
        """
        pinned = self.der
        if pinned is None:
            try:
                first = x509.load_der_x509_certificate(certificate)
            except ValueError:
                raise ProtocolError("the server's certificate authority is no certificate") from None
            if self.path is not None:
                write_whole(self.path, first.public_bytes(Encoding.PEM), mode=0o644)
                self._log.info("Pinned the server's certificate authority {shown}", shown=fingerprint(certificate))
            self._certificate = first
        elif pinned != certificate:
            raise self._changed(certificate)

    def proved(self) -> None:
        """
        The server of the last connection has proved otherwise who it is: pin at first use what it has shown.

        @raise RDVError: as L{accept} does.
        """
        shown, self._shown = self._shown, None
        if shown is not None:
            self.accept(shown)

    def _changed(self, shown: bytes) -> ServerKeyChanged:
        assert self.der is not None
        return ServerKeyChanged(
            "the server's certificate authority",
            fingerprint(self.der),
            fingerprint(shown),
            f"If the server was set up anew on purpose, remove {self.path}" if self.path is not None else "",
        )

    # IOpenSSLClientConnectionCreator

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection that goes no further than the handshake unless the chain is right."""
        self.refusal = self._shown = None
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_alpn_protos([b"ssh"])
        if self._certificate is not None:
            store = context.get_cert_store()
            assert store is not None
            store.add_cert(crypto.X509.from_cryptography(self._certificate))
        context.set_verify(SSL.VERIFY_PEER, self._verify)

        def cut() -> None:
            self._log.warn("The server asks for new TLS keys without end: the connection is cut")
            cast(ITCPTransport, tlsProtocol.transport).abortConnection()

        def progress(connection: SSL.Connection, where: int, code: int) -> None:
            measured.observe(where)
            if where & SSL.SSL_CB_HANDSHAKE_DONE:
                try:
                    self._settle(connection)
                except RDVError as error:
                    self.refusal = error
                    tlsProtocol.failVerification(Failure(error))

        context.set_info_callback(progress)
        measured = MeasuredConnection(context)
        measured.on_excess = cut
        measured.set_connect_state()
        return measured

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
        if good:
            return True
        if self._certificate is None:
            # First use: whom to trust is decided when the whole chain is known.
            return True
        if depth == 0 and certificate.to_cryptography() == self._certificate:
            self._log.debug(
                "The server's certificate is the pinned one, though OpenSSL finds fault {error} with it", error=error
            )
            return True
        if error == _NOT_YET_VALID:
            # A device without a clock of its own starts in the past; the signature still counts.
            self._log.warn("The server's certificate is not valid yet by this device's clock")
            return True
        shown = certificate.to_cryptography()
        if error == _EXPIRED:
            self.refusal = ConnectionLost(
                f"the server's certificate was good until {shown.not_valid_after_utc:%Y-%m-%d}: have it renewed with"
                " 'rdvctl certificate renew', or set this device's clock right"
            )
        else:
            self.refusal = self._changed(shown.public_bytes(Encoding.DER))
        return False

    def _settle(self, connection: SSL.Connection) -> None:
        # At first use, what will be pinned is the authority in the chain that the server shows. One that another has
        # signed is not the server's own: a public authority's intermediate certificate, for example, vouches for
        # millions.
        if self._certificate is not None:
            return
        chain = [shown.to_cryptography() for shown in connection.get_peer_cert_chain() or ()]
        try:
            leaf, top = chain[0], chain[-1]
            if leaf != top:
                leaf.verify_directly_issued_by(top)
                top.verify_directly_issued_by(top)
            elif leaf.issuer != leaf.subject:
                raise ValueError("alone, and signed by another")
        except (IndexError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            cure = "It shows no certificate of an authority of its own; give that with --ca"
            raise ServerKeyChanged("the server's certificate authority", "nothing", "none", cure) from None
        # One that is alone has its key proved by the handshake; the hash of its own signature may be an old one.
        self._shown = top.public_bytes(Encoding.DER)


def tls_endpoint(authority: Authority, plain: IStreamClientEndpoint) -> IStreamClientEndpoint:
    """An endpoint that speaks TLS, ALPN C{ssh}, over another one; the handshake happens after it has connected."""
    endpoint: IStreamClientEndpoint = wrapClientTLS(authority, plain)
    return endpoint
