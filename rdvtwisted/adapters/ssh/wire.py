"""Taking SSH messages apart and putting them together (RFC 4251, section 5)."""

from __future__ import annotations

import struct
from typing import Union

from rdvtwisted.errors import ProtocolError

#: What a message's payload may be handed over as.
Octets = Union[bytes, memoryview]

#: Characters that are kept of what a peer says to people.
LONGEST_REMARK = 200

_UINT32 = struct.Struct("!I")
#: No message has more numbers in a row.
_UINT32S = tuple(struct.Struct(f"!{count}I") for count in range(5))


def string(data: bytes) -> bytes:
    """C{data} as an SSH C{string}: its length in four bytes, then itself."""
    return _UINT32.pack(len(data)) + data


def uint32(*numbers: int) -> bytes:
    """Each number as an SSH C{uint32}."""
    return _UINT32S[len(numbers)].pack(*numbers)


def boolean(value: bool) -> bytes:
    """An SSH C{boolean}."""
    return b"\x01" if value else b"\x00"


class Reader:
    """Reads the fields of one message from its front; whatever is missing is a L{ProtocolError}."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: Octets) -> None:
        self._data = memoryview(data)
        self._at = 0

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            raise ProtocolError("an SSH message is shorter than its fields")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def boolean(self) -> bool:
        """The next byte: any value but 0 is true."""
        return self._take(1)[0] != 0

    def uint32(self) -> int:
        """The next four bytes, as a number."""
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        """The next C{string}, without its length."""
        return bytes(self._take(self.uint32()))

    def text(self) -> str:
        """The next C{string} as text; what is no UTF-8 shows as U+FFFD, as it is only compared or logged."""
        return self.string().decode("utf-8", "replace")

    def remark(self) -> str:
        """The next C{string}, which somebody may read: made printable, and not too long."""
        text = self.text()[:LONGEST_REMARK]
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    def names(self) -> list[bytes]:
        """The next C{name-list}."""
        return self.string().split(b",")

    def rest(self) -> bytes:
        """All that is left."""
        return bytes(self._take(len(self._data) - self._at))
