"""How much one device may have at a time, and all devices; and how fast one may ask."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.adapters.ssh.allowance import Allowance
from rdvtwisted.adapters.ssh.channel import SHELL_WINDOW
from rdvtwisted.adapters.ssh.settings import ServerSettings
from rdvtwisted.errors import ConnectionLost
from rdvtwisted.shell.shell import TYPE_AHEAD_LIMIT
from tests.adapters.ssh.test_refusals import Probe
from tests.adapters.ssh.world import ECDSA, RSA, World


class AllowanceTests(SynchronousTestCase):
    """L{Allowance}."""

    def test_rate(self) -> None:
        """At once so many, then so many a second; what is not used is not saved beyond that."""
        allowance = Allowance(3, 2)
        self.assertEqual([allowance.take(100) for _ in range(5)], [0, 0, 0, 0.5, 1])
        self.assertEqual(allowance.take(101), 0.5)
        self.assertEqual([allowance.take(500) for _ in range(4)], [0, 0, 0, 0.5])


class ConnectionsTests(World):
    """Connections that are logged in."""

    settings = ServerSettings(connections=4, connections_per_account=3)

    def test_per_account(self) -> None:
        """A device that has too many loses the oldest, which is told why; others lose nothing."""
        self.log_in(RSA, "rpi0900")
        for _ in range(5):
            self.log_in(ECDSA)
        ends = [pump.server for pump in self.pumps]
        self.assertEqual([end.closing for end in ends], [False, True, True, False, False, False])
        reason = "this device has too many connections, and this is the oldest"
        self.assertEqual([desk.left for desk in self.reception.desks], [[], [reason], [reason], [], [], []])
        self.assertEqual(len(self.server.lodgers), 4)

    def test_altogether(self) -> None:
        """When there is no room a device is turned away, with one line; a place that is free again is for anybody."""
        for _ in range(3):
            self.log_in()
        old = self.log_in(RSA, "rpi0900")
        error = self.failureResultOf(self.begin(RSA, "rpi0900"), ConnectionLost).value
        reason = "the server has no room for more devices"
        self.assertIn(reason, str(error))
        self.assertEqual(self.reception.refusals, [("ssh", "192.0.2.7:4711", "rpi0900", reason)])
        self.assertEqual((len(self.reception.desks), len(self.server.vestibule)), (4, 0))
        old.disconnect()
        self.pump()
        self.assertEqual(len(self.server.lodgers), 3)
        self.log_in(RSA, "rpi0900")
        self.server.close("goodbye")
        self.pump()
        self.assertEqual((len(self.server.lodgers), self.server.lodgers._accounts), (0, {}))


class PaceTests(World):
    """A device that asks as fast as it can."""

    settings = ServerSettings(requests_burst=3, requests_per_second=2)

    def setUp(self) -> None:
        super().setUp()
        self.log_in()

    def shell(self) -> Probe:
        """A shell."""
        probe = Probe()
        self.client_end.channels.open(probe)
        self.pump()
        probe.request(b"shell", b"", want_reply=True)
        self.pump()
        return probe

    def made(self) -> int:
        """How many requests the desk has had; each is answered."""
        for _, answer in self.desk.requests:
            if not answer.called:
                answer.callback(requests.Readiness.NOT_READY)
                self.pump()
        return len(self.desk.requests)

    def settle(self) -> int:
        """The same once nothing more comes without time passing."""
        before = -1
        while before != (now := self.made()):
            before = now
        return now

    def test_pace(self) -> None:
        """So many requests are made at once, and the others as time goes by, in order; they are all answered."""
        probe = self.shell()
        probe.send(b"wait_master_connection\n" * 10)
        self.pump()
        self.assertEqual(self.settle(), 3)
        for expected in range(4, 11):
            self.clock.advance(0.49)
            self.assertEqual(self.settle(), expected - 1)
            self.clock.advance(0.01)
            self.assertEqual(self.settle(), expected)
        self.clock.advance(60)
        self.assertEqual(self.settle(), 10)

    def test_several_shells(self) -> None:
        """Several shells of one connection are not faster together, nor is one after another."""
        for _ in range(4):
            probe = self.shell()
            probe.send(b"wait_master_connection\n" * 2)
            self.pump()
        self.assertEqual(self.settle(), 3)

    def test_memory(self) -> None:
        """What is typed meanwhile is bounded: the device cannot send more than a channel's window."""
        probe = self.shell()
        probe.send(b"wait_master_connection\n" * 20_000)
        self.pump()
        self.settle()
        (channel,) = self.server_end.service.channels.values()
        self.assertLess(len(channel._shell._typed) - channel._shell._position, SHELL_WINDOW + TYPE_AHEAD_LIMIT)
        self.assertGreater(probe.waiting_bytes, 100_000)

    def test_interrupt(self) -> None:
        """Ctrl-C ends a wait also if that has not begun for want of time."""
        probe = self.shell()
        probe.send(b"wait_master_connection\n" * 3)
        self.pump()
        self.assertEqual(self.settle(), 3)
        probe.send(b"wait_master_connection\n")
        self.pump()
        self.assertEqual(len(self.desk.requests), 3)
        probe.send(b"\3")
        self.pump()
        self.assertEqual((len(self.desk.requests), self.desk.interrupts), (4, 1))
        self.assertIsInstance(self.desk.requests[-1][0], requests.WaitForMaster)

    def test_gone(self) -> None:
        """Of a device that goes meanwhile no request is made any more."""
        probe = self.shell()
        probe.send(b"wait_master_connection\n" * 4)
        self.pump()
        self.assertEqual(self.settle(), 3)
        probe.abort()
        self.pump()
        self.clock.advance(4)
        self.assertEqual(len(self.desk.requests), 3)
