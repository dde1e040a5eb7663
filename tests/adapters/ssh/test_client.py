"""What a device reads when it cannot get, or keep, its connection."""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh import connection as numbers
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.ssh.client import connect
from rdvtwisted.adapters.ssh.hostkeys import HostKeys
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.login import signature_algorithm
from rdvtwisted.adapters.ssh.settings import ClientSettings, ServerSettings
from rdvtwisted.adapters.ssh.signatures import public_key
from rdvtwisted.adapters.ssh.wire import Reader, string, uint32
from rdvtwisted.errors import ConnectionLost, FellSilent, RDVError, ServerKeyChanged, StateDirectoryError
from tests.adapters.ssh.test_authentication import Mute
from tests.adapters.ssh.world import ECDSA, ED25519, HOST_KEYS, RSA, STRANGER, Listener, Recorder, World


class Somewhere:
    """An endpoint that leads to what the test says."""

    def __init__(self, way: Any) -> None:
        self.way = way

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        result: Deferred[IProtocol] = self.way(factory)
        return result


class ConnectTests(World):
    """L{connect} fails with one line that says what is wrong."""

    def attempt(self, way: Any) -> Deferred[SSHLink]:
        """Connect by this way."""
        return connect(Somewhere(way), self.target(), self.clock)  # type: ignore[arg-type]

    def line(self, link: Deferred[SSHLink], kind: type[RDVError] = ConnectionLost) -> str:
        """What the device reads."""
        self.failed = self.failureResultOf(link, kind).value
        text = str(self.failed)
        self.assertNotIn("\n", text)
        self.assertIn("rdv.example.org", text)
        return text

    def mute(self, factory: Any) -> Deferred[IProtocol]:
        """To a server that says nothing."""
        client = factory.buildProtocol(None)
        self.join(Mute(), client)
        made: Deferred[IProtocol] = Deferred()
        made.callback(client)
        return made

    def test_unreachable(self) -> None:
        """A server that does not accept the connection."""
        link = self.attempt(lambda factory: fail(ConnectionRefusedError("refused")))
        self.assertIn("could not be reached: refused", self.line(link))

    def test_rejected(self) -> None:
        """A router on the way that says no, of which Twisted may know no more than that the attempt is over."""
        link = self.attempt(lambda factory: fail(ConnectError(string=Failure(ConnectionDone()))))  # type: ignore[arg-type]
        self.assertEqual(self.line(link), "rdv.example.org could not be reached: the connection was rejected")

    def test_no_answer(self) -> None:
        """A server that does not answer at all."""
        link = self.attempt(lambda factory: Deferred())
        self.clock.advance(20)
        text = self.line(link)
        self.assertIn("within 20 s", text)
        self.assertIs(type(self.failed), ConnectionLost, "nothing was there that could have fallen silent")

    def test_no_key_exchange(self) -> None:
        """A server that accepts the connection and says nothing."""
        link = self.attempt(self.mute)
        self.clock.advance(30)
        self.pump()
        self.assertIn("the key exchange took longer than 30 s", self.line(link, FellSilent))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_patience(self) -> None:
        """Who believes in a silent server for a short time does so at each stage; nobody waits longer for that."""
        for silence, seconds in ((9.0, (9.0, 9.0, 9.0, 9.0)), (600.0, (20.0, 30.0, 20.0, 20.0))):
            found = ClientSettings.noticing(silence)
            limits = (found.connect_seconds, found.exchange_seconds, found.login_seconds, found.open_seconds)
            self.assertEqual(limits, seconds)
            self.assertEqual(found.keepalive_idle + found.keepalive_answer, silence)

    def test_no_login(self) -> None:
        """A server that exchanges keys and says nothing more."""
        link = connect(
            Somewhere(self.way_to(lambda server: setattr(server, "ssh_SERVICE_REQUEST", lambda packet: None))),  # type: ignore[arg-type]
            self.target(),
            self.clock,
        )
        self.pump()
        self.assertNoResult(link)
        self.clock.advance(20)
        self.pump()
        self.assertIn("did not let us log in within 20 s", self.line(link, FellSilent))

    def way_to(self, change: Any) -> Any:
        """To the server, whose end of the connection is changed before."""

        def way(factory: Any) -> Deferred[IProtocol]:
            server = self.server.factory("ssh").buildProtocol(self.peer)
            change(server)
            client = factory.buildProtocol(None)
            self.join(server, client)
            made: Deferred[IProtocol] = Deferred()
            made.callback(client)
            return made

        return way

    def test_other_protocol(self) -> None:
        """Something that does not speak SSH."""
        link = self.attempt(self.mute)
        self.client_end.dataReceived(b"HTTP/1.1 400 Bad Request\r\n" * 1000)
        self.pump()
        self.assertIn("too long before it says that it speaks SSH", self.line(link))

    def test_no_common_algorithm(self) -> None:
        """A server that is too old."""
        link = connect(
            Somewhere(self.way_to(lambda server: setattr(server, "supportedCiphers", [b"3des-cbc"]))),  # type: ignore[arg-type]
            self.target(),
            self.clock,
        )
        self.pump()
        self.assertIn("couldn't match all kex parts", self.line(link))

    def test_cancelled(self) -> None:
        """Whoever does not want to wait any more gives up, at any stage."""
        for way in (lambda factory: Deferred(), self.mute):
            link = self.attempt(way)
            link.cancel()
            self.failureResultOf(link, CancelledError)
            self.pump()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled_while_connecting(self) -> None:
        """That it was given up is what it fails with, whatever the way there makes of it."""

        def aborted(made: Deferred[IProtocol]) -> None:
            made.errback(ConnectError(string="Connection was closed cleanly.\n"))

        link = self.attempt(lambda factory: Deferred(aborted))
        link.cancel()
        self.failureResultOf(link, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_ssh(self) -> None:
        """Something that closes the connection and has said nothing of SSH, such as the wrong door."""
        link = self.attempt(self.mute)
        self.client_end.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.line(link), "the connection to rdv.example.org was lost before an SSH server answered")

    def test_unusable_file(self) -> None:
        """A file of known hosts that cannot be read is told before anything is sent."""
        self.hosts.path.mkdir()
        link = self.attempt(self.mute)
        self.failureResultOf(link, StateDirectoryError)
        self.assertEqual(self.pumps, [])


