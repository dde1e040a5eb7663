"""Waiting for one of several events: the first one counts, and no failure is lost or told twice."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.waiting import first, following


class FirstTests(SynchronousTestCase):
    """The first of several events."""

    def setUp(self) -> None:
        """Three events that have not happened."""
        self.events: list[Deferred[str]] = [Deferred() for _ in range(3)]
        self.winner = first(self.events)

    def test_result(self) -> None:
        """The first result is the result, and the others are cancelled without a word."""
        self.events[1].callback("second")
        self.assertEqual(self.successResultOf(self.winner), "second")
        self.assertTrue(all(event.called for event in self.events))

    def test_failure(self) -> None:
        """A failure that comes first is the outcome, however many others still wait."""
        self.events[0].errback(ValueError("bad"))
        self.failureResultOf(self.winner, ValueError)

    def test_cancelled(self) -> None:
        """Cancelling it cancels all."""
        self.winner.cancel()
        self.failureResultOf(self.winner, CancelledError)
        self.assertTrue(all(event.called for event in self.events))

    def test_late_failure(self) -> None:
        """What fails while it is being cancelled is logged, not lost."""
        stubborn: Deferred[str] = Deferred(lambda event: event.errback(ValueError("while leaving")))
        event: Deferred[str] = Deferred()
        winner = first([stubborn, event])
        event.callback("done")
        self.assertEqual(self.successResultOf(winner), "done")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_already_there(self) -> None:
        """An event that has happened before wins at once."""
        event: Deferred[str] = Deferred()
        event.callback("early")
        self.assertEqual(self.successResultOf(first([Deferred(), event])), "early")


class FollowingTests(SynchronousTestCase):
    """Following an event that others wait for too."""

    def test_result(self) -> None:
        """Every follower and the event itself get the result."""
        event: Deferred[str] = Deferred()
        followers = [following(event), following(event)]
        event.callback("x")
        self.assertEqual([self.successResultOf(each) for each in (*followers, event)], ["x"] * 3)

    def test_cancelled(self) -> None:
        """A follower that is cancelled leaves the event alone, and its later failure to others."""
        event: Deferred[str] = Deferred()
        gone, stays = following(event), following(event)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        event.errback(ValueError("x"))
        self.failureResultOf(stays, ValueError)
