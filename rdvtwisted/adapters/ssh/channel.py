"""
One channel of a connection (RFC 4254, section 5), with flow control in both directions.

What comes in is credited to the peer only when somebody has consumed it; what
goes out waits here, in pieces, while the peer's window is empty, the
connection is congested or exchanges keys. So a channel holds at most its
window of incoming data, and outgoing L{HIGH_WATER} bytes and what its writer
adds after L{Channel.filled}.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.conch.ssh.connection import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)

from rdvtwisted.adapters.ssh.wire import Reader, boolean, string, uint32
from rdvtwisted.errors import ProtocolError

if TYPE_CHECKING:
    from rdvtwisted.adapters.ssh.connection import Connection

#: Data types: plain data, and the only extended one there is (RFC 4254, section 5.2).
STDOUT = 0
STDERR = 1

#: Bytes of the window of a forwarded connection: 2 MiB fill 40 MB/s at a round trip of 50 ms. Of a shell: a page.
FORWARD_WINDOW = 2 << 20
SHELL_WINDOW = 64 << 10
#: Bytes of the largest piece of data that we take at once; what stock implementations send.
PACKET_SIZE = 32 << 10
#: Bytes waiting to be sent from which a writer is asked to pause.
HIGH_WATER = 64 << 10
#: A window is opened again by steps of this part of it.
_CREDIT_STEPS = 4
_LARGEST_WINDOW = 0xFFFFFFFF


class Channel:
    """The mechanics of a channel; its use is made by overriding what L{received}, L{eof_received} ... do."""

    #: As CHANNEL_OPEN names it.
    kind: bytes = b"session"
    window_size = FORWARD_WINDOW

    connection: Connection
    local_id = -1
    remote_id = -1
    _peer_window = 0
    _peer_packet = PACKET_SIZE
    _consumed = 0
    _waiting_bytes = 0
    _exit_status: int | None = None
    _eof_due = False
    _close_due = False
    _eof_sent = False
    _eof_came = False
    #: We have sent CLOSE; the channel is kept until the peer has, too.
    close_sent = False

    def __init__(self) -> None:
        self._window = self.window_size
        self._waiting: deque[tuple[int, memoryview]] = deque()

    def attach(self, connection: Connection, local_id: int, remote_id: int, window: int, packet: int) -> None:
        """The channel is open at both ends, the far one takes C{window} bytes in pieces of C{packet}."""
        self.connection = connection
        self.local_id = local_id
        self.remote_id = remote_id
        self._peer_window = window
        self._peer_packet = packet

    # To override

    def opened(self) -> None:
        """The channel is open."""

    def refused(self, code: int, reason: str) -> None:
        """The peer did not open the channel that we asked for."""

    def received(self, stream: int, data: bytes) -> None:
        """Data has come; L{credit} it when it is consumed."""
        self.credit(len(data))

    def eof_received(self) -> None:
        """The peer will send no more data."""

    def requested(self, name: bytes, reader: Reader) -> bool:
        """
        The peer asks for something.

        @return: whether it is granted.
        """
        return False

    def settled(self) -> None:
        """The peer has got its answer to what it L{requested}."""

    def answered(self, granted: bool) -> None:
        """The peer has answered our oldest request that wanted an answer."""
        raise ProtocolError("it answered a request that was not made")

    def filled(self) -> None:
        """So much waits to be sent that writers should pause."""

    def drained(self) -> None:
        """Nothing waits to be sent; told again and again."""

    def closed(self, reason: str) -> None:
        """
        The channel is over; called exactly once for a channel that was open.

        @param reason: empty if both ends closed it, else what became of the connection.
        """

    # Sending

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return self._waiting_bytes

    @property
    def takes_more(self) -> bool:
        """Whether data would be sent at once."""
        return not self._waiting and self._peer_window > 0 and self.connection.writable

    def send(self, data: bytes, stream: int = STDOUT) -> None:
        """Send data, now or as soon as the peer takes it; nothing is sent after L{end_output} or L{close}."""
        if not data or self._eof_due or self.close_sent:
            return
        self._waiting.append((stream, memoryview(data)))
        self._waiting_bytes += len(data)
        if len(self._waiting) == 1:
            self.flush()
        if self._waiting_bytes >= HIGH_WATER:
            self.filled()

    def flush(self) -> None:
        """Send all that can be sent now."""
        while self.send_piece():
            pass

    def send_piece(self) -> bool:
        """
        Send one packet of what waits.

        @return: whether there was one to send.
        """
        if not self._waiting or not self._peer_window or not self.connection.writable:
            return False
        stream, data = self._waiting[0]
        size = min(len(data), self._peer_window, self._peer_packet)
        self._peer_window -= size
        self._waiting_bytes -= size
        if size == len(data):
            self._waiting.popleft()
        else:
            self._waiting[0] = (stream, data[size:])
        if stream == STDOUT:
            self.connection.send(MSG_CHANNEL_DATA, uint32(self.remote_id, size), data[:size])
        else:
            self.connection.send(MSG_CHANNEL_EXTENDED_DATA, uint32(self.remote_id, stream, size), data[:size])
        if not self._waiting:
            self._conclude()
            self.drained()
        return True

    def request(self, name: bytes, data: bytes, want_reply: bool = False) -> None:
        """Ask the peer for something; L{answered} tells the answer."""
        if not self.close_sent:
            self.connection.send(MSG_CHANNEL_REQUEST, uint32(self.remote_id), string(name), boolean(want_reply), data)

    def end_output(self) -> None:
        """Tell the peer, after all that waits, that no more data comes."""
        self._eof_due = True
        self._conclude()

    def close(self) -> None:
        """Close the channel after all that waits."""
        self._eof_due = self._close_due = True
        self._conclude()

    def close_with_status(self, status: int) -> None:
        """Tell the peer, after all that waits, how the command ended, then close (RFC 4254, section 6.10)."""
        self._exit_status = status
        self.close()

    def abort(self) -> None:
        """Close the channel now."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._eof_sent = True
        self.close()

    def _conclude(self) -> None:
        if self._waiting or self.close_sent:
            return
        status, self._exit_status = self._exit_status, None
        if status is not None:
            self.request(b"exit-status", uint32(status))
        if self._eof_due and not self._eof_sent:
            self._eof_sent = True
            self.connection.send(MSG_CHANNEL_EOF, uint32(self.remote_id))
        if self._close_due:
            self.close_sent = True
            self.connection.send(MSG_CHANNEL_CLOSE, uint32(self.remote_id))

    # Receiving

    def credit(self, size: int) -> None:
        """So many bytes that came are consumed: the peer may send as many again."""
        self._consumed += size
        if self._consumed * _CREDIT_STEPS >= self.window_size and not (self.close_sent or self._eof_came):
            self.connection.send(MSG_CHANNEL_WINDOW_ADJUST, uint32(self.remote_id, self._consumed))
            self._window += self._consumed
            self._consumed = 0

    def take_data(self, stream: int, data: bytes) -> None:
        """The peer has sent data."""
        if len(data) > self._window or len(data) > PACKET_SIZE or self._eof_came:
            raise ProtocolError("it sent more data than a channel takes")
        self._window -= len(data)
        if data and not self.close_sent:
            self.received(stream, data)

    def take_window(self, size: int) -> None:
        """The peer takes so many bytes more."""
        self._peer_window += size
        if self._peer_window > _LARGEST_WINDOW:
            raise ProtocolError("it opened the window of a channel too wide")
        self.flush()
        if self.takes_more:
            self.drained()

    def take_eof(self) -> None:
        """The peer will send no more data."""
        if not self._eof_came:
            self._eof_came = True
            if not self.close_sent:
                self.eof_received()

    def take_close(self) -> None:
        """The peer has closed the channel: what still waits is for nobody."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._eof_sent = True
        self.close()
        self.closed("")
