"""
The server's end of vtun 3.x for one session, spoken to stock vtund clients, without any I/O.

Give it what came in (L{VtunServer.receive}), do what its events say, and send
what L{VtunServer.take_output} has after each call; while it is
L{VtunServer.carrying}, frames of packets may be sent between. It has no clock: its
driver tells it when L{VtunServer.wait} seconds are over (L{VtunServer.tick}),
so that a clock that jumps ends no tunnel.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum
from typing import Union

from attrs import frozen

from rdvtwisted.errors import ConnectionLost, ProtocolError, RDVError, TunnelFailed
from rdvtwisted.values import Mode
from tunnels.vtun_frames import CLOSE, ECHO_REPLY, ECHO_REQUEST, FrameReader, pack_header
from tunnels.vtun_handshake import ServerHandshake, accepted, refused

#: Seconds from the connection to L{VtunServer.open}; a device's client gives up after as many.
HANDSHAKE_LIMIT = 20.0
#: Seconds that the client gets to bring its network interface up. A stock vtund ends when a packet reaches
#: it before; its first own packet shows that it is up.
SETTLING_LIMIT = 3.0
#: Seconds without a sign of life after which one is asked for, and how many times that is in vain. As what is heard
#: behind one look is seen at the next only, a device that is gone without a word is given up after 11 s at least and
#: 13.75 s at most, where a stock server takes minutes.
KEEPALIVE_INTERVAL = 2.75
KEEPALIVE_MISSES = 3


@frozen
class Authenticated:
    """
    The client has proved to know the secret, and waits: bring the interface
    up, then L{VtunServer.open}; or L{VtunServer.close}, which refuses it.
    """


@frozen
class Packets:
    """The client sent packets: memory of what was received, good for as long as it is kept."""

    packets: list[memoryview]


@frozen
class Closed:
    """
    It is over: send what L{VtunServer.take_output} still has, then close the
    connection. Comes once, and last.
    """

    #: C{None} if the client said goodbye.
    error: RDVError | None


Event = Union[Authenticated, Packets, Closed]


class _Phase(Enum):
    """What is waited for, or can be done."""

    HANDSHAKE = "the client's messages"
    DECISION = "open or close"
    SETTLING = "the client's interface"
    CARRYING = "packets"
    CLOSED = "nothing"


class VtunServer:
    """One client's connection, from its first byte to its last."""

    def __init__(
        self,
        session: str,
        secret: str,
        mode: Mode,
        *,
        interval: float = KEEPALIVE_INTERVAL,
        misses: int = KEEPALIVE_MISSES,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param session: the only session that is here, see L{tunnels.vtun_handshake.session_name}.
        @param interval: the client is asked for a sign of life after so many seconds of silence.
        @param misses: and is given up when it was so many times in vain.
        @param random: that many bytes that nobody can guess.
        @raise MissingProgram: the OpenSSL of this machine cannot do Blowfish any more.
        """
        self._mode = mode
        self._interval = interval
        self._misses = misses
        self._quiet = 0
        self._heard = False
        self._reply_owed = False
        self._handshake = ServerHandshake(session, secret, random)
        self._frames = FrameReader()
        self._output = bytearray(self._handshake.greeting())
        self._phase = _Phase.HANDSHAKE

    @property
    def wait(self) -> float:
        """Seconds until the next L{tick}, counted from the last one, from the beginning, or from L{open}."""
        if self._phase in (_Phase.HANDSHAKE, _Phase.DECISION):
            return HANDSHAKE_LIMIT
        return SETTLING_LIMIT if self._phase is _Phase.SETTLING else self._interval

    @property
    def carrying(self) -> bool:
        """Whether frames of packets may be sent: the client's interface is up, and it is not over."""
        return self._phase is _Phase.CARRYING

    def receive(self, data: bytes) -> list[Event]:
        """
        Bytes from the client, cut anywhere.

        @return: what happened, in order: never more than three events.
        """
        if self._phase in (_Phase.CARRYING, _Phase.SETTLING):
            return self._carry(data)
        if self._phase is _Phase.CLOSED:
            return []
        try:
            self._output += self._handshake.receive(data)
        except ProtocolError as error:
            return self._end(error, refused())
        if self._phase is _Phase.HANDSHAKE and self._handshake.proved:
            self._phase = _Phase.DECISION
            return [Authenticated()]
        return []

    def _carry(self, data: bytes) -> list[Event]:
        packets: list[memoryview] = []
        events: list[Event] = []
        self._heard = True
        error: ProtocolError | None = None
        try:
            signals = self._frames.feed(data, packets)
        except ProtocolError as problem:
            error, signals = problem, 0
        if packets:
            events.append(Packets(packets))
            self._phase = _Phase.CARRYING
        if signals & ECHO_REQUEST:
            # However many: one shows as well as all that this end lives, and costs the same however fast they come.
            self._reply_owed = True
        if error is not None:
            events += self._end(error, pack_header(CLOSE))
        elif signals & CLOSE:
            events += self._end(None, b"")
        return events

    def open(self) -> bool:
        """
        Let the client in that is L{Authenticated}; this end's network interface must be up.

        @return: whether it is in: it may be gone by now.
        """
        if self._phase is _Phase.DECISION:
            self._output += accepted(self._mode) + pack_header(ECHO_REQUEST)
            self._phase = _Phase.SETTLING
        elif self._phase is _Phase.HANDSHAKE:
            raise RuntimeError("the client has not proved anything yet")
        return self._phase is not _Phase.CLOSED

    def tick(self) -> list[Event]:
        """L{wait} seconds are over."""
        if self._phase in (_Phase.HANDSHAKE, _Phase.DECISION):
            return self._end(TunnelFailed(f"no vtun client got ready within {HANDSHAKE_LIMIT:.0f} s"), refused())
        if self._phase is _Phase.SETTLING:
            self._phase = _Phase.CARRYING
        elif self._phase is _Phase.CARRYING:
            self._quiet = 0 if self._heard else self._quiet + 1
            self._heard = False
            if self._quiet > self._misses:
                silence = self._quiet * self._interval
                return self._end(ConnectionLost(f"the vtun client was silent for {silence:.0f} s"), pack_header(CLOSE))
            if self._quiet:
                self._output += pack_header(ECHO_REQUEST)
        return []

    def lost(self) -> list[Event]:
        """
        The connection is gone, or the client will send no more. A stock vtund
        that a signal ends says no goodbye: that is its usual end.
        """
        if self._phase in (_Phase.HANDSHAKE, _Phase.DECISION):
            where = "during the handshake"
        else:
            where = "within a frame" if self._frames.within else "without a goodbye"
        return self._end(ConnectionLost(f"the vtun client closed the connection {where}"), b"")

    def close(self) -> None:
        """Refuse a client that is not in yet, take leave of one that is. No event follows. Idempotent."""
        early = self._phase in (_Phase.HANDSHAKE, _Phase.DECISION)
        self._end(None, refused() if early else pack_header(CLOSE))

    def _end(self, error: RDVError | None, farewell: bytes) -> list[Event]:
        if self._phase is _Phase.CLOSED:
            return []
        self._phase = _Phase.CLOSED
        self._reply_owed = False
        self._output += farewell
        return [Closed(error)]

    def take_output(self) -> bytes:
        """What is to be sent to the client now; empty if there is nothing."""
        output = bytes(self._output)
        self._output.clear()
        if self._reply_owed:
            self._reply_owed = False
            # Last, as the order of packets and echoes does not matter, but that of a greeting does.
            return output + pack_header(ECHO_REPLY)
        return output
