"""A device's link to its server: questions in turn, each within its time, and one clear word when it is over."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.errors import (
    ConnectionLost,
    FellSilent,
    InvalidValue,
    NoSession,
    OnsiteBusy,
    OnsiteNotRegistered,
    ProtocolError,
    RDVError,
    RequestRefused,
    ServerKeyChanged,
)
from rdvtwisted.requests import Connect, EndSession, GetTunnelParameters, Readiness, WaitForMaster, WaitForSessionChange
from rdvtwisted.services.link import GREETING_SECONDS, LEAVE_SECONDS, PATIENCE_SECONDS, Link
from rdvtwisted.shell.dialogue import OUTPUT_LIMIT, Dialogue
from rdvtwisted.shell.questions import GetRole, Heartbeat
from rdvtwisted.testing.tunnels import identity, parameters
from rdvtwisted.values import EndReason, Mode, Role, SessionState, SessionView
from tests.adapters.ssh.world import World
from tests.services.twin import DEVICE, SSHTwin, opened

BUILDING = WaitForSessionChange(SessionState.BUILDING, 8.0)


class _LinkCase(SynchronousTestCase):
    """A link whose server is in memory."""

    role = Role.MASTER

    def setUp(self) -> None:
        """A link that is ready, unless a test says otherwise."""
        self.clock = Clock()
        self.ssh, self.link = opened(self.role, self.clock)

    def tearDown(self) -> None:
        """Whatever happened, nobody was left without an answer, and no timer is left."""
        self.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def close(self) -> None:
        """Close the link, however long it takes."""
        closing = Deferred.fromCoroutine(self.link.close())
        self.clock.advance(LEAVE_SECONDS)
        self.assertIsNone(self.successResultOf(closing))

    def unopened(self, opening: Deferred[Any] | None = None) -> Deferred[None]:
        """Begin to open a link anew."""
        self.close()
        self.ssh = SSHTwin(self.role, opening=opening)
        self.link = Link(Dialogue(DEVICE, self.role), self.clock, self.ssh)
        return Deferred.fromCoroutine(self.link.open())

    def ask(self, asked: Any) -> Deferred[Any]:
        """Ask, and let the question arrive."""
        answer = self.link.ask(asked)
        self.ssh.pump()
        return answer

    def assert_failed(self, answer: Deferred[Any], kind: type[RDVError], text: str) -> None:
        """It failed with this very error."""
        error = self.failureResultOf(answer).value
        self.assertEqual((type(error), str(error)), (kind, text))

    def assert_usable(self) -> None:
        """The next question is answered."""
        self.assertIs(self.successResultOf(self.ask(GetRole())), self.role)
        self.assertEqual(self.ssh.partings, [])

    def assert_over(self, kind: type[RDVError], text: str) -> None:
        """The link is over, and every further question learns why at once."""
        self.assert_failed(self.link.ask(GetRole()), kind, text)
        self.assertEqual(self.ssh.partings, ["giving up"])


class OpeningTests(_LinkCase):
    """From a connection to a shell that is ready."""

    def test_greeting(self) -> None:
        """The link is open once the server has shown its first prompt, and not before."""
        opening = self.unopened()
        self.assertNoResult(opening)
        self.ssh.pump()
        self.assertIsNone(self.successResultOf(opening))
        self.assert_usable()

    def test_early_question(self) -> None:
        """A question that is asked before the prompt waits for it."""
        opening = self.unopened()
        answer = self.link.ask(GetRole())
        self.assertEqual(self.ssh.typed, b"")
        self.ssh.pump()
        self.successResultOf(opening)
        self.assertIs(self.successResultOf(answer), Role.MASTER)

    def test_no_greeting(self) -> None:
        """A server that says nothing is given up after the time that old scripts grant it."""
        opening = self.unopened()
        self.clock.advance(GREETING_SECONDS - 0.1)
        self.assertNoResult(opening)
        self.clock.advance(0.1)
        self.assert_failed(opening, FellSilent, "the server has not answered for 40 s")
        self.assertEqual(self.ssh.partings, ["giving up"])

    def test_no_shell(self) -> None:
        """A server that gives no shell is told so, once."""
        refused: Deferred[Any] = Deferred()
        opening = self.unopened(refused)
        refused.errback(ConnectionLost("the server opened no shell: not now"))
        self.assert_failed(opening, ConnectionLost, "the server opened no shell: not now")

    def test_lost_before_shell(self) -> None:
        """The connection may break before there is a shell; the reason is told once, and nothing else is logged."""
        wanted: Deferred[Any] = Deferred()
        opening = self.unopened(wanted)
        self.ssh.lose(ConnectionLost("cut"))
        wanted.errback(ConnectionLost("the server opened no shell: the connection was lost"))
        self.assert_failed(opening, ConnectionLost, "cut")

    def test_lost_before_greeting(self) -> None:
        """The connection may break before the prompt."""
        opening = self.unopened()
        self.ssh.lose(ConnectionLost("cut"))
        self.assert_failed(opening, ConnectionLost, "cut")

    def test_turned_away(self) -> None:
        """A shell that ends at once with a reason has that reason for its error."""
        opening = self.unopened()
        self.ssh.complain(b"Error: TooManyShells: one is enough\n")
        self.ssh.end(1, "")
        self.assert_failed(opening, RequestRefused, "TooManyShells: one is enough")

    def test_given_up(self) -> None:
        """Opening can be given up while there is no shell, and while there is no prompt."""
        for wanted in (Deferred[Any](), None):
            opening = self.unopened(wanted)
            opening.cancel()
            self.failureResultOf(opening, CancelledError)


class AskingTests(_LinkCase):
    """Questions and their answers."""

    def test_answer(self) -> None:
        """An answer is a value."""
        answer = self.ask(BUILDING)
        self.assertEqual(self.ssh.asked[-1][0], BUILDING)
        self.assertNoResult(answer)
        self.ssh.answer(SessionView(state=SessionState.UP, id="s1"))
        self.assertEqual(self.successResultOf(answer).state, SessionState.UP)

    def test_in_turn(self) -> None:
        """One question is under way at a time; the others keep their order."""
        answers = [self.ask(BUILDING), self.ask(GetTunnelParameters()), self.ask(GetRole())]
        self.assertEqual(len(self.ssh.asked), 1)
        self.ssh.answer(SessionView(state=SessionState.UP))
        self.ssh.refuse(NoSession())
        self.assertEqual([type(request) for request, _ in self.ssh.asked], [WaitForSessionChange, GetTunnelParameters])
        self.assertIs(self.successResultOf(answers[2]), Role.MASTER)
        self.successResultOf(answers[0])
        self.failureResultOf(answers[1], RequestRefused)

    def test_asked_in_an_answer(self) -> None:
        """Whoever gets an answer may ask the next question there and then."""
        chain = self.ask(BUILDING).addCallback(lambda _: self.link.ask(GetRole()))
        self.ssh.answer(SessionView(state=SessionState.UP))
        self.assertIs(self.successResultOf(chain), Role.MASTER)

    def test_refused(self) -> None:
        """A refusal is the question's error, and the link stays good."""
        answer = self.ask(GetTunnelParameters())
        self.ssh.refuse(NoSession())
        self.assert_failed(answer, RequestRefused, str(NoSession()))
        self.assert_usable()

    def test_fatal_refusals(self) -> None:
        """A refusal after which the server ends the shell ends the link, with the server's text, exit status 1."""
        for error in (OnsiteBusy("rpi1101"), OnsiteNotRegistered("rpi1101")):
            self.ssh, self.link = opened(self.role, self.clock)
            answer, next_one = self.ask(Connect("rpi1101")), self.ask(GetRole())
            self.ssh.refuse(error)
            self.assert_failed(answer, RequestRefused, str(error))
            self.assert_failed(next_one, RequestRefused, str(error))
            self.assert_over(RequestRefused, str(error))
        self.assertEqual(RequestRefused.exit_status, 1)

    def test_unspeakable(self) -> None:
        """What cannot be said to a server fails without being sent, and the next question has its turn."""
        blocker, bad, good = self.ask(BUILDING), self.ask(Connect("No such id")), self.ask(GetRole())
        self.ssh.answer(SessionView(state=SessionState.UP))
        self.successResultOf(blocker)
        self.failureResultOf(bad, InvalidValue)
        self.assertIs(self.successResultOf(good), Role.MASTER)
        self.assertEqual(len(self.ssh.asked), 1)

    def test_unusable_answer(self) -> None:
        """An answer that makes no sense is that question's error only."""
        answer = self.link.ask(GetRole())
        self.ssh.say(b"emperor\nrpi1100$ ")
        self.failureResultOf(answer, ProtocolError)

    def test_unasked_answer(self) -> None:
        """A prompt too many means that the two do not understand each other any more: the link is over."""
        self.ssh.say(b"rpi1100$ ")
        self.assert_over(ProtocolError, "the server answers what it was not asked")

    def test_endless_answer(self) -> None:
        """An answer that does not end is not kept."""
        answer = self.ask(BUILDING)
        self.ssh.say(b"x" * (OUTPUT_LIMIT + 1))
        self.failureResultOf(answer, ProtocolError)
        self.assertEqual(self.ssh.partings, ["giving up"])

    def test_endless_complaint(self) -> None:
        """Nor are complaints that do not end."""
        answer = self.ask(BUILDING)
        self.ssh.complain(b"x" * (1 << 20))
        self.failureResultOf(answer, ProtocolError)
        self.assertEqual(self.ssh.partings, ["giving up"])

    def test_unasked_complaints(self) -> None:
        """Complaints while nothing is asked do no harm."""
        self.ssh.complain(b"x" * (1 << 20))
        self.assert_usable()


