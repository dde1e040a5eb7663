"""The server's end of a C{plain} tunnel."""

from __future__ import annotations

import secrets
from hmac import compare_digest

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from rdvplain.carriage import Carriage
from rdvplain.wire import BYE, PACKET, PING, PONG, Wire, frame
from rdvtwisted.errors import ProtocolError, RDVError, RequestRefused, TunnelFailed
from rdvtwisted.interfaces import IPacketDevice, IServerSite, IServerTunnel, ITunnelStream
from rdvtwisted.values import TunnelTerms

#: Connections to one tunnel at a time.
MOST_WIRES = 4
#: Seconds in which the first line must come.
LINE_LIMIT = 10.0
#: Seconds for the last bytes, after which a connection is cut.
FAREWELL_LIMIT = 1.0


@implementer(IServerTunnel)
class PlainServerTunnel:
    """Lets in who knows the secret, once; others it sends away."""

    _log = Logger()

    def __init__(self, terms: TunnelTerms, site: IServerSite) -> None:
        self.secret = secrets.token_urlsafe(24)
        self._terms = terms
        self._reactor = site.reactor
        #: Every connection that there is, with when it is to be cut.
        self._wires: dict[Wire, IDelayedCall | None] = {}
        self._seated: Wire | None = None
        self._device: IPacketDevice | None = None
        self._carriage: Carriage | None = None
        self._over = False
        self._error: RDVError | None = None
        self._closing: list[Deferred[None]] = []
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()

    # IServerTunnel

    def start(self, device: IPacketDevice) -> None:
        """The packet device is there; see L{IServerTunnel}."""
        if self._over:
            device.close()
            return
        self._device = device
        self._carriage = Carriage(self._reactor, device, self._end)
        self._let_in()

    def accept(self) -> Wire:
        """The device opens a connection; see L{IServerTunnel}."""
        if self._over:
            raise RequestRefused("the tunnel is closed")
        if len(self._wires) >= MOST_WIRES:
            raise RequestRefused(f"there are {MOST_WIRES} connections to the tunnel already")
        wire = Wire(self)
        self._wires[wire] = self._reactor.callLater(LINE_LIMIT, wire.cut)
        return wire

    def occupy(self, stream: ITunnelStream) -> None:
        """A stream is not for this kind of tunnel; see L{IServerTunnel}."""
        stream.abort()

    def traffic(self) -> tuple[int, int]:
        """Bytes from the device, to the device; see L{IServerTunnel}."""
        return (0, 0) if self._carriage is None else (self._carriage.received[1], self._carriage.sent[1])

    def close(self) -> Deferred[None]:
        """Say goodbye, and leave nothing behind; see L{IServerTunnel}."""
        if self.closed.called:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._closing.append(gone)
        self._end(None)
        return gone

    # What wires say

    def said(self, wire: Wire, line: bytes) -> None:
        """Somebody says who he is."""
        if self._over:
            return
        if self._seated is not None or not compare_digest(line, f"plain/1 {self.secret}".encode("ascii")):
            self._log.info("The plain tunnel of {device} turned somebody away", device=self._terms.device)
            self._dismiss(wire, b"no\n")
            return
        self._no_limit(wire)
        self._seated = wire
        self._let_in()

    def _let_in(self) -> None:
        wire, carriage = self._seated, self._carriage
        if wire is None or carriage is None:
            return
        wire.transport.write(b"welcome\n")
        carriage.start(wire)
        if not self._over:
            self._log.info("The plain tunnel of {device} carries packets", device=self._terms.device)
            self.opened.callback(None)

    def framed(self, wire: Wire, kind: int, content: bytes) -> None:
        """A frame."""
        if wire is not self._seated or self._carriage is None:
            self._dismiss(wire, b"no\n")
        elif kind == PACKET:
            self._carriage.take(content)
        elif kind == PING:
            # Who asks without listening gets no answers to keep for him.
            if self._carriage.flowing:
                wire.transport.write(frame(PONG))
        elif kind == BYE:
            self._end(None)

    def garbled(self, wire: Wire, error: ProtocolError) -> None:
        """Nonsense; of the device itself it ends the tunnel."""
        if wire is self._seated and self.opened.called:
            self._end(error)
        else:
            self._dismiss(wire, b"no\n")

    def lost(self, wire: Wire) -> None:
        """A connection is gone."""
        self._no_limit(wire)
        del self._wires[wire]
        if wire is self._seated:
            self._seated = None
            if self.opened.called:
                self._end(TunnelFailed(f"the connection of {self._terms.device} to its tunnel is lost"))
        if self._over:
            self._finish()

    # The end

    def _no_limit(self, wire: Wire) -> None:
        limit, self._wires[wire] = self._wires.get(wire), None
        if limit is not None and limit.active():
            limit.cancel()

    def _dismiss(self, wire: Wire, last_words: bytes) -> None:
        if wire is self._seated and not self._over:
            self._seated = None
        self._no_limit(wire)
        if not wire.gone:
            self._wires[wire] = self._reactor.callLater(FAREWELL_LIMIT, wire.cut)
            wire.leave(last_words)

    def _end(self, error: RDVError | None) -> None:
        """Only the first end counts."""
        if self._over:
            return
        self._over, self._error = True, error
        if self._carriage is not None:
            self._carriage.stop()
        if self._device is not None:
            self._device.close()
        for wire in list(self._wires):
            if wire.transport is None:
                # Accepted, and not connected yet: it holds nothing.
                wire.leave()
                self._no_limit(wire)
                del self._wires[wire]
            else:
                self._dismiss(wire, frame(BYE) if wire is self._seated and self.opened.called else b"no\n")
        self._finish()

    def _finish(self) -> None:
        if self._wires or self.closed.called:
            return
        closing, self._closing = self._closing, []
        if self._error is None:
            self.closed.callback(None)
        else:
            self.closed.errback(self._error)
        for gone in closing:
            gone.callback(None)
