"""
Frames of vtun 3.x on a byte stream, without any I/O.

A frame is a header of 2 bytes, big-endian, and a packet: an IP packet (TUN)
or an Ethernet frame (TAP), bare, so many bytes as the header says. A header
with one of the four high bits is a signal and stands alone.
"""

from __future__ import annotations

import struct

from rdvtwisted.errors import ProtocolError

#: Bytes of a header.
HEADER = 2
#: Bytes of the longest packet: a stock vtund reads 2048 at most from its device, keeps 100 more for what it may
#: add, and drops what is longer still.
LONGEST_PACKET = 2048 + 100

#: The sender closes the connection.
CLOSE = 0x1000
#: The receiver is to send an L{ECHO_REPLY}.
ECHO_REQUEST = 0x2000
ECHO_REPLY = 0x4000
#: The sender could not make sense of something. Says nothing more; to be ignored.
BAD_FRAME = 0x8000

_SIGNALS = frozenset({CLOSE, ECHO_REQUEST, ECHO_REPLY, BAD_FRAME})
_HEADER = struct.Struct("!H")

pack_header = _HEADER.pack
"""The header of a packet of so many bytes, or a signal, as it goes on the wire."""


class FrameReader:
    """
    Finds frames in a byte stream, in place: copies nothing but a frame that
    came in several pieces. Keeps less than one frame.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    @property
    def within(self) -> bool:
        """Whether the stream so far ends within a frame."""
        return bool(self._begun)

    def feed(self, data: bytes, packets: list[memoryview]) -> int:
        """
        Read on.

        @param data: the stream's next bytes, cut anywhere.
        @param packets: gets each packet that is complete now, also when an
            error follows it; each is good for as long as it is kept.
        @return: all the signals that came, or-ed; nothing is read behind a L{CLOSE}.
        @raise ProtocolError: the stream holds what is no frame; it cannot be read any further.
        """
        if not self._begun:
            return self._scan(data, 0, packets)
        frame = self._begun
        taken = 0
        if len(frame) < HEADER:
            taken = min(HEADER - len(frame), len(data))
            frame += data[:taken]
            if len(frame) < HEADER:
                return 0
        lacking = HEADER + _length(frame[0] << 8 | frame[1]) - len(frame)
        frame += data[taken : taken + lacking]
        taken += lacking
        if taken > len(data):
            return 0
        self._begun = bytearray()
        signals = self._scan(frame, 0, packets)
        return signals if signals & CLOSE else signals | self._scan(data, taken, packets)

    def _scan(self, data: bytes | bytearray, start: int, packets: list[memoryview]) -> int:
        view = memoryview(data)
        end = len(data)
        signals = 0
        while (payload := start + HEADER) <= end:
            header = data[start] << 8 | data[start + 1]
            if not 0 < header <= LONGEST_PACKET:  # no packet: it must be a signal
                _length(header)
                signals |= header
                if header == CLOSE:
                    return signals
                start = payload
                continue
            after = payload + header
            if after > end:
                break
            packets.append(view[payload:after])
            start = after
        if start < end:
            self._begun = bytearray(view[start:])
        return signals


def _length(header: int) -> int:
    """Bytes that follow a header."""
    if header in _SIGNALS:
        return 0
    if not 0 < header <= LONGEST_PACKET:
        raise ProtocolError(f"the vtun client sent a frame with the bad header {header:#06x}")
    return header
