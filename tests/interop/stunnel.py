"""A TLS door for stock stunnel programs, with tunnels behind it that end at the server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.programs import Programs
from rdvtwisted.interfaces import ITunnelSeat, ITunnelStream
from rdvtwisted.testing.server_tunnels import MemoryServerSite, terms
from rdvtwisted.testing.standins import Stand
from rdvtwisted.testing.tunnels import MemoryIdentity, MemoryTunnelSite, TunnelEnds, identity
from rdvtwisted.values import Mode, Role
from tests.adapters.front.clients import Office
from tests.adapters.front.test_door import Greeters
from tests.tunnels.stunnel import DEVICE, StunnelDevice, device_end
from tunnels.stunnel import PROGRAMS, StunnelBackend

reactor: Any = global_reactor


@implementer(ITunnelSeat)
@define(eq=False)
class Chair:
    """The seat of a tunnel that ends at the server."""

    #: What is to have the stream.
    sitter: Callable[[ITunnelStream], object]
    inside: bool = True
    stream: ITunnelStream | None = None

    def occupy(self, stream: ITunnelStream) -> None:
        """Give it to who is to have it."""
        self.stream = stream
        self.sitter(stream)

    def cut(self) -> None:
        """Break the TCP connection, without a word of TLS. Idempotent."""
        stream: Any = self.stream
        if stream is not None:
            stream.transport.transport.abortConnection()


class StunnelCase(TestCase):
    """Tests with a door on a free port of 127.0.0.1."""

    timeout = 60

    tls12 = False

    def setUp(self) -> None:
        """Open the door."""
        if not any(shutil.which(name) for name in PROGRAMS):
            self.skipTest("stunnel4 is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = Authority.open(self.folder / "tls", ["127.0.0.1"], reactor)
        self.office = Office()
        self.ssh = Greeters()
        self.refusals: list[tuple[str, str, str, str]] = []
        self.door = Door(
            reactor,
            self.authority.credentials(),
            self.office,
            self.ssh,
            lambda *what: self.refusals.append(what),
            tls12=self.tls12,
        )
        port = reactor.listenTCP(0, self.door, interface="127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.port: int = port.getHost().port
        self.programs = Programs(reactor, self.folder / "programs")
        self.identity = identity(DEVICE)

    def site(self, own: MemoryIdentity | None = None, authority: bytes | None = None) -> MemoryTunnelSite:
        """The device."""
        return MemoryTunnelSite(
            DEVICE,
            Role.ONSITE,
            reactor,
            own or self.identity,
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.port),
            authority or self.authority.der,
            door_address=("127.0.0.1", self.port),
            programs=self.programs,
        )

    def pair(
        self,
        mode: Mode = Mode.L3,
        near_mode: Mode | None = None,
        own: MemoryIdentity | None = None,
        ticket: str | None = None,
        authority: bytes | None = None,
    ) -> tuple[TunnelEnds, Chair]:
        """
        The device's end and the server's; closed when the test is over.

        @param ticket: what the device shows, if not the ticket that it was given.
        """
        backend = StunnelBackend()
        good = f"ticket{len(self.office.tickets)}"
        tunnel = backend.server_end(terms(mode, DEVICE, key=self.identity.public), MemoryServerSite(reactor))
        chair = Chair(tunnel.occupy)
        self.office.tickets[good] = (self.identity.public, chair)
        near_site, far_site = self.site(own, authority), self.site()
        near = device_end(near_site, near_mode or mode, ticket or good)
        ends = TunnelEnds(near, Stand(tunnel, far_site, mode, "stunnel"), near_site, far_site, chair.cut)
        self.addCleanup(lambda: Deferred.fromCoroutine(ends.close()))
        return ends, chair

    def device(self, mode: Mode, sitter: Callable[[ITunnelStream], object], own: MemoryIdentity) -> StunnelDevice:
        """A device with this key, and with a ticket that only the right key makes good."""
        chair = Chair(sitter)
        ticket = f"ticket{len(self.office.tickets)}"
        self.office.tickets[ticket] = (self.identity.public, chair)
        return StunnelDevice(self.site(own), mode, ticket, chair.cut)
