"""What a session has configured is looked after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import NetworkError
from rdvtwisted.services.guard import LOOK_SECONDS, REST_SECONDS, TIMES, TIMES_SECONDS, keep
from rdvtwisted.testing.network import MemoryNetwork

OWNER = "rpi1100"


class GuardTests(SynchronousTestCase):
    """A machine whose network others change."""

    def setUp(self) -> None:
        self.clock, self.network = Clock(), MemoryNetwork()

    def keep(self) -> Deferred[Any]:
        """Begin."""
        keeping: Deferred[Any] = Deferred.fromCoroutine(keep(self.network, self.clock, OWNER))
        self.addCleanup(keeping.addErrback, lambda _: None)
        self.addCleanup(keeping.cancel)
        return keeping

    def assert_over(self) -> None:
        """Nobody watches or waits any more."""
        self.assertEqual((self.network.watchers, self.clock.getDelayedCalls()), ([], []))

    def test_changed(self) -> None:
        """What others take away is put back as soon as the kernel says that something has changed."""
        keeping = self.keep()
        for seconds in (0.0, REST_SECONDS, 10.0):
            self.clock.advance(seconds)
            self.network.take_away(OWNER, "rule 20000", "route 0.0.0.0/0")
            self.clock.advance(REST_SECONDS - seconds if seconds < REST_SECONDS else 0.0)
            self.assertEqual(self.network.missing, {})
        self.network.take_away("another", "rule 7")
        self.assertEqual(self.network.missing, {"another": ["rule 7"]})
        keeping.cancel()
        self.failureResultOf(keeping, CancelledError)
        self.assert_over()

    def test_busy_machine(self) -> None:
        """On a machine where something changes all the time it is not looked for more often than once a second."""
        looks: list[str] = []
        restore = self.network.restore

        def count(owner: str) -> Deferred[list[str]]:
            looks.append(owner)
            return restore(owner)

        self.patch(self.network, "restore", count)
        self.keep()
        for _ in range(80):
            self.network.change()
            self.clock.advance(0.125)
        self.assertEqual(len(looks), 1 + 10.0 // REST_SECONDS)

    def test_unheard(self) -> None:
        """What the kernel does not tell of is found all the same, in time."""
        self.keep()
        self.network.missing[OWNER] = ["rule 20000"]
        self.clock.pump([REST_SECONDS, LOOK_SECONDS])
        self.assertEqual(self.network.missing, {})

    def test_meant(self) -> None:
        """Who changes it again and again means it; who does so now and then does not."""
        keeping = self.keep()
        self.clock.advance(REST_SECONDS)
        for _ in range(2 * TIMES):
            self.network.take_away(OWNER, "rule 20000")
            self.clock.advance(TIMES_SECONDS / TIMES)
        self.assertNoResult(keeping)
        for _ in range(TIMES):
            self.network.take_away(OWNER, "rule 20000")
        error = self.failureResultOf(keeping, NetworkError).value
        self.assertEqual(str(error), "somebody else changes this again and again: rule 20000")
        self.assert_over()

    def test_impossible(self) -> None:
        """What can't be put back, and can't a moment later, ends it."""
        keeping = self.keep()
        self.clock.advance(REST_SECONDS)
        for _ in range(3):
            self.network.refusal = NetworkError("the kernel refuses to put back address 192.0.2.1: No such device")
            self.network.change()
            self.clock.advance(REST_SECONDS)
            self.assertNoResult(keeping)
            self.clock.advance(REST_SECONDS)
        self.network.refusal = error = NetworkError("the kernel refuses to put back address 192.0.2.1: No such device")
        self.network.change()
        self.network.refusal = error
        self.clock.advance(REST_SECONDS)
        self.failureResultOf(keeping, NetworkError)
        self.assert_over()

    def test_not_watched(self) -> None:
        """Where the kernel tells nobody of changes, it is looked after all the same."""

        def refuse(changed: object, everything: bool = False) -> Callable[[], None]:
            raise NetworkError("changes of the network cannot be watched")

        self.patch(self.network, "watch", refuse)
        self.network.missing[OWNER] = ["rule 20000"]
        keeping = self.keep()
        self.assertEqual(self.network.missing, {})
        self.network.missing[OWNER] = ["rule 20000"]
        self.clock.pump([REST_SECONDS, LOOK_SECONDS])
        self.assertEqual(self.network.missing, {})
        keeping.cancel()
        self.failureResultOf(keeping, CancelledError)
        self.assert_over()
