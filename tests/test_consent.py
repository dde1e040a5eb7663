"""The consent of a site: who can give it, how long it lasts, and that nobody's word means no."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.consent import Basis, Consent, Refusal, Stay, Visit
from rdvtwisted.errors import HookFailed, InvalidValue, RequestRefused
from rdvtwisted.values import EndReason, Mode

VISIT = Visit("s1", "rpi2200")
OTHER = Visit("s2", "rpi2201")


class ConsentCase(SynchronousTestCase):
    """A site that is asked, for ten seconds; its consent holds for a hundred."""

    def setUp(self) -> None:
        """Nobody has said anything."""
        self.clock = Clock()
        self.consent = Consent(self.clock, required=True, seconds=10.0, window=100.0)

    def stay(self, asked: Deferred[Stay]) -> Stay:
        """The session that may begin."""
        return self.successResultOf(asked)

    def refused(self, asked: Deferred[Stay], reason: EndReason) -> None:
        """Nobody agrees, for this reason."""
        self.assertIs(self.failureResultOf(asked, Refusal).value.reason, reason)
        self.assertEqual(self.consent.status()["state"], "idle")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CommandTests(ConsentCase):
    """Somebody gives commands."""

    def test_not_required(self) -> None:
        """Where no consent is needed a session begins at once, and can be ended all the same."""
        self.consent.required = False
        stay = self.stay(self.consent.ask(VISIT))
        self.assertEqual((stay.basis, stay.left()), (Basis.NOT_REQUIRED, None))
        self.assertRaises(RequestRefused, self.consent.grant, 60.0)
        self.consent.end()
        self.assertIs(self.successResultOf(stay.ended), EndReason.CONSENT_WITHDRAWN)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """Nobody's word means no, after the time that there is."""
        asked = self.consent.ask(VISIT)
        self.clock.advance(9.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.refused(asked, EndReason.CONSENT_TIMEOUT)

    def test_granted_once(self) -> None:
        """A grant without a time is for the session that waits, and for no other; it ends with the usual window."""
        asked = self.consent.ask(VISIT)
        self.clock.advance(9)
        self.assertEqual(self.consent.grant(), "Granted to rpi2200 (L3)")
        stay = self.stay(asked)
        self.assertEqual((stay.basis, stay.left()), (Basis.COMMAND, 100.0))
        self.clock.advance(99)
        self.assertNoResult(stay.ended)
        self.clock.advance(1)
        self.assertIs(self.successResultOf(stay.ended), EndReason.TIME_LIMIT)
        self.assertNoResult(self.consent.ask(OTHER))

    def test_nothing_to_grant(self) -> None:
        """There is nothing to say yes, no or stop to; a time must be a time."""
        for command in (self.consent.grant, self.consent.refuse, self.consent.end):
            self.assertRaises(RequestRefused, command)
        for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e9):
            self.assertRaises(InvalidValue, self.consent.grant, wrong)

    def test_named(self) -> None:
        """Who names a session agrees to that one; if another waits, or none, to nothing."""
        self.assertRaises(RequestRefused, self.consent.grant, session="s1")
        asked = self.consent.ask(VISIT)
        for seconds in (None, 60.0):
            self.assertRaises(RequestRefused, self.consent.grant, seconds, "s2")
        self.assertNoResult(asked)
        self.consent.grant(session="s1")
        stay = self.stay(asked)
        self.assertRaises(RequestRefused, self.consent.grant, session="s1")
        self.assertRaises(RequestRefused, self.consent.grant, 60.0, "s2")
        self.consent.grant(60.0, "s1")
        self.assertEqual(stay.left(), 60.0)

    def test_held_to(self) -> None:
        """What was agreed to is this session, master and mode, by whatever it was agreed to."""
        for seconds in (None, 60.0):
            asked = self.consent.ask(VISIT)
            self.consent.grant(seconds)
            stay = self.stay(asked)
            stay.require(VISIT)
            for other in (OTHER, Visit("s1", "rpi2201"), Visit("s1", "rpi2200", Mode.L2)):
                self.assertIs(self.assertRaises(Refusal, stay.require, other).reason, EndReason.CONSENT_REFUSED)
            stay.close()
        self.consent.required = False
        self.stay(self.consent.ask(Visit())).require(VISIT)

    def test_window(self) -> None:
        """Within a window sessions begin without a question, and end with it; afterwards somebody is asked again."""
        self.consent.grant(60.0)
        self.stay(self.consent.ask(VISIT)).close()
        self.clock.advance(20)
        stay = self.stay(self.consent.ask(OTHER))
        self.assertEqual((stay.basis, stay.left()), (Basis.WINDOW, 40.0))
        self.clock.advance(40)
        self.assertIs(self.successResultOf(stay.ended), EndReason.TIME_LIMIT)
        self.assertNoResult(self.consent.ask(VISIT))

    def test_window_moved(self) -> None:
        """A window that is opened while a session runs is the end of that one: later, or sooner."""
        asked = self.consent.ask(VISIT)
        self.consent.grant(60.0)
        stay = self.stay(asked)
        self.consent.grant(90.0)
        self.clock.advance(80)
        self.assertNoResult(stay.ended)
        self.consent.grant(5.0)
        self.clock.advance(5)
        self.assertIs(self.successResultOf(stay.ended), EndReason.TIME_LIMIT)

    def test_refused(self) -> None:
        """Who is refused is told at once; a window is closed, too, and what runs is left alone."""
        asked = self.consent.ask(VISIT)
        self.consent.refuse()
        self.refused(asked, EndReason.CONSENT_REFUSED)
        self.consent.grant(60.0)
        stay = self.stay(self.consent.ask(VISIT))
        self.consent.refuse()
        self.assertNoResult(stay.ended)
        stay.close()
        self.assertNoResult(self.consent.ask(OTHER))

    def test_end(self) -> None:
        """An end is one: of what runs, or waits, and of the window, so that the master cannot come back at once."""
        self.consent.grant(60.0)
        stay = self.stay(self.consent.ask(VISIT))
        self.consent.end()
        self.assertIs(self.successResultOf(stay.ended), EndReason.CONSENT_WITHDRAWN)
        asked = self.consent.ask(VISIT)
        self.assertNoResult(asked)
        self.consent.end()
        self.refused(asked, EndReason.CONSENT_REFUSED)
        self.consent.grant(60.0)
        self.assertEqual(self.consent.end(), "The window is closed")
        self.assertIsNone(self.consent.status()["window_left_s"])

    def test_given_up(self) -> None:
        """If the session is not wanted any more nobody is asked, and the next one is asked about."""
        asked = self.consent.ask(VISIT)
        self.failureResultOf(self.consent.ask(OTHER), Refusal)
        asked.cancel()
        self.failureResultOf(asked)
        self.assertRaises(RequestRefused, self.consent.grant)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(self.consent.ask(OTHER))

    def test_status(self) -> None:
        """What is told is what is."""
        self.assertEqual(self.consent.status()["state"], "idle")
        asked = self.consent.ask(VISIT)
        self.clock.advance(4)
        status = self.consent.status()
        self.assertEqual((status["state"], status["master"], status["answer_within_s"]), ("waiting", "rpi2200", 6.0))
        self.consent.grant(50.0)
        self.clock.advance(10)
        status = self.consent.status()
        self.assertEqual((status["state"], status["basis"]), ("session", "window"))
        self.assertEqual((status["consent_left_s"], status["window_left_s"]), (40.0, 40.0))
        self.stay(asked).close()
        status = self.consent.status()
        self.assertEqual((status["state"], status["master"], status["window_left_s"]), ("idle", None, 40.0))


