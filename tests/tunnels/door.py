"""A server's TLS door and blind relay, small enough to see everything and to misbehave on request."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from rdvtwisted.values import PublicKey
from tunnels.credentials import certified_key


class Authority:
    """A certificate authority and the one server certificate that it signs."""

    def __init__(self) -> None:
        now = datetime.now(timezone.utc)
        authority_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())

        def certify(subject: str, key: ec.EllipticCurvePrivateKey, ca: bool, valid: datetime) -> x509.Certificate:
            return (
                x509.CertificateBuilder(
                    x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]),
                    x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]),
                    key.public_key(),
                    x509.random_serial_number(),
                )
                .not_valid_before(valid)
                .not_valid_after(valid + timedelta(days=2))
                .add_extension(x509.BasicConstraints(ca, None), critical=True)
                .sign(authority_key, SHA256())
            )

        self.authority = certify("authority", authority_key, True, now - timedelta(days=1))
        # Not valid before tomorrow, as devices without a clock find it.
        self.server = certify("server", self.key, False, now + timedelta(days=1))

    @property
    def der(self) -> bytes:
        """The authority's certificate."""
        return self.authority.public_bytes(Encoding.DER)


class Visit(Protocol):
    """One device's connection."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.partner: Visit | None = None
        #: The device's key, and the line in which it presented its ticket.
        self.key: PublicKey | None = None
        self.line = b""
        #: All that came after the outer TLS connection.
        self.inner = bytearray()
        self.gone: Deferred[None] = Deferred()
        self._tls: SSL.Connection | None = SSL.Connection(door.context, None)
        self._tls.set_accept_state()
        self._ciphertext = b""
        self._early = bytearray()

    def connectionMade(self) -> None:
        """Somebody knocks."""
        self.door.arrived(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the door's own TLS connection, or of the devices'."""
        if self._tls is None:
            self.inner += data
            if self.door.passes is not None:
                data = self.door.passes(data)
            if self.partner is None:
                self._early += data
            elif self.partner.transport is not None:
                self.partner.transport.write(data)
            return
        if self.door.mute:
            return
        self._ciphertext += data
        # One record at a time, so that none of the devices' own bytes goes into this TLS connection.
        while len(self._ciphertext) >= 5 and not self._passed():
            end = 5 + struct.unpack("!H", self._ciphertext[3:5])[0]
            if len(self._ciphertext) < end:
                return
            record, self._ciphertext = self._ciphertext[:end], self._ciphertext[end:]
            self._tls.bio_write(record)
            self._proceed(self._tls)
            self._flush()
        if self._passed() and self._ciphertext:
            self.door.impatient.append(self)

    def _passed(self) -> bool:
        return self._tls is None

    def _proceed(self, tls: SSL.Connection) -> None:
        try:
            tls.do_handshake()
            self.line += tls.recv(4096)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            if self.door.afterthought:
                tls.send(self.door.afterthought)
            tls.shutdown()
            self._flush()
            self._tls = None
            self.door.entered(self)
            return
        except SSL.Error:
            self._flush()
            assert self.transport is not None
            self.transport.loseConnection()
            return
        if self.line.endswith(b"\n") and self.key is None:
            certificate = tls.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            self.key = certified_key(certificate)
            self.door.presented(self, tls)

    def _flush(self) -> None:
        assert self.transport is not None
        while self._tls is not None:
            try:
                self.transport.write(self._tls.bio_read(65536))
            except SSL.WantReadError:
                return

    def join(self, partner: Visit) -> None:
        """From now on, what comes here goes to the partner."""
        self.partner = partner
        assert partner.transport is not None
        partner.transport.registerProducer(self.transport, True)  # type: ignore[attr-defined]
        partner.transport.write(bytes(self._early))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The device hung up, or was cut off: so is its partner, once it has got everything."""
        if self.partner is not None and self.partner.transport is not None:
            self.partner.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.partner.transport.loseConnection()
        self.gone.callback(None)


class Door(Factory):
    """Lets everybody in and joins the first with the second, unless told otherwise."""

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.authority = Authority()
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_certificate(self.authority.server)
        self.context.use_privatekey(self.authority.key)
        self.context.add_extra_chain_cert(self.authority.authority)
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        self.context.set_alpn_select_callback(lambda connection, offered: self.alpn)
        self._reactor = reactor
        #: What to misbehave in: say nothing at all, answer a ticket so, keep apart who came, change what passes.
        self.mute = False
        self.alpn: Any = b"rdv-tunnel/1"
        self.afterthought = b""
        self.answer: bytes | None = b"OK\n"
        self.joins = True
        #: Gets who came in, instead of a partner.
        self.takes: Callable[[Visit], None] | None = None
        self.passes: Callable[[bytes], bytes] | None = None
        self.visits: list[Visit] = []
        #: Who said something before this end had said close_notify.
        self.impatient: list[Visit] = []
        self._waiting: list[Visit] = []
        self._events: list[str] = []
        self._awaited: list[tuple[str, Deferred[None]]] = []
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")

    def buildProtocol(self, addr: object) -> Visit:
        """A device connects."""
        return Visit(self)

    @property
    def endpoint(self) -> TCP4ClientEndpoint:
        """How a device reaches this door."""
        return TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._port.getHost().port)

    def when(self, event: str) -> Deferred[None]:
        """
        @return: a Deferred that fires with the next C{arrived}, C{presented}
            or C{entered} that nobody has waited for yet.
        """
        waiting: Deferred[None] = Deferred()
        self._awaited.append((event, waiting))
        self._tell()
        return waiting

    def _happened(self, event: str) -> None:
        self._events.append(event)
        self._tell()

    def _tell(self) -> None:
        for event, waiting in list(self._awaited):
            if event in self._events:
                self._events.remove(event)
                self._awaited.remove((event, waiting))
                waiting.callback(None)

    def arrived(self, visit: Visit) -> None:
        """A device has connected."""
        self.visits.append(visit)
        self._happened("arrived")

    def presented(self, visit: Visit, tls: SSL.Connection) -> None:
        """A device has shown its ticket."""
        if self.answer is not None:
            tls.send(self.answer)
        self._happened("presented")

    def entered(self, visit: Visit) -> None:
        """A device's connection is its own now."""
        self._waiting.append(visit)
        if self.takes is not None:
            self.takes(visit)
        elif self.joins and len(self._waiting) == 2:
            first, second = self._waiting
            first.join(second)
            second.join(first)
            self._waiting = []
        self._happened("entered")

    def cut(self) -> None:
        """Break all connections."""
        for visit in self.visits:
            if visit.transport is not None:
                visit.transport.abortConnection()  # type: ignore[attr-defined]

    async def close(self) -> None:
        """Close the port and all connections."""
        await self._port.stopListening()
        self.cut()
        for visit in self.visits:
            await visit.gone
