"""A session that was lost is had again, by itself, if that makes sense."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import (
    AccessDenied,
    ConnectionLost,
    ConsentDenied,
    KeyRejected,
    OnsiteBusy,
    OnsiteNotRegistered,
    PeerKeyChanged,
    RDVError,
    RequestRefused,
    ServerKeyChanged,
    TunnelFailed,
)
from rdvtwisted.registry import SUPERSEDED
from rdvtwisted.requests import Connect
from rdvtwisted.services.link import Link
from rdvtwisted.services.pace import Pace
from rdvtwisted.services.resumption import FIRST_SECONDS, LONGEST_SECONDS, Resumption
from rdvtwisted.shell.questions import ListOnsiteIds
from rdvtwisted.values import EndReason, SessionState, SessionView
from tests.services.test_master import ONSITE, MasterCase

LOST = ConnectionLost("the connection to rdv.example.org was lost")


class ResumptionTests(SynchronousTestCase):
    """What is worth another try, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.resumption = self.made(60.0)

    def made(self, seconds: float) -> Resumption:
        """One that tries for so long, at the full pace."""
        return Resumption(self.clock, seconds, Pace(lambda: 1.0, FIRST_SECONDS, LONGEST_SECONDS))

    def test_never_up(self) -> None:
        """A session that never was is not lost."""
        self.assertIsNone(self.resumption.wait(LOST))

    def test_not_wanted(self) -> None:
        """Nor is one sought again that nobody wants back."""
        resumption = self.made(0.0)
        resumption.up()
        self.assertIsNone(resumption.wait(LOST))

    def test_pace(self) -> None:
        """Tries become more seldom, up to four seconds, until the time is up; once it works, all begins anew."""
        for _ in range(2):
            self.resumption.up()
            self.assertIsNone(self.resumption.loss)
            waits, began = [], self.clock.seconds()
            while (seconds := self.resumption.wait(LOST)) is not None:
                waits.append(seconds)
                self.clock.advance(seconds)
            self.assertEqual(waits[:5], [0.5, 1.0, 2.0, 4.0, 4.0])
            self.assertTrue(60.0 <= self.clock.seconds() - began < 65.0)
            self.assertIs(self.resumption.loss, LOST)

    def test_ends(self) -> None:
        """What somebody wanted to be over is over; what somebody or something has lost is not."""
        for reason in EndReason:
            resumption = self.made(60.0)
            resumption.up()
            resumption.over(reason)
            lost = reason in (
                EndReason.ONSITE_LEFT,
                EndReason.SERVER_STOPPED,
                EndReason.TUNNEL_LOST,
                EndReason.TUNNEL_FAILED,
                EndReason.BUILD_TIMEOUT,
            )
            self.assertEqual(resumption.wait(TunnelFailed(reason.value)) is not None, lost, reason)

    def test_errors(self) -> None:
        """An error that may pass is waited out; one that needs a person is not."""
        passing: list[RDVError] = [
            LOST,
            TunnelFailed("the tunnel broke"),
            OnsiteNotRegistered("rpi1"),
            OnsiteBusy("rpi1"),
            RequestRefused("SessionIsClosing: the former session does not end"),
        ]
        final: list[RDVError] = [
            KeyRejected("it does not accept the key"),
            ServerKeyChanged("the host key", "a", "b", "cure"),
            PeerKeyChanged("rpi1", "a", "b", "cure"),
            AccessDenied("the rules do not allow it"),
            ConsentDenied("the site has refused"),
            ConnectionLost(f"the connection was lost: {SUPERSEDED}"),
        ]
        for error in passing + final:
            resumption = self.made(60.0)
            resumption.up()
            self.assertEqual(resumption.wait(error) is not None, error in passing, error)

    def test_time(self) -> None:
        """The session's time runs on while it is sought."""
        self.assertEqual((self.resumption.left(None), self.resumption.left(90.0)), (None, 90.0))
        self.resumption.up()
        self.clock.advance(60)
        self.resumption.up()
        self.clock.advance(20)
        self.assertEqual((self.resumption.left(None), self.resumption.left(90.0)), (None, 10.0))
        self.clock.advance(20)
        self.assertEqual(self.resumption.left(90.0), 0.0)


