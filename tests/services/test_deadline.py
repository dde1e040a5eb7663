"""The hard end of a session: whoever says it, the earliest counts, and each is told once."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.deadline import Deadline


@define
class Known:
    """What knows an end."""

    ends_at: float | None = None


class DeadlineTests(SynchronousTestCase):
    """One session's."""

    def setUp(self) -> None:
        """Ends by everybody."""
        self.clock = Clock()
        self.boundary, self.stay = Known(), Known()
        self.told: list[float] = []

    def make(self, seconds: float | None) -> Deadline:
        """By this device's own settings so many seconds."""
        boundary: Any = self.boundary
        stay: Any = self.stay
        return Deadline(self.clock, seconds, boundary, stay, self.told.append)

    def test_earliest(self) -> None:
        """The earliest counts, also if it comes, moves or goes while the session lasts."""
        deadline = self.make(60.0)
        deadline.begin()
        self.stay.ends_at = 40.0
        deadline.review()
        self.boundary.ends_at = 20.0
        deadline.review()
        self.clock.advance(19)
        self.boundary.ends_at = None
        deadline.review()
        self.assertEqual(self.told, [60.0, 40.0, 20.0, 21.0])
        self.clock.advance(20)
        self.assertNoResult(deadline.reached)
        self.clock.advance(1)
        self.successResultOf(deadline.reached)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_own(self) -> None:
        """The server is told this device's own end once, and again when it moves by more than a moment."""
        deadline = self.make(60.0)
        self.assertIsNone(deadline.news())
        deadline.count()
        self.clock.advance(10)
        self.assertEqual(deadline.news(), 50.0)
        self.assertIsNone(deadline.news())
        self.boundary.ends_at = 15.0
        self.assertIsNone(deadline.news())
        self.stay.ends_at = 40.0
        self.assertEqual(deadline.news(), 30.0)
        self.stay.ends_at = 40.5
        self.assertIsNone(deadline.news())

    def test_none(self) -> None:
        """Without any end there is nothing to tell and nothing that waits; nor for one beyond all bounds."""
        deadline = self.make(None)
        deadline.begin()
        self.assertIsNone(deadline.news())
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))
        deadline = self.make(1e9)
        deadline.begin()
        self.assertIsNone(deadline.news())
        deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
