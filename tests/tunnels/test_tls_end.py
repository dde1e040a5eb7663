"""The server's end of a C{tls} tunnel, and who comes to it with a stream: the device, and others."""

from __future__ import annotations

import socket
from typing import Any

from attrs import evolve
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from rdvtwisted.errors import PeerKeyChanged, ProtocolError, RDVError, RequestRefused, TunnelFailed, TunnelSilent
from rdvtwisted.testing.packets import ALL_OFFLOADS, MemoryPacketDevice
from rdvtwisted.testing.server_tunnels import MemoryServerSite, WatchedReactor, terms
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.testing.tunnels import MemoryIdentity, identity, packet
from rdvtwisted.values import Mode, Offloads, Role
from tests.tunnels.frames import frames
from tests.tunnels.session import ClockedReactor
from tunnels.conversation import Conversation
from tunnels.credentials import PeerKey, packet_context
from tunnels.hello import Hello
from tunnels.meeting import HANDSHAKE_LIMIT, PARTNER_LIMIT, meet
from tunnels.packets import ANSWER, GOODBYE, HEARTBEAT, PACKET, frame
from tunnels.passage import HELLO_LIMIT
from tunnels.tls_end import TLSServerTunnel

PULSE = (5.0, 15.0)

HELLO = Hello("rpi1100", Mode.L3, 1450, ALL_OFFLOADS, "test")


class CarefulStream(MemoryStream):
    """A stream that minds whether its socket is still watched when it is closed."""

    def __init__(self, connected: socket.socket, watched: WatchedReactor) -> None:
        super().__init__(socket=connected)
        self._watched = watched
        self.watched_at_end: list[object] = []

    def abort(self) -> None:
        """Close it, and keep in mind who watches it."""
        if not self.aborted:
            self.watched_at_end = [
                each for each in self._watched.held() if isinstance(each, tuple) and each[1].fileno() == self.fileno()
            ]
        super().abort()


class Guest:
    """The far end of a stream, in the hands of the test."""

    def __init__(self, case: EndCase) -> None:
        near, self.socket = socket.socketpair()
        near.setblocking(False)
        self.socket.setblocking(False)
        case.sockets += [near, self.socket]
        self.stream = CarefulStream(near, case.watched)
        self._case = case

    async def meet(self, own: MemoryIdentity | None = None, server: MemoryIdentity | None = None) -> None:
        """Shake hands, as a device with this identity that expects the server to have that one."""
        case = self._case
        key = PeerKey("the server", (server or case.site.identity).public)
        first = case.role is Role.ONSITE
        context = packet_context(own or case.own, key, first, True)
        self.connection: SSL.Connection = await meet(case.reactor, self.socket, context, key, first)
        self._conversation = Conversation(case.reactor, self.socket, self.connection)

    def say(self, data: bytes) -> None:
        """Send these bytes, which must fit into the socket."""
        self.connection.send(data)

    async def hear_all(self) -> bytes:
        """All that comes until the other end leaves."""
        heard = b""
        try:
            while True:
                heard += await self._conversation.attempt(lambda: self.connection.recv(65536))
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return heard

    async def open(self) -> None:
        """Say hello, and answer the first heartbeat: packets flow."""
        self.say(HELLO.encode())
        heard = b""
        while len(frames(heard)) < 2:
            heard += await self._conversation.attempt(lambda: self.connection.recv(65536))
        (_, self.hello), (_, stamp) = frames(heard)
        self.say(frame(ANSWER, stamp))