class PatienceTests(_LinkCase):
    """No answer is waited for without end."""

    def assert_patient(self, asked: Any, seconds: float) -> None:
        """The server has so many seconds for this question, and the operator learns for how many."""
        self.ssh, self.link = opened(self.role, self.clock)
        answer = self.ask(asked)
        self.clock.advance(seconds - 0.01)
        self.assertNoResult(answer)
        self.clock.advance(0.01)
        self.assert_failed(answer, FellSilent, f"the server has not answered for {seconds:g} s")
        self.assertEqual(self.ssh.partings, ["giving up"])

    def test_limits(self) -> None:
        """A question has its own waiting time and some patience."""
        self.assert_patient(GetTunnelParameters(), PATIENCE_SECONDS)
        self.assert_patient(BUILDING, PATIENCE_SECONDS + 8.0)

    def test_fresh(self) -> None:
        """A question's time begins when it is its turn."""
        first, second = self.ask(BUILDING), self.ask(GetTunnelParameters())
        self.clock.advance(8.0)
        self.ssh.answer(SessionView(state=SessionState.UP))
        self.successResultOf(first)
        self.clock.advance(PATIENCE_SECONDS - 0.01)
        self.assertNoResult(second)
        self.ssh.refuse(NoSession())
        self.failureResultOf(second, RequestRefused)

    def test_idle(self) -> None:
        """A link on which nothing is asked has all the time in the world."""
        self.clock.advance(100_000)
        self.assert_usable()


