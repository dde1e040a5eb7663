"""When devices were seen last is known over restarts, and by an administrator whose server does not run."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.events import DeviceLeft
from rdvtwisted.services import lastseen
from rdvtwisted.services.lastseen import FILE_NAME, LastSeen
from rdvtwisted.services.memorandum import SAVE_SECONDS
from rdvtwisted.sightings import Sightings
from rdvtwisted.values import Presence
from tests.services.rdvctl import NOW, Rdvctl
from tests.test_sightings import HERE, THERE


class LastSeenCase(SynchronousTestCase):
    """A state directory."""

    def setUp(self) -> None:
        self.clock = Clock()
        folder = tempfile.mkdtemp(prefix="rdv-")  # short enough for a socket
        self.addCleanup(shutil.rmtree, folder)
        self.directory = Path(folder)
        self.path = self.directory / FILE_NAME
        self.present: list[Presence] = []
        self.devices = ["rpi1", "rpi2"]
        self.seen = self.server()

    def server(self) -> LastSeen:
        """What a server keeps there."""
        sightings = Sightings(lambda: self.present, lambda: NOW - 300.0)
        return LastSeen(sightings, self.path, self.clock, lambda: self.devices)


class KeepingTests(LastSeenCase):
    """The file."""

    def test_kept(self) -> None:
        """What is new is written now and then, and at the end; the next server knows it."""
        self.present = [HERE]
        self.seen.start()
        self.assertFalse(self.path.exists())
        self.clock.advance(SAVE_SECONDS)
        self.assertEqual([each["device"] for each in json.loads(self.path.read_text())], ["rpi1"])
        self.present = []
        self.seen.sightings.emit(DeviceLeft("rpi1", HERE.role, "goodbye", HERE))
        self.seen.stop()
        self.seen.stop()
        later = self.server()
        later.start()
        self.addCleanup(later.stop)
        self.assertEqual([(each.device, each.reason) for each in later.sightings.all()], [("rpi1", "goodbye")])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_nothing_new(self) -> None:
        """As long as nothing changes, the disk is left alone."""
        self.present = [HERE]
        self.seen.start()
        self.addCleanup(self.seen.stop)
        self.clock.advance(SAVE_SECONDS)
        self.path.unlink()
        self.clock.advance(SAVE_SECONDS)
        self.assertFalse(self.path.exists())

    def test_removed(self) -> None:
        """A device that there is no more is forgotten."""
        self.seen.sightings.emit(DeviceLeft("rpi1", HERE.role, "goodbye", HERE))
        self.devices = []
        self.seen.notebook.save()
        self.assertEqual(self.seen.sightings.all(), [])

    def test_unwritable(self) -> None:
        """A disk that is full is told once, and harms nobody."""
        lines: list[str] = []

        def note(event: LogEvent) -> None:
            if event["log_namespace"].endswith("Notebook"):
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.seen.notebook.path = self.directory / "not there" / FILE_NAME
        self.present = [HERE]
        for _ in range(3):
            self.seen.notebook.save()
        self.assertEqual(len(lines), 1)
        self.assertIn("not kept: cannot write", lines[0])

    def test_unreadable(self) -> None:
        """A file that is damaged, too large or missing is as good as empty; of one that is there the log tells."""
        self.assertEqual(self.restart(), [])
        for text, problem in (
            ("{", "it is not JSON"),
            ("[" * 100_000, "it is not JSON"),
            ("7", "it is no list"),
            ('[7, {"device": "rpi1"}]', "2 of its 2 entries cannot be understood"),
        ):
            self.path.write_text(text)
            [line] = self.restart()
            self.assertIn(f"{self.path} is damaged: {problem}", line)
        self.patch(lastseen, "LARGEST_FILE", 10)
        self.path.write_text(json.dumps(["x" * 20]))
        self.assertIn("it is larger than 10 bytes", self.restart()[0])
        self.path.unlink()
        self.path.mkdir()
        self.assertIn("is a directory", self.restart()[0])

    def restart(self) -> list[str]:
        """What a server that starts now logs about it; it goes on without."""
        with capturedLogs() as events:
            later = self.server()
            later.start()
            later.notebook._loop.stop()  # type: ignore[union-attr]
        self.assertEqual(later.sightings.all(), [])
        self.assertTrue(all(event["log_level"] is LogLevel.warn for event in events))
        return [formatEvent(event) for event in events]


class CommandTests(LastSeenCase):
    """C{rdvctl}, while no server runs."""

    def setUp(self) -> None:
        super().setUp()
        self.rdvctl = Rdvctl(str(self.directory))
        key = HERE.key.line
        self.assertEqual(self.rdvctl("device", "add", "rpi1", "--role", "onsite", "--key", key), 0, self.rdvctl.err)
        self.seen.sightings.emit(
            DeviceLeft(
                "rpi1", HERE.role, "nothing was heard of it for 60 s", evolve(HERE, since=600.0, last_heard=740.0)
            )
        )
        self.seen.sightings.emit(DeviceLeft("rpi2", THERE.role, "goodbye", THERE))
        self.seen.notebook.save()

    def test_show(self) -> None:
        """A device that is gone is shown with when it was seen last, how it came, and why it left."""
        self.assertEqual(self.rdvctl("device", "show", "rpi1"), 0)
        for line in (
            "last seen:  6 min 0 s ago",
            "came by:    tls, uplink 3g",
            "round trip: 250.0 ms",
            "left:       5 min 0 s ago: nothing was heard of it for 60 s",
        ):
            self.assertIn(line, self.rdvctl.out)
        self.assertEqual(self.rdvctl.document(["device", "show", "rpi1"])["seen"]["lost"], 800.0)

    def test_never(self) -> None:
        """One that never came is shown so."""
        self.path.unlink()
        self.assertEqual(self.rdvctl("device", "show", "rpi1"), 0)
        self.assertIn("last seen: never", self.rdvctl.out)

    def test_damaged(self) -> None:
        """Of a damaged file it is told, rather than that no device was ever here."""
        self.path.write_text("{")
        self.assertEqual(self.rdvctl("online", "--all"), 0)
        self.assertIn(f"{self.path} is damaged: it is not JSON", self.rdvctl.err)
        self.assertIn("No device is known to have been here.", self.rdvctl.out)
        self.path.unlink()
        self.assertEqual(self.rdvctl("online", "--all"), 0)
        self.assertNotIn("damaged", self.rdvctl.err)
        self.assertIn("No device is known to have been here.", self.rdvctl.out)

    def test_all(self) -> None:
        """All that were ever here are listed."""
        self.assertEqual(self.rdvctl("online", "--all"), 0)
        header, first, second = self.rdvctl.out.splitlines()
        self.assertEqual(header.split()[:4], ["DEVICE", "ROLE", "STATE", "SINCE"])
        self.assertIn("rpi1    onsite  gone   5 min 0 s", first)
        self.assertIn("rpi2    master  gone", second)
        self.assertIn("what it knew last", self.rdvctl.err)
