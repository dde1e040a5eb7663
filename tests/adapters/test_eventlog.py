"""Events in the log: one clear line each, whatever a peer put into them."""

from __future__ import annotations

from typing import get_args

from attrs import evolve
from twisted.logger import LogEvent, Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.eventlog import (
    _BOUNDS,
    _FORMATS,
    MOST_MOVES,
    MOST_REFUSALS,
    MOST_SESSION_LINES,
    EventLog,
)
from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    Event,
    SessionEnded,
    SessionOpened,
    SessionRefused,
    SessionUp,
)
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.ration import INTERVAL_SECONDS
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
        self.assertEqual(set(_BOUNDS), set(get_args(Event)))

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
            (
                EntryRefused("tls", "192.0.2.1:4711", "", "this is not TLS"),
                "refused at tls: 192.0.2.1:4711: this is not TLS",
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

    def flood(self, log: EventLog, times: int, *events: Event) -> list[str]:
        """Lines that are written when the same happens so many times."""
        with capturedLogs() as logged:
            for _ in range(times):
                for event in events:
                    log.emit(event)
        return [str(formatEvent(each)) for each in logged]

    def test_flood_of_refusals(self) -> None:
        """Whoever is refused again and again fills no disk: from some number on only the count is written."""
        now = [0.0]
        log = EventLog(Logger("events"), lambda: now[0])

        def refuse(door: str, times: int) -> list[str]:
            return self.flood(log, times, EntryRefused(door, "192.0.2.1:1", "", "an SSH client says otherwise"))

        self.assertEqual(len(refuse("ssh", 5000)), MOST_REFUSALS)
        self.assertEqual(len(refuse("tls", 1)), 1)
        now[0] = INTERVAL_SECONDS
        self.assertEqual(refuse("ssh", 1)[0], f"refused at ssh: {5000 - MOST_REFUSALS} more")
        self.assertEqual(len(refuse("tls", 1)), 1)

    def test_flood_of_arrivals(self) -> None:
        """So does a device that comes and goes without end; lines on others remain, and its own when it has calmed."""
        now = [0.0]
        log = EventLog(Logger("events"), lambda: now[0])

        def visits(device: str, times: int) -> list[str]:
            arrived = DeviceArrived(device, Role.ONSITE, "192.0.2.1:1", "ssh", "SHA256:abc")
            return self.flood(log, times, arrived, DeviceLeft(device, Role.ONSITE, "goodbye"))

        self.assertEqual(len(visits("rpi1100", 1000)), MOST_MOVES)
        self.assertEqual(len(visits("rpi1102", 1)), 2)
        now[0] = INTERVAL_SECONDS
        lines = visits("rpi1100", 1)
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[0], f"rpi1100 arrived or left {2000 - MOST_MOVES} more times")

    def test_flood_of_sessions(self) -> None:
        """So does a master that selects without end, and one that is denied what it wants."""
        now = [0.0]
        log = EventLog(Logger("events"), lambda: now[0])

        def sessions(times: int, master: str = "rpi1101") -> list[str]:
            session = evolve(SESSION, master=master)
            events = SessionOpened(session), SessionUp(session), SessionEnded(session, EndReason.OPERATOR)
            return self.flood(log, times, *events)

        def denied(times: int, master: str = "rpi1101") -> list[str]:
            return self.flood(log, times, SessionRefused(master, "rpi1100", "192.0.2.1:1", "no rule allows it"))

        self.assertEqual((len(sessions(1000)), len(denied(1000))), (MOST_SESSION_LINES, MOST_REFUSALS))
        self.assertEqual((len(sessions(1, "rpi1103")), len(denied(1, "rpi1103"))), (3, 1))
        now[0] = INTERVAL_SECONDS
        self.assertEqual(
            sessions(1)[0],
            f"sessions of rpi1101 were opened, came up or ended {3000 - MOST_SESSION_LINES} more times",
        )
        self.assertEqual(denied(1)[0], f"sessions refused to rpi1101: {1000 - MOST_REFUSALS} more")