class FileTests(ConsentCase):
    """A file stands for consent."""

    def setUp(self) -> None:
        """It is not there."""
        super().setUp()
        self.left: float | None = None
        self.consent.presence = lambda: self.left

    def test_there(self) -> None:
        """It is there already: nobody is asked. Removed, it ends the session."""
        self.left = 30.0
        stay = self.stay(self.consent.ask(VISIT))
        self.assertEqual(stay.basis, Basis.FILE)
        self.clock.advance(1)
        self.assertNoResult(stay.ended)
        self.left = None
        self.clock.advance(1)
        self.assertIs(self.successResultOf(stay.ended), EndReason.CONSENT_WITHDRAWN)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_comes(self) -> None:
        """It appears while the session waits; touched, it holds for longer; too old, it is no consent any more."""
        asked = self.consent.ask(VISIT)
        self.clock.pump([1, 1])
        self.assertNoResult(asked)
        self.left = 2.0
        self.clock.advance(1)
        stay = self.stay(asked)
        self.left = 30.0
        self.clock.pump([1, 1, 1])
        self.assertNoResult(stay.ended)
        self.left = 0.0
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertIs(self.successResultOf(stay.ended), EndReason.TIME_LIMIT)
        asked = self.consent.ask(VISIT)
        self.clock.pump([1] * 10)
        self.refused(asked, EndReason.CONSENT_TIMEOUT)

    def test_not_its_session(self) -> None:
        """What somebody has granted otherwise does not end for want of a file."""
        asked = self.consent.ask(VISIT)
        self.consent.grant()
        self.clock.pump([1] * 20)
        self.assertNoResult(self.stay(asked).ended)


class ProgramTests(ConsentCase):
    """A program is asked."""

    def setUp(self) -> None:
        """It thinks."""
        super().setUp()
        self.asked: list[tuple[Visit, Deferred[bool]]] = []
        self.cancelled = 0
        self.consent.program = self._program

    def _program(self, visit: Visit) -> Deferred[bool]:
        def cancel(_: object) -> None:
            self.cancelled += 1

        answer: Deferred[bool] = Deferred(cancel)
        self.asked.append((visit, answer))
        return answer

    def test_yes_and_no(self) -> None:
        """Its answer is the site's; it has no say while there is a window."""
        asked = self.consent.ask(VISIT)
        self.assertEqual(self.asked[0][0], VISIT)
        self.asked[0][1].callback(True)
        stay = self.stay(asked)
        self.assertEqual((stay.basis, stay.left()), (Basis.PROGRAM, 100.0))
        stay.close()
        asked = self.consent.ask(OTHER)
        self.asked[1][1].callback(False)
        self.refused(asked, EndReason.CONSENT_REFUSED)
        self.consent.grant(10.0)
        self.stay(self.consent.ask(VISIT))
        self.assertEqual(len(self.asked), 2)

    def test_fails(self) -> None:
        """A program that fails has not agreed; the log says why."""
        asked = self.consent.ask(VISIT)
        self.asked[0][1].errback(HookFailed("no such pin"))
        self.refused(asked, EndReason.CONSENT_REFUSED)

    def test_not_needed_any_more(self) -> None:
        """Somebody else was first, the time is over, or the master is gone: it is ended, and has no say any more."""
        asked = self.consent.ask(VISIT)
        self.consent.grant()
        self.stay(asked).close()
        asked = self.consent.ask(VISIT)
        self.clock.advance(10)
        self.refused(asked, EndReason.CONSENT_TIMEOUT)
        asked = self.consent.ask(VISIT)
        asked.cancel()
        self.failureResultOf(asked)
        self.assertEqual(self.cancelled, 3)
        self.assertEqual(self.consent.status()["state"], "idle")
