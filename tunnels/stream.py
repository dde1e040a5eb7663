"""One device's tunnel of packets over a stream: the stages it passes, and how each of them ends."""

from __future__ import annotations

import socket
from collections.abc import Awaitable
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted import __version__
from rdvtwisted.errors import RDVError, TunnelFailed
from rdvtwisted.interfaces import IDeviceTunnel, IPacketDevice, ITunnelSite
from rdvtwisted.values import TunnelParameters, TunnelReport
from tunnels.conversation import within
from tunnels.hello import Hello, other_end
from tunnels.link import Link
from tunnels.packets import CLOSED

#: Seconds after the handshake until the other device must have said hello and answered a heartbeat.
HELLO_LIMIT = 15.0

T = TypeVar("T")


@implementer(IDeviceTunnel)
class StreamTunnel:
    """
    The device end of a tunnel whose frames a stream carries.

    A kind of tunnel says how it L{connect}s, how it L{hang_up}s, and may have
    more to say than L{blame} when it fails.
    """

    _log = Logger()

    def __init__(self, name: str, parameters: TunnelParameters, site: ITunnelSite, pulse: tuple[float, float]) -> None:
        """
        @param name: the backend's name, for reports.
        @param pulse: seconds between heartbeats, and of silence after which the tunnel has failed.
        """
        self._parameters = parameters
        self._site = site
        self._peer = other_end(parameters)
        self._pulse = pulse
        self._report = TunnelReport(backend=name)
        self._attaching: Deferred[None] = succeed(None)
        self._building: Deferred[None] = succeed(None)
        self._device: IPacketDevice | None = None
        self._link: Link | None = None
        self._opening: Deferred[None] | None = None
        #: What ended the tunnel, and the word in which the other end is to be told.
        self._error: RDVError | None = None
        self._word: str | None = None
        self._ending = False
        self._ended = False
        self._closing: list[Deferred[None]] = []
        self.closed: Deferred[None] = Deferred()

    def attach(self) -> Deferred[str]:
        """Make the network interface; see L{IDeviceTunnel}."""
        attached: Deferred[str] = Deferred(self._abandon)

        def failed(failure: Failure) -> Failure:
            self._end(self._in_our_words(failure.value, f"the interface {self._site.interface} cannot be made"))
            return Failure(self._error or TunnelFailed("the tunnel was closed before it had an interface"))

        attaching = Deferred.fromCoroutine(self._attach()).addErrback(failed)
        # Never cancelled: a device that comes late must still be closed.
        self._attaching = attaching.addBoth(_hand_over, attached)
        return attached

    async def _attach(self) -> str:
        self._go_on()
        device: IPacketDevice = await self._site.network.packet_device(self._site.interface, self._parameters.mode)
        try:
            self._go_on()
        except TunnelFailed:
            device.close()
            raise
        self._device = device
        return str(device.name)

    def carry(self) -> Deferred[TunnelReport]:
        """Connect, check who is there, and carry packets; see L{IDeviceTunnel}."""
        carried: Deferred[TunnelReport] = Deferred(self._abandon)

        def failed(failure: Failure) -> Failure:
            # Once it is ending, this is but the consequence.
            if not self._ending:
                error = self._in_our_words(failure.value, f"the tunnel to {self._peer} failed")
                self._end(error, self._word)
            return Failure(self._error or TunnelFailed("the tunnel was closed before it was built"))

        building = Deferred.fromCoroutine(self._build())
        self._building = building
        building.addCallbacks(lambda _: self.report(), failed).addBoth(_hand_over, carried)
        return carried

    async def _build(self) -> None:
        device = self._device
        if device is None or self._ending:
            raise TunnelFailed("the tunnel has no network interface to carry packets of")
        try:
            await self._open(device)
        except RDVError as error:
            raise await self.blame(error) from None

    async def _open(self, device: IPacketDevice) -> None:
        reactor, parameters = self._site.reactor, self._parameters
        sock, connection = await self.connect()
        hello = Hello(self._site.device, parameters.mode, parameters.mtu, device.supported(), __version__)
        self._opening = Deferred()
        self._link = Link(reactor, sock, connection, device, hello, self._peer, self._pulse, self._opened, self._lost)
        self._link.start()
        await within(reactor, HELLO_LIMIT, self._opening, f"{self._peer} did not say hello")
        self._log.info(
            "The tunnel to {peer} carries packets: {key_exchange}, {cipher}, round trip {round_trip:.4f} s",
            peer=self._peer,
            key_exchange=self._report.key_exchange,
            cipher=self._report.cipher,
            round_trip=self.report().round_trip,
        )

    async def connect(self) -> tuple[socket.socket, Any]:
        """
        Connect to the other end, and make sure that it is who it should be.

        @return: a socket to wait on, and what reads and writes as an C{SSL.Connection} on it does. Their next byte
            is the other end's hello.
        @raise RDVError: that failed; L{hang_up} follows.
        """
        raise NotImplementedError

    def hang_up(self, orderly: bool) -> Awaitable[None]:
        """
        Close what L{connect} has opened so far.

        @param orderly: what was written may still leave.
        """
        raise NotImplementedError

    async def blame(self, error: RDVError) -> RDVError:
        """The error that is to be told, when the tunnel ends by C{error}; asked again for the same one or its own."""
        return error

    def describe(self, key_exchange: str, cipher: str) -> None:
        """For reports: how the stream is encrypted."""
        self._report = evolve(self._report, key_exchange=key_exchange, cipher=cipher)

    def _opened(self) -> None:
        assert self._opening is not None
        opening, self._opening = self._opening, None
        opening.callback(None)

    def _lost(self, error: RDVError | None, word: str | None) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            self._word = word
            opening.errback(error or TunnelFailed(f"{self._peer} left the tunnel before it was built"))
        else:
            self._end(error, word)

    def report(self) -> TunnelReport:
        """What is known now; see L{IDeviceTunnel}."""
        link = self._link
        if link is not None:
            self._report = evolve(
                self._report,
                sent_bytes=link.sent_bytes,
                sent_packets=link.sent_packets,
                received_bytes=link.received_bytes,
                received_packets=link.received_packets,
                round_trip=link.round_trip,
            )
        return self._report

    def close(self) -> Deferred[None]:
        """Say goodbye and leave nothing behind; see L{IDeviceTunnel}."""
        if self._ended:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._closing.append(gone)
        self._end(None, CLOSED)
        return gone

    def _go_on(self) -> None:
        if self._ending:
            raise TunnelFailed("the tunnel is closed")

    def _abandon(self, waiting: Deferred[Any]) -> None:
        """Who waits for a stage has cancelled it: that is the end of the whole."""
        self.close()

    def _end(self, error: RDVError | None, word: str | None = None) -> None:
        """Only the first end counts."""
        if self._ending:
            return
        self._ending = True
        self._error = error
        releasing = Deferred.fromCoroutine(self._release(word))
        releasing.addErrback(lambda failure: self._log.failure("A tunnel could not be released", failure))

    async def _release(self, word: str | None) -> None:
        self._building.cancel()
        left: Deferred[None] | None = None
        if self._link is not None:
            if word is not None:
                left = self._link.leave(word)
            else:
                self._link.stop()
        if self._device is not None:
            self.report()
            self._device.close()
        if left is not None:
            await left
        await self.hang_up(orderly=word is not None or self._error is None)
        if self._error is not None:
            self._error = await self.blame(self._error)
        await self._attaching
        self.report()
        self._device = self._link = None
        self._ended = True
        closing, self._closing = self._closing, []
        for gone in closing:
            gone.callback(None)
        if self._error is None:
            self.closed.callback(None)
        else:
            self.closed.errback(self._error)

    def _in_our_words(self, error: BaseException | None, what: str) -> RDVError:
        """C{error} for a user; one that nobody foresaw goes to the log too."""
        if isinstance(error, RDVError):
            return error
        if not isinstance(error, OSError):
            self._log.failure("Unforeseen error in a tunnel", Failure(error))
        return TunnelFailed(f"{what}: {error}")


def _hand_over(result: T | Failure, waiting: Deferred[T]) -> None:
    """Give a result to who waits for it; who has cancelled waits no more."""
    if not waiting.called:
        waiting.callback(result)
