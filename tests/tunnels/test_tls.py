"""The C{tls} backend, over real connections on 127.0.0.1."""

from __future__ import annotations

from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from rdvtwisted.interfaces import ITunnelBackend
from rdvtwisted.testing.tunnels import MemoryTunnelSite, TunnelBackendContract, TunnelEnds, identity, parameters
from rdvtwisted.values import Mode, Role
from tests.tunnels.door import Door
from tunnels.tls import TLSBackend


class ContractTests(TunnelBackendContract, TestCase):
    """The C{tls} backend keeps the contract of tunnel backends."""

    def build_backend(self) -> ITunnelBackend:
        return cast(ITunnelBackend, TLSBackend())

    def build_ends(self, mode: Mode) -> TunnelEnds:
        return self.build(mode)

    def build_impostor(self, mode: Mode) -> TunnelEnds:
        return self.build(mode, impostor=True)

    def build(self, mode: Mode, impostor: bool = False) -> TunnelEnds:
        """A master, near, and an onsite, which may be another than the master was told."""
        door = Door(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(door.close()))
        identities = {role: identity(str(role)) for role in Role}
        expected = {role: own.public for role, own in identities.items()}
        if impostor:
            identities[Role.ONSITE] = identity("an impostor")
        sites = {
            role: MemoryTunnelSite(f"rpi-{role}", role, reactor, identities[role], door.endpoint, door.authority.der)
            for role in Role
        }
        ends = {
            own: self.build_backend().device_end(
                parameters("tls", mode, own, f"rpi-{other}", expected[other], "t1"), sites[own]
            )
            for own, other in ((Role.MASTER, Role.ONSITE), (Role.ONSITE, Role.MASTER))
        }
        return TunnelEnds(ends[Role.MASTER], ends[Role.ONSITE], sites[Role.MASTER], sites[Role.ONSITE], door.cut)
