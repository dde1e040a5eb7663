"""The audit trail of a running server: whatever becomes of the disk, the server goes on, and the trail tells."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.audittrail import (
    BUSY_SECONDS,
    HEAD_SECONDS,
    LOOK_SECONDS,
    MAX_WAITING,
    REMIND_SECONDS,
    SYNC_SECONDS,
    TROUBLE_SECONDS,
    AuditTrail,
)
from rdvtwisted.audit import Deed, Entry, timestamp
from rdvtwisted.interfaces import IAuditTrail
from rdvtwisted.testing.audit import AuditTrailContract, MemoryTrail
from rdvtwisted.verification import verify

NOW = 1_704_067_200.0


def deed(number: int = 0) -> Deed:
    """Something that happened."""
    return Deed("refused", f"stranger:{number}", NOW + number)


class MemoryTests(AuditTrailContract, SynchronousTestCase):
    """The twin keeps what the real one keeps."""

    def make(self) -> MemoryTrail:
        """A trail in memory."""
        return MemoryTrail()


class TrailCase(SynchronousTestCase):
    """A server's trail in a state directory, and what is done in its threads."""

    def make(self) -> AuditTrail:
        """A trail in a directory of its own."""
        self.state = Path(self.mktemp()).absolute()
        self.state.mkdir(0o700)
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.work: list[Callable[[], None]] = []
        self.files = AuditFiles.within(str(self.state))
        self.addCleanup(self.files.close)
        return AuditTrail(self.files, self.clock, self.work.append, lambda: self.clock.seconds() + 3600)

    def entries(self) -> list[Entry]:
        """What is in the files."""
        return [Entry.from_line(line) for line in AuditFiles.within(str(self.state)).lines()]

    def actions(self) -> list[object]:
        """What was done."""
        return [entry.facts["action"] for entry in self.entries()]


class FileTests(TrailCase, AuditTrailContract):
    """The real one."""


