"""Those whom a tunnel turns away make few lines."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tunnels.complaints import LINES_AT_ONCE, REPEAT_SECONDS, SECONDS_PER_LINE, Complaints


class ComplaintsTests(SynchronousTestCase):
    """One tunnel's complaints."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.complaints = Complaints(self.clock, "The tunnel turned a client away")

    def lines(self, *reasons: str) -> list[str]:
        """What is logged of these."""
        with capturedLogs() as events:
            for reason in reasons:
                self.complaints.add(reason)
        return [str(formatEvent(event)).removeprefix("The tunnel turned a client away: ") for event in events]

    def test_same_again(self) -> None:
        """Sixty wrong secrets, one after the other, make one line; and a minute later one, which tells the number."""
        told = []
        for _ in range(60):
            told += self.lines("wrong secret")
            self.clock.advance(REPEAT_SECONDS / 61)
        self.assertEqual(told, ["wrong secret"])
        self.clock.advance(REPEAT_SECONDS / 61)
        self.assertEqual(self.lines("wrong secret"), ["wrong secret", "59 more times before"])

    def test_others(self) -> None:
        """Something else has its line at once, however often the same was there before."""
        self.lines(*["wrong secret"] * 60)
        self.assertEqual(self.lines("wrong session")[0], "wrong session")

    def test_flood_of_different_things(self) -> None:
        """Whoever finds new reasons all the time gets so many lines, then one now and then; nothing piles up."""
        self.assertEqual(len(self.lines(*map(str, range(5000)))), LINES_AT_ONCE)
        self.clock.advance(SECONDS_PER_LINE)
        self.assertEqual(self.lines("a", "b"), ["a", f"{5000 - LINES_AT_ONCE} more times before"])
        self.assertEqual(len(self.complaints._told), LINES_AT_ONCE + 1)
        self.clock.advance(REPEAT_SECONDS)
        self.lines("c")
        self.assertEqual(list(self.complaints._told), ["c"])

    def test_end(self) -> None:
        """At the end the number of those who are still untold is told, once."""
        self.lines(*["wrong secret"] * 3)
        with capturedLogs() as events:
            self.complaints.flush()
            self.complaints.flush()
        (line,) = map(formatEvent, events)
        self.assertTrue(line.endswith(": 2 more times before"), line)