class HostKeyTests(World):
    """A device knows its server."""

    def test_pinned_at_first_use(self) -> None:
        """The key of the first connection is noted, and asked for from then on."""
        self.assertEqual(self.log_in().server_key, HOST_KEYS.public[0])
        self.assertEqual(self.hosts.pinned("rdv.example.org", 22), (HOST_KEYS.public[0],))
        self.log_in()

    def test_pinned_kind(self) -> None:
        """A server with several keys shows the one that the device knows, whatever kind it is."""
        for known in HOST_KEYS.public:
            self.hosts.path.write_text(f"rdv.example.org {known.line}\n")
            self.assertEqual(self.log_in().server_key, known)

    def test_changed(self) -> None:
        """A server with another key gets no login, and the device reads both keys."""
        self.hosts.path.write_text(f"rdv.example.org {public_key(STRANGER).line}\n")
        error = self.failureResultOf(self.begin(), ServerKeyChanged).value
        self.assertIn(public_key(STRANGER).fingerprint, str(error))
        self.assertIn(HOST_KEYS.public[0].fingerprint, str(error))
        self.assertEqual((self.reception.asked, self.reception.desks), ([], []))

    def test_borrowed_key(self) -> None:
        """A server that shows a key which it does not hold is neither believed nor remembered."""
        self.server.public_keys[b"ssh-ed25519"] = type(self.server.public_keys[b"ssh-ed25519"]).fromString(
            public_key(STRANGER).blob
        )
        error = self.failureResultOf(self.begin(), ConnectionLost).value
        self.assertIn("does not hold the host key that it shows", str(error))
        self.assertFalse(self.hosts.path.exists())

    def test_each_exchange(self) -> None:
        """A device agrees with each key exchange, and each kind of host key."""
        self.server.settings = ServerSettings()
        for name in (
            b"mlkem768x25519-sha256",
            b"curve25519-sha256",
            b"curve25519-sha256@libssh.org",
            b"ecdh-sha2-nistp256",
            b"ecdh-sha2-nistp384",
            b"ecdh-sha2-nistp521",
        ):
            link = self.log_in()
            self.client_end.supportedKeyExchanges = [name]
            self.client_end.rekey()
            self.pump()
            self.assertEqual(link.key_exchange, name.decode())
            self.assertTrue(self.result(link.open_shell(Listener())))

    def test_worthless_reply(self) -> None:
        """A server's public value that is none ends the attempt."""
        for name in (b"mlkem768x25519-sha256", b"curve25519-sha256"):
            for value in (b"", bytes(32), bytes(1120)):
                self.log_in()
                client = self.client_end
                client.supportedKeyExchanges = [name]
                client._keyExchangeState = client._KEY_EXCHANGE_NONE
                client.sendKexInit()
                self.server_end._ssh_KEX_ECDH_INIT = self.reply(value)  # type: ignore[method-assign]
                self.server_end._ssh_KEX_HYBRID_INIT = self.reply(value)  # type: ignore[method-assign]
                self.pump()
                self.assertTrue(client.closing)

    def reply(self, value: bytes) -> Any:
        """Answer a key exchange with this."""
        end = self.server_end

        def answer(packet: bytes) -> None:
            end.send(
                31, string(HOST_KEYS.public[0].blob) + string(value) + string(string(b"ssh-ed25519") + string(b""))
            )

        return answer


