"""One session of two C{tls} tunnels through a small door, for tests that look at one end closely."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import IDeviceTunnel
from rdvtwisted.testing.tunnels import MemoryIdentity, MemoryTunnelSite, TunnelEnds, identity, parameters
from rdvtwisted.values import Mode, PublicKey, Role
from tests.tunnels.door import Door
from tunnels.tls import TLSBackend

E = TypeVar("E", bound=RDVError)


class ClockedReactor:
    """The real reactor's descriptors with the time of a test: what waits for time, waits for L{clock}."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.addReader: Callable[[Any], None] = reactor.addReader  # type: ignore[attr-defined]
        self.addWriter: Callable[[Any], None] = reactor.addWriter  # type: ignore[attr-defined]
        self.removeReader: Callable[[Any], None] = reactor.removeReader  # type: ignore[attr-defined]
        self.removeWriter: Callable[[Any], None] = reactor.removeWriter  # type: ignore[attr-defined]

    def seconds(self) -> float:
        """The test's time."""
        return float(self.clock.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """Call when the test's time has come."""
        return self.clock.callLater(delay, callable, *args, **kw)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """What waits for the test's time."""
        return list(self.clock.getDelayedCalls())


def descriptors() -> set[str]:
    """The open descriptors of this process and what they are; sockets each have a number of their own."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return found


class SessionCase(TestCase):
    """Tests of tunnels through a L{Door}, with a clock of their own."""

    timeout = 30

    def setUp(self) -> None:
        self.reactor = ClockedReactor()
        self.clock = self.reactor.clock
        self.door = Door(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.door.close()))
        self.identities = {role: identity(str(role)) for role in Role}

    def site(self, role: Role, own: MemoryIdentity | None = None, authority: bytes | None = None) -> MemoryTunnelSite:
        """A device with this role."""
        return MemoryTunnelSite(
            f"rpi-{role}",
            role,
            self.reactor,
            own or self.identities[role],
            self.door.endpoint,
            authority or self.door.authority.der,
        )

    def tunnel(self, site: MemoryTunnelSite, peer_key: PublicKey | None = None, mode: Mode = Mode.L3) -> IDeviceTunnel:
        """This device's tunnel to the other one; closed when the test is over, whatever became of it."""
        other = Role.ONSITE if site.role is Role.MASTER else Role.MASTER
        key = peer_key or self.identities[other].public
        said = parameters("tls", mode, site.role, f"rpi-{other}", key, "ticket-1")
        tunnel = TLSBackend().device_end(evolve(said), site)

        def close() -> Deferred[None]:
            tunnel.closed.addErrback(lambda failure: failure.trap(RDVError) and None)
            return cast("Deferred[None]", tunnel.close())

        self.addCleanup(close)
        return tunnel

    def ends(self, onsite_mode: Mode = Mode.L3) -> TunnelEnds:
        """A master (near) and an onsite (far)."""
        near, far = self.site(Role.MASTER), self.site(Role.ONSITE)
        return TunnelEnds(self.tunnel(near), self.tunnel(far, mode=onsite_mode), near, far, self.door.cut)

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor turn until C{condition} holds."""
        while not condition():
            await self.turn()

    async def turn(self) -> None:
        """Let the reactor turn once."""
        await deferLater(reactor, 0)  # type: ignore[arg-type]

    async def started(self, site: MemoryTunnelSite, peer_key: PublicKey | None = None) -> Lone:
        """One end alone, attached, on its way in."""
        tunnel = self.tunnel(site, peer_key)
        await tunnel.attach()
        carried = tunnel.carry()

        def forget() -> None:
            carried.addErrback(lambda failure: failure.trap(RDVError) and None)

        self.addCleanup(forget)
        return Lone(site, tunnel, carried)

    async def assert_refused(self, waiting: Deferred[Any], kind: type[E], words: str = "") -> E:
        """C{waiting} fails with one clear line of this kind."""
        with self.assertRaises(kind) as caught:
            await waiting
        self.assertNotIn("\n", str(caught.exception))
        self.assertIn(words, str(caught.exception))
        error: E = caught.exception
        return error


class Lone:
    """An end that was started, and what its start will come to."""

    def __init__(self, site: MemoryTunnelSite, tunnel: IDeviceTunnel, carried: Deferred[Any]) -> None:
        self.site = site
        self.tunnel = tunnel
        self.carried = carried
