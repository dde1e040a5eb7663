"""What is understood of a vtun connection by who merely passes it on."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import Mode
from tunnels.vtun_frames import ECHO_REPLY, ECHO_REQUEST, pack_header
from tunnels.vtun_handshake import accepted, message, refused
from tunnels.vtun_overheard import HERE, PREAMBLE, Overheard
from tunnels.vtun_server import VtunServer

bounded = settings(derandomize=True, max_examples=100, deadline=None)

GREETING = message("VTUN server ver 3.X 05/14/2022")
CHALLENGE = message(f"OK CHAL: <{'abcdefgh' * 4}>")
WELCOME = GREETING + CHALLENGE + message("OK FLAGS: <TuL9K>")
REPLY = pack_header(ECHO_REPLY)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Pieces of C{data}."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(marks)]


class OverheardTests(SynchronousTestCase):
    """The server's side of a connection."""

    @bounded
    @given(st.lists(st.integers(0, 500), max_size=20), st.lists(st.binary(min_size=1, max_size=90), max_size=4))
    def test_answer(self, places: list[int], packets: list[bytes]) -> None:
        """The server's answer to an echo request is found among packets, compressed or not, however all is cut."""
        frames = pack_header(ECHO_REQUEST) + b"".join(pack_header(len(packet)) + packet for packet in packets)
        heard = Overheard(Mode.L3)
        pieces = cut(WELCOME + frames, places)
        self.assertEqual([heard.hear(piece) for piece in pieces], [False] * len(pieces))
        self.assertFalse(heard.hear(REPLY[:1]))
        self.assertTrue(heard.hear(REPLY[1:]))
        self.assertFalse(heard.ours)

    def test_ours(self) -> None:
        """A server of our own is known by its greeting."""
        heard = Overheard(Mode.L2)
        heard.hear(VtunServer("tundevx", "secret", Mode.L2).take_output())
        self.assertTrue(heard.ours)
        self.assertTrue(heard.hear(CHALLENGE + accepted(Mode.L2) + REPLY))

    def test_refused(self) -> None:
        """A server that does not let the client in is understood as soon as it says so, wherever that is."""
        for before in (GREETING, GREETING + CHALLENGE):
            heard = Overheard(Mode.L3)
            heard.hear(before)
            error = self.assertRaises(ProtocolError, heard.hear, refused()[:1])
            self.assertIn("does not let the vtun client in", str(error))

    def test_mode(self) -> None:
        """A tunnel of the other mode is refused, with what that means; flags that tell no mode are vtund's business."""
        for dictated, mode in (("<TeL9K>", Mode.L3), ("<TuK>", Mode.L2)):
            heard = Overheard(mode)
            heard.hear(GREETING + CHALLENGE)
            error = self.assertRaises(ProtocolError, heard.hear, message(f"OK FLAGS: {dictated}"))
            self.assertIn(f"though it said {mode}", str(error))
        self.assertTrue(Overheard(Mode.L3).hear(GREETING + CHALLENGE + message("OK FLAGS: <pK>") + REPLY))

    @bounded
    @given(st.binary(min_size=1, max_size=300), st.integers(0, 100))
    def test_anything(self, data: bytes, start: int) -> None:
        """Whatever a server says, either it is understood, or there is one clear line; little of it is kept."""
        heard = Overheard(Mode.L3)
        try:
            heard.hear(WELCOME[:start])
            heard.hear(data)
        except ProtocolError as error:
            self.assertTrue(str(error).isprintable())
        self.assertLess(len(heard._begun), 50)

    def test_client(self) -> None:
        """What a client says before its first packet has the length that it is given; what says "here" is a frame."""
        self.assertEqual(PREAMBLE, 102)
        self.assertEqual(HERE, b"\0\1\0")
