"""Frames on a byte stream."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ProtocolError
from tunnels.packets import (
    ANSWER,
    FULL_BATCH,
    GOODBYE,
    HEARTBEAT,
    HELLO,
    LONGEST_GOODBYE,
    LONGEST_PACKET,
    OPTIONAL,
    PACKET,
    READ_BUFFER,
    RECORD,
    VNET_HEADER,
    FrameReader,
    PacketBatch,
    frame,
    goodbye,
    printable,
)

bounded = settings(derandomize=True, max_examples=150, deadline=None)

#: Frames that a peer may send, the rare long ones among them.
legal = st.one_of(
    st.tuples(st.just(PACKET), st.integers(VNET_HEADER + 1, 200)),
    st.tuples(st.just(PACKET), st.sampled_from([RECORD - 4, RECORD, 65_549, LONGEST_PACKET])),
    st.tuples(st.just(HELLO), st.integers(2, 100)),
    st.tuples(st.sampled_from([HEARTBEAT, ANSWER]), st.just(8)),
    st.tuples(st.just(GOODBYE), st.integers(0, LONGEST_GOODBYE)),
    st.tuples(st.integers(OPTIONAL, 255), st.integers(0, 300)),
)


def read(reader: FrameReader, data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Feed C{data} in pieces of these lengths, over and over."""
    found = []
    sizes = cuts or [RECORD]
    turn = 0
    while data:
        room = reader.room()
        count = min(sizes[turn % len(sizes)], len(data), len(room))
        turn += 1
        room[:count] = data[:count]
        data = data[count:]
        found += [(kind, bytes(payload)) for kind, payload in reader.filled(count)]
    return found


class FrameReaderTests(SynchronousTestCase):
    """What is found in a stream."""

    @bounded
    @given(st.lists(legal, max_size=12), st.lists(st.integers(1, RECORD), max_size=6))
    def test_legal(self, shapes: list[tuple[int, int]], cuts: list[int]) -> None:
        """All frames are found, whole and in order, wherever the stream is cut into pieces."""
        sent = [(kind, bytes([n + 1]) * length) for n, (kind, length) in enumerate(shapes)]
        stream = b"".join(frame(kind, payload) for kind, payload in sent)
        self.assertEqual(read(FrameReader(), stream, cuts), sent)

    @bounded
    @given(st.binary(max_size=600), st.lists(st.integers(1, 50), max_size=6))
    def test_any(self, stream: bytes, cuts: list[int]) -> None:
        """Any bytes are either frames within their limits or a protocol error; both need no more memory."""
        reader = FrameReader()
        try:
            found = read(reader, stream, cuts)
        except ProtocolError as error:
            self.assertNotIn("\n", str(error))
            return
        self.assertEqual(stream[: sum(4 + len(payload) for _, payload in found)], b"".join(frame(*f) for f in found))
        for kind, payload in found:
            self.assertTrue(kind <= GOODBYE or kind & OPTIONAL)
            self.assertLessEqual(len(payload), LONGEST_PACKET)

    @bounded
    @given(st.integers(0, 255), st.integers(0, 0xFFFFFF))
    def test_headers(self, kind: int, length: int) -> None:
        """A header is refused as soon as it is there, not when all that it announces has come."""
        limits = {0: (11, 65_600), 1: (2, 4096), 2: (8, 8), 3: (8, 8), 4: (0, 64)}
        least, most = limits.get(kind, (0, 65_600) if kind & 0x80 else (1, 0))
        header = struct.pack("!I", kind << 24 | length)
        if least <= length <= most:
            self.assertEqual(len(read(FrameReader(), header, [])), length == 0)
        else:
            self.assertRaises(ProtocolError, read, FrameReader(), header, [])

    def test_room(self) -> None:
        """There is always room for one more TLS record, in a buffer that never grows."""
        reader = FrameReader()
        stream = frame(PACKET, bytes(LONGEST_PACKET)) * 9
        while stream:
            room = reader.room()
            self.assertTrue(RECORD <= len(room) <= READ_BUFFER)
            room[:RECORD] = stream[:RECORD].ljust(RECORD, b"\0")
            list(reader.filled(min(RECORD, len(stream))))
            stream = stream[RECORD:]

    def test_smallest(self) -> None:
        """A buffer in which the longest frame could not become complete is a mistake."""
        self.assertRaises(ValueError, FrameReader, LONGEST_PACKET)
        size = LONGEST_PACKET + 4 + RECORD
        stream = frame(PACKET, b"x" * LONGEST_PACKET) * 3
        self.assertEqual(len(read(FrameReader(size), stream, [RECORD])), 3)


class PacketBatchTests(SynchronousTestCase):
    """How packets are gathered."""

    def gather(self, packets: list[bytes], most: int = 64) -> tuple[PacketBatch, list[tuple[int, bytes]]]:
        """One batch of these packets, and the frames in it."""
        batch = PacketBatch()

        def read_into(buffer: memoryview) -> int:
            self.assertGreaterEqual(len(buffer), LONGEST_PACKET)
            if not packets:
                return 0
            packet = packets.pop(0)
            buffer[: len(packet)] = packet
            return len(packet)

        return batch, read(FrameReader(), bytes(batch.gather(read_into, most)), [])

    def test_empty(self) -> None:
        """No packet makes no frame."""
        batch, found = self.gather([])
        self.assertEqual((batch.packets, found), (0, []))

    def test_all(self) -> None:
        """What there is goes into one batch."""
        sent = [bytes([n]) * (20 + n) for n in range(40)]
        batch, found = self.gather(list(sent))
        self.assertEqual((batch.packets, found), (40, [(PACKET, each) for each in sent]))

    def test_most(self) -> None:
        """A batch holds no more packets than were asked for."""
        rest = [bytes(20)] * 5
        batch, found = self.gather(rest, most=1)
        self.assertEqual((batch.packets, len(found), len(rest)), (1, 1, 4))

    def test_full(self) -> None:
        """A batch ends with the packet that fills it, even if that is the longest one."""
        rest = [bytes(FULL_BATCH - 5), bytes(LONGEST_PACKET), bytes(20)]
        batch, found = self.gather(rest)
        self.assertEqual((batch.packets, len(found), len(rest)), (2, 2, 1))


class TextTests(SynchronousTestCase):
    """A peer's text."""

    @bounded
    @given(st.binary(max_size=300))
    def test_printable(self, said: bytes) -> None:
        """Whatever a peer says, what is shown is printable and short."""
        shown = printable(said, 64)
        self.assertTrue(shown.isprintable() and len(shown) <= 64)

    def test_goodbye(self) -> None:
        """A goodbye that is too long is cut so that the other end accepts it."""
        ((kind, payload),) = read(FrameReader(), goodbye("x" * 100), [])
        self.assertEqual((kind, payload), (GOODBYE, b"x" * 64))