class LifeTests(TrailCase):
    """From start to stop."""

    def test_provides(self) -> None:
        """It is a trail, and so is its twin."""
        verifyObject(IAuditTrail, self.make())
        verifyObject(IAuditTrail, MemoryTrail())

    def test_start_and_stop(self) -> None:
        """Start and stop are entries; the log names the last one, for those who send it elsewhere."""
        trail = self.make()
        with capturedLogs() as events:
            trail.start("version 1")
            self.clock.advance(HEAD_SECONDS)
            mark = trail.head()
            trail.stop()
        self.assertEqual(self.actions(), ["begun", "server-started", "server-stopped"])
        self.assertEqual(self.entries()[1].facts["detail"], "version 1")
        self.assertEqual(self.entries()[1].facts["time"], timestamp(NOW + 3600))
        texts = [formatEvent(event) for event in events]
        self.assertEqual(
            texts,
            [
                "The audit trail is at its beginning",
                f"The audit trail is at {mark}",
                f"The audit trail ends for now at {self.entries()[-1].mark}",
            ],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_next_start(self) -> None:
        """The next server goes on where the last one has stopped."""
        trail = self.make()
        trail.start()
        trail.stop()
        trail.start()
        trail.stop()
        self.assertEqual(self.actions(), ["begun"] + ["server-started", "server-stopped"] * 2)
        self.assertIsNone(verify(trail.lines()).broken)

    def test_synced(self) -> None:
        """What was written is put on the disk a second later, in a thread; many entries at once."""
        synced: list[int] = []
        self.patch(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
        trail = self.make()
        trail.start()
        for number in range(10):
            trail.record(deed(number))
        self.clock.advance(SYNC_SECONDS)
        synced.clear()
        self.assertEqual(len(self.work), 1)
        self.work.pop()()
        (path,) = self.state.glob("audit/*")
        self.assertEqual(synced, [path.stat().st_ino])
        self.clock.advance(10)
        self.assertEqual(self.work, [])
        trail.record(deed())
        self.clock.advance(SYNC_SECONDS)
        self.assertEqual(len(self.work), 1)
        self.work.pop()()
        trail.stop()

    def test_sync_fails(self) -> None:
        """A disk that fails at it is told; no descriptor is left open."""
        trail = self.make()
        trail.start()
        self.clock.advance(SYNC_SECONDS)

        def fail(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fsync", fail)
        before = len(os.listdir("/proc/self/fd"))
        with capturedLogs() as events:
            self.work.pop()()
            self.assertEqual(len(os.listdir("/proc/self/fd")), before - 1)
            trail.stop()
        self.assertEqual(
            [formatEvent(event) for event in events], ["The audit trail cannot be synced: input/output error"] * 2
        )

    def test_no_thread(self) -> None:
        """When this machine has no room for a thread that is told; no descriptor is left open."""
        trail = self.make()
        trail.start()
        before = len(os.listdir("/proc/self/fd"))

        def refuse(work: object) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(trail, "_in_thread", refuse)
        with capturedLogs() as events:
            self.clock.advance(SYNC_SECONDS)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(
            [formatEvent(event) for event in events], ["The audit trail cannot be synced: can't start new thread"]
        )
        trail.stop()

    def test_mistake(self) -> None:
        """A deed that cannot be recorded is a mistake of the program; those behind it are recorded."""
        trail = self.make()
        trail.record(Deed("No word", "server", NOW))
        trail.record(deed())
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.actions(), ["begun", "refused"])


class LossTests(TrailCase):
    """Somebody takes away what was written, under the server."""

    def setUp(self) -> None:
        """A server that has written."""
        self.trail = self.make()
        self.trail.start()
        self.addCleanup(self.trail.stop)
        self.trail.record(deed())
        self.lost = self.trail.head()
        (self.path,) = self.state.glob("audit/*")

    def cut(self) -> None:
        """The last entry is gone."""
        self.path.write_bytes(b"".join(self.path.read_bytes().splitlines(keepends=True)[:-1]))

    def assert_told(self, events: list[LogEvent]) -> None:
        """Once, as an error, with what is lost."""
        [event] = [event for event in events if event["log_level"] is LogLevel.error]
        self.assertIn(f"under this server: entries up to {self.lost} were written", formatEvent(event))
        moment = timestamp(self.clock.seconds() + 3600)
        self.assertEqual(self.trail.loss, f"entries up to 2 were written, and were not there any more at {moment}")

    def test_told_when_written(self) -> None:
        """With the next entry the log tells, also if others have written in between."""
        self.cut()
        with another_process(self.state) as other:
            for number in range(3):
                other.append(deed(number + 1))
        with capturedLogs() as events:
            self.trail.record(deed(8))
            self.trail.record(deed(9))
        self.assert_told(events)
        self.assertEqual(self.actions()[-3:], ["end-lost", "refused", "refused"])

    def test_told_when_nothing_happens(self) -> None:
        """When nothing is to be recorded, it is seen within a minute; once."""
        self.path.unlink()
        with capturedLogs() as events:
            self.clock.advance(LOOK_SECONDS)
            self.assert_told(events)
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual(len([event for event in events if event["log_level"] is LogLevel.error]), 1)
        self.assertEqual(self.actions(), ["end-lost"])

    def test_all_there(self) -> None:
        """As long as all is there, nothing is written or told."""
        with another_process(self.state) as other:
            other.append(deed(1))
        before = self.actions()
        with capturedLogs() as events:
            for _ in range(3):
                self.clock.advance(LOOK_SECONDS)
            self.trail.look()
        self.assertEqual((events, self.trail.loss, self.actions()), ([], "", before))

    def test_cannot_be_told_in_the_trail(self) -> None:
        """When even that cannot be recorded, it is trouble like any other, and recorded when it can be."""
        shutil.rmtree(self.path.parent)
        self.path.parent.write_text("")
        self.trail.look()
        self.assertIn("not a directory", self.trail.trouble)
        self.path.parent.unlink()
        self.clock.advance(TROUBLE_SECONDS)
        self.assertEqual((self.trail.trouble, self.actions()), ("", ["end-lost", "gap"]))
        self.assertIn("entries up to 2", self.trail.loss)

    def test_busy(self) -> None:
        """While another process writes, the look waits for the next time."""
        self.path.unlink()
        with another_process(self.state) as other:
            other.open()
            with other._alone():
                self.trail.look()
        self.assertEqual(self.trail.loss, "")
        self.trail.look()
        self.assertIn("entries up to 2", self.trail.loss)


@contextmanager
def another_process(state: Path) -> Iterator[AuditFiles]:
    """Another process that writes."""
    files = AuditFiles.within(str(state))
    try:
        yield files
    finally:
        files.close()


class TroubleTests(TrailCase):
    """The files take nothing."""

    def setUp(self) -> None:
        """A trail on which something is already."""
        self.trail = self.make()
        self.trail.record(deed())
        self.logged: list[LogEvent] = []

    def fill(self, trouble: int = errno.ENOSPC) -> None:
        """The disk takes nothing until L{clear}."""
        real = self.write = os.write

        def write(fd: int, data: bytes) -> int:
            if data.endswith(b"}\n"):
                raise OSError(trouble, os.strerror(trouble))
            return real(fd, data)

        self.patch(os, "write", write)

    def clear(self) -> None:
        """The disk takes what it is given."""
        self.patch(os, "write", self.write)

    def test_gap(self) -> None:
        """The server goes on; what has waited is written when there is room again, and an entry tells of the gap."""
        self.fill()
        with capturedLogs() as events:
            for number in range(1, 4):
                self.trail.record(deed(number))
            self.assertEqual(self.trail.trouble, "no space left on device")
            self.clock.advance(TROUBLE_SECONDS)
            self.clear()
            self.clock.advance(TROUBLE_SECONDS)
        self.assertEqual(self.trail.trouble, "")
        self.assertEqual(self.actions(), ["begun", "refused", "refused", "refused", "refused", "gap"])
        gap = self.entries()[-1].facts
        self.assertEqual(
            (gap["count"], gap["duration_ms"], gap["reason"]),
            (0, 1000 * 2 * TROUBLE_SECONDS, "no space left on device"),
        )
        self.assertIsNone(verify(self.trail.lines()).broken)
        self.assertEqual(
            [(event["log_level"], formatEvent(event)) for event in events],
            [
                (
                    LogLevel.error,
                    "The audit trail cannot be written: no space left on device. 1 entries wait, 0 are lost",
                ),
                (LogLevel.info, "The audit trail is written again; 0 entries are lost"),
            ],
        )
        self.trail.record(deed(5))
        self.assertEqual(self.actions()[-2:], ["gap", "refused"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """What is kept meanwhile is bounded; the entry on the gap says how many are lost."""
        self.fill()
        for number in range(MAX_WAITING + 50):
            self.trail.record(deed(number))
        self.clear()
        self.clock.advance(TROUBLE_SECONDS)
        facts = self.entries()[-1].facts
        self.assertEqual((len(self.entries()), facts["action"], facts["count"]), (2 + MAX_WAITING + 1, "gap", 50))
        self.assertEqual(len(self.trail._waiting), 0)

    def test_reminded(self) -> None:
        """Trouble that lasts is told at its beginning, every ten minutes, and when it is another."""
        self.fill()
        with capturedLogs() as events:
            self.trail.record(deed())
            for _ in range(int(2 * REMIND_SECONDS / TROUBLE_SECONDS)):
                self.clock.advance(TROUBLE_SECONDS)
            self.assertEqual(len(events), 3)
            self.clear()
            self.fill(errno.EROFS)
            self.clock.advance(TROUBLE_SECONDS)
        self.assertIn("read-only file system", formatEvent(events[-1]))
        self.assertEqual(len(events), 4)

    def test_no_room_for_the_gap(self) -> None:
        """The gap lasts until the entry on it is written."""
        self.fill()
        self.trail.record(deed(1))
        self.clear()
        real, left = os.write, [1]

        def write(fd: int, data: bytes) -> int:
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            left.pop()
            return real(fd, data)

        self.patch(os, "write", write)
        self.clock.advance(TROUBLE_SECONDS)
        self.assertEqual(self.actions(), ["begun", "refused", "refused"])
        self.assertNotEqual(self.trail.trouble, "")
        left += [1]
        self.clock.advance(TROUBLE_SECONDS)
        self.assertEqual(self.actions()[-1], "gap")
        self.assertEqual(self.trail.trouble, "")

    def test_busy(self) -> None:
        """Another process that writes, or was stopped while it did, does not hold the server up."""
        other = AuditFiles.within(str(self.state))
        self.addCleanup(other.close)
        other.open()
        with other._alone():
            self.trail.record(deed(1))
            self.trail.record(deed(2))
            self.clock.advance(BUSY_SECONDS)
            self.assertEqual(self.actions(), ["begun", "refused"])
            self.assertEqual(self.trail.trouble, "")
        self.clock.advance(BUSY_SECONDS)
        self.assertEqual(self.actions(), ["begun", "refused", "refused", "refused"])

    def test_stopped_in_trouble(self) -> None:
        """A server that stops in trouble says how much is not in its trail."""
        self.trail.start()
        self.fill()
        self.trail.record(deed(1))
        with capturedLogs() as events:
            self.trail.stop()
        self.assertEqual(formatEvent(events[0]), "The audit trail ends without 2 entries: no space left on device")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clear()

    def test_directory_gone(self) -> None:
        """A directory that is gone, or that others may enter, is trouble like any other."""
        self.trail.stop()
        self.state.chmod(0o755)
        self.trail.record(deed(1))
        self.assertIn("open to others", self.trail.trouble)
        self.state.chmod(0o700)
        self.clock.advance(TROUBLE_SECONDS)
        self.assertEqual(self.actions()[-2:], ["refused", "gap"])
