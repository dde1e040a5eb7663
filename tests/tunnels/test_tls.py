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
        door = Door(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(door.close()))
        identities = {role: identity(str(role)) for role in Role}
        sites = {
            role: MemoryTunnelSite(f"rpi-{role}", role, reactor, identities[role], door.endpoint, door.authority.der)
            for role in Role
        }
        ends = {
            own: self.build_backend().device_end(
                parameters("tls", mode, own, f"rpi-{other}", identities[other].public, "t1"), sites[own]
            )
            for own, other in ((Role.MASTER, Role.ONSITE), (Role.ONSITE, Role.MASTER))
        }
        return TunnelEnds(ends[Role.MASTER], ends[Role.ONSITE], sites[Role.MASTER], sites[Role.ONSITE], door.cut)
