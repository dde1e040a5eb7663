"""TLS clients of the door for tests: Python's own TLS, in memory, over whatever moves bytes."""

from __future__ import annotations

import ssl
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Union

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection
from zope.interface import implementer

from rdvtwisted.errors import TicketRefused
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat, ITunnelStream
from rdvtwisted.values import PublicKey

PrivateKey = Union[ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, dsa.DSAPrivateKey]

#: Exchanges after which a conversation in memory goes in circles.
ROUNDS = 100


@define
class Identity:
    """A device's key with a self-signed certificate that ended long ago: only the key counts."""

    key: PrivateKey = field(factory=ed25519.Ed25519PrivateKey.generate)

    @property
    def public(self) -> PublicKey:
        """The key as the inventory has it."""
        return PublicKey.from_line(
            self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
        )

    def pem(self) -> bytes:
        """Key and certificate."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now - timedelta(days=8))
            .sign(self.key, None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private + certificate.public_bytes(Encoding.PEM)


class TLSClient:
    """
    The client's end of one TLS connection in memory.

    @ivar received: plain bytes that came in.
    @ivar closed: whether the server's close_notify came in.
    @ivar error: what TLS broke with.
    """

    def __init__(
        self,
        *alpn: str,
        identity: Identity | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        authority: str | None = None,
        name: str | None = None,
        keylog: Path | None = None,
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if authority is not None:
            context.load_verify_locations(cadata=authority)
            context.verify_mode = ssl.CERT_REQUIRED
            context.check_hostname = True
        context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(alpn)
        if keylog is not None:
            context.keylog_filename = str(keylog)
        if identity is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "identity.pem")
                path.write_bytes(identity.pem())
                context.load_cert_chain(path)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.shaken = False
        self.received = b""
        self.closed = False
        self.error: ssl.SSLError | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the server and see what they mean."""
        if data:
            self.incoming.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
                # All that it is for is in the file, which is closed by this.
                self.tls.context.keylog_filename = None  # type: ignore[assignment]
            while not self.closed:
                text = self.tls.read(65536)
                self.received += text
                self.closed = not text
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.error = error

    def close(self) -> None:
        """Send close_notify."""
        try:
            self.tls.unwrap()
            self.closed = True
        except ssl.SSLWantReadError:
            pass


class Wire(StringTransportWithDisconnection):
    """A TCP transport in memory, as far as the door uses one; it closes later, as real ones do."""

    def __init__(self, host: str = "192.0.2.1", port: int = 40000) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, port))
        self.disconnecting = False

    def loseConnection(self) -> None:
        """Close it at the next opportunity."""
        self.disconnecting = True

    def settle(self) -> None:
        """The next opportunity."""
        if self.disconnecting:
            super().loseConnection()

    def lose(self) -> None:
        """The peer has gone."""
        super().loseConnection()


def converse(client: TLSClient, wire: Wire) -> None:
    """Let client and server exchange bytes until both wait."""
    for _ in range(ROUNDS):
        client.feed(wire.value())
        wire.clear()
        wire.settle()
        data = client.outgoing.read()
        if not data:
            return
        if not wire.disconnecting and wire.connected:
            wire.protocol.dataReceived(data)
    raise AssertionError("the conversation does not end")


@implementer(ITunnelSeat)
@define(eq=False)
class Seat:
    """A seat that keeps what sits down."""

    inside: bool = False
    streams: list[ITunnelStream] = field(factory=list)

    def occupy(self, stream: ITunnelStream) -> None:
        """Keep it."""
        self.streams.append(stream)


@implementer(ITicketOffice)
@define(eq=False)
class Office:
    """Tickets for one key each; a ticket is good once."""

    tickets: dict[str, tuple[PublicKey, ITunnelSeat]] = field(factory=dict)

    def redeem(self, ticket: str, key: PublicKey) -> ITunnelSeat:
        """The seat of a ticket."""
        owner, seat = self.tickets.get(ticket, (None, None))
        if seat is None or owner != key:
            raise TicketRefused("the ticket is unknown")
        del self.tickets[ticket]
        return seat
