"""The server's end of vtun, from the first byte of a client to its last."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ConnectionLost, ProtocolError, RDVError, TunnelFailed
from rdvtwisted.values import Mode
from tunnels.vtun_frames import LONGEST_PACKET, pack_header
from tunnels.vtun_guest import FAREWELL_LIMIT
from tunnels.vtun_handshake import NotVtun, WrongSecret, WrongSession, answer, letters, message
from tunnels.vtun_server import (
    HANDSHAKE_LIMIT,
    KEEPALIVE_INTERVAL,
    KEEPALIVE_MISSES,
    SETTLING_LIMIT,
    Authenticated,
    Closed,
    Event,
    Packets,
    VtunServer,
)

bounded = settings(derandomize=True, max_examples=150, deadline=None)

SESSION, SECRET = "tundevrpi1100", "_rpi1100"
CHALLENGE = bytes(range(16))
HOST = message(f"HOST: {SESSION}")
CHAL = message(f"CHAL: {letters(answer(CHALLENGE, SECRET))}")

CLOSE, ECHO_REQUEST, ECHO_REPLY = b"\x10\x00", b"\x20\x00", b"\x40\x00"
ERR = b"ERR\n" + bytes(46)
PACKET = b"\x45" + bytes(19)


def framed(packet: bytes) -> bytes:
    """A packet as it goes on the wire."""
    return pack_header(len(packet)) + packet


def server(mode: Mode = Mode.L3, **more: float) -> VtunServer:
    """One whose challenge is known, fresh."""
    return VtunServer(SESSION, SECRET, mode, random=lambda length: CHALLENGE[:length], **more)


def proved(mode: Mode = Mode.L3, **more: float) -> VtunServer:
    """One whose client has proved to know the secret."""
    end = server(mode, **more)
    end.receive(HOST + CHAL)
    end.take_output()
    return end


def opened(mode: Mode = Mode.L3, **more: float) -> VtunServer:
    """One whose client was let in, and brings its interface up."""
    end = proved(mode, **more)
    end.open()
    end.take_output()
    return end


def carrying(mode: Mode = Mode.L3, **more: float) -> VtunServer:
    """One that carries packets."""
    end = opened(mode, **more)
    end.tick()
    return end


def told(events: list[Event]) -> list[object]:
    """Events, as plain values: packets as bytes, an end as its error."""
    plain: list[object] = []
    for event in events:
        if isinstance(event, Packets):
            plain.append([bytes(packet) for packet in event.packets])
        elif isinstance(event, Closed):
            plain.append(event.error)
        else:
            plain.append(type(event))
    return plain


class HandshakeTests(SynchronousTestCase):
    """Until the client is in."""

    def test_wire(self) -> None:
        """What goes to a client that does everything right, byte for byte, in both modes."""
        for mode, flags in ((Mode.L3, b"<TuK>"), (Mode.L2, b"<TeK>")):
            end = server(mode)
            self.assertEqual(end.take_output(), b"VTUN server ver 3.X rdvtwisted\n".ljust(50, b"\0"))
            self.assertEqual(end.receive(HOST), [])
            self.assertEqual(end.take_output(), b"OK CHAL: <aaabacadaeafagahaiajakalamanaoap>\n".ljust(50, b"\0"))
            self.assertEqual(end.receive(CHAL), [Authenticated()])
            self.assertEqual(end.take_output(), b"", "it was let in before the interface is up")
            self.assertTrue(end.open())
            self.assertEqual(end.take_output(), (b"OK FLAGS: " + flags + b"\n").ljust(50, b"\0") + ECHO_REQUEST)

    def refused(self, data: bytes, kind: type[RDVError]) -> None:
        for size in (1, len(data)):
            end = server()
            end.take_output()
            events: list[Event] = []
            output = b""
            for at in range(0, len(data), size):
                events += end.receive(data[at : at + size])
                output += end.take_output()
            (closed,) = told(events)
            self.assertIsInstance(closed, kind)
            self.assertTrue(output.endswith(ERR))
            self.assertEqual(end.tick() + end.lost() + end.receive(HOST), [], "there was a second end")
            self.assertEqual(end.take_output(), b"")

    def test_refusals(self) -> None:
        """Another protocol, another session and another secret each end with C{ERR} and one reason."""
        self.refused(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NotVtun)
        self.refused(b"\xff\xff" + b"x" * 65_535, NotVtun)
        self.refused(message("HOST: tundevrpi1101"), WrongSession)
        self.refused(HOST + message(f"CHAL: {letters(CHALLENGE)}"), WrongSecret)
        self.refused(HOST + HOST, NotVtun)
        self.refused(HOST + message("CHAL: <aa>"), NotVtun)

    def test_silence(self) -> None:
        """A client that never speaks, or stops after its name, is refused when the time for the handshake is over."""
        for said in (b"", HOST[:10], HOST, HOST + CHAL):
            end = server()
            self.assertEqual(end.wait, HANDSHAKE_LIMIT)
            end.receive(said)
            self.assertEqual(end.wait, HANDSHAKE_LIMIT)
            end.take_output()
            (error,) = told(end.tick())
            self.assertIsInstance(error, TunnelFailed)
            self.assertEqual(str(error), "no vtun client got ready within 20 s")
            self.assertEqual(end.take_output(), ERR)

    def test_cut_off(self) -> None:
        """A client whose connection ends on the way is one that was lost, and is told nothing."""
        for said in (b"", HOST[:10], HOST, HOST + CHAL):
            end = server()
            end.receive(said)
            end.take_output()
            (error,) = told(end.lost())
            self.assertIsInstance(error, ConnectionLost)
            self.assertIn("during the handshake", str(error))
            self.assertEqual(end.take_output(), b"")

    def test_second_client(self) -> None:
        """A client for which there is no room, though it knows the secret, is refused as any other."""
        end = proved()
        end.close()
        end.close()
        self.assertEqual(end.take_output(), ERR)
        self.assertFalse(end.open(), "who was refused came in")
        self.assertEqual(end.receive(framed(PACKET)), [])

    def test_too_early(self) -> None:
        """What is sent between proof and admission ends it; whoever opens too early has made a mistake."""
        self.assertRaises(RuntimeError, server().open)
        end = proved()
        (error,) = told(end.receive(framed(PACKET)))
        self.assertIsInstance(error, NotVtun)
        self.assertFalse(end.open())
        self.assertEqual(end.take_output(), ERR)

    def test_challenges(self) -> None:
        """By itself, each connection makes a challenge that no other has."""
        outputs = []
        for _ in range(2):
            end = VtunServer(SESSION, SECRET, Mode.L3)
            end.receive(HOST)
            outputs.append(end.take_output())
        self.assertNotEqual(*outputs)


class SettlingTests(SynchronousTestCase):
    """While the client brings its interface up."""

    def test_first_packet(self) -> None:
        """No packet reaches the client before its own first one shows that its interface is up."""
        end = opened()
        self.assertEqual(end.receive(ECHO_REQUEST + ECHO_REPLY), [])
        self.assertFalse(end.carrying)
        self.assertEqual(end.take_output(), ECHO_REPLY)
        self.assertEqual(told(end.receive(framed(PACKET))), [[PACKET]])
        self.assertTrue(end.carrying)

    def test_time(self) -> None:
        """A client that has nothing to say gets packets after a short while."""
        end = opened()
        self.assertEqual(end.wait, SETTLING_LIMIT)
        self.assertFalse(end.carrying)
        self.assertEqual(end.tick(), [])
        self.assertTrue(end.carrying)
        self.assertEqual(end.wait, KEEPALIVE_INTERVAL)


class CarryingTests(SynchronousTestCase):
    """Packets both ways."""

    def test_received(self) -> None:
        """Several packets of one delivery come in one event, uncopied; echoes are answered once."""
        end = carrying()
        chunk = framed(b"a") + ECHO_REQUEST + framed(b"bc") + ECHO_REQUEST + b"\x80\x00" + framed(b"def")[:3]
        (event,) = end.receive(chunk)
        assert isinstance(event, Packets)
        self.assertEqual(event.packets, [b"a", b"bc"])
        self.assertTrue(all(packet.obj is chunk for packet in event.packets))
        self.assertEqual(end.take_output(), ECHO_REPLY)
        self.assertEqual(told(end.receive(b"ef")), [[b"def"]])
        self.assertEqual(end.take_output(), b"")

    def test_flood_of_echoes(self) -> None:
        """Any number of echo requests is owed one reply."""
        end = carrying()
        for _ in range(100):
            self.assertEqual(end.receive(ECHO_REQUEST * 10_000), [])
        self.assertEqual(end.take_output(), ECHO_REPLY)

    def test_leave(self) -> None:
        """A client's goodbye is an end without error, after the packets before it; what follows is not heard."""
        end = carrying()
        self.assertEqual(told(end.receive(framed(PACKET) + ECHO_REQUEST + CLOSE + framed(PACKET))), [[PACKET], None])
        self.assertEqual(end.take_output(), b"")
        self.assertFalse(end.carrying)
        self.assertEqual(end.receive(framed(PACKET)) + end.tick() + end.lost(), [])

    def test_farewell(self) -> None:
        """The client is told when this end closes."""
        end = carrying()
        end.close()
        self.assertFalse(end.carrying)
        self.assertEqual(end.take_output(), CLOSE)

    def test_bad_frame(self) -> None:
        """A frame that is none ends it; the packets before are delivered, the client is told."""
        for bad in (b"\0\0", b"\xff\xff", b"\x08\x65", b"\x30\x00"):
            end = carrying()
            packets, error = told(end.receive(framed(PACKET) + bad + framed(PACKET)))
            self.assertEqual(packets, [PACKET])
            self.assertIsInstance(error, ProtocolError)
            self.assertEqual(end.take_output(), CLOSE)
            self.assertEqual(end.receive(bad) + end.lost(), [])

    def test_lost(self) -> None:
        """A connection that breaks is told apart: between frames, or within one."""
        for said, where in ((b"", "without a goodbye"), (framed(PACKET)[:5], "within a frame")):
            end = carrying()
            end.receive(said)
            (error,) = told(end.lost())
            self.assertIsInstance(error, ConnectionLost)
            self.assertIn(where, str(error))
            self.assertEqual(end.lost(), [])


