"""Who is let in, and how little a stranger learns."""

from __future__ import annotations

from twisted.conch.ssh.connection import MSG_GLOBAL_REQUEST
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh.settings import ClientSettings, ServerSettings
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key, sign
from rdvtwisted.adapters.ssh.transport import LARGEST_PACKET
from rdvtwisted.adapters.ssh.wire import boolean, string
from rdvtwisted.errors import KeyRejected
from rdvtwisted.vestibule import CROWDED_SECONDS
from tests.adapters.ssh.world import ECDSA, ED25519, RSA, STRANGER, Puppet, World

FAILURE = (MSG_USERAUTH_FAILURE, string(b"publickey") + boolean(False))


def words(*parts: bytes) -> bytes:
    return b"".join(map(string, parts))


class AuthenticationTestCase(World):
    """Says what a client could say."""

    client_settings = ClientSettings(login_seconds=1000)

    def ask(self, client: Puppet, request: bytes) -> list[tuple[int, bytes]]:
        """Send a request, and get what is answered."""
        client.notebook.messages.clear()
        client.send(MSG_USERAUTH_REQUEST, request)
        self.pump()
        return list(client.notebook.messages)

    def request(
        self,
        client: Puppet,
        key: PrivateKey,
        *,
        account: bytes = b"rpi1100",
        algorithm: str = "",
        signed_by: PrivateKey | None = None,
        signed_with: str = "",
    ) -> bytes:
        """A request by public key; with a signature if C{signed_by} is given."""
        public = public_key(key)
        name = algorithm or public.algorithm
        body = words(account, b"ssh-connection", b"publickey") + boolean(signed_by is not None)
        body += words(name.encode(), public.blob)
        if signed_by is None:
            return body
        data = string(client.sessionID or b"") + bytes((MSG_USERAUTH_REQUEST,)) + body
        return body + string(sign(signed_by, signed_with or name, data))


