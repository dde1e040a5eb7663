"""The TLS door: who gets where, and who is refused."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.front.inside import Inside
from rdvtwisted.adapters.front.turnstile import LINE_LIMIT, Turnstile
from rdvtwisted.adapters.front.visit import Limits
from rdvtwisted.adapters.negotiation import SPARE_STEPS
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat
from rdvtwisted.origin import origin
from rdvtwisted.vestibule import PROGRESS_SECONDS
from tests.adapters.front.clients import Identity, Office, Seat, TLSClient, Wire, converse
from tests.adapters.front.sockets import tcp_pair
from tests.newkeys import REQUEST_BYTES, Asker

#: What is told of those for whom there is no room.
CROWDED = "too many connections have not shown what they are"


class Greeter(Protocol):
    """A server that greets, remembers what it gets, and echoes it."""

    def connectionMade(self) -> None:
        self.received = b""
        self.lost = False
        self.transport.write(b"SSH-2.0-test\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


#: How a TLS client begins, and others that think that they have found their server.
BEGINNINGS = (
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
    b"\x16\x03\x03\x40\x01",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x17\x03\x03\x00\x00",
    b"\x14\x03\x03\x00\x01\x01",
    b"\x80\x2e\x01\x03\x01",
    b"GET / HTTP/1.1\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"RDV-TUNNEL/1 ticket\n",
)


class Greeters(Factory):
    """Makes greeters, unless it is full."""

    noisy = False
    full = False

    def __init__(self) -> None:
        self.made: list[Greeter] = []
        self.addresses: list[IAddress | None] = []

    def buildProtocol(self, addr: IAddress | None) -> Greeter | None:
        if self.full:
            return None
        self.addresses.append(addr)
        self.made.append(Greeter())
        return self.made[-1]


class DoorTestCase(SynchronousTestCase):
    """A door, and what is told of those it refuses."""

    web: Greeters | None = None
    tls12 = False
    limits = Limits()

    def setUp(self) -> None:
        """Make an authority and a door."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clock = Clock()
        # The clients' TLS compares certificates with the machine's date.
        self.clock.rightNow = float(int(time.time()))
        self.authority = Authority.open(Path(folder.name, "tls"), ["localhost", "127.0.0.1"], self.clock)
        self.office = Office()
        self.ssh = Greeters()
        self.refusals: list[tuple[str, str, str, str]] = []
        self.door = self.make()

    def make(self) -> Door:
        """A door of this case's settings."""
        return Door(
            self.clock,
            self.authority.credentials(),
            self.office,
            self.ssh,
            lambda *refusal: self.refusals.append(refusal),
            web=self.web,
            tls12=self.tls12,
            limits=self.limits,
        )

    def arrive(self, host: str = "192.0.2.1") -> Wire:
        """Somebody connects."""
        wire = Wire(host)
        protocol = self.door.buildProtocol(wire.getPeer())
        assert protocol is not None
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def connect(self, client: TLSClient) -> Wire:
        """Somebody connects and speaks TLS."""
        wire = self.arrive()
        self.converse(client, wire)
        return wire

    def asking(self, *alpn: str, identity: Identity | None = None) -> tuple[Wire, Asker]:
        """A client whose handshake is done; what it says from now on, the last one says."""
        keylog = Path(self.mktemp())
        wire = self.connect(TLSClient(*alpn, identity=identity, keylog=keylog))
        return wire, Asker.of_client(keylog)

    def converse(self, client: TLSClient, wire: Wire) -> None:
        """All that can be said is said."""
        converse(client, wire)
        self.clock.advance(0)
        converse(client, wire)

    def assert_refused(self, wire: Wire, reason: str) -> None:
        """The connection is closed, and that was told once, with such a reason; nothing is left of it."""
        wire.settle()
        self.assertFalse(wire.connected)
        self.assertEqual([refusal[:3] for refusal in self.refusals], [("tls", "192.0.2.1:40000", "")])
        self.assertIn(reason, self.refusals[0][3])
        self.assertEqual(len(self.door.visits), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InsideTests(DoorTestCase):
    """SSH and web inside TLS."""

    tls12 = True

    def test_provides(self) -> None:
        """The parts are what Twisted and the others take them for."""
        verifyClass(IOpenSSLServerConnectionCreator, Inside)
        verifyClass(IPullProducer, Turnstile)
        verifyObject(ITicketOffice, self.office)
        verifyObject(ITunnelSeat, Seat())

    def assert_ssh(self, client: TLSClient) -> None:
        wire = self.connect(client)
        self.assertEqual(client.received, b"SSH-2.0-test\r\n")
        client.tls.write(b"hello")
        self.converse(client, wire)
        self.assertEqual(client.received, b"SSH-2.0-test\r\nhello")
        self.assertEqual(self.ssh.addresses, [wire.getPeer()])
        self.assertEqual((self.refusals, len(self.door.visits)), ([], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        client.close()
        self.converse(client, wire)
        self.assertTrue(self.ssh.made[0].lost)
        self.assertTrue(client.closed)
        self.assertFalse(wire.connected)

    def test_ssh(self) -> None:
        """Who asks for ssh reaches the SSH server."""
        self.assert_ssh(TLSClient("ssh"))

    def test_nothing_asked(self) -> None:
        """Who asks for nothing, as a stock stunnel does, reaches the SSH server."""
        self.assert_ssh(TLSClient())

    def test_old_stunnel(self) -> None:
        """TLS 1.2 reaches the SSH server where that is allowed."""
        self.assert_ssh(TLSClient(version=ssl.TLSVersion.TLSv1_2))

    def test_certificate(self) -> None:
        """The certificate holds against the authority alone, for the names of the settings and for no other."""
        for name, good in (("localhost", True), ("127.0.0.1", True), ("example.com", False)):
            client = TLSClient("ssh", authority=self.authority.pem, name=name)
            self.connect(client)
            self.assertEqual(client.shaken, good, name)

    def test_behind_the_handshake(self) -> None:
        """What comes in one piece with the end of the handshake, also part of a record, is not lost."""
        client, wire = TLSClient("ssh"), self.arrive()
        client.feed(b"")
        wire.protocol.dataReceived(client.outgoing.read())
        client.feed(wire.value())
        wire.clear()
        client.tls.write(b"a" * 30000)
        data = client.outgoing.read()
        wire.protocol.dataReceived(data[:-7])
        self.assertTrue(self.ssh.made[0].received)
        wire.protocol.dataReceived(data[-7:])
        self.assertEqual(self.ssh.made[0].received, b"a" * 30000)

    def test_byte_by_byte(self) -> None:
        """A handshake in single bytes works."""
        client, wire = TLSClient("ssh"), self.arrive()
        for _ in range(4):
            client.feed(wire.value())
            wire.clear()
            for byte in client.outgoing.read():
                wire.protocol.dataReceived(bytes([byte]))
            self.clock.advance(0)
        client.feed(wire.value())
        self.assertEqual(client.received, b"SSH-2.0-test\r\n")

    def test_server_full(self) -> None:
        """An SSH server that takes nobody closes the connection; it tells why itself."""
        self.ssh.full = True
        client = TLSClient("ssh")
        wire = self.connect(client)
        self.assertFalse(wire.connected)
        self.assertEqual((self.refusals, len(self.door.visits)), ([], 0))

    def test_started_and_stopped(self) -> None:
        """The SSH server's factory starts and stops with the door's port."""
        self.door.doStart()
        self.assertEqual(self.ssh.numPorts, 1)
        self.door.doStop()
        self.assertEqual(self.ssh.numPorts, 0)

    def test_nobody_speaks(self) -> None:
        """A client that speaks a protocol unknown here gets the alert made for that."""
        client = TLSClient("smtp")
        wire = self.connect(client)
        self.assertIn("no application protocol", str(client.error))
        self.assert_refused(wire, "nothing here speaks 'smtp'")

    def test_web_without_web(self) -> None:
        """A browser is refused where there is no web server."""
        client = TLSClient("h2", "http/1.1")
        wire = self.connect(client)
        self.assertIn("no application protocol", str(client.error))
        self.assert_refused(wire, "h2,http/1.1")

    def test_renewed(self) -> None:
        """A renewed certificate is shown to whoever comes next; who is there stays."""
        first = TLSClient("ssh")
        wire = self.connect(first)
        credentials = self.authority.renew()
        self.door.show(credentials)
        second = TLSClient("ssh", authority=self.authority.pem, name="localhost")
        self.connect(second)
        self.assertNotEqual(first.tls.getpeercert(True), second.tls.getpeercert(True))
        first.tls.write(b"still here")
        self.converse(first, wire)
        self.assertTrue(first.received.endswith(b"still here"))

    def test_renegotiation(self) -> None:
        """A TLS 1.2 client that wants to renegotiate is refused that."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        wire = self.arrive()

        def turn() -> SSL.Error | None:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                return error
            try:
                wire.protocol.dataReceived(connection.bio_read(65536))
            except SSL.WantReadError:
                pass
            self.clock.advance(0)
            if wire.value():
                connection.bio_write(wire.value())
                wire.clear()
            return None

        self.assertEqual([turn() for _ in range(4)], [None] * 4)
        self.assertEqual(connection.recv(100), b"SSH-2.0-test\r\n")
        connection.renegotiate()
        errors = [error for error in (turn() for _ in range(4)) if error]
        self.assertIn("no renegotiation", str(errors))

    def test_new_keys_without_end(self) -> None:
        """A client that asks for new keys without end, and reads nothing, fills no memory: it is cut off."""
        wire, asker = self.asking("ssh")
        for _ in range(100):
            wire.protocol.dataReceived(asker.ask(1000))
            if wire.disconnecting:
                break
        self.assertTrue(wire.disconnecting)
        self.assertLess(len(wire.value()), 1001 * REQUEST_BYTES)
        self.assert_refused(wire, "it asked for new TLS keys too often")
        self.assertTrue(self.ssh.made[-1].lost)

    def test_new_keys_now_and_then(self) -> None:
        """A client that asks for new keys every minute, far more often than any does, may do so for ever."""
        wire, asker = self.asking("ssh")
        for _ in range(1000):
            self.clock.advance(60)
            wire.protocol.dataReceived(asker.ask())
            wire.clear()
        wire.protocol.dataReceived(asker.data(b"still here"))
        self.assertEqual((self.ssh.made[-1].received, self.refusals), (b"still here", []))

    def test_post_quantum(self) -> None:
        """A client that knows it gets the hybrid key exchange."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        wire = self.arrive()
        for _ in range(4):
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                wire.protocol.dataReceived(connection.bio_read(65536))
            except SSL.WantReadError:
                pass
            if wire.value():
                connection.bio_write(wire.value())
                wire.clear()
        self.assertEqual(connection.get_group_name(), "X25519MLKEM768")


class WebTests(DoorTestCase):
    """A door with a web server behind it."""

    def setUp(self) -> None:
        """Make the web server first."""
        self.web = Greeters()
        super().setUp()

    def test_web(self) -> None:
        """A browser reaches the web server, and is not asked for a certificate."""
        client = TLSClient("h2", "http/1.1")
        self.connect(client)
        self.assertEqual(client.tls.selected_alpn_protocol(), "h2")
        assert self.web is not None
        self.assertEqual((len(self.web.made), len(self.ssh.made)), (1, 0))

    def test_ssh(self) -> None:
        """SSH stays where it was."""
        self.connect(TLSClient("ssh"))
        self.assertEqual(len(self.ssh.made), 1)


class RefusalTests(DoorTestCase):
    """Who does not even get a handshake."""

    limits = Limits(visits=4, visits_per_address=2)

    def test_plain_text(self) -> None:
        """Who does not speak TLS is closed at once."""
        for text in (b"SSH-2.0-OpenSSH_9.2p1\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 40):
            self.refusals.clear()
            wire = self.arrive()
            wire.protocol.dataReceived(text)
            self.assert_refused(wire, "not TLS")

    def test_broken_handshake(self) -> None:
        """A handshake that makes no sense is refused with OpenSSL's words."""
        wire = self.arrive()
        wire.protocol.dataReceived(b"\x16\x03\x01\x00\x05hello")
        self.assert_refused(wire, "TLS: ")

    def test_tls12(self) -> None:
        """TLS 1.2 is refused unless it is allowed."""
        client = TLSClient("ssh", version=ssl.TLSVersion.TLSv1_2)
        wire = self.connect(client)
        self.assertIn("protocol version", str(client.error))
        self.assert_refused(
            wire, "unsupported protocol (the client's TLS is older than what tls.minimum_version allows"
        )

    def test_tls12_from_now_on(self) -> None:
        """Whether TLS 1.2 is good enough may change; who is there stays, and certificates are renewed as before."""
        self.door.accept_tls12(True)
        old = TLSClient(version=ssl.TLSVersion.TLSv1_2)
        wire = self.connect(old)
        self.assertEqual(old.received, b"SSH-2.0-test\r\n")
        self.door.show(self.authority.renew())
        self.connect(TLSClient(version=ssl.TLSVersion.TLSv1_2))
        self.assertEqual((len(self.ssh.made), self.refusals), (2, []))
        self.door.accept_tls12(False)
        refused = TLSClient(version=ssl.TLSVersion.TLSv1_2)
        self.connect(refused)
        self.assertFalse(refused.shaken)
        old.tls.write(b"still here")
        self.converse(old, wire)
        self.assertTrue(old.received.endswith(b"still here"))

    def test_slow_handshake(self) -> None:
        """Who does not finish the handshake in its time is closed, also when bytes keep trickling in."""
        wire, client = self.arrive(), TLSClient("ssh")
        client.feed(b"")
        hello = client.outgoing.read()
        for index in range(9):
            self.clock.advance(1)
            wire.protocol.dataReceived(hello[index : index + 1])
        self.assertEqual(self.refusals, [])
        self.clock.advance(1)
        self.assert_refused(wire, "no TLS handshake within 10 s")

    def test_gone(self) -> None:
        """Who connects and leaves, as health checks do, is not reported."""
        wire = self.arrive()
        wire.lose()
        self.assertEqual((self.refusals, len(self.door.visits)), ([], 0))
        self.arrive()
        self.arrive()
        self.assertEqual(len(self.door.visits), 2)

    def test_too_many_from_one_address(self) -> None:
        """One address gets so many unfinished connections and no more; others are not touched."""
        wires = [self.arrive(), self.arrive()]
        self.assertIsNone(self.door.buildProtocol(wires[0].getPeer()))
        self.assertEqual(self.refusals, [("tls", "192.0.2.1", "", CROWDED)])
        self.arrive("192.0.2.2")
        wires[0].lose()
        self.arrive()

    def test_one_address(self) -> None:
        """An IPv6 site counts as one address, whichever of its many it uses; a mapped IPv4 address is what it is."""
        self.assertEqual(origin("2001:db8::1%eth0"), origin("2001:db8::ffff:2"))
        self.assertNotEqual(origin("2001:db8::1"), origin("2001:db8:0:1::1"))
        self.assertEqual(origin("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(origin("192.0.2.1"), "192.0.2.1")
        for host in ("2001:db8::1", "2001:db8::2"):
            self.arrive(host)
        self.assertIsNone(self.door.buildProtocol(Wire("2001:db8::3").getPeer()))
        self.assertEqual(self.refusals[0][1], "2001:db8::3")

    def test_log(self) -> None:
        """A refusal is told once, to the server, whose log has a line for it; what a client sent in it is data."""
        with capturedLogs() as logs:
            self.connect(TLSClient("{secret}\n"))
        self.assertEqual([formatEvent(event) for event in logs], [])
        self.assertEqual(self.refusals, [("tls", "192.0.2.1:40000", "", "nothing here speaks '{secret}\\n'")])

    def test_too_many(self) -> None:
        """All together get so many; a connection that is through does not count. Then the oldest has to go."""
        through = TLSClient("ssh")
        self.connect(through)
        wires = [self.arrive(f"192.0.2.{host}") for host in range(1, 5)]
        self.assertEqual(len(self.door.visits), 4)
        newcomer = TLSClient("ssh")
        self.connect(newcomer)
        self.assertEqual(newcomer.received, b"SSH-2.0-test\r\n")
        for each in wires:
            each.settle()
        self.assertEqual([wire.connected for wire in wires], [False, True, True, True])
        self.assertEqual(self.refusals, [("tls", "192.0.2.1", "", CROWDED)])

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(st.lists(st.binary(max_size=80) | st.sampled_from(BEGINNINGS), max_size=6))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """Whatever somebody says in place of a handshake, he gets no further, and nothing of him stays."""
        wire = self.arrive()
        for piece in pieces:
            if wire.connected:
                wire.protocol.dataReceived(piece)
        self.clock.advance(self.limits.handshake)
        wire.settle()
        self.assertFalse(wire.connected)
        self.assertEqual((len(self.door.visits), self.clock.getDelayedCalls(), self.ssh.made), (0, [], []))
        self.assertEqual(len(self.refusals), 1)
        self.assertLess(len(self.refusals[0][3]), 400)
        self.refusals.clear()

    def test_flood(self) -> None:
        """However many silent connections come, who comes to speak gets through at once; the log stays short."""
        for host in range(100):
            self.arrive(f"198.51.100.{host}")
            client = TLSClient("ssh")
            self.connect(client)
            self.assertTrue(client.shaken)
        self.assertEqual(len(self.refusals), 1)
        # One place is that of the last who has spoken.
        self.assertEqual(len(self.door.visits), self.limits.visits - 1)
        self.clock.advance(self.limits.handshake)
        self.assertEqual((len(self.door.visits), self.clock.getDelayedCalls()), (0, []))
        for refusal in self.refusals[1:]:
            self.assertIn("no TLS handshake", refusal[3])

    def test_departed(self) -> None:
        """For who has begun a handshake and closed nothing is computed, and nobody is told."""
        near, far = tcp_pair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        client = TLSClient("ssh")
        client.feed(b"")
        hello = client.outgoing.read()
        here, gone = self.arrive(), self.arrive()
        here.fileno = gone.fileno = near.fileno
        here.protocol.dataReceived(hello)
        self.assertNotEqual(here.value(), b"")
        far.close()
        gone.protocol.dataReceived(hello)
        gone.settle()
        self.assertEqual((gone.value(), gone.connected, self.refusals), (b"", False, []))
        self.assertEqual(len(self.door.visits), 1)

    def test_put_out_at_its_ticket(self) -> None:
        """Who has shaken hands and shows no ticket makes room for others who do, and its end is not told twice."""
        wires = []
        for host in range(1, 6):
            wires.append(self.arrive(f"192.0.2.{host}"))
            self.converse(TLSClient("rdv-tunnel/1", identity=Identity()), wires[-1])
            self.clock.advance(PROGRESS_SECONDS)
        for wire in wires:
            wire.settle()
        self.assertEqual([wire.connected for wire in wires], [False, True, True, True, True])
        self.assertEqual(self.refusals, [("tls", "192.0.2.1", "", CROWDED)])
        self.arrive("192.0.2.6")
        self.arrive("192.0.2.7")
        wires[1].settle()
        self.assertEqual([wire.connected for wire in wires], [False, False, True, True, True])


class TunnelTests(DoorTestCase):
    """Tunnel streams up to the end of the outer TLS."""

    tls12 = True

    def setUp(self) -> None:
        """A device with a ticket."""
        super().setUp()
        self.identity = Identity()
        self.seat = Seat()
        self.office.tickets["good"] = (self.identity.public, self.seat)

    def tunnel(self, identity: Identity | None = None) -> tuple[TLSClient, Wire]:
        """A device connects for a tunnel."""
        client = TLSClient("rdv-tunnel/1", identity=identity or self.identity)
        return client, self.connect(client)

    def say(self, client: TLSClient, wire: Wire, *pieces: bytes) -> None:
        """The device says something."""
        for piece in pieces:
            client.tls.write(piece)
            self.converse(client, wire)

    def refuse(self, *pieces: bytes, reason: str, identity: Identity | None = None) -> None:
        """What the device says is refused before it is answered OK; the device is told why, and TLS closed in order."""
        client, wire = self.tunnel(identity)
        self.say(client, wire, *pieces)
        self.assert_refused(wire, reason)
        self.assertTrue(client.received.startswith(b"ERR "), client.received)
        self.assertIn(reason.encode("ascii"), client.received)
        self.assertEqual(client.received.count(b"\n"), 1)
        self.assertTrue(client.closed)
        self.assertEqual(self.seat.streams, [])

    def test_ticket(self) -> None:
        """A good ticket is answered OK; nobody is in the seat before the outer TLS is closed."""
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-TUNNEL/1 good\n")
        self.assertEqual(client.received, b"OK\n")
        self.assertEqual((self.office.tickets, self.seat.streams), ({}, []))
        client.close()
        wire.protocol.dataReceived(client.outgoing.read())
        self.assertIsNotNone(wire.producer)
        self.assertFalse(wire.streaming)

    def test_pieces(self) -> None:
        """The line may come in pieces."""
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-T", b"UNNEL/1 go", b"od", b"\n")
        self.assertEqual(client.received, b"OK\n")

    def test_all_kinds_of_keys(self) -> None:
        """Devices may have Ed25519, ECDSA and RSA keys; the ticket is compared with the key as SSH writes it."""
        kinds: list[Callable[[], Identity]] = [
            lambda: Identity(ed25519.Ed25519PrivateKey.generate()),
            lambda: Identity(ec.generate_private_key(ec.SECP256R1())),
            lambda: Identity(ec.generate_private_key(ec.SECP384R1())),
            lambda: Identity(rsa.generate_private_key(65537, 2048)),
        ]
        for kind in kinds:
            identity = kind()
            self.office.tickets["good"] = (identity.public, self.seat)
            client, wire = self.tunnel(identity)
            self.say(client, wire, b"RDV-TUNNEL/1 good\n")
            self.assertEqual(client.received, b"OK\n", identity.public.algorithm)

    def test_strange_key(self) -> None:
        """A key of a kind that SSH does not know is refused."""
        identity = Identity(ec.generate_private_key(ec.BrainpoolP256R1()))
        client = TLSClient("rdv-tunnel/1", identity=identity)
        wire = self.arrive()
        try:
            self.converse(client, wire)
            self.say(client, wire, b"RDV-TUNNEL/1 good\n")
        except ssl.SSLError as error:
            client.error = error
        self.assertFalse(wire.connected or client.received.startswith(b"OK"))
        self.assertEqual((len(self.refusals), self.seat.streams), (1, []))

    def test_no_certificate(self) -> None:
        """A tunnel without client certificate is refused in the handshake."""
        client = TLSClient("rdv-tunnel/1")
        wire = self.connect(client)
        self.assertIn("certificate required", str(client.error))
        self.assert_refused(wire, "peer did not return a certificate")

    def test_tls12(self) -> None:
        """A tunnel over TLS 1.2 is refused, also where SSH may use it."""
        client = TLSClient("rdv-tunnel/1", identity=self.identity, version=ssl.TLSVersion.TLSv1_2)
        wire = self.connect(client)
        self.assertIn("no application protocol", str(client.error))
        self.assert_refused(wire, "a tunnel needs TLS 1.3")

    def test_wrong_ticket(self) -> None:
        """An unknown ticket is refused."""
        self.refuse(b"RDV-TUNNEL/1 bad\n", reason="the ticket is unknown")

    def test_anothers_ticket(self) -> None:
        """Another device's ticket is refused, and stays good for its owner."""
        thief = Identity()
        self.refuse(b"RDV-TUNNEL/1 good\n", reason=thief.public.fingerprint, identity=thief)
        self.assertIn("good", self.office.tickets)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(
        st.lists(
            st.binary(max_size=300)
            | st.sampled_from([b"RDV-TUNNEL/1 ", b"good", b"GOOD", b"\n", b"RDV-TUNNEL/2 good\n", b" good\n", b"\0"]),
            max_size=5,
        ).filter(lambda pieces: not b"".join(pieces).startswith(b"RDV-TUNNEL/1 good\n"))
    )
    def test_any_line(self, pieces: list[bytes]) -> None:
        """Whatever is shown in place of a ticket opens nothing, uses nothing up, and is answered once at most."""
        client, wire = self.tunnel()
        for piece in pieces:
            if piece and wire.connected:
                self.say(client, wire, piece)
        self.clock.advance(self.limits.ticket)
        self.converse(client, wire)
        wire.settle()
        self.assertFalse(wire.connected)
        self.assertEqual((len(self.door.visits), self.clock.getDelayedCalls(), self.seat.streams), (0, [], []))
        self.assertIn("good", self.office.tickets)
        self.assertLessEqual(client.received.count(b"\n"), 1)
        self.assertEqual(len(self.refusals), 1)
        self.refusals.clear()

    def test_second_use(self) -> None:
        """A ticket is good once."""
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-TUNNEL/1 good\n")
        wire.lose()
        self.refusals.clear()
        self.refuse(b"RDV-TUNNEL/1 good\n", reason="the ticket is unknown")

    def test_long_line(self) -> None:
        """A line beyond its limit is refused, with and without an end, at once and in pieces."""
        for pieces in (
            [b"x" * (LINE_LIMIT + 1)],
            [b"x" * LINE_LIMIT, b"x"],
            [b"x" * 16000],
            [b"x" * LINE_LIMIT + b"\n"],
        ):
            self.refusals.clear()
            self.refuse(*pieces, reason="the ticket line is too long")

    def test_longest_line(self) -> None:
        """A line of exactly its limit is read."""
        self.refuse(b"RDV-TUNNEL/1 " + b"x" * (LINE_LIMIT - 14) + b"\n", reason="the ticket is unknown")

    def test_no_ticket_line(self) -> None:
        """Another line, another version, no ticket, and bytes beyond ASCII are refused."""
        for line in (b"\n", b"hello\n", b"RDV-TUNNEL/2 good\n", b"RDV-TUNNEL/1\n", b"RDV-TUNNEL/1 \n", b"\xff\xfe\n"):
            self.refusals.clear()
            self.refuse(line, reason="a tunnel begins with")

    def test_behind_the_line(self) -> None:
        """Bytes in the line's record, or after it was answered, are refused."""
        self.refuse(b"RDV-TUNNEL/1 good\nmore", reason="bytes behind the ticket")
        self.refusals.clear()
        self.office.tickets["good"] = (self.identity.public, self.seat)
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-TUNNEL/1 good\n", b"more")
        self.assert_refused(wire, "bytes behind the ticket")
        self.assertEqual(self.seat.streams, [])

    def test_behind_the_end(self) -> None:
        """Bytes right behind the device's close_notify would be lost in here: refused."""
        for tail in (b"\x16", b"raw bytes", b"\x16\x03\x01\x00\x01x"):
            self.refusals.clear()
            self.office.tickets["good"] = (self.identity.public, self.seat)
            client, wire = self.tunnel()
            self.say(client, wire, b"RDV-TUNNEL/1 good\n")
            client.close()
            wire.protocol.dataReceived(client.outgoing.read() + tail)
            self.assert_refused(wire, "bytes behind the close_notify")

    def test_before_our_end(self) -> None:
        """Bytes that come after the device's close_notify and before ours is out are refused too."""
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-TUNNEL/1 good\n")
        client.close()
        wire.protocol.dataReceived(client.outgoing.read())
        self.assertEqual(self.refusals, [])
        wire.protocol.dataReceived(b"raw")
        self.assert_refused(wire, "bytes before the server's close_notify")
        self.assertEqual(self.seat.streams, [])

    def test_broken_record(self) -> None:
        """A record that does not decrypt is refused."""
        client, wire = self.tunnel()
        client.tls.write(b"RDV-TUNNEL/1 good\n")
        data = bytearray(client.outgoing.read())
        data[-1] ^= 1
        wire.protocol.dataReceived(bytes(data))
        self.assert_refused(wire, "TLS: ")
        self.assertIn("good", self.office.tickets)

    def test_closed_without_ticket(self) -> None:
        """A device that closes before its ticket is reported."""
        client, wire = self.tunnel()
        client.close()
        self.converse(client, wire)
        self.assert_refused(wire, "closed before its ticket")

    def test_lost_without_ticket(self) -> None:
        """A device that is lost before its tunnel began is reported."""
        _, wire = self.tunnel()
        wire.lose()
        self.assert_refused(wire, "closed before its tunnel began")

    def test_new_keys_without_end(self) -> None:
        """Who asks for new keys without end is cut off, before its ticket and behind it."""
        for ticket in ((), (b"RDV-TUNNEL/1 good\n",)):
            self.refusals.clear()
            wire, asker = self.asking("rdv-tunnel/1", identity=self.identity)
            for line in ticket:
                wire.protocol.dataReceived(asker.data(line))
            wire.clear()
            wire.protocol.dataReceived(asker.ask(SPARE_STEPS))
            self.assert_refused(wire, "it asked for new TLS keys too often")
        self.assertEqual(self.seat.streams, [])

    def test_slow_ticket(self) -> None:
        """Who shows no ticket in its time is closed."""
        client, wire = self.tunnel()
        self.say(client, wire, b"RDV-")
        self.clock.advance(10)
        self.converse(client, wire)
        self.assert_refused(wire, "no ticket within 10 s")
        self.assertIn(b"ERR no ticket", client.received)

    def test_slow_end(self) -> None:
        """Who does not close the outer TLS in its time is closed."""
        client, wire = self.tunnel()
        self.clock.advance(9)
        self.say(client, wire, b"RDV-TUNNEL/1 good\n")
        self.clock.advance(9)
        self.assertTrue(wire.connected)
        self.clock.advance(1)
        self.assert_refused(wire, "no end of the outer TLS within 10 s")

    def test_not_resumed(self) -> None:
        """A second connection cannot stand on the first one's proof: sessions are not resumed."""
        client, _ = self.tunnel()
        context = client.tls.context
        session = client.tls.session
        self.assertIsNotNone(session)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        again = TLSClient("rdv-tunnel/1", identity=self.identity)
        again.incoming, again.outgoing = incoming, outgoing
        again.tls = context.wrap_bio(incoming, outgoing, session=session)
        self.connect(again)
        self.assertTrue(again.shaken)
        self.assertFalse(again.tls.session_reused)


class NamedTests(DoorTestCase):
    """Tunnels of clients that know no ALPN: they ask by the server's name."""

    tls12 = True

    def setUp(self) -> None:
        """A device with a ticket."""
        super().setUp()
        self.identity = Identity()
        self.seat = Seat()
        self.office.tickets["good"] = (self.identity.public, self.seat)

    def test_ticket(self) -> None:
        """Who asks for the tunnel's name shows a ticket, and is a tunnel like any other."""
        client = TLSClient(identity=self.identity, name="rdv-tunnel")
        wire = self.connect(client)
        client.tls.write(b"RDV-TUNNEL/1 good\n")
        self.converse(client, wire)
        self.assertEqual(client.received, b"OK\n")
        client.close()
        wire.protocol.dataReceived(client.outgoing.read())
        self.assertIsNotNone(wire.producer)

    def test_no_certificate(self) -> None:
        """Without a certificate it is refused in the handshake."""
        client = TLSClient(name="rdv-tunnel")
        wire = self.connect(client)
        self.assertIn("certificate required", str(client.error))
        self.assert_refused(wire, "peer did not return a certificate")

    def test_tls12(self) -> None:
        """Over TLS 1.2 it is refused, with and without a certificate, also where SSH may use that."""
        for identity in (self.identity, None):
            self.refusals.clear()
            client = TLSClient(identity=identity, name="rdv-tunnel", version=ssl.TLSVersion.TLSv1_2)
            wire = self.connect(client)
            if identity is not None:
                self.assert_refused(wire, "a tunnel needs TLS 1.3")
            else:
                self.assert_refused(wire, "peer did not return a certificate")
        self.assertEqual(self.ssh.made, [])

    def test_ssh(self) -> None:
        """Who names a protocol gets that, under whatever name of the server; and is not asked for a certificate."""
        self.connect(TLSClient("ssh", name="rdv-tunnel"))
        self.assertEqual((len(self.ssh.made), self.refusals), (1, []))

    def test_other_name(self) -> None:
        """Any other name leads to the SSH server."""
        for name in ("localhost", "rdv-tunnel.example.com", "rdv"):
            self.connect(TLSClient(name=name))
        self.assertEqual((len(self.ssh.made), self.refusals), (3, []))
