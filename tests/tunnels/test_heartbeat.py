"""The pulse of a tunnel."""

from __future__ import annotations

import struct

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tunnels.heartbeat import OUTSTANDING, Heartbeat


class HeartbeatTests(SynchronousTestCase):
    """A heartbeat every 5 s, and failure after 15 s of silence."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[float, bytes]] = []
        self.silences: list[float] = []
        self.heartbeat = Heartbeat(
            self.clock,
            5.0,
            15.0,
            lambda stamp: self.sent.append((self.clock.seconds(), stamp)),
            lambda: self.silences.append(self.clock.seconds()),
        )

    def run_until(self, end: float, heard: bool) -> None:
        while self.clock.seconds() < end:
            self.clock.advance(0.5)
            if heard:
                self.heartbeat.heard()

    def test_beats(self) -> None:
        """The first heartbeat leaves at once, then one every 5 s, each with a stamp of its own."""
        self.heartbeat.start()
        self.run_until(20, heard=True)
        self.assertEqual([time for time, _ in self.sent], [0, 5, 10, 15, 20])
        self.assertEqual(len({stamp for _, stamp in self.sent}), 5)
        self.assertTrue(all(len(stamp) == 8 for _, stamp in self.sent))
        self.assertEqual(self.silences, [])

    def test_silence(self) -> None:
        """Silence is noticed once, 12.5 to 15 s after the last sign of life; then it is over."""
        for last in (10.0, 10.5, 11.0, 12.0):
            self.setUp()
            self.heartbeat.start()
            self.run_until(last, heard=True)
            self.run_until(60, heard=False)
            (noticed,) = self.silences
            self.assertTrue(12.5 <= noticed - last <= 15.0, noticed - last)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clock_jump(self) -> None:
        """A clock that jumps by a year is not a year of silence."""
        self.heartbeat.start()
        self.clock.advance(1.0)
        self.clock.advance(365 * 86400.0)
        self.assertEqual(self.silences, [])

    def test_round_trip(self) -> None:
        """The round trip is that of the answered heartbeat, however late the answer."""
        self.heartbeat.start()
        self.assertIsNone(self.heartbeat.round_trip)
        self.clock.advance(0.25)
        self.heartbeat.answered(self.sent[0][1])
        self.assertEqual(self.heartbeat.round_trip, 0.25)
        self.run_until(12, heard=True)
        self.heartbeat.answered(self.sent[1][1])
        self.assertEqual(self.heartbeat.round_trip, 7.0)

    def test_strange_answers(self) -> None:
        """An answer to no heartbeat, or a second one, changes nothing."""
        self.heartbeat.start()
        self.clock.advance(1.0)
        self.heartbeat.answered(struct.pack("!Q", 77))
        self.assertIsNone(self.heartbeat.round_trip)
        self.heartbeat.answered(self.sent[0][1])
        self.clock.advance(1.0)
        self.heartbeat.answered(self.sent[0][1])
        self.assertEqual(self.heartbeat.round_trip, 1.0)

    def test_unanswered(self) -> None:
        """Heartbeats that nobody answers are forgotten."""
        self.heartbeat.start()
        self.run_until(100, heard=True)
        self.heartbeat.answered(self.sent[0][1])
        self.assertIsNone(self.heartbeat.round_trip)
        self.assertLessEqual(len(self.heartbeat._sent), OUTSTANDING)

    def test_stop(self) -> None:
        """Once stopped, nothing is sent or waited for; stopping twice, or before the start, does no harm."""
        self.heartbeat.stop()
        self.heartbeat.start()
        self.heartbeat.stop()
        self.heartbeat.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