class WaitingOnsiteTests(_LinkCase):
    """The onsite's long question."""

    role = Role.ONSITE

    def test_patience(self) -> None:
        """The server has longer than it keeps the question open."""
        answer = self.ask(WaitForMaster(60.0))
        self.clock.advance(60.0 + PATIENCE_SECONDS - 0.01)
        self.assertNoResult(answer)
        self.ssh.answer(Readiness.NOT_READY)
        self.assertIs(self.successResultOf(answer), Readiness.NOT_READY)

    def test_cancelled(self) -> None:
        """The question can be given up, and the next one is answered at once."""
        answer = self.ask(WaitForMaster(60.0))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        after = self.ask(EndSession(EndReason.OPERATOR))
        self.assertEqual(self.ssh.interrupts, 1)
        self.ssh.answer(Readiness.NOT_READY)
        self.ssh.answer(None)
        self.assertIsNone(self.successResultOf(after))

    def test_cancelled_at_old_server(self) -> None:
        """
        Ctrl-C would end an old server's shell. It is known by the commands that it does not know; there the
        question is left alone, and the next one waits for its answer.
        """
        published = self.link.ask(requests.GetCertificateAuthority())
        self.ssh.say(b"*** Unknown syntax: get_certificate_authority\nrpi1100$ ")
        self.failureResultOf(published, RequestRefused)
        answer = self.link.ask(WaitForMaster(60.0))
        self.ssh.typed.clear()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        after = self.link.ask(GetRole())
        self.assertEqual(self.ssh.typed, b"")
        self.clock.advance(60.0)
        self.ssh.say(b"rpi1100$ ")
        self.assertEqual(self.ssh.typed, b"get_role\n")
        self.ssh.say(b"onsite\nrpi1100$ ")
        self.assertIs(self.successResultOf(after), Role.ONSITE)

    def test_cancelled_at_earlier_server(self) -> None:
        """That a server does not know a command that came late makes no old one of it."""
        asked = self.link.ask(requests.GetReturnTime())
        self.ssh.say(b"*** Unknown syntax: get_return_time\nrpi1100$ ")
        self.failureResultOf(asked, RequestRefused)
        self.assertFalse(self.link.old)
        self.ssh.typed.clear()
        answer = self.link.ask(WaitForMaster(60.0))
        self.ssh.typed.clear()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.ssh.typed, b"\x03")


