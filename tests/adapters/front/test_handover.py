"""From TLS to raw bytes on one connection, over real sockets."""

from __future__ import annotations

import gc
import random
import socket
import ssl
import tempfile
from pathlib import Path

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.trial.unittest import TestCase

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.front.entrance import Entrance
from rdvtwisted.adapters.front.relay import Relay
from rdvtwisted.adapters.front.stream import TunnelStream
from rdvtwisted.adapters.front.turnstile import Turnstile
from tests.adapters.front.clients import Identity, Office, Seat, TLSClient
from tests.adapters.front.sockets import TunnelDevice, adopt, descriptors, released, settled
from tests.adapters.front.test_door import Greeters


class HandoverTests(TestCase):
    """Devices that come to the door's port with a ticket each."""

    timeout = 20

    async def setUp(self) -> None:
        """Open the door on a free port."""
        await settled()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        authority = Authority.open(Path(folder.name, "tls"), ["127.0.0.1"], reactor)
        self.office = Office()
        self.refusals: list[tuple[str, str, str, str]] = []
        self.door = Door(
            reactor, authority.credentials(), self.office, Greeters(), lambda *what: self.refusals.append(what)
        )
        self.port = reactor.listenTCP(0, self.door, interface="127.0.0.1")
        self.devices: list[TunnelDevice] = []
        self.relay = Relay(reactor)
        self.before = descriptors()

    async def tearDown(self) -> None:
        """Everything is closed."""
        await gatherResults([device.closed for device in self.devices])
        self.relay.close()
        await released(self.before)
        await maybeDeferred(self.port.stopListening)
        self.assertEqual(len(self.door.visits), 0)

    def device(self, ticket: str) -> tuple[TunnelDevice, Seat]:
        """A device that comes with a ticket for a seat of its own."""
        identity, seat = Identity(), Seat()
        self.office.tickets[ticket] = (identity.public, seat)
        device = TunnelDevice(TLSClient("rdv-tunnel/1", identity=identity), ticket)
        adopt(socket.create_connection(("127.0.0.1", self.port.getHost().port)), device)
        self.devices.append(device)
        return device, seat

    async def test_two_devices(self) -> None:
        """Two devices come through, are joined, and carry what they like, unaltered, both ways."""
        (onsite, first), (master, second) = self.device("one"), self.device("two")
        await gatherResults([onsite.through, master.through])
        (to_onsite,), (to_master,) = first.streams, second.streams
        self.assertEqual(to_onsite.address, f"127.0.0.1:{onsite.transport.getHost().port}")
        join = self.relay.join(to_onsite, to_master)
        data = random.Random(3).randbytes(2_000_000)
        onsite.transport.write(data)
        master.transport.write(data)
        await gatherResults([onsite.until(len(data)), master.until(len(data))])
        self.assertEqual(onsite.digest.digest(), master.digest.digest())
        self.assertEqual(join.traffic(), (len(data), len(data)))
        onsite.transport.loseConnection()
        await join.ended
        self.assertEqual(self.refusals, [])

    async def test_raw_bytes_at_once(self) -> None:
        """What a device sends right behind the outer TLS waits in the kernel for its partner."""
        onsite, first = self.device("one")
        await onsite.through
        onsite.transport.write(b"\x16\x03\x01 hello")
        master, second = self.device("two")
        await master.through
        join = self.relay.join(first.streams[0], second.streams[0])
        await master.until(9)
        join.stop()

    async def test_end_to_end_tls(self) -> None:
        """The two devices speak TLS with one another through the relay."""
        (onsite, first), (master, second) = self.device("one"), self.device("two")
        await gatherResults([onsite.through, master.through])
        join = self.relay.join(first.streams[0], second.streams[0])
        inner = TLSClient("rdv-end/1")
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = Path(self.mktemp())
        path.write_bytes(Identity().pem())
        server.load_cert_chain(path)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        answering = server.wrap_bio(incoming, outgoing, server_side=True)

        def answer(data: bytes) -> None:
            incoming.write(data)
            try:
                answering.do_handshake()
                answering.write(b"hello from the other end")
            except ssl.SSLWantReadError:
                pass
            onsite.transport.write(outgoing.read())

        def ask(data: bytes) -> None:
            inner.feed(data)
            master.transport.write(inner.outgoing.read())
            if inner.received:
                join.stop()

        onsite.dataReceived = answer
        master.dataReceived = ask
        ask(b"")
        await join.ended
        self.assertEqual(inner.received, b"hello from the other end")

    async def test_nothing_of_tls_stays(self) -> None:
        """Of a stream that is through nothing remains in memory but the stream itself, garbage collector or not."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        device, seat = self.device("one")
        await device.through
        kinds = (SSL.Connection, Entrance, Turnstile)
        self.assertEqual([found for found in gc.get_objects() if isinstance(found, kinds)], [])
        (stream,) = seat.streams
        assert isinstance(stream, TunnelStream)
        self.assertIs(stream.transport.protocol, stream)
        self.assertNotIn(stream.transport, reactor.getReaders() + reactor.getWriters())
        stream.abort()

    async def test_wrong_ticket(self) -> None:
        """A device with a wrong ticket reads why before the connection is closed."""
        device, seat = self.device("one")
        device.ticket = "two"
        error = await self.assertFailure(device.through, ValueError)
        self.assertIn(b"ERR the ticket is unknown", error.args[0])
        await device.closed
        self.assertEqual((len(self.refusals), seat.streams), (1, []))

    async def test_gone_before_its_partner(self) -> None:
        """A device that goes while it waits for its partner ends the join with its beginning."""
        onsite, first = self.device("one")
        await onsite.through
        onsite.transport.abortConnection()
        await onsite.closed
        master, second = self.device("two")
        await master.through
        await self.relay.join(first.streams[0], second.streams[0]).ended
