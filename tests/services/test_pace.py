"""Retries come soon at first, then rarer, never in step, and never rarer than promised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.pace import MAX_SECONDS, Pace, Turns


class PaceTests(SynchronousTestCase):
    """Waits between tries."""

    def test_doubles_up_to_the_limit(self) -> None:
        """Without chance the waits double and then stay."""
        pace = Pace(lambda: 1.0)
        self.assertEqual([pace.next() for _ in range(7)], [0.5, 1, 2, 4, 8, 8, 8])

    def test_reset(self) -> None:
        """After a success the next wait is a short one."""
        pace = Pace(lambda: 1.0)
        for _ in range(5):
            pace.next()
        pace.reset()
        self.assertEqual(pace.next(), 0.5)

    def test_spread(self) -> None:
        """Many who wait for the same come one after the other."""
        chances = iter([1.0, 0.25, 1.0, 0.75, 1.0])
        pace = Pace(lambda: next(chances))
        self.assertEqual([pace.next(8.0), pace.next(8.0), pace.next()], [0.5 + 2.0, 1.0 + 6.0, 2.0])

    def test_hurry(self) -> None:
        """For a while the waits may be bounded more closely; afterwards they double on from there."""
        pace = Pace(lambda: 1.0)
        self.assertEqual([pace.next(longest=2.0) for _ in range(5)], [0.5, 1.0, 2.0, 2.0, 2.0])
        self.assertEqual([pace.next(), pace.next(), pace.next()], [2.0, 4.0, 8.0])

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
    @bounds(derandomize=True, max_examples=50, deadline=None)
    def test_bounds(self, chances: list[float]) -> None:
        """However often it fails, a wait is neither none nor longer than the limit."""
        pace = Pace(iter(chances).__next__)
        for wait in [pace.next() for _ in chances]:
            self.assertTrue(0.25 <= wait <= MAX_SECONDS)


class RationTests(SynchronousTestCase):
    """What others give reason for is done some times at once, and then as often as it may be."""

    def setUp(self) -> None:
        """Three at once, and one every ten seconds."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.ration = Turns(self.clock, 3, 10.0)

    def test_take(self) -> None:
        """The first ones are there at once, the next ones one after the other; who waits has the next ones again."""
        self.assertEqual([self.ration.take() for _ in range(5)], [0, 0, 0, 10, 20])
        self.clock.advance(25)
        self.assertEqual(self.ration.take(), 5)
        self.clock.advance(10_000)
        self.assertEqual([self.ration.take() for _ in range(4)], [0, 0, 0, 10])

    def test_give_back(self) -> None:
        """What was not needed is there for the next time."""
        for _ in range(20):
            self.assertEqual(self.ration.take(), 0)
            self.ration.give_back()

    def test_may(self) -> None:
        """What is not done when there is none does not count."""
        self.assertEqual([self.ration.may() for _ in range(100)], [True] * 3 + [False] * 97)
        self.clock.advance(10)
        self.assertEqual([self.ration.may() for _ in range(2)], [True, False])

    def test_turn(self) -> None:
        """Who waits for a turn goes on when it comes, and may give it up."""
        turns = [Deferred.fromCoroutine(self.ration.turn()) for _ in range(4)]
        for turn in turns[:3]:
            self.successResultOf(turn)
        self.assertNoResult(turns[3])
        self.clock.advance(10)
        self.successResultOf(turns[3])
        given_up = Deferred.fromCoroutine(self.ration.turn())
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
