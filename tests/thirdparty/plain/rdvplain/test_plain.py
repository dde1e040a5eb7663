"""The backend keeps both contracts of rdvtwisted; C{python -m twisted.trial rdvplain.test_plain}."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rdvplain.backend import PlainBackend
from rdvplain.wire import LONGEST_LINE, PACKET, Wire, frame
from rdvtwisted.adapters.backends import discover
from rdvtwisted.errors import ProtocolError
from rdvtwisted.interfaces import IDeviceTunnel, ITunnelBackend
from rdvtwisted.testing.server_tunnels import MemoryServerSite, ServerEnd, ServerTunnelContract, WatchedReactor, terms
from rdvtwisted.testing.standins import Forward, Stand, TunnelCaller
from rdvtwisted.testing.tunnels import MemoryTunnelSite, TunnelBackendContract, TunnelEnds, identity, parameters
from rdvtwisted.values import Mode, Role

reactor: Any = global_reactor

DEVICE = "rpi1100"


def site(forward: Forward) -> MemoryTunnelSite:
    """A device whose channels to the tunnel's port lead there."""
    made = MemoryTunnelSite(DEVICE, Role.ONSITE, reactor, identity(DEVICE), forward.endpoint, b"")
    made.forwards[forward.number] = forward.endpoint
    return made


def device_end(where: MemoryTunnelSite, mode: Mode, secret: str) -> IDeviceTunnel:
    """A device's end."""
    (port,) = where.forwards
    told = parameters("plain", mode, Role.ONSITE, "rpi1101", identity("server").public, secret)
    tunnel: IDeviceTunnel = PlainBackend().device_end(evolve(told, join="glue", door_port=port), where)
    return tunnel


class DiscoveryTests(SynchronousTestCase):
    """rdvtwisted finds it."""

    def test_found(self) -> None:
        """It is in the list, behind rdvtwisted's own."""
        found = discover()
        self.assertEqual(found.problems, ())
        self.assertEqual(found.backends[-1], PlainBackend())


class ContractTests(TunnelBackendContract, TestCase):
    """The contract of backends."""

    def build_backend(self) -> ITunnelBackend:
        backend: ITunnelBackend = PlainBackend()
        return backend

    def build_ends(self, mode: Mode) -> TunnelEnds:
        tunnel = self.build_backend().server_end(terms(mode, DEVICE), MemoryServerSite(reactor))
        forward = Forward(reactor, tunnel.accept)
        self.addCleanup(forward.close)
        near, far = site(forward), site(forward)
        stand = Stand(tunnel, far, mode, "plain")
        return TunnelEnds(device_end(near, mode, tunnel.secret), stand, near, far, forward.cut)


class ServerContractTests(ServerTunnelContract, TestCase):
    """The contract of servers' ends."""

    def build_end(self, mode: Mode) -> ServerEnd:
        watched = WatchedReactor(reactor)
        tunnel = PlainBackend().server_end(terms(mode, DEVICE), MemoryServerSite(watched))

        def caller(secret: str) -> TunnelCaller:
            forward = Forward(reactor, end.accept)
            self.addCleanup(forward.close)
            where = site(forward)
            return TunnelCaller(device_end(where, mode, secret), where, forward.cut)

        end = ServerEnd(tunnel, watched, device=lambda: caller(tunnel.secret), stranger=lambda: caller("wrong"))
        return end


class Ear:
    """Remembers what a wire tells."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def said(self, wire: Wire, line: bytes) -> None:
        """A line."""
        self.heard.append(line)

    def framed(self, wire: Wire, kind: int, content: bytes) -> None:
        """A frame."""
        self.heard.append((kind, content))

    def garbled(self, wire: Wire, error: ProtocolError) -> None:
        """Nonsense."""
        self.heard.append(str(error))
        wire.leave()

    def lost(self, wire: Wire) -> None:
        """The end."""


class WireTests(SynchronousTestCase):
    """What comes over the wire."""

    def test_pieces(self) -> None:
        """Lines and frames may come in whatever pieces."""
        said = b"hello\n" + frame(PACKET, b"x" * 300) + frame(PACKET)
        for size in (1, 7, len(said)):
            ear = Ear()
            wire = Wire(ear)
            for start in range(0, len(said), size):
                wire.dataReceived(said[start : start + size])
            self.assertEqual(ear.heard, [b"hello", (PACKET, b"x" * 300), (PACKET, b"")])

    def test_nonsense(self) -> None:
        """A line without an end, and a frame of no kind, are told once, and nothing after them is heard."""
        for said, told in ((b"x" * (LONGEST_LINE + 1), ["the first line is too long"]), (b"a\n\xff\0\0", None)):
            ear = Ear()
            wire = Wire(ear)
            for _ in range(3):
                wire.dataReceived(said)
            self.assertEqual(ear.heard, told or [b"a", "there are no frames of kind 255"])


class Mute(Protocol):
    """Connects and says what a test has it say, once; remembers what it hears until it is cut off."""

    def __init__(self, words: bytes) -> None:
        self.words, self.heard = words, b""
        self.over: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Say it."""
        assert self.transport is not None
        self.transport.write(self.words)

    def dataReceived(self, data: bytes) -> None:
        """Remember it."""
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cut off."""
        self.over.callback(self.heard)


class StrangerTests(TestCase):
    """Who is no device."""

    timeout = 20

    async def test_refused(self) -> None:
        """Whatever it says that is not the secret, it hears one word, and the tunnel goes on waiting."""
        tunnel = PlainBackend().server_end(terms(Mode.L3, DEVICE), MemoryServerSite(reactor))
        forward = Forward(reactor, tunnel.accept)
        self.addCleanup(forward.close)
        for words in (b"plain/1 \n", b"GET / HTTP/1.1\r\n", b"x" * 1000, b"plain/1 " + b"\xff" * 20 + b"\n"):
            stranger: Any = await forward.endpoint.connect(Factory.forProtocol(partial(Mute, words)))
            self.assertEqual(await stranger.over, b"no\n")
        self.assertFalse(tunnel.opened.called or tunnel.closed.called)
        await tunnel.close()