class CancellingTests(_LinkCase):
    """Questions that nobody wants an answer to any more."""

    def test_interrupts(self) -> None:
        """A wait that is given up is answered at once, so that the next question can be asked."""
        answer, after = self.ask(BUILDING), self.ask(GetRole())
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.ssh.pump()
        self.assertEqual(self.ssh.interrupts, 1)
        self.assertNoResult(after)
        self.ssh.answer(SessionView(state=SessionState.BUILDING))
        self.assertIs(self.successResultOf(after), Role.MASTER)
        self.assert_usable()

    def test_answers_cross(self) -> None:
        """The answer may be under way when the question is given up: nothing is interrupted, nothing mixed up."""
        answer = self.ask(BUILDING)
        self.ssh.asked[-1][1].callback(SessionView(state=SessionState.UP))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        after = self.link.ask(Heartbeat("again"))
        self.ssh.to_device()
        self.ssh.pump()
        self.assertEqual(self.ssh.interrupts, 0)
        self.assertIsNone(self.successResultOf(after))
        self.assert_usable()

    def test_before_its_turn(self) -> None:
        """A question that has not had its turn is never asked."""
        first, second, third = self.ask(BUILDING), self.ask(GetTunnelParameters()), self.ask(GetRole())
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.ssh.answer(SessionView(state=SessionState.UP))
        self.successResultOf(first)
        self.assertIs(self.successResultOf(third), Role.MASTER)
        self.assertEqual((len(self.ssh.asked), self.ssh.interrupts), (1, 0))

    def test_short_question(self) -> None:
        """What the server answers at once anyway is not interrupted: of several commands, some would be lost."""
        answer = self.ask(GetTunnelParameters())
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.ssh.pump()
        self.assertEqual(self.ssh.interrupts, 0)
        self.ssh.refuse(NoSession())
        self.assert_usable()

    def test_never_answered(self) -> None:
        """A server that does not even answer an interrupted wait is gone."""
        answer, after = self.ask(BUILDING), self.ask(GetRole())
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.clock.advance(PATIENCE_SECONDS - 0.01)
        self.assertNoResult(after)
        self.clock.advance(0.01)
        self.assert_failed(after, FellSilent, "the server has not answered for 7 s")

    def test_lost_meanwhile(self) -> None:
        """The connection may break before the interrupted wait is answered."""
        answer = self.ask(BUILDING)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.ssh.lose(ConnectionLost("cut"))
        self.assert_over(ConnectionLost, "cut")


