"""A session whose beginning is in the audit trail has its end there, also when its server was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.store import auditfiles
from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.audit import Entry
from rdvtwisted.events import EntryRefused, SessionEnded, SessionOpened, SessionUp
from rdvtwisted.services import reckoning, recording
from rdvtwisted.services.memorandum import SAVE_SECONDS
from rdvtwisted.services.reckoning import FILE_NAME
from rdvtwisted.services.recording import Recording
from rdvtwisted.testing.audit import MemoryTrail
from rdvtwisted.values import EndReason, SessionState, SessionView
from rdvtwisted.verification import verify

NOW = 1_704_067_200.0
VIEW = SessionView(SessionState.PENDING, "s1", "rpi1101", "rpi1100", backend="tls", join="relay", selected_at=NOW)


class _Reactor(Clock):
    """Its threads have done at once."""

    def callInThread(self, work: Any) -> None:
        work()


class ReckoningCase(SynchronousTestCase):
    """A state directory in which one server follows the other."""

    def setUp(self) -> None:
        """The first one has not started."""
        self.state = Path(self.mktemp()).absolute()
        self.state.mkdir(0o700)
        self.reactor = _Reactor()
        self.reactor.rightNow = NOW
        self.patch(recording, "time", self)

    def time(self) -> float:
        """The wall clock."""
        return self.reactor.seconds()

    def start(self) -> Recording:
        """The next server; the one before is dead if it was not stopped."""
        self.reactor.calls = []
        server = Recording.within(str(self.state), self.reactor)
        server.start()
        self.addCleanup(server.trail._files.close)
        return server

    def bring_up(self, server: Recording, id: str) -> None:
        """A session is opened, and up 3 s later."""
        view = evolve(VIEW, id=id)
        server.sink.emit(SessionOpened(view))
        self.reactor.advance(3)
        server.sink.emit(SessionUp(view))

    def entries(self) -> list[Any]:
        """All of the trail."""
        return [Entry.from_line(line).facts for line in AuditFiles.within(str(self.state)).lines()]

    def ends(self) -> list[tuple[object, object, object]]:
        """Session, reason and milliseconds of each end, in order."""
        found = [each for each in self.entries() if each["action"] == "session-ended"]
        return [(each["session"], each["reason"], each.get("duration_ms")) for each in found]


class KilledTests(ReckoningCase):
    """A server that was killed, and the next one."""

    def test_killed(self) -> None:
        """The next server records the end, with its reason and until when it was up at least; before all else, once."""
        server = self.start()
        self.bring_up(server, "s1")
        self.bring_up(server, "s2")
        server.sink.emit(SessionEnded(evolve(VIEW, id="s2", up_at=NOW + 6), EndReason.OPERATOR))
        server.sink.emit(SessionOpened(evolve(VIEW, id="s3")))
        self.reactor.advance(20)
        server.sink.emit(EntryRefused("ssh", "192.0.2.1:1", "root", "no"))
        self.reactor.advance(1000)
        os.utime(self.state / FILE_NAME, (NOW, NOW))
        with capturedLogs() as events:
            server = self.start()
        open_then = "sessions that were open then: 2"
        self.assertEqual(
            [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn],
            [f"The server before this one ended without notice; {open_then}. Their ends are recorded now"],
        )
        self.assertEqual(self.ends(), [("s2", "operator", 0), ("s1", "server-lost", 23_000), ("s3", "server-lost", 0)])
        self.assertEqual(self.entries()[-1]["action"], "server-started")
        for _ in range(2):
            server = self.start()
        server.stop()
        self.start()
        self.assertEqual(len(self.ends()), 3)
        self.assertIsNone(verify(AuditFiles.within(str(self.state)).lines()).broken)

    def test_stopped(self) -> None:
        """After a server that has stopped nothing is left to record."""
        server = self.start()
        self.bring_up(server, "s1")
        server.sink.emit(SessionEnded(VIEW, EndReason.SERVER_STOPPED))
        server.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.start()
        self.assertEqual([reason for _, reason, _ in self.ends()], ["server-stopped"])

    def test_long_trail(self) -> None:
        """A session gets its end also if its beginning is far back in a trail of which only the end is read."""
        self.patch(reckoning, "LOOK_BACK_BYTES", 3000)
        self.patch(auditfiles, "ROTATE_BYTES", 2000)
        server = self.start()
        self.bring_up(server, "s1")
        self.bring_up(server, "s2")
        self.reactor.advance(SAVE_SECONDS)
        server.sink.emit(SessionEnded(evolve(VIEW, id="s2"), EndReason.OPERATOR))
        for number in range(20):
            self.reactor.advance(60)
            server.sink.emit(EntryRefused("ssh", f"192.0.2.{number}:1", "root", "no"))
            if number == 10:
                server.reckoning.notebook.save()
        self.bring_up(server, "s3")
        last = self.reactor.seconds()
        self.reactor.advance(500)
        os.utime(self.state / FILE_NAME, (last + 20, last + 20))
        self.start()
        up = round((last + 20 - NOW - 3) * 1000)
        self.assertEqual(self.ends(), [("s2", "operator", 0), ("s1", "server-lost", up), ("s3", "server-lost", 20_000)])

    def test_file_lost(self) -> None:
        """Without the file, or with a damaged one, of which it is told, the end of the trail says what it can."""
        for number, damage in enumerate((None, b"{", b"7", b"[" * 100_000, b'[7,{"session":"x"}]', b"x" * 10_000_001)):
            self.bring_up(self.start(), f"s{number}")
            path = self.state / FILE_NAME
            path.unlink()
            if damage is not None:
                path.write_bytes(damage)
            with capturedLogs() as events:
                self.start()
            told = [formatEvent(event) for event in events if "is damaged" in formatEvent(event)]
            self.assertEqual(len(told), damage is not None)
            self.assertEqual(self.ends()[-1][:2], (f"s{number}", "server-lost"))
            self.assertEqual(len(self.ends()), number + 1)


class NotingTests(ReckoningCase):
    """The file."""

    def test_written(self) -> None:
        """What is open is noted down twice a minute, for the owner alone; the file's time says when it still was."""
        server = self.start()
        path = self.state / FILE_NAME
        self.assertEqual((path.read_text(), path.stat().st_mode & 0o777), ("[]", 0o600))
        self.bring_up(server, "s1")
        self.reactor.advance(SAVE_SECONDS)
        [noted] = json.loads(path.read_text())
        self.assertEqual((noted["session"], noted["opened"], noted["up"]), ("s1", NOW, NOW + 3))
        os.utime(path, (NOW, NOW))
        before = path.stat().st_ino
        self.reactor.advance(SAVE_SECONDS)
        self.assertGreater(path.stat().st_mtime, NOW)
        self.assertEqual(path.stat().st_ino, before)
        server.sink.emit(SessionEnded(VIEW, EndReason.OPERATOR))
        server.stop()
        server.stop()
        self.assertEqual(path.read_text(), "[]")

    def test_unwritable(self) -> None:
        """A disk that is full is told once, and harms nobody."""
        server = self.start()
        self.bring_up(server, "s1")
        server.reckoning.notebook.path = self.state / "nowhere" / FILE_NAME
        with capturedLogs() as events:
            for _ in range(3):
                server.reckoning.notebook.save()
        self.assertEqual(len(events), 1)
        self.assertIn("Which sessions are open is not noted down: cannot write", formatEvent(events[0]))

    def test_unreadable_trail(self) -> None:
        """When the trail cannot be read, what was noted down is closed, and the log says so."""
        self.bring_up(self.start(), "s1")
        self.reactor.advance(SAVE_SECONDS)
        server = Recording.within(str(self.state), self.reactor)
        server.reckoning.trail = trail = MemoryTrail()

        def unreadable(limit: int) -> list[bytes]:
            raise PermissionError(13, "Permission denied")

        server.reckoning.lines_back = unreadable
        with capturedLogs() as events:
            server.reckoning.settle()
        self.assertEqual([deed.session for deed in trail.deeds], ["s1"])
        self.assertIn("cannot be read for sessions without end: permission denied", formatEvent(events[0]))
