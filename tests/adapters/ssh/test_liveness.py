"""Silence is asked about, and in the end believed."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh.liveness import Liveness


class LivenessTests(SynchronousTestCase):
    """L{Liveness}, with 45 seconds of silence and 15 to answer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, float]] = []
        self.liveness = Liveness(self.clock, 45, 15, lambda: self.note("probe"), lambda: self.note("silent"))

    def note(self, word: str) -> None:
        self.said.append((word, self.clock.seconds()))

    def test_silent(self) -> None:
        """A peer that says nothing is asked after 45 s and given up after 60 s, once."""
        self.clock.pump([1] * 200)
        self.assertEqual(self.said, [("probe", 45), ("silent", 60)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers(self) -> None:
        """A peer that answers is asked again 45 s after it was heard last."""
        self.clock.advance(45)
        self.clock.advance(1)
        self.liveness.heard()
        self.clock.pump([1] * 45)
        self.assertEqual(self.said, [("probe", 45), ("probe", 91)])

    def test_busy(self) -> None:
        """A peer that says something now and then is not asked."""
        for _ in range(20):
            self.clock.advance(44)
            self.liveness.heard()
        self.assertEqual(self.said, [])

    def test_stop(self) -> None:
        """Once stopped, nothing is left to happen."""
        self.liveness.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
