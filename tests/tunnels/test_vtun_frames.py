"""Frames of vtun on a byte stream."""

from __future__ import annotations

from itertools import cycle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ProtocolError
from tunnels.vtun_frames import (
    BAD_FRAME,
    CLOSE,
    ECHO_REPLY,
    ECHO_REQUEST,
    HEADER,
    LONGEST_PACKET,
    FrameReader,
    pack_header,
)

bounded = settings(derandomize=True, max_examples=200, deadline=None)

SIGNALS = (CLOSE, ECHO_REQUEST, ECHO_REPLY, BAD_FRAME)


def framed(packet: bytes) -> bytes:
    """A packet as it goes on the wire."""
    return pack_header(len(packet)) + packet


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """C{data} cut into pieces of these lengths, over and over."""
    cut: list[bytes] = []
    for size in cycle(sizes or [len(data) or 1]):
        if not data:
            return cut
        cut.append(data[:size])
        data = data[size:]
    return cut


def read(reader: FrameReader, cut: list[bytes]) -> tuple[list[bytes], int]:
    """All packets, and all signals."""
    packets: list[memoryview] = []
    signals = 0
    for piece in cut:
        signals |= reader.feed(piece, packets)
    return [bytes(packet) for packet in packets], signals


class FrameReaderTests(SynchronousTestCase):
    """What a reader finds."""

    def test_wire(self) -> None:
        """A header is the packet's length, big-endian; a signal stands alone."""
        self.assertEqual([pack_header(kind).hex() for kind in SIGNALS], ["1000", "2000", "4000", "8000"])
        stream = bytes.fromhex("2000 0003 616263 4000 0001 64 8000")
        reader = FrameReader()
        self.assertEqual(read(reader, [stream]), ([b"abc", b"d"], ECHO_REQUEST | ECHO_REPLY | BAD_FRAME))
        self.assertFalse(reader.within)

    def test_in_place(self) -> None:
        """Packets that are whole within a piece are not copied, however many, and outlive the reading."""
        chunk = framed(b"one") + framed(b"two") + framed(b"begun")[:4]
        packets: list[memoryview] = []
        reader = FrameReader()
        reader.feed(chunk, packets)
        self.assertEqual([packet.obj is chunk for packet in packets], [True, True])
        self.assertTrue(reader.within)
        reader.feed(b"gun" + framed(b"last"), packets)
        self.assertEqual([bytes(packet) for packet in packets], [b"one", b"two", b"begun", b"last"])

    def test_lengths(self) -> None:
        """A packet may have up to 2148 bytes; what is empty or longer, or has other bits set, is no frame."""
        for length in (1, 20, 2048, LONGEST_PACKET):
            self.assertEqual(read(FrameReader(), [framed(b"x" * length)]), ([b"x" * length], 0))
        for header in (0, LONGEST_PACKET + 1, 0x0FFF, 0x1001, 0x2001, 0x3000, 0x6000, 0x9000, 0xF000, 65_535):
            packets: list[memoryview] = []
            error = self.assertRaises(ProtocolError, FrameReader().feed, framed(b"good") + pack_header(header), packets)
            self.assertEqual(str(error), f"the vtun client sent a frame with the bad header {header:#06x}")
            self.assertEqual(packets, [b"good"], "what came before it is lost")

    def test_bad_header_in_pieces(self) -> None:
        """A bad header is noticed with its second byte."""
        reader = FrameReader()
        self.assertEqual(reader.feed(b"\xff", []), 0)
        self.assertRaises(ProtocolError, reader.feed, b"\xff", [])

    def test_close(self) -> None:
        """Nothing is read behind a close, whole or in pieces."""
        stream = framed(b"a") + pack_header(CLOSE) + framed(b"b") + b"\xff\xff"
        self.assertEqual(read(FrameReader(), [stream]), ([b"a"], CLOSE))
        self.assertEqual(read(FrameReader(), [stream[:4], stream[4:]]), ([b"a"], CLOSE))

    @bounded
    @given(
        st.lists(st.one_of(st.binary(min_size=1, max_size=80), st.sampled_from([0x2000, 0x4000, 0x8000]))),
        st.lists(st.integers(1, 200), max_size=6),
    )
    def test_any_cut(self, frames: list[bytes | int], sizes: list[int]) -> None:
        """However the stream is cut, the same packets and signals come out, and nothing is left."""
        stream = b"".join(pack_header(item) if isinstance(item, int) else framed(item) for item in frames)
        wanted = 0
        for item in frames:
            wanted |= item if isinstance(item, int) else 0
        reader = FrameReader()
        packets, signals = read(reader, pieces(stream, sizes))
        self.assertEqual(packets, [item for item in frames if isinstance(item, bytes)])
        self.assertEqual(signals, wanted)
        self.assertFalse(reader.within)

    @bounded
    @given(st.lists(st.one_of(st.binary(max_size=3000), st.sampled_from([b"\x08\x64", b"\x00\x02", b"\x01", b""]))))
    def test_any_bytes(self, cut: list[bytes]) -> None:
        """Any bytes are packets, signals or one error; less than a frame is ever kept."""
        reader = FrameReader()
        packets: list[memoryview] = []
        try:
            for piece in cut:
                if reader.feed(piece, packets) & CLOSE:
                    break
                self.assertLess(len(reader._begun), HEADER + LONGEST_PACKET)
        except ProtocolError as error:
            self.assertTrue(str(error).isprintable())
        self.assertLessEqual(sum(map(len, packets)), sum(map(len, cut)))
        self.assertTrue(all(0 < len(packet) <= LONGEST_PACKET for packet in packets))
