"""Cuts what a peer sends into whole TLS records."""

from __future__ import annotations

from collections.abc import Iterator

from rdvtwisted.errors import ProtocolError

#: Bytes of a record's header: type, version (2), length (2); RFC 8446, section 5.1.
HEADER = 5
#: Bytes that a record may hold: 2^14 and what encryption may add in TLS 1.2 (RFC 5246, section 6.2.3).
LARGEST_FRAGMENT = 2**14 + 2**11

#: change_cipher_spec, alert, handshake, application_data (RFC 8446, section 5.1).
_TYPES = frozenset((20, 21, 22, 23))
_MAJOR_VERSION = 3


class Records:
    """
    Bytes of a TLS peer, taken out one whole record at a time.

    OpenSSL swallows whatever it is given, and does not tell what it has not
    looked at. Who feeds it record by record knows where TLS ends on a
    connection that goes on with other bytes, and knows what is left for
    somebody else to read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what has come in."""
        self._buffer += data

    def __iter__(self) -> Iterator[bytes]:
        """
        Take out the whole records, one after the other; L{feed} and L{rest} may be used in between.

        @raise ProtocolError: what comes next is no TLS record.
        """
        while (record := self._next()) is not None:
            yield record

    def rest(self) -> bytes:
        """Take out everything that has not been taken."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _next(self) -> bytes | None:
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] not in _TYPES or (len(buffer) > 1 and buffer[1] != _MAJOR_VERSION):
            raise ProtocolError("this is not TLS")
        if len(buffer) < HEADER:
            return None
        length = int.from_bytes(buffer[3:HEADER], "big")
        if length > LARGEST_FRAGMENT:
            raise ProtocolError("a TLS record is too long")
        if len(buffer) < HEADER + length:
            return None
        record = bytes(buffer[: HEADER + length])
        del buffer[: HEADER + length]
        return record
