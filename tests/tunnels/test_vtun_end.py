"""The server's end of a C{vtun} tunnel among its clients, strangers and a packet device."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.errors import ConnectionLost, ProtocolError, RequestRefused, TunnelFailed
from rdvtwisted.interfaces import IServerTunnel
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.server_tunnels import MemoryServerSite, terms
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.testing.tunnels import PLAIN, packet
from rdvtwisted.values import Mode, Offloads
from tunnels.vtun_end import MOST_GUESTS, VtunServerTunnel
from tunnels.vtun_frames import LONGEST_PACKET, pack_header
from tunnels.vtun_guest import FAREWELL_LIMIT, Guest
from tunnels.vtun_handshake import answer, letters, message
from tunnels.vtun_intake import PACKETS_PER_TURN, SHORTEST_PACKET
from tunnels.vtun_server import HANDSHAKE_LIMIT, KEEPALIVE_INTERVAL, KEEPALIVE_MISSES, SETTLING_LIMIT

CLOSE, ECHO_REQUEST, ECHO_REPLY = b"\x10\x00", b"\x20\x00", b"\x40\x00"
ERR = message("ERR")
FLAGS = message("OK FLAGS: <TuK>")


def framed(mode: Mode, payload: bytes) -> bytes:
    """A packet as it goes on the wire."""
    bare = packet(mode, payload)[len(PLAIN) :]
    return pack_header(len(bare)) + bare


class Client:
    """A vtun client in memory, on a connection that the test fills, stops and breaks."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.transport = StringTransport()
        guest.makeConnection(self.transport)

    def heard(self) -> bytes:
        """What the server has said since last asked."""
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    def say(self, data: bytes) -> None:
        """Tell the server something."""
        self.guest.dataReceived(data)

    def prove(self, secret: str, session: str = "tundevrpi1100") -> None:
        """Go through the handshake up to the answer, whatever the server then says."""
        self.say(message(f"HOST: {session}"))
        found = re.search(rb"OK CHAL: <([a-p]{32})>", self.heard())
        assert found is not None
        challenge = bytes.fromhex(
            found[1].translate(bytes.maketrans(b"abcdefghijklmnop", b"0123456789abcdef")).decode()
        )
        self.say(message(f"CHAL: {letters(answer(challenge, secret))}"))

    def leave(self) -> None:
        """The connection is closed, without a word."""
        self.guest.connectionLost(Failure(ConnectionDone()))

    @property
    def refused(self) -> bool:
        """Whether the server said no, and closes."""
        return self.heard().endswith(ERR) and self.transport.disconnecting


