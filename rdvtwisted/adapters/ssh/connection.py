"""
The connection service, C{ssh-connection} (RFC 4254): channels and global requests of one connection.

Whatever a peer names that does not exist ends the connection with one line; it
never raises into the transport. A channel that the peer asks for is confirmed
only once its far end is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import frozen
from twisted.conch.ssh import connection as conch
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh.channel import PACKET_SIZE, STDOUT, Channel
from rdvtwisted.adapters.ssh.transport import SecureTransport
from rdvtwisted.adapters.ssh.wire import Octets, Reader, boolean, string, uint32
from rdvtwisted.errors import ProtocolError, RDVError, RequestRefused

#: Bytes that a peer must take in one packet: a byte at a time, little that is printed would be much to send.
SMALLEST_PACKET = 64


class OpenRefused(RDVError):
    """A channel is not opened; C{code} is one of RFC 4254, section 5.1."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


@frozen
class _Ask:
    """A peer's CHANNEL_OPEN that is not answered yet."""

    kind: bytes
    remote_id: int
    window: int
    packet: int


class Connection(SSHService):
    """One end's channels and global requests."""

    name = b"ssh-connection"
    log = Logger()
    transport: SecureTransport

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self._asked_for: dict[int, Channel] = {}
        self._deciding: dict[Deferred[Channel], _Ask] = {}
        self._questions: deque[Callable[[bool], None]] = deque()
        self._next_id = 0
        self._stopped = False

    # To override

    def asked(self, kind: bytes, reader: Reader) -> Deferred[Channel]:
        """
        The peer wants a channel.

        @return: a Deferred of the channel.
        @raise OpenRefused: there is none for it.
        @raise RequestRefused: it may not have it.
        """
        raise OpenRefused(conch.OPEN_UNKNOWN_CHANNEL_TYPE, "there are no such channels here")

    def channel_closed(self, channel: Channel) -> None:
        """A channel that was open is over."""

    def denied(self, name: bytes) -> None:
        """The peer was refused a request of this name, global or of a channel."""

    # As the transport's service

    def serviceStopped(self) -> None:
        """The connection is gone, and all its channels with it."""
        if self._stopped:
            return
        self._stopped = True
        reason = self.transport.end_reason
        for decision in list(self._deciding):
            decision.cancel()
        self._deciding.clear()
        asked_for, self._asked_for = self._asked_for, {}
        for channel in asked_for.values():
            channel.refused(conch.OPEN_CONNECT_FAILED, reason)
        while self.channels:
            self._over(self.channels.popitem()[1], reason)
        self._questions.clear()

    def _over(self, channel: Channel, reason: str) -> None:
        channel.close_sent = True
        channel.closed(reason)
        self.channel_closed(channel)

    def unblocked(self) -> None:
        """The transport takes bulk data again: give each channel its turn, a packet at a time."""
        busy = list(self.channels.values())
        for channel in busy:
            if channel.takes_more:
                channel.drained()
        while busy:
            busy = [channel for channel in busy if channel.send_piece()]

    def packetReceived(self, number: int, body: memoryview) -> None:
        """A message for this service."""
        act = _MESSAGES.get(number)
        if act is None:
            self.transport.unimplemented()
        else:
            act(self, Reader(body))

    # What channels use

    @property
    def writable(self) -> bool:
        """Whether bulk data may be sent now."""
        return self.transport.writable

    def send(self, number: int, *parts: Octets) -> None:
        """Send one message."""
        self.transport.send(number, *parts)

    # Asking the peer

    def ask(self, name: bytes, answered: Callable[[bool], None]) -> None:
        """Make a global request; C{answered} is called with whether it was granted, unless the connection ends."""
        self._questions.append(answered)
        self.send(conch.MSG_GLOBAL_REQUEST, string(name), boolean(True))

    def open(self, channel: Channel, data: bytes = b"") -> None:
        """Ask the peer for C{channel}, with C{data} as its kind demands; it is told by C{opened} or C{refused}."""
        if self._stopped or self.transport.closing:
            channel.refused(conch.OPEN_CONNECT_FAILED, self.transport.end_reason)
            return
        local_id = self._new_id()
        self._asked_for[local_id] = channel
        self.send(
            conch.MSG_CHANNEL_OPEN, string(channel.kind), uint32(local_id, channel.window_size, PACKET_SIZE), data
        )

    def _new_id(self) -> int:
        while self._next_id in self.channels or self._next_id in self._asked_for:
            self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        taken = self._next_id
        self._next_id = (taken + 1) & 0xFFFFFFFF
        return taken

    def _confirmed(self, reader: Reader) -> None:
        local_id = reader.uint32()
        channel = self._asked_for.pop(local_id, None)
        if channel is None:
            raise ProtocolError("it confirmed a channel that nobody asked for")
        remote_id, window, packet = reader.uint32(), reader.uint32(), reader.uint32()
        if packet < SMALLEST_PACKET:
            raise ProtocolError("it confirmed a channel that takes hardly any data at a time")
        self._enter(channel, local_id, remote_id, window, packet)

    def _enter(self, channel: Channel, local_id: int, remote_id: int, window: int, packet: int) -> None:
        channel.attach(self, local_id, remote_id, window, packet)
        self.channels[local_id] = channel
        channel.opened()

    def _not_opened(self, reader: Reader) -> None:
        channel = self._asked_for.pop(reader.uint32(), None)
        if channel is None:
            raise ProtocolError("it refused a channel that nobody asked for")
        channel.refused(reader.uint32(), reader.remark())

    # Being asked by the peer

    def _open(self, reader: Reader) -> None:
        ask = _Ask(reader.string(), reader.uint32(), reader.uint32(), reader.uint32())
        if ask.packet < SMALLEST_PACKET:
            raise ProtocolError("it opened a channel that takes hardly any data at a time")
        decision: Deferred[Channel] = maybeDeferred(self.asked, ask.kind, reader)
        self._deciding[decision] = ask
        decision.addCallbacks(self._confirm, self._refuse, (decision, ask), {}, (decision, ask))
        decision.addErrback(self._broken)

    def opening(self, kind: bytes) -> int:
        """How many channels of this kind the peer has asked for and not got an answer about."""
        return sum(ask.kind == kind for ask in self._deciding.values())

    def _confirm(self, channel: Channel, decision: Deferred[Channel], ask: _Ask) -> None:
        self._deciding.pop(decision, None)
        local_id = self._new_id()
        self.send(
            conch.MSG_CHANNEL_OPEN_CONFIRMATION, uint32(ask.remote_id, local_id, channel.window_size, PACKET_SIZE)
        )
        self._enter(channel, local_id, ask.remote_id, ask.window, ask.packet)

    def _refuse(self, failure: Failure, decision: Deferred[Channel], ask: _Ask) -> None:
        self._deciding.pop(decision, None)
        error = failure.value
        if isinstance(error, CancelledError):
            return
        code, reason = conch.OPEN_CONNECT_FAILED, str(error)
        if isinstance(error, OpenRefused):
            code = error.code
        elif isinstance(error, RequestRefused):
            code = conch.OPEN_ADMINISTRATIVELY_PROHIBITED
        elif isinstance(error, ProtocolError):
            self.transport.fail(reason)
            return
        elif not isinstance(error, RDVError):
            self.log.failure("Could not open a channel of kind {kind!r}", failure, kind=ask.kind)
            reason = "it could not be opened"
        self.send(conch.MSG_CHANNEL_OPEN_FAILURE, uint32(ask.remote_id, code), string(reason.encode()), string(b""))

    def _broken(self, failure: Failure) -> None:
        self.log.failure("Could not begin with a channel", failure)
        self.transport.fail("a channel failed")

    def _global_request(self, reader: Reader) -> None:
        # None is granted, neither remote forwards nor anything else; keepalives are content with an answer.
        name = reader.string()
        if reader.boolean():
            self.send(conch.MSG_REQUEST_FAILURE)
        self.denied(name)

    def _granted(self, reader: Reader) -> None:
        self._global_answer(True)

    def _denied(self, reader: Reader) -> None:
        self._global_answer(False)

    def _global_answer(self, granted: bool) -> None:
        if not self._questions:
            raise ProtocolError("it answered a global request that was not made")
        self._questions.popleft()(granted)

    # Channels that are open

    def _channel(self, reader: Reader) -> Channel:
        channel = self.channels.get(reader.uint32())
        if channel is None:
            raise ProtocolError("it named a channel that does not exist")
        return channel

    def _data(self, reader: Reader) -> None:
        self._channel(reader).take_data(STDOUT, reader.string())

    def _extended_data(self, reader: Reader) -> None:
        self._channel(reader).take_data(reader.uint32(), reader.string())

    def _close(self, reader: Reader) -> None:
        channel = self._channel(reader)
        del self.channels[channel.local_id]
        channel.take_close()
        self.channel_closed(channel)

    def _request(self, reader: Reader) -> None:
        channel = self._channel(reader)
        name, want_reply = reader.string(), reader.boolean()
        closing = channel.close_sent
        granted = not closing and channel.requested(name, reader)
        if not (granted or closing):
            self.denied(name)
        if want_reply and not channel.close_sent:
            number = conch.MSG_CHANNEL_SUCCESS if granted else conch.MSG_CHANNEL_FAILURE
            self.send(number, uint32(channel.remote_id))
        channel.settled()

    def _answer(self, reader: Reader) -> None:
        self._channel(reader).answered(True)

    def _refusal(self, reader: Reader) -> None:
        self._channel(reader).answered(False)

    def _window(self, reader: Reader) -> None:
        self._channel(reader).take_window(reader.uint32())

    def _eof(self, reader: Reader) -> None:
        self._channel(reader).take_eof()


_MESSAGES: dict[int, Callable[[Connection, Reader], None]] = {
    conch.MSG_GLOBAL_REQUEST: Connection._global_request,
    conch.MSG_REQUEST_SUCCESS: Connection._granted,
    conch.MSG_REQUEST_FAILURE: Connection._denied,
    conch.MSG_CHANNEL_OPEN: Connection._open,
    conch.MSG_CHANNEL_OPEN_CONFIRMATION: Connection._confirmed,
    conch.MSG_CHANNEL_OPEN_FAILURE: Connection._not_opened,
    conch.MSG_CHANNEL_WINDOW_ADJUST: Connection._window,
    conch.MSG_CHANNEL_DATA: Connection._data,
    conch.MSG_CHANNEL_EXTENDED_DATA: Connection._extended_data,
    conch.MSG_CHANNEL_EOF: Connection._eof,
    conch.MSG_CHANNEL_CLOSE: Connection._close,
    conch.MSG_CHANNEL_REQUEST: Connection._request,
    conch.MSG_CHANNEL_SUCCESS: Connection._answer,
    conch.MSG_CHANNEL_FAILURE: Connection._refusal,
}
