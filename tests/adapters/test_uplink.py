"""The server's certificate authority as a device knows it: pinned, checked, never changed silently."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.front.authority import Authority as ServersAuthority
from rdvtwisted.adapters.front.encryption import Credentials, ServerConnection, door_context
from rdvtwisted.adapters.negotiation import SPARE_STEPS
from rdvtwisted.adapters.uplink import Authority, fingerprint
from rdvtwisted.errors import ConnectionLost, ProtocolError, ServerKeyChanged, StateDirectoryError
from rdvtwisted.testing.tunnels import identity
from tests.newkeys import Asker

#: Exchanges after which a handshake in memory goes in circles.
ROUNDS = 20
DAY = 86_400.0


@define
class _Transport:
    """What of Twisted's TLS transport a connection is told; and of the one below it, which is here the same."""

    failures: list[Failure] = field(factory=list)
    cuts: int = 0

    @property
    def transport(self) -> _Transport:
        """What carries the TLS."""
        return self

    def abortConnection(self) -> None:
        """The connection is cut."""
        self.cuts += 1

    def failVerification(self, failure: Failure) -> None:
        """The connection must not be used."""
        self.failures.append(failure)


def _move(source: SSL.Connection, target: SSL.Connection) -> bool:
    try:
        target.bio_write(source.bio_read(1 << 16))
    except SSL.WantReadError:
        return False
    return True


class UplinkCase(SynchronousTestCase):
    """A device, and servers with authorities of their own."""

    def setUp(self) -> None:
        """Places for files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "server-ca.pem"
        self.device = Authority(self.path)

    def server(self, name: str = "server", now: float | None = None) -> ServersAuthority:
        """A server's authority; at a moment of its own if it is given."""
        clock = Clock()
        clock.rightNow = time.time() if now is None else now
        return ServersAuthority.open(self.folder / name, ["rdv.example.org"], clock)

    def shake_hands(self, credentials: Credentials, change: Callable[[SSL.Context], None] | None = None) -> Any:
        """
        A TLS handshake between the device and a server that shows C{credentials}.

        @return: the device's error, or C{None} when the connection may be used.
        """
        context = door_context(credentials, tls12=False, web=False)
        if change is not None:
            change(context)
        self.transport = transport = _Transport()
        self.client = client = self.device.clientConnectionForTLS(transport)  # type: ignore[arg-type]
        server = ServerConnection(context)
        for _ in range(ROUNDS):
            for end in (client, server):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    pass
                except SSL.Error:
                    return self.device.refusal
            if not any([_move(client, server), _move(server, client)]):
                break
        else:
            self.fail("the handshake does not end")
        self.assertEqual(client.get_alpn_proto_negotiated(), b"ssh")
        self.assertEqual([failure.value for failure in transport.failures], list(filter(None, [self.device.refusal])))
        return self.device.refusal


class PinningTests(UplinkCase):
    """Which authority is the server's."""

    def test_provides(self) -> None:
        """Twisted can make TLS connections with it."""
        verifyObject(IOpenSSLClientConnectionCreator, self.device)

    def test_fingerprint(self) -> None:
        """Device and server tell the authority's fingerprint in the same words."""
        server = self.server()
        self.assertEqual(fingerprint(server.der), server.fingerprint)

    def test_learned_by_ssh(self) -> None:
        """What the server tells over SSH is pinned at first use, for everybody to read, and known after a restart."""
        server = self.server()
        self.device.read()
        self.assertIsNone(self.device.der)
        self.device.accept(server.der)
        self.assertEqual(self.path.read_text(), server.pem)
        self.device = Authority(self.path)
        self.device.read()
        self.assertEqual(self.device.der, server.der)
        self.device.accept(server.der)

    def test_changed(self) -> None:
        """Another authority than the pinned one is refused; the operator learns both and what to do."""
        server, other = self.server(), self.server("other")
        self.device.accept(server.der)
        error = self.assertRaises(ServerKeyChanged, self.device.accept, other.der)
        self.assertEqual(
            str(error),
            f"the server's certificate authority has changed: pinned {server.fingerprint}, shown {other.fingerprint}."
            f" If the server was set up anew on purpose, remove {self.path}",
        )
        self.assertEqual(self.device.der, server.der)

    def test_no_certificate(self) -> None:
        """What is no certificate is pinned neither from the server nor from a file."""
        error = self.assertRaises(ProtocolError, self.device.accept, b"nonsense")
        self.assertEqual(str(error), "the server's certificate authority is no certificate")
        self.assertFalse(self.path.exists())
        self.path.write_text("nonsense")
        error = self.assertRaises(StateDirectoryError, self.device.read)
        self.assertEqual(str(error), f"{self.path} holds no PEM certificate: replace or remove it")

    def test_unreadable(self) -> None:
        """A file that cannot be read is one clear line."""
        self.path.mkdir()
        error = self.assertRaises(StateDirectoryError, self.device.read)
        self.assertEqual(str(error), f"cannot read {self.path}: Is a directory")

    def test_removed(self) -> None:
        """Removing the file makes the next connection a first one, without a restart."""
        self.device.accept(self.server().der)
        self.path.unlink()
        self.device.read()
        self.assertIsNone(self.device.der)


