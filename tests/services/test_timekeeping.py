"""A reactor's clock, apart from the wall clock."""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.timekeeping import steady, uptime


class SteadyTests(SynchronousTestCase):
    """Nobody can set the clock that timers go by."""

    def setUp(self) -> None:
        self.wall, self.running = 1_700_000_000.0, 500.0
        self.reactor = SelectReactor()
        for descriptor in self.reactor.getReaders():
            self.addCleanup(descriptor.connectionLost, None)
        steady(self.reactor, lambda: self.wall, lambda: self.running)
        self.calls: list[str] = []

    def pass_by(self, seconds: float) -> None:
        """Time passes."""
        self.running += seconds
        self.wall += seconds
        self.reactor.runUntilCurrent()

    def test_forward(self) -> None:
        """When the wall clock is put forward by a year, nothing happens too early."""
        self.reactor.callLater(10.0, self.calls.append, "called")
        self.wall += 31_536_000.0
        self.pass_by(9.0)
        self.assertEqual((self.calls, self.reactor.timeout()), ([], 1.0))
        self.pass_by(1.0)
        self.assertEqual(self.calls, ["called"])

    def test_back(self) -> None:
        """When it is put back by a day, nothing is late."""
        self.reactor.callLater(10.0, self.calls.append, "called")
        self.wall -= 86_400.0
        self.pass_by(10.0)
        self.assertEqual(self.calls, ["called"])

    def test_epoch(self) -> None:
        """The reactor still tells seconds since the epoch; a second call changes nothing."""
        self.pass_by(3.0)
        self.assertEqual(self.reactor.seconds(), 1_700_000_003.0)
        self.wall += 77.0
        steady(self.reactor, lambda: self.wall, lambda: self.running)
        self.assertEqual(self.reactor.seconds(), 1_700_000_003.0)

    def test_machine(self) -> None:
        """This machine's clocks are what is gone by."""
        reactor = SelectReactor()
        for descriptor in reactor.getReaders():
            self.addCleanup(descriptor.connectionLost, None)
        steady(reactor)
        self.assertLess(abs(reactor.seconds() - time.time()), 60.0)
        self.assertGreater(uptime(), 0.0)