class MasterTests(MasterCase):
    """A master that was asked to have its session again."""

    def setUp(self) -> None:
        """A session is up."""
        super().setUp()
        self.start(onsite=ONSITE, resume_seconds=60.0)
        self.bring_up()
        self.said.clear()

    def lose(self) -> None:
        """The server goes away, and comes back."""
        old = self.here
        self.here = self.server()
        self.here.answers |= {ListOnsiteIds: (ONSITE,), Connect: None, **old.answers}
        old.lose(LOST)
        self.pump()

    def test_server(self) -> None:
        """When the server is back, so is the session, with all that it was to be; the operator has read why."""
        self.lose()
        self.assertEqual(self.finished, 0)
        self.assertIn(f"{LOST}. Trying to have the session again, for 1 min 0 s at most; Ctrl-C gives it up", self.said)
        self.assertEqual(self.network.applied, {})
        self.pass_time(FIRST_SECONDS)
        self.bring_up()
        self.assertIn(f"Remote session to onsite {ONSITE} is now established", self.said)
        self.assertEqual(self.asked(Connect), [Connect(ONSITE)])
        self.assertEqual(self.records(), ["up", "ended", "lost", "up"])
        self.interrupt()
        self.assert_finished(0)

    def test_onsite(self) -> None:
        """When the onsite has left, it is waited for, and chosen when it is back."""
        self.end_session(EndReason.ONSITE_LEFT)
        self.here = self.server()
        self.here.answers |= {Connect: None, **self.servers[0].answers}
        self.pass_time(FIRST_SECONDS)
        self.bring_up()
        self.assertEqual(self.records(), ["up", "ended", "lost", "up"])
        self.interrupt()
        self.assert_finished(0)

    def test_gives_up(self) -> None:
        """When there is no session within its time, the command ends as it would have at once, with what was lost."""
        self.service.connect = self.refuse
        self.here.lose(LOST)
        self.pump()
        for _ in range(70):
            self.pass_time(1.0)
        self.assert_finished(3, str(LOST))
        self.assertGreater(self.tries, 10)

    def test_operator(self) -> None:
        """The operator may give it up."""
        self.service.connect = self.refuse
        self.here.lose(LOST)
        self.pump()
        self.interrupt()
        self.assert_finished(0)

    def test_forbidden_meanwhile(self) -> None:
        """When the server does not let this device in any more, that is the end."""

        async def rejected() -> None:
            raise KeyRejected("it does not accept the key")

        self.service.connect = rejected  # type: ignore[assignment]
        self.here.lose(LOST)
        self.pump()
        self.pass_time(FIRST_SECONDS)
        self.assert_finished(3, "it does not accept the key")

    def test_wanted_end(self) -> None:
        """A session that somebody has ended is not had again."""
        self.end_session(EndReason.ADMINISTRATOR)
        self.pump()
        self.assert_finished(0)

    def test_time_limit(self) -> None:
        """The time of a session that is had again began when it was up first."""
        self.interrupt()
        self.here, self.finished = self.server(), 0
        self.here.answers |= self.servers[0].answers
        self.start(onsite=ONSITE, resume_seconds=60.0, session_seconds=30.0)
        self.bring_up()
        self.pass_time(6.0)
        self.here.answer(SessionView(state=SessionState.UP))
        self.lose()
        self.pass_time(FIRST_SECONDS)
        self.bring_up()
        for _ in range(4):
            self.here.answer(SessionView(state=SessionState.UP))
            self.pass_time(6.0)
        self.pump()
        self.assertTrue(any(line.startswith("Session ended (time-limit)") for line in self.said), self.said)
        self.assert_finished(0)

    tries = 0

    async def refuse(self) -> Link:  # type: ignore[override]
        """There is no server."""
        self.tries += 1
        raise ConnectionLost("it could not be reached")