class AuthenticationTests(AuthenticationTestCase):
    """The decision."""

    def test_methods(self) -> None:
        """A client that asks how to log in is told: by public key."""
        client = self.puppet()
        self.assertEqual(self.ask(client, words(b"rpi1100", b"ssh-connection", b"none")), [FAILURE])

    def test_question(self) -> None:
        """A client that asks whether a key will do gets a yes for a key of the account only, and is not in yet."""
        client = self.puppet()
        public = public_key(ED25519)
        (answer,) = self.ask(client, self.request(client, ED25519))
        self.assertEqual(answer, (MSG_USERAUTH_PK_OK, words(b"ssh-ed25519", public.blob)))
        self.assertEqual(self.reception.desks, [])
        self.assertEqual(self.ask(client, self.request(client, STRANGER)), [FAILURE])

    def test_signature(self) -> None:
        """With a signature by the account's key the client is in, and is asked at once whether it is there."""
        for key, algorithm in [(ED25519, ""), (ECDSA, ""), (RSA, "rsa-sha2-256"), (RSA, "rsa-sha2-512")]:
            client = self.puppet()
            answers = self.ask(client, self.request(client, key, algorithm=algorithm, signed_by=key))
            self.assertEqual([number for number, _ in answers], [MSG_USERAUTH_SUCCESS, MSG_GLOBAL_REQUEST])
        self.assertEqual(len(self.reception.desks), 4)
        self.assertEqual(self.server_end.packet_limit, LARGEST_PACKET)

    def test_indistinguishable(self) -> None:
        """To the client, an unknown account, a wrong key and a wrong signature are the same."""
        for request in (
            {"account": b"nobody", "signed_by": ED25519},
            {"key": STRANGER, "signed_by": STRANGER},
            {"signed_by": STRANGER},
            {"account": b"\xff\xfe", "signed_by": ED25519},
        ):
            client = self.puppet()
            arguments = {"key": ED25519, **request}
            self.assertEqual(self.ask(client, self.request(client, **arguments)), [FAILURE])  # type: ignore[arg-type]
        self.assertEqual(self.reception.desks, [])

    def test_sha1(self) -> None:
        """RSA with SHA-1 is accepted of an account marked legacy only; nor does it come in under a better name."""
        client = self.puppet()
        new = self.request(client, RSA, algorithm="ssh-rsa", signed_by=RSA)
        self.assertEqual(self.ask(client, new), [FAILURE])
        disguised = self.request(client, RSA, algorithm="rsa-sha2-256", signed_by=RSA, signed_with="ssh-rsa")
        self.assertEqual(self.ask(client, disguised), [FAILURE])
        client = self.puppet()
        old = self.request(client, RSA, account=b"rpi0900", algorithm="ssh-rsa", signed_by=RSA)
        self.assertEqual(self.ask(client, old)[0][0], MSG_USERAUTH_SUCCESS)

    def test_replayed_signature(self) -> None:
        """A signature made for one connection does not count on another."""
        request = self.request(self.puppet(), ED25519, signed_by=ED25519)
        self.assertEqual(self.ask(self.puppet(), request), [FAILURE])

    def test_malformed(self) -> None:
        """What is no key, or no signature, is a failed attempt or ends the connection, but nothing else."""
        head = words(b"rpi1100", b"ssh-connection", b"publickey") + boolean(True)
        blob = public_key(ED25519).blob
        for rest in (
            words(b"ssh-ed25519", b""),
            words(b"ssh-ed25519", b"\0\0\0\xffx"),
            words(b"ssh-ed25519", blob, b""),
            words(b"ssh-ed25519", blob, b"\0\0"),
            words(b"ssh-ed25519", blob, words(b"ssh-ed25519", b"short")),
            words(b"none", blob, b"x"),
            words(b"ssh-ed25519", blob),
            b"\xff\xff\xff\xff",
            b"",
        ):
            client = self.puppet()
            self.assertIn(self.ask(client, head + rest), ([FAILURE], []))
        self.assertEqual(self.reception.desks, [])

    def test_password(self) -> None:
        """Passwords and other methods are refused."""
        for method in (b"password", b"keyboard-interactive", b"hostbased", b"none", b"gssapi-with-mic"):
            client = self.puppet()
            self.ask(client, words(b"rpi1100", b"ssh-connection", b"none"))
            self.assertEqual(
                self.ask(client, words(b"rpi1100", b"ssh-connection", method) + b"\0" + string(b"x")), [FAILURE]
            )


