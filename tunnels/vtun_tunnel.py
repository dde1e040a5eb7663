"""The device end of a C{vtun} tunnel: a stock vtund client, connected through the device's SSH connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import MissingProgram, RDVError, TunnelFailed
from rdvtwisted.interfaces import IDeviceTunnel, IProgram, ITunnelSite
from rdvtwisted.values import Mode, TunnelParameters, TunnelReport
from tunnels.conversation import within
from tunnels.ping import reach
from tunnels.vtun_client import TIMEOUT, VtunClient
from tunnels.vtun_handshake import session_name
from tunnels.vtun_pipe import VtunPipe

#: Seconds until both ends must carry packets: the client gives up before by itself if it hears nothing.
BUILD_LIMIT = TIMEOUT + 5.0

#: What the client's interface has carried: a line for each interface (proc(5)).
COUNTERS = Path("/proc/self/net/dev")

_FILE = "vtund.conf"
#: What vtund puts before each of its lines, and lines that say nothing of why it ended.
_HEAD = re.compile(r"vtund\[\w+\]: (?:.*?\[\d+\]: )?")
#: In the line in which a client tells its version.
_OWN_VERSION = "VTun client ver "
_EMPTY_WORDS = re.compile(
    r"\.|Exit|Closing connection|Session .* (?:opened|closed)|VTun client .* started|Use SSL-aware.*"
)

T = TypeVar("T")


def counters(interface: str, table: Path = COUNTERS) -> tuple[int, int, int, int] | None:
    """
    What an interface has carried.

    @return: bytes and packets sent, bytes and packets received; L{None} if there is no such interface.
    """
    for line in table.read_text("ascii", "replace").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            words = numbers.split()
            # In the eyes of the machine: what a program has read from a TUN or TAP device was sent.
            return int(words[8]), int(words[9]), int(words[0]), int(words[1])
    return None


def own_version(lines: list[str]) -> str:
    """What vtund has said of its version, which need not be the first that it has to say."""
    return next((_HEAD.sub("", line, count=1) for line in lines if _OWN_VERSION in line), "vtund")


def last_words(lines: list[str]) -> str:
    """What vtund has said of its end, if it has said anything that helps."""
    for line in reversed(lines):
        text = _HEAD.sub("", line, count=1)
        if not _EMPTY_WORDS.fullmatch(text):
            return text
    return ""


@implementer(IDeviceTunnel)
class VtunTunnel:
    """
    Packets that a stock vtund takes from a network interface, and hands to it.

    The interface is made for it beforehand, and stays while it comes and goes,
    so the device's plan brings it up before the first packet can come, and
    vtund needs to run no commands.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        parameters: TunnelParameters,
        site: ITunnelSite,
        *,
        ask: Callable[[Any, str, str], Deferred[float | None]] = reach,
        pipe: Callable[..., VtunPipe] = VtunPipe,
        table: Path = COUNTERS,
    ) -> None:
        """
        @param name: the backend's name, for reports.
        @param ask: asks an address by an interface until it answers, see L{reach}.
        """
        self._parameters = parameters
        self._site = site
        self._ask = ask
        self._table = table
        self._pipe = pipe(site.reactor, site.forward(parameters.door_port), parameters.mode, self._end)
        self._program: IProgram | None = None
        self._report = TunnelReport(backend=name)
        self._attached = False
        self._attaching: Deferred[Any] = succeed(None)
        self._building: Deferred[None] = succeed(None)
        self._error: RDVError | None = None
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
        # Never cancelled: an interface that comes late must still be removed.
        self._attaching = attaching.addBoth(_hand_over, attached)
        return attached

    async def _attach(self) -> str:
        if self._ending:
            raise TunnelFailed("the tunnel is closed")
        site = self._site
        self._attached = True
        await site.network.make_interface(site.owner, site.interface, self._parameters.mode)
        return str(site.interface)

    def carry(self) -> Deferred[TunnelReport]:
        """Have vtund connect, and wait until packets come back; see L{IDeviceTunnel}."""
        carried: Deferred[TunnelReport] = Deferred(self._abandon)

        def failed(failure: Failure) -> Failure:
            # Once it is ending, this is but the consequence.
            if not self._ending:
                self._end(self._in_our_words(failure.value, "the vtun tunnel failed"))
            return Failure(self._error or TunnelFailed("the tunnel was closed before it was built"))

        building = Deferred.fromCoroutine(self._build())
        self._building = building
        building.addCallbacks(lambda _: self.report(), failed).addBoth(_hand_over, carried)
        return carried

    async def _build(self) -> None:
        site, parameters = self._site, self._parameters
        if not self._attached or self._ending:
            raise TunnelFailed("the tunnel has no network interface to carry packets of")
        path = site.programs.find("vtund")
        if path is None:
            raise MissingProgram("vtund is not installed: install the package vtun")
        client = VtunClient(
            session_name(site.device), parameters.ticket, interface=site.interface, port=self._pipe.listen()
        )
        self._program = program = site.programs.start([path, *client.arguments(_FILE)], {_FILE: client.text})
        program.ended.addCallback(self._program_ended)
        await within(site.reactor, BUILD_LIMIT, self._pipe.flowing, "the vtun tunnel was not open")
        trip: float | None = None
        if parameters.mode is Mode.L3:
            trip = await self._ask(site.reactor, str(parameters.peer_address), site.interface)
        self._report = evolve(self._report, round_trip=trip)
        self._log.info("The vtun tunnel carries packets: {version}", version=own_version(program.output()))

    def _program_ended(self, sentence: str) -> None:
        words = "" if self._program is None else last_words(self._program.output())
        self._end(TunnelFailed(f"{sentence}: {words}" if words else sentence))

    def report(self) -> TunnelReport:
        """What is known now; see L{IDeviceTunnel}."""
        if self._attached and not self._ended:
            found = counters(self._site.interface, self._table)
            if found is not None:
                sent, sent_packets, received, received_packets = found
                self._report = evolve(
                    self._report,
                    sent_bytes=sent,
                    sent_packets=sent_packets,
                    received_bytes=received,
                    received_packets=received_packets,
                )
        return self._report

    def close(self) -> Deferred[None]:
        """Have vtund say goodbye, and leave nothing behind; see L{IDeviceTunnel}."""
        if self._ended:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._closing.append(gone)
        self._end(None)
        return gone

    def _abandon(self, waiting: Deferred[Any]) -> None:
        """Who waits for a stage has cancelled it: that is the end of the whole."""
        self.close()

    def _end(self, error: RDVError | None) -> None:
        """Only the first end counts."""
        if self._ending:
            return
        self._ending = True
        self._error = error
        releasing = Deferred.fromCoroutine(self._release())
        releasing.addErrback(lambda failure: self._log.failure("A tunnel could not be released", failure))

    async def _release(self) -> None:
        self._building.cancel()
        await self._attaching
        if self._program is not None:
            await self._program.end()
            for line in self._program.output():
                self._log.debug("vtund: {line}", line=line)
        await self._pipe.close()
        self.report()
        self._ended = True
        if self._attached:
            try:
                await self._site.network.undo(self._site.owner)
            except RDVError as error:
                self._log.error("The tunnel's interface is still there: {error}", error=str(error))
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
