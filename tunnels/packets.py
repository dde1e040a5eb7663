"""
Frames of packets on a byte stream, without any I/O.

A frame is a header of 4 bytes, big-endian (8 bits of type, 24 bits of length),
and so many bytes of payload:

  - 0 packet: C{struct virtio_net_hdr} (10 bytes, linux/virtio_net.h, its
    fields little-endian as TUNSETVNETLE makes them on every machine), then
    an IP packet (L3) or an Ethernet frame (L2).
  - 1 hello: a JSON object, see L{tunnels.hello.Hello}. The first frame of each end.
  - 2 heartbeat: 8 bytes of the sender's choice.
  - 3 answer to a heartbeat: the same 8 bytes.
  - 4 goodbye: why this end leaves, a word in UTF-8, see L{CLOSED}.

A frame of an unknown type is skipped if the type's highest bit is set;
any other unknown type is an error. So later versions can add to it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from rdvtwisted.errors import ProtocolError

PACKET = 0
HELLO = 1
HEARTBEAT = 2
ANSWER = 3
GOODBYE = 4

#: Types with this bit may be skipped by who does not know them.
OPTIONAL = 0x80

#: Bytes of a frame's header, and of the C{struct virtio_net_hdr} before a packet.
HEADER = 4
VNET_HEADER = 10

#: Bytes of the longest payload: a 64 KiB packet with its Ethernet, VLAN and virtio headers, rounded up.
LONGEST_PACKET = 65_600
#: Bytes of the longest hello and goodbye: bounds what is decoded as text.
LONGEST_HELLO = 4_096
LONGEST_GOODBYE = 64
#: Bytes of a heartbeat.
STAMP = 8
#: Bytes that one TLS record holds at most (RFC 8446, section 5.1): one read never returns more.
RECORD = 16_384

#: The goodbye of an end that was asked to close; any other word tells of a failure.
CLOSED = "closed"

#: Bytes of a reader's buffer: the longest frame's remainder moves to the front about once per so many.
READ_BUFFER = 256 * 1024
#: A batch is full at so many bytes, and need not hold more packets: bounds the wait of the first one in it.
FULL_BATCH = 64 * 1024
PACKETS_PER_BATCH = 64

_HEADER = struct.Struct("!I")
_LIMITS = {
    PACKET: (VNET_HEADER + 1, LONGEST_PACKET),
    HELLO: (2, LONGEST_HELLO),
    HEARTBEAT: (STAMP, STAMP),
    ANSWER: (STAMP, STAMP),
    GOODBYE: (0, LONGEST_GOODBYE),
}


def frame(kind: int, payload: bytes) -> bytes:
    """One frame as it goes on the wire."""
    return _HEADER.pack(kind << 24 | len(payload)) + payload


def goodbye(word: str) -> bytes:
    """The frame that says why this end leaves."""
    return frame(GOODBYE, word.encode("utf-8")[:LONGEST_GOODBYE])


def printable(text: bytes | memoryview, limit: int) -> str:
    """A peer's text for a log or an error: at most C{limit} characters, nothing that moves a cursor."""
    shown = bytes(text[: 4 * limit]).decode("utf-8", "replace")[:limit]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


class FrameReader:
    """
    Finds frames in a byte stream, in place: one fixed buffer, no copies but of
    a frame's beginning when it has to move to the buffer's front.

    Ask L{room}, put bytes there, tell L{filled}, use each payload before the
    next L{room}.
    """

    def __init__(self, size: int = READ_BUFFER) -> None:
        if size < HEADER + LONGEST_PACKET + RECORD:
            raise ValueError("the buffer must hold the longest frame and one more record")
        self._view = memoryview(bytearray(size))
        self._size = size
        self._start = 0
        self._end = 0

    def room(self) -> memoryview:
        """Where the next bytes are to go: at least L{RECORD} bytes."""
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = end = 0
        elif self._size - end < RECORD:
            self._start, self._end = 0, end - start
            self._view[: self._end] = self._view[start:end]
            end = self._end
        return self._view[end:]

    def filled(self, count: int) -> Iterator[tuple[int, memoryview]]:
        """
        C{count} bytes were put at the beginning of the L{room}.

        @return: the type and payload of each frame that is complete now; has to be exhausted.
        @raise ProtocolError: the stream holds what is no frame; it cannot be read any further.
        """
        self._end = end = self._end + count
        view = self._view
        start = self._start
        while start + HEADER <= end:
            (word,) = _HEADER.unpack_from(view, start)
            if not VNET_HEADER < word <= LONGEST_PACKET:  # else a packet: its type is 0
                _check(word)
            after = start + HEADER + (word & 0xFFFFFF)
            if after > end:
                break
            self._start = after
            yield word >> 24, view[start + HEADER : after]
            start = after


def _check(word: int) -> None:
    kind, length = word >> 24, word & 0xFFFFFF
    if kind in _LIMITS:
        least, most = _LIMITS[kind]
    elif kind & OPTIONAL:
        least, most = 0, LONGEST_PACKET
    else:
        raise ProtocolError(f"the tunnel's other end sent a frame of the unknown type {kind}")
    if not least <= length <= most:
        raise ProtocolError(f"the tunnel's other end sent a frame of type {kind} with the bad length {length}")


class PacketBatch:
    """Packets that wait together, gathered as frames in one fixed buffer so that one write sends them."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(FULL_BATCH + HEADER + LONGEST_PACKET))
        #: How many packets the last L{gather} found.
        self.packets = 0

    def gather(self, read_into: Callable[[memoryview], int], most: int) -> memoryview:
        """
        Take packets until there are no more now, or there are C{most}, or the batch is full.

        @param read_into: as L{rdvtwisted.interfaces.IPacketDevice.read_into}.
        @return: the frames, until the next call; empty if there was no packet.
        """
        view, pack = self._view, _HEADER.pack_into
        packets = end = 0
        while end < FULL_BATCH and packets < most:
            payload = end + HEADER
            length = read_into(view[payload : payload + LONGEST_PACKET])
            if not length:
                break
            pack(view, end, length)
            end = payload + length
            packets += 1
        self.packets = packets
        return view[:end]
