"""A C{direct-tcpip} channel (RFC 4254, section 7.2) as the transport of a protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.ssh.channel import STDOUT, Channel

KIND = b"direct-tcpip"


def target(host: str, port: int) -> IAddress:
    """The address of a forwarded connection's far end."""
    try:
        version = ip_address(host).version
    except ValueError:
        return HostnameAddress(host.encode("utf-8"), port)
    return IPv4Address("TCP", host, port) if version == 4 else IPv6Address("TCP", host, port)


@implementer(ITransport, IConsumer, IPushProducer)
class StreamChannel(Channel):
    """
    Carries one protocol's connection.

    As over TCP, either end may stop sending and still receive: a protocol that
    provides IHalfCloseableProtocol is told; any other sees its connection
    closed once the peer sends no more.
    """

    kind = KIND
    log = Logger()

    #: Set before the channel is opened.
    protocol: IProtocol

    def __init__(self, host: IAddress, peer: IAddress) -> None:
        super().__init__()
        self._host = host
        self._peer = peer
        #: Data that came while the protocol wanted none; at most the window.
        self._held: deque[bytes] = deque()
        self._paused = False
        self._delivering = False
        self._eof_held = False
        self._end: Failure | None = None
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._pulling = False

    # From the channel

    def opened(self) -> None:
        """Connect the protocol."""
        try:
            self.protocol.makeConnection(self)
        except Exception:  # noqa: BLE001 - as below
            self.log.failure("A forwarded connection failed")
            self.abort()

    def received(self, stream: int, data: bytes) -> None:
        """Hand data on, or hold it."""
        if stream == STDOUT:
            self._held.append(data)
            self._deliver()
        else:
            self.credit(len(data))

    def eof_received(self) -> None:
        """Hand the end on, after what is held."""
        self._eof_held = True
        self._deliver()

    def _deliver(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._held and not self._paused:
                data = self._held.popleft()
                self.protocol.dataReceived(data)
                self.credit(len(data))
            if self._eof_held and not (self._held or self._paused):
                self._eof_held = False
                self._read_ended()
        except Exception:  # noqa: BLE001 - a protocol's fault ends its own connection, not the device's
            self.log.failure("A forwarded connection failed")
            self._held.clear()
            self.abort()
        finally:
            self._delivering = False
        self._bury()

    def _read_ended(self) -> None:
        if not IHalfCloseableProtocol.providedBy(self.protocol):
            self.loseConnection()
            return
        IHalfCloseableProtocol(self.protocol).readConnectionLost()
        if self._eof_due:
            self.close()

    def closed(self, reason: str) -> None:
        """Tell the protocol, after what is held if the end was orderly."""
        if reason:
            self._held.clear()
        self._end = Failure(ConnectionLost(reason) if reason else ConnectionDone())
        if self._producer is not None:
            self._producer.stopProducing()
            self._producer = None
        self._bury()

    def _bury(self) -> None:
        if self._end is not None and not self._held and not self._delivering:
            end, self._end = self._end, None
            self.protocol.connectionLost(end)

    def filled(self) -> None:
        """Ask the protocol's producer to pause."""
        if self._producer is not None and self._streaming and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()

    def drained(self) -> None:
        """Let the protocol's producer go on."""
        if self._producer is None:
            return
        if self._streaming:
            if self._producer_paused:
                self._producer_paused = False
                self._producer.resumeProducing()
        elif not self._pulling:
            self._pull()

    def _pull(self) -> None:
        self._pulling = True
        before = -1
        # Ends when the producer has nothing to give just now; what it writes later comes here again.
        while self._producer is not None and self.takes_more and before != self._peer_window:
            before = self._peer_window
            self._producer.resumeProducing()
        self._pulling = False

    # ITransport and what TCP's transports have beside it

    def write(self, data: bytes) -> None:
        """Send C{data}."""
        self.send(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of C{data}."""
        self.send(b"".join(data))

    def loseConnection(self) -> None:
        """Close, after all that was written."""
        self.close()

    def abortConnection(self) -> None:
        """Close at once."""
        self.abort()

    def loseWriteConnection(self) -> None:
        """Send no more after all that was written, but go on receiving."""
        self.end_output()
        if self._eof_came and not self._eof_held:
            self.close()

    def getPeer(self) -> IAddress:
        """The far end of the forwarded connection."""
        return self._peer

    def getHost(self) -> IAddress:
        """The near end of the forwarded connection."""
        return self._host

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let C{producer} write as fast as the channel takes it."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is already registered")
        if self.close_sent:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self.drained()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self._producer = None

    # IPushProducer

    def pauseProducing(self) -> None:
        """Deliver nothing for now; the peer may send until its window is used up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()