class LosingTests(_LinkCase):
    """The connection breaks."""

    def test_idle(self) -> None:
        """While nothing is asked: the next question learns it."""
        self.ssh.lose(ConnectionLost("cut"))
        self.assert_over(ConnectionLost, "cut")

    def test_asking(self) -> None:
        """While questions are under way: each learns it."""
        answers = [self.ask(BUILDING), self.ask(GetRole())]
        self.ssh.lose(ConnectionLost("cut"))
        for answer in answers:
            self.assert_failed(answer, ConnectionLost, "cut")
        self.assert_over(ConnectionLost, "cut")

    def test_other_error(self) -> None:
        """The error is the connection's own, whatever it is."""
        answer = self.ask(BUILDING)
        error = ServerKeyChanged("the host key", "a", "b", "cure")
        self.ssh.lose(error)
        self.assert_failed(answer, ServerKeyChanged, str(error))

    def test_asked_when_lost(self) -> None:
        """Who asks anew because a question failed gets the error again, and no endless loop."""
        again = self.ask(BUILDING).addErrback(lambda _: self.link.ask(GetRole()))
        self.ssh.lose(ConnectionLost("cut"))
        self.assert_failed(again, ConnectionLost, "cut")

    def test_shell_ended(self) -> None:
        """A server that closes the shell without a word has no use for us."""
        answer = self.ask(BUILDING)
        self.ssh.end(0, "")
        self.assert_failed(answer, ConnectionLost, "the server has closed the shell")
        self.assert_over(ConnectionLost, "the server has closed the shell")

    def test_old_server_breaks(self) -> None:
        """The last line of an old server's traceback is what is wrong."""
        answer = self.ask(BUILDING)
        self.ssh.complain(b"Traceback (most recent call last):\n  File x\nBufferError: no free subnet\n")
        self.ssh.end(1, "")
        self.assert_failed(answer, RequestRefused, "BufferError: no free subnet")


class LeavingTests(_LinkCase):
    """The device closes the link."""

    def test_close(self) -> None:
        """Whoever still waits for an answer learns that the link was closed."""
        answers = [self.ask(BUILDING), self.ask(GetRole())]
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.link.close())))
        for answer in answers:
            self.assert_failed(answer, ConnectionLost, "the link was closed")
        self.assertEqual(self.ssh.partings, ["goodbye"])

    def test_close_twice(self) -> None:
        """It may be closed again, and after it has broken."""
        for _ in range(2):
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.link.close())))
        self.ssh, self.link = opened(self.role, self.clock)
        self.ssh.lose(ConnectionLost("cut"))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.link.close())))

    def test_server_stuck(self) -> None:
        """A server that does not close is left behind after two seconds."""
        self.ssh.stuck = True
        closing = Deferred.fromCoroutine(self.link.close())
        self.clock.advance(LEAVE_SECONDS - 0.01)
        self.assertNoResult(closing)
        self.clock.advance(0.01)
        self.assertIsNone(self.successResultOf(closing))
        self.assertEqual(LEAVE_SECONDS, 2.0)

    def test_end_session(self) -> None:
        """The server is told why a session is over."""
        telling = Deferred.fromCoroutine(self.link.end_session(EndReason.TUNNEL_FAILED))
        self.ssh.pump()
        self.assertEqual(self.ssh.asked[-1][0], EndSession(EndReason.TUNNEL_FAILED))
        self.ssh.answer(None)
        self.assertIsNone(self.successResultOf(telling))

    def test_end_session_untold(self) -> None:
        """Telling never fails, and takes two seconds at most, whatever has become of the server."""
        telling = Deferred.fromCoroutine(self.link.end_session(EndReason.OPERATOR))
        self.clock.advance(LEAVE_SECONDS)
        self.assertIsNone(self.successResultOf(telling))
        self.ssh.lose(ConnectionLost("cut"))
        telling = Deferred.fromCoroutine(self.link.end_session(EndReason.OPERATOR))
        self.assertIsNone(self.successResultOf(telling))

    def test_role(self) -> None:
        """The server says which role the account has."""
        asking = Deferred.fromCoroutine(self.link.role())
        self.ssh.pump()
        self.assertIs(self.successResultOf(asking), Role.MASTER)


