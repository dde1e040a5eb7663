"""When connections are made with small segments, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ConnectionLost, FellSilent, KeyRejected, RDVError, TunnelFailed, TunnelSilent
from rdvtwisted.services.suspicion import SUSPICION_SECONDS, Suspicion
from rdvtwisted.values import EndReason

SILENCE = FellSilent("nothing was heard of rdv.example.org for 60 s")


class SuspicionTests(SynchronousTestCase):
    """What raises it, and what it comes to."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.suspicion = Suspicion(self.clock)

    def test_none(self) -> None:
        """A device begins without, also on a machine whose clock has just begun."""
        self.assertFalse(self.suspicion.holds)

    def test_silence(self) -> None:
        """A connection and a tunnel that have fallen silent raise it."""
        for error in (SILENCE, TunnelSilent("the tunnel to rpi1101 fell silent")):
            suspicion = Suspicion(self.clock)
            suspicion.heed(error)
            self.assertTrue(suspicion.holds)

    def test_other_ends(self) -> None:
        """Who is refused, turned away or cut off has had an answer."""
        errors: list[RDVError | None] = [None, ConnectionLost("refused"), KeyRejected("no"), TunnelFailed("it broke")]
        for error in errors:
            self.suspicion.heed(error)
        self.assertFalse(self.suspicion.holds)

    def test_failure(self) -> None:
        """The end of a tunnel is looked at, and stays what it is for those who wait for it."""
        failure = Failure(TunnelSilent("the tunnel to rpi1101 fell silent"))
        self.assertIs(self.suspicion.heed_failure(failure), failure)
        self.assertTrue(self.suspicion.holds)

    def test_other_device(self) -> None:
        """A session whose tunnel was lost raises it, whichever device has noticed; no other end does."""
        for reason in EndReason:
            suspicion = Suspicion(self.clock)
            suspicion.heed_end(reason)
            self.assertIs(suspicion.holds, reason is EndReason.TUNNEL_LOST)

    def test_duration(self) -> None:
        """It holds for an hour, and from each silence anew."""
        self.suspicion.heed(SILENCE)
        self.clock.advance(SUSPICION_SECONDS - 1)
        self.assertTrue(self.suspicion.holds)
        self.suspicion.heed(SILENCE)
        self.clock.advance(SUSPICION_SECONDS - 1)
        self.assertTrue(self.suspicion.holds)
        self.clock.advance(1)
        self.assertFalse(self.suspicion.holds)

    def test_log(self) -> None:
        """One line says when it begins and why, and none that it goes on."""
        with capturedLogs() as events:
            self.suspicion.heed(SILENCE)
            self.suspicion.heed(SILENCE)
        [event] = events
        self.assertEqual(event["log_level"], LogLevel.info)
        self.assertEqual(
            formatEvent(event),
            "Nothing was heard of rdv.example.org for 60 s. In case the path swallows large packets, connections are"
            " made with TCP segments of at most 1200 bytes, for 60 minutes from the last time that this happens",
        )
