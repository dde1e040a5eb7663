"""Whoever has something told of it again and again gets few lines of the log."""

from __future__ import annotations

from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import ration
from rdvtwisted.ration import INTERVAL_SECONDS, Ration


class RationTests(SynchronousTestCase):
    """Two lines for each."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ration = Ration(self.clock.seconds, 2)

    def take(self, subject: str, times: int) -> tuple[int, int]:
        """How many lines there are for so many times; and the number that is told of earlier ones."""
        taken = [self.ration.take(subject) for _ in range(times)]
        return sum(line for line, _ in taken), sum(untold for _, untold in taken)

    def test_first(self) -> None:
        """The first ones of a minute are told; each subject has its own."""
        self.assertEqual(self.take("a", 100), (2, 0))
        self.assertEqual(self.take("b", 1), (1, 0))

    def test_number(self) -> None:
        """Of the others the number is told, once, with the first one of a later minute."""
        self.take("a", 100)
        self.clock.advance(INTERVAL_SECONDS)
        self.assertEqual(self.take("a", 3), (2, 98))
        self.clock.advance(INTERVAL_SECONDS)
        self.assertEqual(self.take("a", 1), (1, 1))
        self.clock.advance(INTERVAL_SECONDS)
        self.assertEqual(self.take("a", 1), (1, 0))

    def test_bounded(self) -> None:
        """However many names there are, memory is bounded; who was told of lately is not forgotten for old ones."""
        with patch.object(ration, "MAX_SUBJECTS", 10):
            for number in range(9):
                self.take(f"old {number}", 5)
            self.clock.advance(INTERVAL_SECONDS)
            self.take("a", 5)
            self.assertEqual(self.take("b", 5), (2, 0))
            self.assertEqual((self.take("a", 1), len(self.ration._counts)), ((0, 0), 2))
            for number in range(100):
                self.take(f"new {number}", 5)
                self.assertLessEqual(len(self.ration._counts), 10)