class EndCase(TestCase):
    """Has a tunnel, started, whose time is the test's."""

    timeout = 30

    role = Role.ONSITE

    def setUp(self) -> None:
        self.reactor = ClockedReactor()
        self.watched = WatchedReactor(self.reactor)
        self.site, self.own = MemoryServerSite(self.watched), identity("rpi1100")
        self.tunnel = TLSServerTunnel(terms(Mode.L3, role=self.role, key=self.own.public), self.site, PULSE)
        self.device = MemoryPacketDevice()
        self.sockets: list[socket.socket] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self._close()))
        self.tunnel.start(self.device)
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._take_line)
        self.addCleanup(globalLogPublisher.removeObserver, self._take_line)

    async def _close(self) -> None:
        self.tunnel.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
        closing = self.tunnel.close()
        self.reactor.clock.advance(1.1)
        await closing
        for each in self.sockets:  # which the tunnel may have watched
            each.close()

    def _take_line(self, event: LogEvent) -> None:
        if "turned a stream away" in formatEvent(event):
            self.lines.append(formatEvent(event))

    def come(self) -> Guest:
        """Somebody's stream is here."""
        guest = Guest(self)
        self.tunnel.occupy(guest.stream)
        return guest

    async def opened(self) -> Guest:
        """The device is here, and packets flow."""
        guest = self.come()
        await guest.meet()
        await guest.open()
        await self.tunnel.opened
        return guest

    async def turns(self) -> None:
        """Let the reactor turn until all that was sent has been looked at."""
        for _ in range(10):
            await deferLater(reactor, 0)  # type: ignore[arg-type]

    async def over(self, kind: type[RDVError]) -> str:
        """The words with which the tunnel fails; nothing is held any more, nor was the socket when it was closed."""
        with self.assertRaises(kind) as caught:
            await self.tunnel.closed
        self.assert_nothing_held()
        return str(caught.exception)

    def assert_nothing_held(self) -> None:
        """Neither a descriptor nor a delayed call, and the packet device is closed."""
        self.assertTrue(self.device.closed)
        self.assertEqual(self.watched.held(), [])

    def assert_turned_away(self, guest: Guest, *words: str) -> None:
        """In one line with these words, the stream's socket watched by nobody; the tunnel waits for the device."""
        self.assertTrue(guest.stream.aborted)
        self.assertEqual(guest.stream.watched_at_end, [])
        (line,) = self.lines
        self.assertNotIn("\n", line)
        for each in ("The tls tunnel of rpi1100 turned a stream away: ", *words):
            self.assertIn(each, line)
        self.lines.clear()
        self.assertFalse(self.tunnel.closed.called or self.device.closed)


class DeviceTests(EndCase):
    """The device itself."""

    async def test_hello(self) -> None:
        """The server says who it is, the mode and the MTU, and reads only such packets as the device can take."""
        guest = await self.opened()
        said = Hello.decode(guest.hello)
        self.assertEqual((said.device, said.mode, said.mtu), ("the server", Mode.L3, 1450))
        self.assertEqual(self.device.offloads, ALL_OFFLOADS)
        guest.say(frame(PACKET, packet(Mode.L3, b"in")))
        self.assertEqual(await self.device.when_written(1), [packet(Mode.L3, b"in")])

    async def test_weak_device(self) -> None:
        """A device that cannot take large packets gets none."""
        guest = self.come()
        await guest.meet()
        guest.say(evolve(HELLO, offloads=Offloads()).encode())
        await self.turns()
        self.assertEqual(self.device.offloads, Offloads())

    async def assert_ends(self, said: bytes, kind: type[RDVError], words: str, goodbye: str) -> None:
        """This ends the tunnel, and the device is told why."""
        guest = self.come()
        await guest.meet()
        guest.say(said)
        heard = frames(await guest.hear_all())
        self.assertEqual([payload.decode() for number, payload in heard if number == GOODBYE], [goodbye])
        guest.socket.close()
        self.assertIn(words, await self.over(kind))
        self.assertEqual(guest.stream.watched_at_end, [])

    async def test_other_mode(self) -> None:
        """A device that builds the other kind of tunnel is told so."""
        hello = evolve(HELLO, mode=Mode.L2).encode()
        await self.assert_ends(hello, TunnelFailed, "rpi1100 builds an L2 tunnel, this end an L3 one", "mode-is-L3")

    async def test_other_name(self) -> None:
        """A device with the right key that calls itself otherwise is not what it should be."""
        hello = evolve(HELLO, device="rpi1101").encode()
        await self.assert_ends(hello, TunnelFailed, "it is 'rpi1101', not rpi1100", "unexpected-device")

    async def test_garbage(self) -> None:
        """What is no frame ends it."""
        await self.assert_ends(b"\xff" * 65_535, ProtocolError, "bad length", "protocol-error")

    async def test_no_hello(self) -> None:
        """A device that says no hello is given up."""
        guest = self.come()
        await guest.meet()
        await self.turns()
        # Not silent, but without the word that counts.
        for _ in range(int(HELLO_LIMIT)):
            guest.say(frame(HEARTBEAT, bytes(8)))
            await self.turns()
            self.assertFalse(self.tunnel.closed.called)
            self.reactor.clock.advance(1.0)
        self.assertIn("rpi1100 did not say hello within 15 s", await self.over(TunnelFailed))

    async def test_silence(self) -> None:
        """A device that has fallen silent is given up."""
        await self.opened()
        self.reactor.clock.pump([2.5] * 6)
        self.assertIn("fell silent", await self.over(TunnelSilent))

    async def test_deaf(self) -> None:
        """Closing takes a second at most, even if the device does not read."""
        await self.opened()
        closing = self.tunnel.close()
        self.assertTrue(self.device.closed)
        self.reactor.clock.advance(1.1)
        await closing
        await self.tunnel.closed
        self.assert_nothing_held()

    async def test_stops_reading(self) -> None:
        """While the device takes nothing the packet device is not read, and nothing piles up."""
        await self.opened()
        taken = quiet = 0
        big = packet(Mode.L3, bytes(60_000))
        while quiet < 50:
            quiet = 0 if self.device.inject(big) else quiet + 1
            taken += not quiet
            await self.turns()
        self.assertLess(taken * len(big), 8 * 2**20)
        self.assertFalse(self.tunnel.closed.called)


