"""One device's tunnel of packets over a stream: the stages it passes, and how each of them ends."""

from __future__ import annotations

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
from rdvtwisted.values import PublicKey, TunnelParameters, TunnelReport
from tunnels.conversation import Socket
from tunnels.ending import Ending
from tunnels.hello import Hello, other_end
from tunnels.passage import Passage

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
        self._passage: Passage | None = None
        self._ending = Ending(self._release)
        self.closed = self._ending.closed

    def attach(self) -> Deferred[str]:
        """Make the network interface; see L{IDeviceTunnel}."""
        attached: Deferred[str] = Deferred(self._abandon)

        def failed(failure: Failure) -> Failure:
            ending = self._ending
            ending.begin(ending.in_our_words(failure.value, f"the interface {self._site.interface} cannot be made"))
            return Failure(ending.error or TunnelFailed("the tunnel was closed before it had an interface"))

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
            ending = self._ending
            # Once it is ending, this is but the consequence.
            if not ending.begun:
                error = ending.in_our_words(failure.value, f"the tunnel to {self._peer} failed")
                ending.begin(error, None if self._passage is None else self._passage.word)
            return Failure(ending.error or TunnelFailed("the tunnel was closed before it was built"))

        building = Deferred.fromCoroutine(self._build())
        self._building = building
        building.addCallbacks(lambda _: self.report(), failed).addBoth(_hand_over, carried)
        return carried

    async def _build(self) -> None:
        device = self._device
        if device is None or self._ending.begun:
            raise TunnelFailed("the tunnel has no network interface to carry packets of")
        try:
            await self._open(device)
        except RDVError as error:
            raise await self.blame(error) from None

    async def _open(self, device: IPacketDevice) -> None:
        reactor, parameters = self._site.reactor, self._parameters
        sock, connection = await self.connect()
        hello = Hello(self._site.device, parameters.mode, parameters.mtu, device.supported(), __version__)
        self._passage = Passage(reactor, sock, connection, device, hello, self._peer, self._pulse, self._ending.begin)
        await self._passage.carry()
        report = self.report()
        self._log.info(
            "The tunnel to {peer} carries packets: {key_exchange}, {cipher}, round trip {round_trip:.4f} s",
            peer=self._peer,
            key_exchange=report.key_exchange,
            cipher=report.cipher,
            round_trip=report.round_trip,
        )

    async def connect(self) -> tuple[Socket, Any]:
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

    def describe(self, key_exchange: str, cipher: str, proved: PublicKey | None = None) -> None:
        """For reports: how the stream is encrypted, and which key the other end of that has proved to hold."""
        self._report = evolve(self._report, key_exchange=key_exchange, cipher=cipher, proved=proved)

    def report(self) -> TunnelReport:
        """What is known now; see L{IDeviceTunnel}."""
        if self._passage is not None:
            self._report = self._passage.report(self._report)
        return self._report

    def close(self) -> Deferred[None]:
        """Say goodbye and leave nothing behind; see L{IDeviceTunnel}."""
        return self._ending.close()

    def _go_on(self) -> None:
        if self._ending.begun:
            raise TunnelFailed("the tunnel is closed")

    def _abandon(self, waiting: Deferred[Any]) -> None:
        """Who waits for a stage has cancelled it: that is the end of the whole."""
        self.close()

    async def _release(self, word: str | None) -> None:
        ending = self._ending
        self._building.cancel()
        left = None if self._passage is None else self._passage.leave(word)
        if self._device is not None:
            self.report()
            self._device.close()
        if left is not None:
            await left
        await self.hang_up(orderly=word is not None or ending.error is None)
        if ending.error is not None:
            ending.error = await self.blame(ending.error)
        await self._attaching
        self.report()
        self._device = self._passage = None


def _hand_over(result: T | Failure, waiting: Deferred[T]) -> None:
    """Give a result to who waits for it; who has cancelled waits no more."""
    if not waiting.called:
        waiting.callback(result)