class HandshakeTests(UplinkCase):
    """Whom the device talks to by TLS."""

    def test_first_use(self) -> None:
        """At first use the authority in the server's chain is pinned."""
        server = self.server()
        self.assertIsNone(self.shake_hands(server.credentials()))
        self.device.proved()
        self.assertEqual(self.path.read_text(), server.pem)

    def test_gateway(self) -> None:
        """A gateway that has guests log in first, and shows a certificate of its own, is not taken for the server."""
        self.assertIsNone(self.shake_hands(self.server("gateway").credentials()))
        self.assertFalse(self.path.exists())
        server = self.server()
        self.assertIsNone(self.shake_hands(server.credentials()))
        self.device.proved()
        self.assertEqual(self.path.read_text(), server.pem)

    def test_other_connection(self) -> None:
        """What one connection was shown is not taken for that of the next one."""
        for begin in (lambda: self.device.clientConnectionForTLS(self.transport), self.device.read):  # type: ignore[arg-type]
            self.assertIsNone(self.shake_hands(self.server("gateway").credentials()))
            begin()  # the next one, by TLS, or by SSH without it
            self.device.proved()
            self.assertIsNone(self.device.der)

    def test_not_kept(self) -> None:
        """Where nothing is to be kept, the authority is known for as long as the connection is."""
        self.device = Authority(None)
        for name in ("one", "other"):
            self.device.read()
            server = self.server(name)
            self.assertIsNone(self.shake_hands(server.credentials()))
            self.device.proved()
            self.assertEqual(self.device.der, server.der)

    def test_pinned(self) -> None:
        """The pinned authority's server is accepted, with a renewed certificate too, whatever its name."""
        server = self.server()
        self.device.accept(server.der)
        self.assertIsNone(self.shake_hands(server.credentials()))
        self.assertIsNone(self.shake_hands(server.renew()))

    def test_other_server(self) -> None:
        """A server of another authority is refused before anything is sent to it."""
        server, other = self.server(), self.server("other")
        self.device.accept(server.der)
        error = self.shake_hands(other.credentials())
        self.assertIsInstance(error, ServerKeyChanged)
        self.assertEqual((error.pinned, error.shown), (server.fingerprint, other.fingerprint))
        self.assertIsNone(self.shake_hands(server.credentials()), "the refusal is forgotten with the next connection")

    def test_forged(self) -> None:
        """A server that shows the pinned authority's certificate but has none signed by it is refused."""
        server, other = self.server(), self.server("other")
        self.device.accept(server.der)
        real = other.credentials()
        self.assertIsInstance(
            self.shake_hands(Credentials(real.key, real.certificate, server.certificate)), ServerKeyChanged
        )

    def test_unrelated_chain(self) -> None:
        """At first use a chain that does not hang together is not pinned."""
        real = self.server().credentials()
        error = self.shake_hands(Credentials(real.key, real.certificate, self.server("other").certificate))
        self.assertIsInstance(error, ServerKeyChanged)
        self.assertIn("give that with --ca", str(error))
        self.assertFalse(self.path.exists())

    def test_self_signed(self) -> None:
        """A server with nothing but a self-signed certificate, such as an old stunnel, is pinned by that."""
        own = identity("stunnel")

        def show(context: SSL.Context) -> None:
            context.use_certificate(own.certificate)
            context.use_privatekey(own.key)

        # The authority that the door adds to each chain is its own issuer here.
        credentials = Credentials(own.key, own.certificate, own.certificate)
        for _ in range(2):
            self.assertIsNone(self.shake_hands(credentials, show))
            self.device.proved()
            self.device.read()
        self.assertEqual(self.device.der, own.certificate.public_bytes(Encoding.DER))

    def test_self_signed_faults(self) -> None:
        """A pinned self-signed certificate is good whatever OpenSSL finds wrong with it, such as an end long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stunnel")])
        then = datetime(2015, 1, 1, tzinfo=timezone.utc)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, then, then + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )

        for _ in range(2):
            self.assertIsNone(self.shake_hands(Credentials(key, certificate, certificate)))
            self.device.proved()
            self.device.read()
        error = self.shake_hands(self.server().credentials())
        self.assertIsInstance(error, ServerKeyChanged)
        self.assertEqual(error.pinned, fingerprint(certificate.public_bytes(Encoding.DER)))

    def test_public_authority(self) -> None:
        """An authority that another has signed is not the server's own, and not pinned unasked."""
        root, middle = self.server("root"), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "public")])
        now = datetime.now(timezone.utc)

        def certify(key: Any, subject: x509.Name, issuer: x509.Name, by: Any, ca: bool) -> x509.Certificate:
            return (
                x509.CertificateBuilder(issuer, subject, key.public_key(), 7, now, now + timedelta(days=1))
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .sign(by, hashes.SHA256())
            )

        signer = ec.generate_private_key(ec.SECP256R1())
        intermediate = certify(middle, name, root.certificate.subject, signer, True)
        leaf_key = ec.generate_private_key(ec.SECP256R1())
        leaf = certify(leaf_key, x509.Name([]), name, middle, False)
        error = self.shake_hands(Credentials(leaf_key, leaf, intermediate))
        self.assertIsInstance(error, ServerKeyChanged)
        self.assertIn("give that with --ca", str(error))
        self.assertFalse(self.path.exists())

    def test_slow_clock(self) -> None:
        """A device without a clock of its own, which starts in the past, still accepts its server."""
        server = self.server(now=time.time() + 300 * DAY)
        self.device.accept(server.der)
        self.assertIsNone(self.shake_hands(server.credentials()))

    def test_expired(self) -> None:
        """An expired certificate is called that, and no change of the authority."""
        server = self.server(now=time.time() - 500 * DAY)
        self.device.accept(server.der)
        credentials = server.credentials()
        error = self.shake_hands(credentials)
        self.assertIsInstance(error, ConnectionLost)
        self.assertEqual(
            str(error),
            f"the server's certificate was good until {credentials.certificate.not_valid_after_utc:%Y-%m-%d}:"
            " have it renewed with 'rdvctl certificate renew', or set this device's clock right",
        )

    def test_cannot_pin(self) -> None:
        """An authority that cannot be kept is not trusted for once either."""
        self.device = Authority(self.folder / "gone" / "server-ca.pem")
        self.assertIsNone(self.shake_hands(self.server().credentials()))
        error = self.assertRaises(StateDirectoryError, self.device.proved)
        self.assertIn("No such file or directory", str(error))
        self.assertIsNone(self.device.der)


class NewKeysTests(UplinkCase):
    """A server that asks for new keys of the connection."""

    def test_without_end(self) -> None:
        """One that asks without end, and reads nothing, fills no memory of the device: it is cut off, with one line."""
        secrets: dict[bytes, bytes] = {}

        def keep(_: SSL.Connection, line: bytes) -> None:
            name, _client, secret = line.split()
            secrets[name] = bytes.fromhex(secret.decode())

        credentials = self.server().credentials()
        self.assertIsNone(self.shake_hands(credentials, lambda context: context.set_keylog_callback(keep)))
        # Behind its handshake, OpenSSL has sent two session tickets already.
        asker = Asker(secrets[b"SERVER_TRAFFIC_SECRET_0"], sent=2)
        self.client.bio_write(asker.ask() + asker.data(b"SSH-2.0-x"))
        self.assertEqual(self.client.recv(100), b"SSH-2.0-x")
        self.assertEqual(self.transport.cuts, 0)
        with capturedLogs() as events:
            self.client.bio_write(asker.ask(SPARE_STEPS))
            self.assertRaises(SSL.WantReadError, self.client.recv, 100)
        self.assertEqual(self.transport.cuts, 1)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["The server asks for new TLS keys without end: the connection is cut"],
        )