class KeepaliveTests(SynchronousTestCase):
    """A silent client and a dead one."""

    def ticking(self, end: VtunServer, clock: Clock) -> list[Event]:
        """Drive C{end} as a service does."""
        events: list[Event] = []

        def tick() -> None:
            events.extend(end.tick())
            if not events:
                clock.callLater(end.wait, tick)

        clock.callLater(end.wait, tick)
        return events

    def test_dead(self) -> None:
        """A client that says nothing is asked, a few times, then given up."""
        clock = Clock()
        end = carrying()
        events = self.ticking(end, clock)
        asked = []
        for _ in range(KEEPALIVE_MISSES):
            clock.advance(KEEPALIVE_INTERVAL)
            asked.append(end.take_output())
            self.assertEqual(events, [])
        self.assertEqual(asked, [ECHO_REQUEST] * KEEPALIVE_MISSES)
        clock.advance(KEEPALIVE_INTERVAL)
        (error,) = told(events)
        self.assertIsInstance(error, ConnectionLost)
        self.assertEqual(str(error), "the vtun client was silent for 11 s")
        self.assertEqual(end.take_output(), CLOSE)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_alive(self) -> None:
        """Any sign of life counts; a client that talks is never asked."""
        clock = Clock()
        end = carrying()
        events = self.ticking(end, clock)
        for sign in [ECHO_REPLY, framed(PACKET), b"\x00", b"\x01x"] * 10:
            end.receive(sign)
            clock.advance(KEEPALIVE_INTERVAL)
            self.assertEqual(end.take_output(), b"")
        self.assertEqual(events, [])
        for _ in range(KEEPALIVE_MISSES):
            clock.advance(KEEPALIVE_INTERVAL)
        end.receive(ECHO_REPLY)
        clock.advance(KEEPALIVE_INTERVAL * KEEPALIVE_MISSES)
        self.assertEqual(events, [])

    def test_promise(self) -> None:
        """
        Whenever a client has gone without a word, it is given up, with the farewell that nobody answers, 15 s later at
        the latest; but never before 10 s are over, since a bad line may lose a packet or two.
        """
        for last in (0.0, 0.001, 1.0, KEEPALIVE_INTERVAL / 2, KEEPALIVE_INTERVAL - 0.001, KEEPALIVE_INTERVAL):
            clock = Clock()
            end = carrying()
            events = self.ticking(end, clock)
            clock.advance(last)
            end.receive(ECHO_REPLY)
            clock.pump([0.125] * 80)
            self.assertEqual(events, [], last)
            clock.pump([0.125] * int((15.0 - FAREWELL_LIMIT - 10.0) / 0.125))
            self.assertEqual(len(told(events)), 1, last)

    def test_settings(self) -> None:
        """Who wants to notice sooner may."""
        end = carrying(interval=5.0, misses=1)
        self.assertEqual(end.wait, 5.0)
        self.assertEqual(end.tick(), [])
        (error,) = told(end.tick())
        self.assertEqual(str(error), "the vtun client was silent for 10 s")


