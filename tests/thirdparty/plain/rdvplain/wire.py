"""What both ends say to each other: a line first, then frames."""

from __future__ import annotations

import struct
from typing import Any, Protocol

from twisted.internet.protocol import Protocol as Connection
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from rdvtwisted.errors import ProtocolError

PACKET, PING, PONG, BYE = range(4)

#: Bytes of the longest first line.
LONGEST_LINE = 100

_HEAD = struct.Struct("!BH")


def frame(kind: int, content: bytes | memoryview = b"") -> bytes:
    """A frame; C{content} has at most 65,535 bytes."""
    return _HEAD.pack(kind, len(content)) + content


class Listener(Protocol):
    """Who uses a L{Wire}."""

    def said(self, wire: Wire, line: bytes) -> None:
        """The other end's first line, without its end."""

    def framed(self, wire: Wire, kind: int, content: bytes) -> None:
        """A frame of the other end's."""

    def garbled(self, wire: Wire, error: ProtocolError) -> None:
        """What the other end says is no line, or no frame; the wire is to be left."""

    def lost(self, wire: Wire) -> None:
        """The connection is gone. Comes once, last."""


class Wire(Connection):
    """
    One connection.

    @ivar greeting: what is said at once.
    """

    transport: Any

    def __init__(self, listener: Listener, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self._listener = listener
        self._heard = b""
        self._line = True
        self._deaf = False
        self.gone = False

    def connectionMade(self) -> None:
        """Say the greeting, unless it is too late."""
        if self._deaf:
            self.transport.abortConnection()
        else:
            self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Take lines and frames apart."""
        self._heard += data
        try:
            while not self._deaf and self._next():
                pass
        except ProtocolError as error:
            self._listener.garbled(self, error)

    def _next(self) -> bool:
        """Take one away, if it is whole."""
        if self._line:
            line, end, rest = self._heard.partition(b"\n")
            if len(line) > LONGEST_LINE:
                raise ProtocolError("the first line is too long")
            if end:
                self._heard, self._line = rest, False
                self._listener.said(self, line)
            return bool(end)
        if len(self._heard) < _HEAD.size:
            return False
        kind, length = _HEAD.unpack_from(self._heard)
        if kind > BYE:
            raise ProtocolError(f"there are no frames of kind {kind}")
        end_of_frame = _HEAD.size + length
        if len(self._heard) < end_of_frame:
            return False
        content, self._heard = self._heard[_HEAD.size : end_of_frame], self._heard[end_of_frame:]
        self._listener.framed(self, kind, content)
        return True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self._deaf = self.gone = True
        self._listener.lost(self)

    def leave(self, last_words: bytes = b"") -> None:
        """Say something, hear nothing any more, and hang up."""
        self._deaf = True
        self._heard = b""
        if self.transport is not None and not self.gone:
            self.transport.write(last_words)
            self.transport.loseConnection()

    def cut(self) -> None:
        """Hang up at once."""
        if self.transport is not None and not self.gone:
            self.transport.abortConnection()
