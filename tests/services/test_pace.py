"""Retries come soon at first, then rarer, never in step, and never rarer than promised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.pace import MAX_SECONDS, Pace


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
