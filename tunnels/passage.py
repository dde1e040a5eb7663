"""The stage of a tunnel at which its two ends have met: they agree, then carry packets until one of them leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from rdvtwisted.errors import RDVError, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice
from rdvtwisted.values import TunnelReport
from tunnels.conversation import Socket, within
from tunnels.hello import Hello
from tunnels.link import Link

#: Seconds after the handshake until the other end must have said hello and answered a heartbeat.
HELLO_LIMIT = 15.0


class Passage:
    """One end of a connection between two that know each other already."""

    def __init__(
        self,
        reactor: Any,
        socket: Socket,
        connection: Any,
        device: IPacketDevice,
        hello: Hello,
        peer: str,
        pulse: tuple[float, float],
        lost: Callable[[RDVError | None, str | None], None],
    ) -> None:
        """
        @param socket: to wait on; nobody else watches it.
        @param connection: reads and writes as an C{SSL.Connection} on it does.
        @param device: is used, not closed.
        @param hello: what this end says of itself.
        @param peer: what the other end must say that it is.
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        @param lost: called once if it ends after L{carry}, as by L{Link}.
        """
        self._reactor = reactor
        self._peer = peer
        self._lost = lost
        self._opening: Deferred[None] = Deferred()
        self._link = Link(reactor, socket, connection, device, hello, peer, pulse, self._opened, self._ended)
        #: The word in which the other end is to be told why L{carry} has failed, if it is there.
        self.word: str | None = None

    async def carry(self) -> None:
        """
        Agree with the other end, and let packets flow.

        @raise ProtocolError: it does not speak as it should.
        @raise TunnelFailed: the two do not agree, it broke off, or said nothing.
        """
        self._link.start()
        await within(self._reactor, HELLO_LIMIT, self._opening, f"{self._peer} did not say hello")

    def _opened(self) -> None:
        self._opening.callback(None)

    def _ended(self, error: RDVError | None, word: str | None) -> None:
        if self._opening.called:
            self._lost(error, word)
        else:
            self.word = word
            self._opening.errback(error or TunnelFailed(f"{self._peer} left the tunnel before it was built"))

    def leave(self, word: str | None) -> Deferred[None] | None:
        """
        Carry nothing more; let go of the device at once, and of the socket.

        @param word: why, for an other end that is there to hear it; else L{None}.
        @return: a Deferred that fires once nobody watches the socket any more; L{None} if that is so already.
        """
        if word is not None:
            return self._link.leave(word)
        self._link.stop()
        return None

    def report(self, report: TunnelReport) -> TunnelReport:
        """C{report} with what is known now."""
        link = self._link
        return evolve(
            report,
            sent_bytes=link.sent_bytes,
            sent_packets=link.sent_packets,
            received_bytes=link.received_bytes,
            received_packets=link.received_packets,
            round_trip=link.round_trip,
        )