class LoggingTests(_LinkCase):
    """The conversation in the log."""

    def setUp(self) -> None:
        """Look at what is logged."""
        super().setUp()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self) -> list[str]:
        """All of it is for people who look for a fault."""
        self.assertEqual({event["log_level"] for event in self.events}, {LogLevel.debug})
        return [formatEvent(event) for event in self.events]

    def test_conversation(self) -> None:
        """What is asked, and what is answered."""
        self.ask(GetRole())
        refused = self.ask(GetTunnelParameters())
        self.ssh.refuse(NoSession())
        self.failureResultOf(refused)
        self.assertEqual(
            self.logged(),
            [
                "Device: get_role",
                "Server: master",
                "Device: get_tunnel_parameters",
                f"Server: Error: {NoSession()}",
            ],
        )

    def test_secrets(self) -> None:
        """Tickets and passwords are not logged, whatever pieces they come in; nor can a server forge lines."""
        self.ask(GetTunnelParameters())
        self.ssh.answer(parameters("tls", Mode.L3, Role.MASTER, "rpi2200", identity("rpi2200").public, "0123456789"))
        unusable = self.link.ask(requests.GetVtunParameters())
        self.ssh.say(b"tunnel_secret: hunt")
        self.ssh.say(b"er2\nTicket:hunter2\n  password : hunter2\nport: \x1b[1m\nrpi1100$ ")
        self.failureResultOf(unusable)
        text = "\n".join(self.logged())
        self.assertNotIn("0123456789", text)
        self.assertIn("\nticket: (not logged)", text)
        self.assertNotIn("hunter2", text)
        self.assertIn("tunnel_secret: (not logged)\nTicket: (not logged)\n  password : (not logged)\nport: ", text)
        self.assertNotIn("\x1b", text)


class RealLinkTests(World):
    """Over a real SSH connection in memory."""

    def open(self) -> tuple[Link, Deferred[Any]]:
        """A link with a question under way."""
        link = Link(Dialogue("rpi1100", Role.ONSITE), self.clock, self.result(self.begin()))
        opening = Deferred.fromCoroutine(link.open())
        self.pump()
        self.successResultOf(opening)
        answer = link.ask(WaitForMaster(600.0))
        self.pump()
        return link, answer

    def test_answer(self) -> None:
        """Questions reach the desk, and answers come back."""
        _, answer = self.open()
        self.desk.requests[-1][1].callback(Readiness.READY)
        self.assertIs(self.result(answer), Readiness.READY)

    def test_silent_server(self) -> None:
        """A server that falls silent is named, with for how long it was."""
        _, answer = self.open()
        for _ in range(70):
            self.clock.advance(1.0)
        self.pump()
        error = self.failureResultOf(answer, ConnectionLost).value
        self.assertEqual(str(error), "nothing was heard of rdv.example.org for 60 s")

    def test_server_says_goodbye(self) -> None:
        """A server that closes the connection tells why."""
        _, answer = self.open()
        self.desk.line.disconnect("a newer connection of this device has taken its place")
        self.pump()
        error = self.failureResultOf(answer, ConnectionLost).value
        self.assertEqual(
            str(error),
            "the connection to rdv.example.org was lost: a newer connection of this device has taken its place",
        )

    def test_close(self) -> None:
        """Closing takes a moment, and leaves nothing at either end."""
        link, answer = self.open()
        closing = Deferred.fromCoroutine(link.close())
        self.pump()
        self.assertIsNone(self.successResultOf(closing))
        self.failureResultOf(answer, ConnectionLost)
        self.assertEqual(len(self.desk.left), 1)
        self.assertEqual(self.server.lines, set())
