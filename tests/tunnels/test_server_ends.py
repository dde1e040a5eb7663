"""The server's ends of tunnels keep their contract, over real connections on 127.0.0.1."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from rdvtwisted.interfaces import IServerSite, ITunnelBackend
from rdvtwisted.testing.server_tunnels import (
    MemoryServerSite,
    ServerEnd,
    ServerTunnelContract,
    WatchedReactor,
    terms,
)
from rdvtwisted.testing.tunnels import identity, packet
from rdvtwisted.values import Mode, Role
from tests.tunnels.door import Door
from tests.tunnels.tls_device import TLSDevice, hand_over
from tests.tunnels.vtun_device import Port, VtunDevice
from tunnels.tls import TLSBackend
from tunnels.vtun import VtunBackend

reactor: Any = global_reactor


class SiteTests(TestCase):
    """What the contract's users get."""

    def test_provides(self) -> None:
        """A site in memory is a server's site."""
        self.assertTrue(verifyObject(IServerSite, MemoryServerSite(reactor)))

    def test_watched(self) -> None:
        """What a tunnel holds is known until it has given it back."""
        watched = WatchedReactor(reactor)
        call = watched.callLater(60, self.fail)
        self.assertEqual(watched.held(), [call])
        self.assertEqual(watched.getDelayedCalls(), [call])
        call.cancel()
        self.assertEqual(watched.held(), [])


class VtunTests(ServerTunnelContract, TestCase):
    """The server's end of a C{vtun} tunnel."""

    def build_end(self, mode: Mode) -> ServerEnd:
        watched = WatchedReactor(reactor)
        tunnel = cast(ITunnelBackend, VtunBackend()).server_end(terms(mode), MemoryServerSite(watched))
        end = ServerEnd(
            tunnel,
            watched,
            device=lambda: VtunDevice(port.number, "tundevrpi1100", tunnel.secret),
            stranger=lambda: VtunDevice(port.number, "tundevrpi1100", "another"),
        )
        port = Port(end.accept)
        self.addCleanup(port.close)
        return end

    async def test_stops_reading(self) -> None:
        """
        While a client reads nothing, nothing piles up for it but what kernels keep, and it is heard; then all that was
        kept comes, in order.
        """
        end = self.end()
        device = cast(VtunDevice, await end.carry())
        device.transport.pauseProducing()
        sent: list[bytes] = []
        full = 0
        while full < 100:
            each = packet(Mode.L3, len(sent).to_bytes(4, "big") * 350)
            full = 0 if end.packets.inject(each) else full + 1
            if not full:
                sent.append(each)
            await deferLater(reactor, 0)
        self.assertLess(len(sent) * len(sent[0]), 16 * 2**20)
        device.inject(packet(Mode.L3, b"still heard"))
        await end.packets.when_written(2)
        device.transport.resumeProducing()
        self.assertEqual(await device.when_written(len(sent)), sent)


class TLSTests(ServerTunnelContract, TestCase):
    """The server's end of an onsite's C{tls} tunnel."""

    role = Role.ONSITE

    def build_end(self, mode: Mode) -> ServerEnd:
        watched, backend = WatchedReactor(reactor), cast(ITunnelBackend, TLSBackend())
        site, own, other = MemoryServerSite(watched), identity("rpi1100"), identity("rpi1101")
        door = Door(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(door.close()))
        end = ServerEnd(
            backend.server_end(terms(mode, role=self.role, key=own.public), site),
            watched,
            device=lambda: TLSDevice(backend, mode, self.role, own, site.identity.public, door),
            stranger=lambda: TLSDevice(backend, mode, self.role, other, site.identity.public, door),
        )
        hand_over(door, end.occupy)
        return end


class MasterTLSTests(TLSTests):
    """The server's end of a master's C{tls} tunnel."""

    role = Role.MASTER