class EndCase(SynchronousTestCase):
    """Has a tunnel, whose time and packets are the test's."""

    mode = Mode.L3

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.tunnel = VtunServerTunnel(terms(self.mode), MemoryServerSite(self.reactor))
        self.device = MemoryPacketDevice()
        self.addCleanup(self.device.close)
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._take_line)
        self.addCleanup(globalLogPublisher.removeObserver, self._take_line)

    def _take_line(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("tunnels."):
            self.lines.append(formatEvent(event))

    def client(self) -> Client:
        """Somebody connects."""
        return Client(self.tunnel.accept())

    def proved(self) -> Client:
        """Who knows the secret."""
        client = self.client()
        client.prove(self.tunnel.secret)
        return client

    def carrying(self) -> Client:
        """A client that carries packets."""
        self.tunnel.start(self.device)
        client = self.proved()
        client.say(framed(self.mode, b"first"))
        client.heard()
        return client

    def turn(self) -> None:
        """The reactor looks which descriptors are readable; all those that it watches are told."""
        for reader in list(self.reactor.readers):
            reader.doRead()

    def assert_nothing_held(self) -> None:
        """Neither a descriptor nor a delayed call, and the packet device is closed."""
        self.assertTrue(self.device.closed)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LetInTests(EndCase):
    """Who knows the secret comes in when the packet device is there."""

    def test_provides(self) -> None:
        """It is a server's tunnel."""
        self.assertTrue(verifyObject(IServerTunnel, self.tunnel))

    def test_device_first(self) -> None:
        """A client that comes after the device is let in at once; packets flow when its interface is up."""
        self.tunnel.start(self.device)
        client = self.proved()
        self.assertEqual(client.heard(), FLAGS + ECHO_REQUEST)
        self.assertNoResult(self.tunnel.opened)
        client.say(framed(Mode.L3, b"ping"))
        self.assertIsNone(self.successResultOf(self.tunnel.opened))
        self.assertEqual(self.device.written, [packet(Mode.L3, b"ping")])

    def test_client_first(self) -> None:
        """A client that comes before the device is told nothing until the device is there."""
        client = self.proved()
        self.assertEqual(client.heard(), b"")
        self.tunnel.start(self.device)
        self.assertEqual(client.heard(), FLAGS + ECHO_REQUEST)

    def test_no_packet_too_early(self) -> None:
        """Packets for a client wait in the kernel until its interface is up, and are not lost."""
        self.tunnel.start(self.device)
        sent = packet(Mode.L3, b"early")
        self.device.inject(sent)
        client = self.proved()
        client.heard()
        self.turn()
        self.assertEqual(client.heard(), b"")
        self.reactor.advance(SETTLING_LIMIT)
        self.assertIsNone(self.successResultOf(self.tunnel.opened))
        self.turn()
        self.assertEqual(client.heard(), framed(Mode.L3, b"early"))

    def test_late_device(self) -> None:
        """A client that waits in vain for the device is sent away, and the next one has the seat."""
        client = self.proved()
        self.reactor.advance(HANDSHAKE_LIMIT)
        self.assertTrue(client.refused)
        client.leave()
        other = self.proved()
        self.tunnel.start(self.device)
        self.assertEqual(other.heard(), FLAGS + ECHO_REQUEST)
        self.assertNoResult(self.tunnel.closed)
        self.assertEqual(len(self.lines), 1)

    def test_seat_left(self) -> None:
        """A client that hangs up while it waits for the device leaves its seat to the next."""
        self.proved().leave()
        other = self.proved()
        self.tunnel.start(self.device)
        self.assertEqual(other.heard(), FLAGS + ECHO_REQUEST)

    def test_no_offloads(self) -> None:
        """The kernel hands over no packet that a stock client could not take."""
        self.device.offloads = self.device.supported()
        self.tunnel.start(self.device)
        self.assertEqual(self.device.offloads, Offloads())


class CarryingTests(EndCase):
    """Packets both ways."""

    def test_batch(self) -> None:
        """What one turn finds leaves in one write; one turn finds only so much."""
        client = self.carrying()
        writes: list[bytes] = []
        client.transport.write = writes.append
        frames = []
        for number in range(PACKETS_PER_TURN + 3):
            self.device.inject(packet(self.mode, bytes([number]) * number * 10))
            frames.append(framed(self.mode, bytes([number]) * number * 10))
        self.turn()
        self.turn()
        self.turn()
        self.assertEqual(writes, [b"".join(frames[:PACKETS_PER_TURN]), b"".join(frames[PACKETS_PER_TURN:])])
        self.assertEqual(self.tunnel.traffic()[1], sum(len(frame) - 2 for frame in frames))

    def test_unfit(self) -> None:
        """What no stock client can take is left out."""
        client = self.carrying()
        fill = LONGEST_PACKET + len(PLAIN) - len(packet(self.mode, b""))
        longest = framed(self.mode, bytes(fill))
        for each in (
            PLAIN + bytes(SHORTEST_PACKET[self.mode] - 1),
            packet(self.mode, bytes(fill + 1)),
            PLAIN + longest[2:],
        ):
            self.device.inject(each)
        self.turn()
        self.assertEqual(client.heard(), longest)
        self.device.inject(PLAIN + bytes(SHORTEST_PACKET[self.mode]))
        self.turn()
        self.assertEqual(len(client.heard()), SHORTEST_PACKET[self.mode] + 2)

    def test_refused_packets(self) -> None:
        """A packet that the kernel refuses is lost, no more, and does not count."""
        client = self.carrying()
        counted = self.tunnel.traffic()[0]
        self.device.refuses = 1
        client.say(framed(self.mode, b"bad") + framed(self.mode, b"good"))
        self.assertEqual(self.device.written[1:], [packet(self.mode, b"good")])
        self.assertEqual(self.tunnel.traffic()[0] - counted, len(packet(self.mode, b"good")) - len(PLAIN))

    def test_stops_reading(self) -> None:
        """While a client does not read, neither is the packet device read, nor is anything piled up for the client."""
        client = self.carrying()
        transport = client.transport
        transport.producer.pauseProducing()
        self.assertEqual(self.reactor.getReaders(), [])
        for _ in range(1000):
            client.say(ECHO_REQUEST * 1000)
            self.device.inject(packet(self.mode, b"x"))
            self.turn()
        self.assertEqual(client.heard(), b"")
        client.say(framed(self.mode, b"still heard"))
        self.assertEqual(self.device.written[1:], [packet(self.mode, b"still heard")])
        transport.producer.resumeProducing()
        self.assertEqual(client.heard(), ECHO_REPLY)
        self.turn()
        self.assertTrue(client.heard().startswith(framed(self.mode, b"x")))

    def test_silence(self) -> None:
        """A client that has fallen silent is asked, then given up."""
        client = self.carrying()
        self.reactor.advance(SETTLING_LIMIT)
        for _ in range(KEEPALIVE_MISSES):
            self.reactor.advance(KEEPALIVE_INTERVAL)
            self.assertEqual(client.heard(), ECHO_REQUEST)
        self.reactor.advance(KEEPALIVE_INTERVAL)
        self.assertEqual(client.heard(), CLOSE)
        client.leave()
        error = self.failureResultOf(self.tunnel.closed, ConnectionLost).value
        self.assertIn("silent", str(error))
        self.assert_nothing_held()


class EndTests(EndCase):
    """However it ends, nothing is left."""

    def test_goodbye(self) -> None:
        """A client that says goodbye ends the tunnel in order."""
        client = self.carrying()
        client.say(framed(Mode.L3, b"last") + CLOSE)
        self.assertTrue(client.transport.disconnecting)
        self.assertNoResult(self.tunnel.closed)
        client.leave()
        self.assertIsNone(self.successResultOf(self.tunnel.closed))
        self.assertEqual(self.device.written[-1], packet(Mode.L3, b"last"))
        self.assert_nothing_held()

    def test_hangs_up(self) -> None:
        """A client that just hangs up, as stock ones do, ends the tunnel with a calm line."""
        self.carrying().leave()
        error = self.failureResultOf(self.tunnel.closed, ConnectionLost).value
        self.assertEqual(str(error), "the vtun client closed the connection without a goodbye")
        self.assert_nothing_held()

    def test_close(self) -> None:
        """Who is in is told goodbye, who is not is refused; and it is over when they are gone."""
        client, stranger = self.carrying(), self.client()
        stranger.heard()
        first, second = self.tunnel.close(), self.tunnel.close()
        self.assertEqual(client.heard(), CLOSE)
        self.assertTrue(stranger.refused)
        self.assertTrue(self.device.closed)
        client.leave()
        self.assertNoResult(first)
        stranger.leave()
        for gone in (first, second, self.tunnel.closed, self.tunnel.close()):
            self.assertIsNone(self.successResultOf(gone))
        self.assert_nothing_held()
        self.assertRaises(RequestRefused, self.tunnel.accept)

    def test_nobody_closes(self) -> None:
        """A client that neither reads nor hangs up is cut off."""
        client = self.carrying()
        client.transport.producer.pauseProducing()
        gone = self.tunnel.close()
        self.reactor.advance(FAREWELL_LIMIT)
        self.assertTrue(client.transport.disconnected)
        self.assertIsNone(self.successResultOf(gone))
        client.leave()
        self.assert_nothing_held()

    def test_not_connected(self) -> None:
        """A connection that is still on its way when the tunnel is closed is not waited for, and cut off."""
        guest = self.tunnel.accept()
        self.assertIsNone(self.successResultOf(self.tunnel.close()))
        client = Client(guest)
        self.assertTrue(client.transport.disconnected)
        self.assertEqual(client.heard(), b"")
        client.leave()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_interface_vanishes(self) -> None:
        """A packet device that is gone ends the tunnel, found out in reading or in writing."""
        for find in (lambda client: self.turn(), lambda client: client.say(framed(Mode.L3, b"x"))):
            self.setUp()
            client = self.carrying()
            self.device.vanish()
            find(client)
            self.assertEqual(client.heard(), CLOSE)
            client.leave()
            self.failureResultOf(self.tunnel.closed, TunnelFailed)
            self.assert_nothing_held()

    def test_start_after_close(self) -> None:
        """A packet device that comes too late is closed at once."""
        self.assertIsNone(self.successResultOf(self.tunnel.close()))
        self.tunnel.start(self.device)
        self.assert_nothing_held()
        self.assertNoResult(self.tunnel.opened)


class StrangerTests(EndCase):
    """Who may not come in, and what becomes of the one who is: nothing."""

    def assert_unharmed(self, client: Client) -> None:
        """Its packets go both ways."""
        client.say(framed(Mode.L3, b"there"))
        self.assertEqual(self.device.written[-1], packet(Mode.L3, b"there"))
        self.device.inject(packet(Mode.L3, b"back"))
        self.turn()
        self.assertEqual(client.heard(), framed(Mode.L3, b"back"))
        self.assertNoResult(self.tunnel.closed)

    def assert_one_line(self, words: str) -> None:
        """Exactly one line was logged, and nothing of the secret."""
        self.assertEqual(len(self.lines), 1, self.lines)
        self.assertIn("The vtun tunnel of rpi1100 turned a client away: ", self.lines[0])
        self.assertIn(words, self.lines[0])
        self.assertNotIn(self.tunnel.secret, self.lines[0])

    def test_refusals(self) -> None:
        """Another protocol, huge lengths, a wrong secret and another session each cost one line and harm nobody."""
        for said, words in (
            (b"GET / HTTP/1.1\r\n\r\n", "not a vtun client"),
            (b"\xff\xff" + bytes(65_535), "not a vtun client"),
            (bytes([255]) * 65_535, "not a vtun client"),
            (message("HOST: tundevrpi1101"), "tundevrpi1101"),
        ):
            self.setUp()
            client = self.carrying()
            self.lines.clear()
            stranger = self.client()
            stranger.say(said)
            self.assertTrue(stranger.refused, said[:20])
            stranger.say(said)
            self.assert_unharmed(client)
            stranger.leave()
            self.assert_one_line(words)

    def test_wrong_secret(self) -> None:
        """A wrong secret is refused."""
        client = self.carrying()
        self.lines.clear()
        stranger = self.client()
        stranger.prove("wrong")
        self.assertTrue(stranger.refused)
        self.assert_unharmed(client)
        self.assert_one_line("secret")

    def test_second_client(self) -> None:
        """A second client is refused though it knows the secret, also while the first still waits for the device."""
        client = self.carrying()
        self.lines.clear()
        self.assertTrue(self.proved().refused)
        self.assert_unharmed(client)
        self.assert_one_line("another one is in already")

    def test_second_in_waiting(self) -> None:
        """Who waits for the device first has the seat."""
        first, second = self.proved(), self.proved()
        self.assertTrue(second.refused)
        self.tunnel.start(self.device)
        self.assertEqual(first.heard(), FLAGS + ECHO_REQUEST)

    def test_long_frames(self) -> None:
        """A client that is in and sends a frame of 65,535 bytes is out, in one line."""
        for header in (b"\xff\xff", b"\x0f\xff"):
            self.setUp()
            client = self.carrying()
            client.say(header + bytes(4096))
            client.leave()
            error = self.failureResultOf(self.tunnel.closed, ProtocolError).value
            self.assertIn("bad header", str(error))
            self.assert_nothing_held()

    def test_too_many(self) -> None:
        """Only so many may stand there at a time; one that goes makes room."""
        clients = [self.client() for _ in range(MOST_GUESTS)]
        self.assertRaises(RequestRefused, self.tunnel.accept)
        clients[1].leave()
        self.client()
        self.assertRaises(RequestRefused, self.tunnel.accept)

    def test_stays(self) -> None:
        """A stranger that says nothing, or does not go when it is refused, is cut off after a while."""
        silent, refused = self.client(), self.client()
        refused.say(b"hello")
        self.reactor.advance(FAREWELL_LIMIT)
        self.assertTrue(refused.transport.disconnected)
        self.reactor.advance(HANDSHAKE_LIMIT)
        self.assertTrue(silent.transport.disconnecting)
        self.assertEqual(len(self.lines), 2)

    def test_flood(self) -> None:
        """However many come with the same, they make one line; how many there were is told all the same."""
        for _ in range(100):
            client = self.client()
            client.say(b"hello")
            client.leave()
        self.assertEqual(len(self.lines), 1)
        self.client().leave()
        self.assertEqual(len(self.lines), 3)
        self.assertIn("99 more", self.lines[-1])
        self.client().leave()
        self.assertEqual(len(self.lines), 3)
        self.tunnel.close()
        self.assertIn("1 more", self.lines[-1])

    def test_stream(self) -> None:
        """A stream, which is for other kinds of tunnels, is closed."""
        stream = MemoryStream()
        self.tunnel.occupy(stream)
        self.assertTrue(stream.aborted)
        self.assertNoResult(self.tunnel.closed)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=10), st.booleans())
    def test_anything(self, pieces: list[bytes], admitted: bool) -> None:
        """Whatever a client says, before it is let in or after, nothing fails, and nothing is left when it is gone."""
        self.setUp()
        client = self.carrying() if admitted else self.client()
        for piece in pieces:
            client.say(piece)
        self.turn()
        client.leave()
        self.assertEqual(self.tunnel.closed.called, admitted)
        self.tunnel.closed.addErrback(lambda failure: None)
        self.tunnel.close()
        self.device.close()
        self.assert_nothing_held()


class BridgedTests(CarryingTests):
    """Ethernet frames go as packets do."""

    mode = Mode.L2

    def test_flags(self) -> None:
        """The client is told that it has Ethernet."""
        self.tunnel.start(self.device)
        self.assertEqual(self.proved().heard(), message("OK FLAGS: <TeK>") + ECHO_REQUEST)