class StrangerTests(EndCase):
    """Others, after whom the device can still come."""

    async def test_other_key(self) -> None:
        """Who has another key than the device is turned away, in one line that shows the key."""
        guest, other = self.come(), identity("rpi1100")
        meeting = Deferred.fromCoroutine(guest.meet(other))
        meeting.addErrback(lambda failure: failure.trap(RDVError) and None)
        while not guest.stream.aborted:
            await self.turns()
        await meeting
        self.assert_turned_away(guest, other.public.fingerprint)
        await self.opened()

    async def test_refuses_us(self) -> None:
        """
        A device that expects another key of the server says so itself. Here it is gone, if it had shown its own
        key before; else a stranger has left.
        """
        guest = self.come()
        with self.assertRaises(PeerKeyChanged) as caught:
            await guest.meet(server=identity("rdv-server"))
        self.assertIn("the key of the server has changed", str(caught.exception))
        guest.socket.close()
        if self.role is Role.ONSITE:
            self.assertIn("the tunnel to rpi1100 broke", await self.over(TunnelFailed))
            return
        while not guest.stream.aborted:
            await self.turns()
        self.assert_turned_away(guest, "rpi1100 broke off the TLS handshake")
        await self.opened()

    async def test_not_tls(self) -> None:
        """What is not TLS is turned away, also when it has long lengths."""
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 65_535, b"\x16\x03\x03\xff\xff" + bytes(100)):
            guest = self.come()
            guest.socket.sendall(said[:60_000])
            while not guest.stream.aborted:
                await self.turns()
            self.assert_turned_away(guest, "TLS")
        await self.opened()

    async def test_hangs_up(self) -> None:
        """Who hangs up before the handshake is over, or before there was a packet device, is forgotten."""
        guest = self.come()
        guest.socket.close()
        while not guest.stream.aborted:
            await self.turns()
        self.assert_turned_away(guest)
        await self.opened()

    async def test_silent(self) -> None:
        """Who never speaks, or stops in the middle, is sent away after a while."""
        for said, limit in ((b"", PARTNER_LIMIT), (b"\x16\x03\x03", HANDSHAKE_LIMIT)):
            guest = self.come()
            guest.socket.sendall(said)
            await self.turns()
            self.reactor.clock.advance(limit - 0.1)
            self.assertFalse(guest.stream.aborted)
            self.reactor.clock.advance(0.2)
            self.assert_turned_away(guest, "rpi1100 did not")
        await self.opened()

    async def test_second(self) -> None:
        """A second stream is closed unheard while there is a first, and the first goes on."""
        first = await self.opened()
        second = self.come()
        self.assert_turned_away(second, "another one is in already")
        first.say(frame(PACKET, packet(Mode.L3, b"on")))
        self.assertEqual(await self.device.when_written(1), [packet(Mode.L3, b"on")])

    async def test_no_socket(self) -> None:
        """A stream without a socket, because it is closed or inside the door's TLS, is none for this tunnel."""
        stream: Any = MemoryStream()
        self.tunnel.occupy(stream)
        self.assertTrue(stream.aborted)
        self.assertEqual(len(self.lines), 1)
        await self.opened()

    def test_port(self) -> None:
        """There is no port to connect to."""
        error = self.assertRaises(RequestRefused, self.tunnel.accept)
        self.assertIn("no port", str(error))


class MasterTests(DeviceTests):
    """The same, of a device that is TLS client."""

    role = Role.MASTER


class MasterStrangerTests(StrangerTests):
    """The same, of those who are TLS clients."""

    role = Role.MASTER
