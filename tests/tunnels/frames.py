"""Frames in what a test has heard."""

from __future__ import annotations

from tunnels.packets import FrameReader


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The complete frames in C{data}: their types and payloads."""
    reader = FrameReader()
    found = []
    while data:
        room = reader.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        data = data[count:]
        found += [(kind, bytes(payload)) for kind, payload in reader.filled(count)]
    return found
