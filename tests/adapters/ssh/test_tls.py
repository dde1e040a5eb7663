"""SSH inside TLS, as it comes out of the door for everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator, IProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from rdvtwisted.adapters.ssh.client import ClientTransport, connect
from rdvtwisted.adapters.ssh.identity import Identity, identity
from rdvtwisted.adapters.ssh.server import ServerTransport
from rdvtwisted.errors import FellSilent
from tests.adapters.ssh.world import Listener, Recorder, World


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Creator:
    """Makes TLS connections that trust everybody."""

    def __init__(self, who: Identity) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_certificate(X509.from_cryptography(who.certificate))
        self.context.use_privatekey(PKey.from_cryptography_key(who.key))

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)


class TlsTests(World):
    """The same server, reached through TLS."""

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        """Connect both ends through TLS, in memory."""
        creator = Creator(identity(Path(self.mktemp()), "rdv"))
        client = TLSMemoryBIOFactory(creator, True, factory, self.clock).buildProtocol(None)
        server = TLSMemoryBIOFactory(creator, False, self.server.factory("tls"), self.clock).buildProtocol(self.peer)
        self.join(server, client)
        assert isinstance(client, TLSMemoryBIOProtocol)
        return succeed(client.wrappedProtocol)

    def test_session(self) -> None:
        """A device logs in, has its shell and its forwards, and both ends go in order."""
        link = self.result(connect(self, self.target(), self.clock))  # type: ignore[arg-type]
        self.assertEqual((self.desk.line.door, self.desk.line.address), ("tls", "192.0.2.7:4711"))
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        far = Recorder()
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(far)
        near = self.result(link.endpoint("127.0.0.1", 5000).connect(Factory.forProtocol(Recorder)))
        assert near.transport is not None and far.transport is not None
        near.transport.write(b"x" * 3_000_000)
        far.transport.write(b"y" * 3_000_000)
        shell.write(b"get_role\n")
        self.pump()
        self.assertEqual((len(far.data), len(near.data)), (3_000_000, 3_000_000))  # type: ignore[attr-defined]
        self.assertEqual(listener.out, b"rpi1100$ onsite\nrpi1100$ ")
        self.assertIsNone(self.result(link.disconnect("update")))
        self.assertEqual(self.desk.left, ["update"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_handshake(self) -> None:
        """A handshake of TLS that comes to nothing takes no longer than a key exchange may, which waits for it."""
        link = connect(self, self.target(), self.clock)  # type: ignore[arg-type]
        self.pumps[-1].server.dataReceived = lambda data: None  # type: ignore[attr-defined]
        self.clock.advance(29)
        self.pump()
        self.assertNoResult(link)
        self.clock.advance(1)
        self.pump()
        error = self.failureResultOf(link, FellSilent).value
        self.assertIn("the key exchange took longer than 30 s", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sent_away(self) -> None:
        """A device that is sent away reads why, though it comes through TLS."""
        link = self.result(connect(self, self.target(), self.clock))  # type: ignore[arg-type]
        reasons: list[str] = []
        link.closed.addErrback(lambda failure: reasons.append(failure.getErrorMessage()))
        self.desk.line.disconnect("maintenance")
        self.pump()
        self.assertIn("maintenance", reasons[0])
        self.assertEqual(self.desk.left, ["maintenance"])

    def test_kinds(self) -> None:
        """What runs inside are the same two ends as over TCP."""
        self.result(connect(self, self.target(), self.clock))  # type: ignore[arg-type]
        pump = self.pumps[-1]
        self.assertIsInstance(pump.server.wrappedProtocol, ServerTransport)  # type: ignore[attr-defined]
        self.assertIsInstance(pump.client.wrappedProtocol, ClientTransport)  # type: ignore[attr-defined]
