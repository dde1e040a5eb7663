"""A tunnel that is given up before it is there."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from rdvtwisted.errors import TunnelFailed
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.values import Mode, Role
from tests.tunnels.session import SessionCase


class SlowNetwork(MemoryNetwork):
    """A network whose interfaces are there when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Deferred[MemoryPacketDevice] = Deferred()

    def packet_device(self, name: str, mode: Mode) -> Deferred[MemoryPacketDevice]:
        return self.made


class AbandonTests(SessionCase):
    """Nobody waits for it any more, and it leaves nothing behind."""

    def abandoned(self) -> tuple[SlowNetwork, Deferred[None]]:
        """The network of an attach that is cancelled while the kernel makes the interface, and the tunnel's end."""
        site = self.site(Role.MASTER)
        network = site.network = SlowNetwork()
        tunnel = self.tunnel(site)
        attached: Deferred[Any] = tunnel.attach()
        attached.cancel()
        self.failureResultOf(attached, CancelledError)
        closed: Deferred[None] = tunnel.close()
        self.assertNoResult(closed)
        return network, closed

    def test_interface_comes_late(self) -> None:
        """The interface that the kernel was making is closed when it comes, and with it the tunnel."""
        network, closed = self.abandoned()
        device = MemoryPacketDevice()
        network.made.callback(device)
        self.successResultOf(closed)
        self.assertTrue(device.closed)

    async def test_unattached(self) -> None:
        """A tunnel without interface does not even connect."""
        tunnel = self.tunnel(self.site(Role.MASTER))
        await self.assert_refused(tunnel.carry(), TunnelFailed, "has no network interface")
        await self.assert_refused(tunnel.closed, TunnelFailed)
        self.assertEqual(self.door.visits, [])

    async def test_carrying(self) -> None:
        """Who cancels the wait for packets closes the tunnel."""
        lone = await self.started(self.site(Role.MASTER))
        await self.door.when("entered")
        lone.carried.cancel()
        await self.assert_refused(lone.carried, TunnelFailed, "closed before it was built")
        self.assertIsNone(await lone.tunnel.closed)
        self.assertTrue(lone.site.packets.closed)

    async def test_unforeseen(self) -> None:
        """An error that nobody foresaw ends the tunnel in one line, too, and its traceback goes to the log."""
        lone_site = self.site(Role.MASTER)
        lone_site.door = None  # type: ignore[assignment]
        lone = await self.started(lone_site)
        await self.assert_refused(lone.carried, TunnelFailed, "the tunnel to rpi-onsite failed")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_interface_never_comes(self) -> None:
        """If the kernel refuses to make it, the tunnel is closed all the same."""
        network, closed = self.abandoned()
        network.made.errback(TunnelFailed("no interface"))
        self.successResultOf(closed)