class SignatureTests(World):
    """With which algorithm a key signs."""

    def test_choice(self) -> None:
        """RSA signs by SHA-2, unless the server says nothing of it, or accepts SHA-1 only."""
        for accepted, chosen in [
            ({"rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"}, "rsa-sha2-512"),
            ({"rsa-sha2-256", "ssh-rsa"}, "rsa-sha2-256"),
            ({"ssh-rsa"}, "ssh-rsa"),
            (set(), "ssh-rsa"),
            ({"ssh-ed25519"}, "rsa-sha2-512"),
        ]:
            self.assertEqual(signature_algorithm("ssh-rsa", frozenset(accepted)), chosen)
        self.assertEqual(signature_algorithm("ssh-ed25519", frozenset()), "ssh-ed25519")

    def test_server_without_rsa(self) -> None:
        """A server that has no RSA key of its own accepts RSA keys of users all the same, and says so."""
        keys = HostKeys((HOST_KEYS.keys[0],))
        self.server = type(self.server)(keys, self.reception, self.server.open_shell, self.clock, self.settings)
        for key in (RSA, ECDSA, ED25519):
            self.log_in(key)
        self.assertIn("rsa-sha2-256", self.client_end.accepted_signatures)
        self.assertNotIn("ssh-rsa", self.client_end.accepted_signatures)


class LinkTests(World):
    """A connection that is there."""

    def test_endpoint(self) -> None:
        """What leads through the connection is an endpoint like any other."""
        self.assertTrue(verifyObject(IStreamClientEndpoint, self.log_in().endpoint("127.0.0.1", 1)))

    def test_closed(self) -> None:
        """Whoever holds the connection is told when it is over: nothing wrong if he closed it, else why."""
        link = self.successResultOf(self.begin())
        closed = link.closed
        self.result(link.disconnect())
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.result(link.disconnect()))
        link = self.successResultOf(self.begin())
        self.server_end.disconnect("maintenance")
        self.pump()
        error = self.failureResultOf(link.closed, ConnectionLost).value
        self.assertIn("maintenance", str(error))

    def test_no_shell(self) -> None:
        """A shell that does not come in time, or not at all, is an error; if it comes later it is closed."""
        link = self.log_in()
        self.server_end.service.packetReceived = lambda number, body: None
        shell = link.open_shell(Listener())
        self.pump()
        self.clock.advance(20)
        self.failureResultOf(shell, ConnectionLost)
        del self.server_end.service.packetReceived
        self.client_end.channels._confirmed(Reader(uint32(0, 0, 100, 100)))
        self.assertTrue(self.client_end.channels.channels[0].close_sent)

    def test_refused_shell(self) -> None:
        """A server that gives a channel but no shell."""

        def refuse(device: object, terminal: bool) -> Any:
            raise ZeroDivisionError

        self.server.open_shell = refuse
        link = self.log_in()
        shell = link.open_shell(Listener())
        self.pump()
        self.assertIn("it gives no shell", str(self.failureResultOf(shell, ConnectionLost).value))
        self.assertEqual(self.client_end.channels.channels, {})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_lost(self) -> None:
        """When the connection is lost, what leads through it fails; the address that it came from is known still."""
        link = self.log_in()
        here = link.local_host
        self.server_end.disconnect("maintenance")
        self.pump()
        self.assertTrue(link.closed.called)

        def without_socket() -> None:
            raise AttributeError("'Client' object has no attribute 'socket'")

        # As a TCP connection of Twisted's is when it is lost.
        self.client_end.transport.getHost = without_socket
        d = link.endpoint("127.0.0.1", 5000).connect(Factory.forProtocol(Recorder))
        self.failureResultOf(d, ConnectionLost)
        self.assertEqual(link.local_host, here)

    def test_remote_forwards(self) -> None:
        """A server does not get a device to open anything."""
        self.log_in()
        for kind in (b"forwarded-tcpip", b"x11", b"auth-agent@openssh.com", b"session", b"direct-tcpip"):
            self.server_end.send(numbers.MSG_CHANNEL_OPEN, string(kind) + uint32(0, 100, 100) + string(b"x") * 4)
            self.server_end.service._asked_for[0] = refused = Refused()
            self.pump()
            self.assertEqual(refused.code, numbers.OPEN_UNKNOWN_CHANNEL_TYPE)

    def test_unwanted_protocol(self) -> None:
        """A factory that makes no protocol gets no connection."""
        link = self.log_in()
        self.reception.forwards["127.0.0.1", 5000] = self.far
        factory = Factory.forProtocol(Recorder)
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        d = link.endpoint("127.0.0.1", 5000).connect(factory)
        self.pump()
        self.failureResultOf(d, ConnectionLost)
        self.assertIsNotNone(self.recorder.lost)

    def far(self) -> Deferred[IProtocol]:
        self.recorder = Recorder()
        made: Deferred[IProtocol] = Deferred()
        made.callback(self.recorder)
        return made


class Refused:
    """A channel that the server asked for."""

    code = 0

    def refused(self, code: int, reason: str) -> None:
        self.code = code
