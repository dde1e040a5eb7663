"""Events in the log: one clear line each, whatever a peer put into them."""

from __future__ import annotations

from typing import get_args

from twisted.logger import LogEvent, Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.eventlog import _FORMATS, INTERVAL_SECONDS, MOST_REFUSALS, EventLog
from rdvtwisted.events import DeviceArrived, DeviceLeft, EntryRefused, Event, SessionEnded, SessionOpened, SessionUp
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.values import EndReason, Mode, Role, SessionState, SessionView

SESSION = SessionView(
    SessionState.UP, "s1", "rpi1101", "rpi1100", Mode.L3, "tls", "relay", 1.0, 2.0, to_onsite=10, to_master=20
)


class EventLogTests(SynchronousTestCase):
    """Each kind of event has its line."""

    def logged(self, event: Event) -> LogEvent:
        with capturedLogs() as events:
            EventLog(Logger("events")).emit(event)
        (logged,) = events
        return logged

    def test_interface(self) -> None:
        """It takes events."""
        self.assertTrue(verifyObject(IEventSink, EventLog()))

    def test_every_event(self) -> None:
        """No kind of event lacks a line."""
        self.assertEqual(set(_FORMATS), set(get_args(Event)))

    def test_lines(self) -> None:
        """The lines say what happened, to whom and from where."""
        for event, line in (
            (
                DeviceArrived("rpi1100", Role.ONSITE, "192.0.2.1:4711", "tls", "SHA256:abc"),
                "rpi1100 (onsite) arrived from 192.0.2.1:4711 through tls with key SHA256:abc",
            ),
            (DeviceLeft("rpi1100", Role.ONSITE, "fell silent"), "rpi1100 (onsite) left: fell silent"),
            (SessionOpened(SESSION), "session s1 opened: rpi1101 selected rpi1100, mode L3"),
            (SessionUp(SESSION), "session s1 is up: rpi1101 to rpi1100, mode L3, tunnel tls, join relay"),
            (
                SessionEnded(SESSION, EndReason.OPERATOR),
                "session s1 ended: rpi1101 to rpi1100, reason operator, 10 bytes to the onsite, 20 to the master",
            ),
            (
                EntryRefused("ssh", "192.0.2.1:4711", "root", "unknown account"),
                "refused at ssh: 192.0.2.1:4711, account root: unknown account",
            ),
        ):
            self.assertEqual(formatEvent(self.logged(event)), line)

    def test_fields(self) -> None:
        """What is in the line is also there as fields, for those who read logs by program."""
        logged = self.logged(EntryRefused("ssh", "192.0.2.1:4711", "root", "unknown account"))
        self.assertEqual((logged["door"], logged["account"]), ("ssh", "root"))
        self.assertEqual(logged["log_namespace"], "events")

    def test_forged_line(self) -> None:
        """A peer cannot write a line of its own, format anything, or colour the administrator's terminal."""
        logged = self.logged(EntryRefused("ssh", "192.0.2.1:4711", "root\nrpi1 left {door}\x1b[31m", "no"))
        self.assertEqual(
            formatEvent(logged), "refused at ssh: 192.0.2.1:4711, account root\\nrpi1 left {door}\\x1b[31m: no"
        )

    def test_long_text(self) -> None:
        """A peer cannot fill the disk with one line."""
        logged = self.logged(EntryRefused("ssh", "192.0.2.1:4711", "x" * 100_000, "no"))
        self.assertLess(len(formatEvent(logged)), 300)

    def test_flood_of_refusals(self) -> None:
        """Whoever is refused again and again fills no disk: from some number on only the count is written."""
        now = [0.0]
        log = EventLog(Logger("events"), lambda: now[0])

        def refuse(door: str, times: int) -> list[str]:
            with capturedLogs() as events:
                for _ in range(times):
                    log.emit(EntryRefused(door, "192.0.2.1:1", "", "an SSH client says otherwise"))
            return [str(formatEvent(event)) for event in events]

        self.assertEqual(len(refuse("ssh", 5000)), MOST_REFUSALS)
        self.assertEqual(len(refuse("tls", 1)), 1)
        now[0] = INTERVAL_SECONDS
        self.assertEqual(refuse("ssh", 1)[0], f"refused at ssh: {5000 - MOST_REFUSALS} more")
        self.assertEqual(len(refuse("tls", 1)), 1)
        self.assertEqual(log._refusals.keys(), {"ssh", "tls"})
