"""The device's end of a C{plain} tunnel."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvplain.carriage import Carriage
from rdvplain.wire import BYE, PACKET, PING, PONG, Wire, frame
from rdvtwisted.errors import ProtocolError, RDVError, TunnelFailed
from rdvtwisted.interfaces import IDeviceTunnel, IPacketDevice, ITunnelSite
from rdvtwisted.values import TunnelParameters, TunnelReport

#: Seconds until the server must have let us in. The other device may still be on its way.
BUILD_LIMIT = 60.0
#: Seconds for the last bytes, after which the connection is cut.
FAREWELL_LIMIT = 1.0


@implementer(IDeviceTunnel)
class PlainTunnel:
    """Speaks to the server through a channel of the device's SSH connection."""

    def __init__(self, name: str, parameters: TunnelParameters, site: ITunnelSite) -> None:
        self._name = name
        self._parameters = parameters
        self._site = site
        self._device: IPacketDevice | None = None
        self._carriage: Carriage | None = None
        self._wire: Wire | None = None
        self._connecting: Deferred[Any] | None = None
        self._carried: Deferred[TunnelReport] | None = None
        self._limit: IDelayedCall | None = None
        self._asked_at = 0.0
        self._round_trip: float | None = None
        self._over = False
        self._error: RDVError | None = None
        self._closing: list[Deferred[None]] = []
        self.closed: Deferred[None] = Deferred()

    # IDeviceTunnel

    def attach(self) -> Deferred[str]:
        """Make the network interface; see L{IDeviceTunnel}."""
        if self._over:
            return fail(TunnelFailed("the tunnel is closed"))
        made = self._site.network.packet_device(self._site.interface, self._parameters.mode)
        attached: Deferred[str] = made.addCallbacks(self._attached, self._refused)
        return attached

    def carry(self) -> Deferred[TunnelReport]:
        """Go to the server; see L{IDeviceTunnel}."""
        if self._over or self._device is None:
            return fail(TunnelFailed("the tunnel has no network interface"))
        self._carried = Deferred(lambda _: self._end(None))
        self._limit = self._site.reactor.callLater(
            BUILD_LIMIT, self._end, TunnelFailed("the server has not let this device in in time")
        )
        endpoint = self._site.forward(self._parameters.door_port)
        self._connecting = endpoint.connect(Factory.forProtocol(self._connect))
        self._connecting.addCallbacks(self._connected, self._unconnected)
        return self._carried

    def report(self) -> TunnelReport:
        """What is known now; see L{IDeviceTunnel}."""
        sent, received = (0, 0), (0, 0)
        if self._carriage is not None:
            sent, received = self._carriage.sent, self._carriage.received
        return TunnelReport(
            backend=self._name,
            sent_packets=sent[0],
            sent_bytes=sent[1],
            received_packets=received[0],
            received_bytes=received[1],
            round_trip=self._round_trip,
        )

    def close(self) -> Deferred[None]:
        """Say goodbye, and leave nothing behind; see L{IDeviceTunnel}."""
        if self.closed.called:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._closing.append(gone)
        self._end(None)
        return gone

    # On the way

    def _attached(self, device: IPacketDevice) -> str:
        if self._over:
            device.close()
            raise TunnelFailed("the tunnel is closed")
        self._device = device
        self._carriage = Carriage(self._site.reactor, device, self._end)
        return str(device.name)

    def _refused(self, failure: Failure) -> Failure:
        error = failure.value
        self._end(error if isinstance(error, RDVError) else TunnelFailed(f"there is no network interface: {error}"))
        return failure

    def _connect(self) -> Wire:
        self._wire = Wire(self, f"plain/1 {self._parameters.ticket}\n".encode("ascii"))
        return self._wire

    def _connected(self, _: object) -> None:
        self._connecting = None

    def _unconnected(self, failure: Failure) -> None:
        self._connecting = None
        if not failure.check(CancelledError):
            self._end(TunnelFailed(f"the server does not open the tunnel: {failure.getErrorMessage()}"))

    # What the wire says

    def said(self, wire: Wire, line: bytes) -> None:
        """The server's answer."""
        if line != b"welcome":
            self._end(TunnelFailed("the server does not let this device in"))
            return
        assert self._carriage is not None
        self._carriage.start(wire)
        if not self._over:
            self._asked_at = self._site.reactor.seconds()
            wire.transport.write(frame(PING))

    def framed(self, wire: Wire, kind: int, content: bytes) -> None:
        """A frame."""
        assert self._carriage is not None
        if kind == PACKET:
            self._carriage.take(content)
        elif kind == PING:
            # Who asks without listening gets no answers to keep for him.
            if self._carriage.flowing:
                wire.transport.write(frame(PONG))
        elif kind == BYE:
            self._end(None)
        elif self._carried is not None and not self._carried.called:
            self._round_trip = self._site.reactor.seconds() - self._asked_at
            self._stop_waiting()
            self._carried.callback(self.report())

    def garbled(self, wire: Wire, error: ProtocolError) -> None:
        """Nonsense."""
        self._end(error)

    def lost(self, wire: Wire) -> None:
        """The connection is gone."""
        self._end(TunnelFailed("the connection to the server's end of the tunnel is lost"))
        self._finish()

    # The end

    def _stop_waiting(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _end(self, error: RDVError | None) -> None:
        """Only the first end counts."""
        if self._over:
            return
        self._over, self._error = True, error
        self._stop_waiting()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._carriage is not None:
            self._carriage.stop()
        if self._device is not None:
            self._device.close()
        if self._wire is not None and not self._wire.gone:
            self._limit = self._site.reactor.callLater(FAREWELL_LIMIT, self._wire.cut)
            self._wire.leave(frame(BYE) if error is None else b"")
        else:
            self._finish()

    def _finish(self) -> None:
        if self.closed.called:
            return
        self._stop_waiting()
        if self._carried is not None and not self._carried.called:
            self._carried.errback(self._error or TunnelFailed("the tunnel was closed before it was built"))
        closing, self._closing = self._closing, []
        if self._error is None:
            self.closed.callback(None)
        else:
            self.closed.errback(self._error)
        for gone in closing:
            gone.callback(None)
