"""The process that makes namespaces is replaced when it ends, for as long as the server runs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network import gluer_client
from rdvtwisted.errors import MissingPrivilege
from rdvtwisted.services import joinery as module
from rdvtwisted.services.joinery import FIRST_SECONDS, LONGEST_SECONDS, Joinery
from rdvtwisted.services.pace import Pace


class _Ends:
    """What the registry asks."""

    glue: Any = None
    lacking = ""


class _Glue:
    """The server's side of a process that the test ends."""

    def __init__(self, gluer: object, reactor: object) -> None:
        self.gluer = gluer
        self.ended: Deferred[None] = Deferred()

    def stop(self) -> Deferred[None]:
        return succeed(None)


class JoineryTests(SynchronousTestCase):
    """A server that has started such a process."""

    def setUp(self) -> None:
        self.clock, self.ends = Clock(), _Ends()
        self.starting: list[Deferred[Any]] = []
        self.cancelled = 0

        def successor(reactor: object, limit: int) -> Deferred[Any]:
            self.starting.append(Deferred(self.note))
            return self.starting[-1]

        self.patch(gluer_client, "start", lambda limit: "first")
        self.patch(gluer_client, "Glue", _Glue)
        self.patch(module, "successor", successor)
        pace = Pace(lambda: 1.0, FIRST_SECONDS, LONGEST_SECONDS)
        self.joinery = Joinery(self.clock, self.ends, 10, pace=pace)
        self.joinery.start()

    def note(self, _: object) -> None:
        """Nobody wants it any more."""
        self.cancelled += 1

    def lose(self) -> None:
        """The process ends."""
        self.ends.glue.ended.callback(None)

    def test_replaced(self) -> None:
        """Another one is started soon, and used; until then those who want one are told."""
        self.assertEqual((self.ends.glue.gluer, self.ends.lacking), ("first", ""))
        self.lose()
        self.assertIsNone(self.ends.glue)
        self.assertIn("has ended", self.ends.lacking)
        self.assertEqual(self.starting, [])
        self.clock.advance(FIRST_SECONDS)
        self.starting[0].callback("second")
        self.assertEqual((self.ends.glue.gluer, self.ends.lacking), ("second", ""))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannot_be_replaced(self) -> None:
        """Where another one cannot be started, the reason is kept, and it is tried again, more and more seldom."""
        self.lose()
        waits = []
        for _ in range(9):
            [call] = self.clock.getDelayedCalls()
            waits.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waits[-1])
            self.starting[-1].errback(MissingPrivilege("it may not make namespaces"))
            self.assertIn("it may not make namespaces", self.ends.lacking)
        self.assertEqual(waits[:3], [0.5, 1.0, 2.0])
        self.assertEqual(waits[-2:], [LONGEST_SECONDS] * 2)
        self.assertIsNone(self.ends.glue)

    def test_again_and_again(self) -> None:
        """One that ends soon after the other is replaced more and more seldom; one that has lasted, at once."""
        for seconds in (0.5, 1.0, 2.0):
            self.lose()
            self.clock.advance(seconds)
            self.starting[-1].callback("another")
        self.clock.advance(LONGEST_SECONDS + 1.0)
        self.lose()
        [call] = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime() - self.clock.seconds(), 0.5)

    def test_stopped(self) -> None:
        """A server that stops starts no other one, nor waits for one."""
        self.lose()
        self.successResultOf(self.joinery.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_while_starting(self) -> None:
        """One that is just starting is not wanted any more then."""
        self.lose()
        self.clock.advance(FIRST_SECONDS)
        self.successResultOf(self.joinery.stop())
        self.assertEqual((self.cancelled, self.clock.getDelayedCalls()), (1, []))