class RefusalTests(AuthenticationTestCase):
    """What ends an attempt to log in, and what the operator reads about it."""

    def ended(self) -> str:
        """Why the connection has ended, as the operator reads it: one refusal."""
        self.pump()
        self.assertTrue(self.server_end.closing)
        ((door, address, _, reason),) = self.reception.refusals
        self.assertEqual((door, address), ("ssh", "192.0.2.7:4711"))
        return reason

    def test_too_slow(self) -> None:
        """Who has not logged in 30 s after he was accepted is sent away, also if he never says anything."""
        client = self.puppet()
        self.clock.advance(29)
        self.assertFalse(self.server_end.closing)
        self.ask(client, words(b"rpi1100", b"ssh-connection", b"none"))
        self.clock.advance(1.1)
        self.assertIn("did not log in within 30 s", self.ended())

    def test_silent_from_the_start(self) -> None:
        """The time runs from accept, not from the first word."""
        server = self.server.factory("ssh").buildProtocol(self.peer)
        assert server is not None
        pump = self.join(server, Mute())
        pump.flush()
        self.clock.advance(30)
        self.assertTrue(server.closing)
        pump.flush()
        self.assertEqual(len(self.reception.refusals), 1)

    def test_too_many_attempts(self) -> None:
        """After six failed attempts the connection is closed; questions about keys are attempts."""
        client = self.puppet()
        for _ in range(5):
            self.assertEqual(self.ask(client, self.request(client, STRANGER)), [FAILURE])
        self.assertEqual(self.ask(client, self.request(client, STRANGER, signed_by=STRANGER)), [])
        self.assertIn("too many attempts", self.ended())

    def test_too_many_questions(self) -> None:
        """Questions about a key that will do cannot be asked for ever either."""
        client = self.puppet()
        for _ in range(20):
            self.ask(client, self.request(client, ED25519))
        self.assertIn("too many attempts", self.ended())

    def test_other_account(self) -> None:
        """A connection is for one account."""
        client = self.puppet()
        self.ask(client, words(b"rpi1100", b"ssh-connection", b"none"))
        self.ask(client, words(b"rpi0900", b"ssh-connection", b"none"))
        self.assertIn("changed the account", self.ended())

    def test_other_service(self) -> None:
        """Nothing but the connection service can be had after login, and nothing but login before."""
        client = self.puppet()
        self.ask(client, words(b"rpi1100", b"ssh-userauth", b"none"))
        self.assertIn("no such service", self.ended())

    def test_service_without_login(self) -> None:
        """The connection service cannot be asked for directly."""
        client = self.puppet()
        client.send(5, string(b"ssh-connection"))
        self.assertIn("no such service", self.ended())

    def test_messages_without_login(self) -> None:
        """Channels cannot be opened before login; such messages are not known there."""
        client = self.puppet()
        client.send(90, string(b"session") + bytes(12))
        self.pump()
        self.assertEqual(self.server_end.service.name, b"ssh-userauth")
        self.assertEqual(self.reception.desks, [])

    def test_gives_up(self) -> None:
        """A client that goes after a failure is one refusal; the account is told as it was given, but not at length."""
        client = self.puppet()
        self.ask(client, self.request(client, ED25519, account=b"x" * 500, signed_by=ED25519))
        client.disconnect("never mind")
        self.pump()
        ((_, _, account, reason),) = self.reception.refusals
        self.assertEqual((account, reason), ("x" * 64, "the account does not have that key"))

    def test_port_scan(self) -> None:
        """Somebody who comes and goes without a word is not worth one."""
        server = self.server.factory("ssh").buildProtocol(self.peer)
        assert server is not None
        pump = self.join(server, Mute())
        pump.clientIO.loseConnection()
        pump.flush()
        self.assertEqual(self.reception.refusals, [])
        self.assertEqual((len(self.server.vestibule), self.server.lines), (0, set()))

    def test_our_client(self) -> None:
        """A device whose key is not accepted is told so, with the key and the account."""
        error = self.failureResultOf(self.begin(STRANGER), KeyRejected).value
        for part in (public_key(STRANGER).fingerprint, "rpi1100", "rdv.example.org"):
            self.assertIn(part, str(error))

    def test_crowd(self) -> None:
        """A flood of strangers finds no more room than there is; the next one always gets in; the log stays short."""
        self.server = type(self.server)(
            self.server.host_keys, self.reception, self.server.open_shell, self.clock, ServerSettings(strangers=4)
        )
        factory = self.server.factory("ssh")

        def come(host: int) -> StringTransport:
            address = IPv4Address("TCP", f"192.0.2.{host}", 1)
            line = factory.buildProtocol(address)
            assert line is not None
            transport = StringTransport(peerAddress=address)
            line.makeConnection(transport)
            self.addCleanup(line.connectionLost, Failure(ConnectionDone()))
            return transport

        transports = [come(host) for host in range(10)]
        self.assertEqual([transport.disconnecting for transport in transports], [True] * 6 + [False] * 4)
        self.assertEqual(len(self.server.vestibule), 4)
        reason = "too many connections have not logged in"
        self.assertEqual(self.reception.refusals, [("ssh", "192.0.2.0", "", reason)])
        self.clock.advance(CROWDED_SECONDS)
        come(99)
        others = f"{reason}, 5 others were turned away before"
        self.assertEqual(self.reception.refusals[1:], [("ssh", "192.0.2.6", "", others)])

    def test_crowd_of_one(self) -> None:
        """One address has room for eight strangers, and a place is free again after login."""
        for _ in range(8):
            last = self.puppet()
        self.assertIsNone(self.server.factory("ssh").buildProtocol(self.peer))
        self.ask(last, self.request(last, ED25519, signed_by=ED25519))
        self.assertIsNotNone(self.server.factory("ssh").buildProtocol(self.peer))


class Mute(Puppet):
    """Somebody who says nothing."""

    def __init__(self) -> None:
        pass

    def connectionMade(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: object = None) -> None:
        pass