class AnythingTests(SynchronousTestCase):
    """Whatever comes in, and in whatever order the driver calls."""

    pieces = st.one_of(
        st.binary(max_size=300),
        st.sampled_from([HOST, CHAL, HOST + CHAL, CLOSE, ECHO_REQUEST, framed(PACKET), framed(b"x" * 2148)[:1000]]),
    )
    calls = st.one_of(pieces, st.sampled_from(["tick", "open", "take", "lost", "close"]))

    @bounded
    @given(st.sampled_from([server, proved, opened, carrying]), st.lists(calls, max_size=30))
    def test_any_calls(self, begin: object, calls: list[object]) -> None:
        """No exception, at most one end and nothing after it, one proof at most, little memory, bounded output."""
        end: VtunServer = begin()  # type: ignore[operator]
        events: list[Event] = []
        for call in calls:
            if isinstance(call, bytes):
                new = end.receive(call)
            elif call == "open":
                try:
                    end.open()
                except RuntimeError:
                    self.assertIs(begin, server)
                new = []
            elif call == "take":
                end.take_output()
                new = []
            else:
                new = getattr(end, str(call))() or []
            self.assertLessEqual(len(new), 3)
            events += new
            self.assertLess(len(end._frames._begun), LONGEST_PACKET + 2)
        ends = [event for event in events if isinstance(event, Closed)]
        self.assertLessEqual(len(ends), 1)
        self.assertEqual(ends, [event for event in events[-1:] if isinstance(event, Closed)])
        self.assertLessEqual(len([event for event in events if isinstance(event, Authenticated)]), 1)
        self.assertLess(len(end.take_output()), 5 * 50 + 30 * 2)

    @bounded
    @given(st.lists(st.integers(1, 120), min_size=1, max_size=8))
    def test_any_cut(self, sizes: list[int]) -> None:
        """A whole conversation comes out the same, however it is cut."""
        frames = framed(PACKET) + ECHO_REQUEST + framed(b"y" * 300) + framed(b"z") + CLOSE
        end = server()
        events: list[Event] = []
        for stream in (HOST + CHAL, frames):
            at = turn = 0
            while at < len(stream):
                size = sizes[turn % len(sizes)]
                events += end.receive(stream[at : at + size])
                at += size
                turn += 1
            end.open()
        plain = told(events)
        self.assertEqual((plain[0], plain[-1]), (Authenticated, None))
        packets = [packet for event in plain[1:-1] for packet in event]
        self.assertEqual(packets, [PACKET, b"y" * 300, b"z"])
