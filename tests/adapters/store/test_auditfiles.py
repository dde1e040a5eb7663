"""The files of the audit trail: several writers, one chain; nothing is ever taken away, whatever became of a writer."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.store import auditfiles, audittail
from rdvtwisted.adapters.store.auditfiles import AuditFiles, Place, TrailBusy
from rdvtwisted.audit import Deed, Entry, Mark
from rdvtwisted.errors import StateDirectoryError
from rdvtwisted.verification import Verdict, verify

NOW = 1_704_067_200.0


def deed(number: int = 0) -> Deed:
    """Something that happened."""
    return Deed("refused", f"stranger:{number}", NOW + number)


class FilesCase(SynchronousTestCase):
    """A state directory."""

    def setUp(self) -> None:
        """Make it."""
        self.state = Path(self.mktemp()).absolute()
        self.state.mkdir(0o700)

    def files(self) -> AuditFiles:
        """One more process that writes to its trail."""
        files = AuditFiles.within(str(self.state))
        self.addCleanup(files.close)
        return files

    @property
    def path(self) -> Path:
        """The newest file."""
        return max(self.state.glob("audit/*"))

    def verdict(self, known: Mark | None = None) -> Verdict:
        """What the trail is found to be."""
        return verify(self.files().lines(), known=known)

    def actions(self) -> list[object]:
        """The actions of all entries; half lines left out."""
        found: list[object] = []
        for line in self.files().lines():
            try:
                found.append(Entry.from_line(line).facts["action"])
            except ValueError:
                found.append(None)
        return found


class WritingTests(FilesCase):
    """From nothing to several files."""

    def test_nothing(self) -> None:
        """Who only reads makes nothing."""
        files = self.files()
        self.assertEqual((list(files.lines()), files.head()), ([], None))
        self.assertEqual(list(self.state.iterdir()), [])

    def test_private(self) -> None:
        """Only the owner can read it."""
        self.files().append(deed())
        self.assertEqual(self.path.name, "000000000000.jsonl")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)

    def test_at_once(self) -> None:
        """An entry is in the file when it is written, without anybody's closing it."""
        files = self.files()
        for number in range(3):
            entry = files.append(deed(number))
            self.assertTrue(self.path.read_bytes().endswith(entry.line))
        self.assertEqual(self.verdict(), Verdict(4, files.head(), 0, None))

    def test_own_beginning(self) -> None:
        """No two trails begin alike, so that none can be passed off as another's."""
        first = self.files().append(deed()).previous
        self.state = self.state / "other"
        self.assertNotEqual(self.files().append(deed()).previous, first)

    def test_two_writers(self) -> None:
        """Two processes that write by turns make one chain."""
        writers = [self.files(), self.files()]
        for number in range(10):
            writers[number % 2].append(deed(number))
        self.assertEqual(self.verdict().entries, 11)
        self.assertIsNone(self.verdict().broken)

    def test_many_processes(self) -> None:
        """Processes that write at the same time make one chain, on which nothing is missing."""
        program = textwrap.dedent(
            """
            import sys, time
            from functools import partial
            from rdvtwisted.adapters.store.auditfiles import AuditFiles
            from rdvtwisted.audit import Deed
            files = AuditFiles.within(sys.argv[1], partial(time.sleep, 0.001))
            files.rotate_bytes = 4000
            for number in range(25):
                files.append(Deed("refused", f"stranger:{sys.argv[2]}-{number}", number))
            """
        )
        writers = [
            subprocess.Popen([sys.executable, "-c", program, str(self.state), str(name)], stderr=subprocess.PIPE)
            for name in range(3)
        ]
        self.assertEqual([(writer.communicate()[1], writer.returncode) for writer in writers], [(b"", 0)] * 3)
        verdict = self.verdict()
        self.assertEqual((verdict.entries, verdict.torn, verdict.broken), (76, 0, None))
        actors = [Entry.from_line(line).facts["actor"] for line in self.files().lines()]
        self.assertEqual(len(set(actors)), 76)
        self.assertGreater(len(list(self.state.glob("audit/*"))), 2)

    def test_rotation(self) -> None:
        """A large file is followed by the next, and the chain goes on in it."""
        files = self.files()
        files.rotate_bytes = 1000
        for number in range(12):
            files.append(deed(number))
        names = sorted(path.name for path in self.state.glob("audit/*"))
        self.assertGreater(len(names), 2)
        for name in names:
            first = Entry.from_line((self.state / "audit" / name).read_bytes().splitlines()[0])
            self.assertEqual(name, f"{first.mark.number:012d}.jsonl")
        self.assertEqual(self.verdict(), Verdict(13, files.head(), 0, None))

    def test_places(self) -> None:
        """A line's number tells in which file it is, and where."""
        files = self.files()
        files.rotate_bytes = 1000
        for number in range(12):
            files.append(deed(number))
        for number, line in enumerate(files.lines(), 1):
            place = files.place(number)
            self.assertEqual(Path(place.path).read_bytes().splitlines(keepends=True)[place.line - 1], line)
        last = files.place(13)
        self.assertEqual(files.place(14), Place(last.path, last.line + 1))
        self.assertEqual(AuditFiles.within("/nonexistent").place(1), Place("/nonexistent/audit", 1))

    def test_backwards(self) -> None:
        """The trail can be read from its end, as far as is wanted, over several files."""
        files = self.files()
        self.assertEqual(list(files.lines_back(1000)), [])
        files.rotate_bytes = 1000
        for number in range(12):
            files.append(deed(number))
        lines = [line[:-1] for line in reversed(list(files.lines()))]
        sizes = list(itertools.accumulate(len(line) + 1 for line in lines))
        self.patch(audittail, "_BLOCK", 50)
        self.assertEqual(list(files.lines_back(sizes[-1])), lines)
        self.assertEqual(list(files.lines_back(10 * sizes[-1])), lines)
        for count in (1, 2, 5, 9):
            self.assertIn(len(list(files.lines_back(sizes[count - 1] + 1))), (count, count - 1))
            self.assertEqual(list(files.lines_back(sizes[count - 1] + 1))[: count - 1], lines[: count - 1])
        self.assertEqual(list(files.lines_back(0)), [])
        with self.path.open("ab") as file:
            file.write(b"x" * 200_000)
        noise, *rest = files.lines_back(10 * 200_000)
        self.assertLess(len(noise), 70_000)
        self.assertEqual(rest, lines)

    def test_rotated_by_another(self) -> None:
        """A writer goes on in the file that another has begun."""
        first, second = self.files(), self.files()
        second.rotate_bytes = 100
        for number in range(6):
            (first, second)[number % 2].append(deed(number))
        self.assertEqual(self.verdict().entries, 7)
        self.assertIsNone(self.verdict().broken)

    def test_busy(self) -> None:
        """While another process writes nobody else does; who waits is told when it takes too long."""
        first, second = self.files(), self.files()
        first.open()
        pauses: list[int] = []
        second.pause = lambda: pauses.append(1)
        with first._alone():
            self.assertRaises(TrailBusy, second.append, deed())
            self.assertEqual(list(second.lines()), [])
        self.assertEqual(len(pauses), 2 * auditfiles.LOCK_ATTEMPTS)
        second.append(deed())

    def test_reading_while_written(self) -> None:
        """What is read is the trail of one moment."""
        files = self.files()
        files.append(deed())
        lines = files.lines()
        first = next(lines)
        files.append(deed(1))
        self.assertEqual(len([first, *lines]), 2)

    def test_synced(self) -> None:
        """What was written can be put on the disk, also by somebody else's descriptor."""
        files = self.files()
        files.sync()
        self.assertEqual(files.descriptor(), -1)
        files.append(deed())
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        files.sync()
        own = files.descriptor()
        self.addCleanup(os.close, own)
        self.assertTrue(os.path.samestat(os.fstat(own), os.fstat(synced[0])))

    def test_unusable(self) -> None:
        """What stands in its place is told in one line."""
        (self.state / "audit").write_text("")
        error = self.assertRaises(StateDirectoryError, self.files().append, deed())
        self.assertEqual(str(error), f"cannot open {self.state / 'audit'}: not a directory")

    def test_link(self) -> None:
        """Whoever owns the directory cannot have root write elsewhere."""
        elsewhere = self.state / "elsewhere"
        elsewhere.mkdir()
        (self.state / "audit").symlink_to(elsewhere)
        self.assertRaises(StateDirectoryError, self.files().append, deed())
        (self.state / "audit").unlink()
        (self.state / "audit").mkdir(0o700)
        (self.state / "audit" / "000000000000.jsonl").symlink_to(elsewhere / "file")
        self.assertRaises(OSError, self.files().append, deed())
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_owner(self) -> None:
        """What root writes belongs to the owner of the state directory, who may be the server's user."""
        if os.geteuid() != 0:
            self.skipTest("only root can have files of two users")
        os.chown(self.state, 4242, 4243)
        self.files().append(deed())
        for path in (self.path, self.path.parent):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (4242, 4243))


class DamageTests(FilesCase):
    """What becomes of a trail when things go wrong."""

    def short(self, count: int) -> None:
        """The disk has room for so many bytes of what is written next."""
        real = os.write

        def write(fd: int, data: bytes) -> int:
            self.patch(os, "write", real)
            return real(fd, data[:count])

        self.patch(os, "write", write)

    def test_half_a_line(self) -> None:
        """Half a line of a writer that was killed stays where it is; the next entry says what it was."""
        self.files().append(deed())
        whole = self.path.read_bytes()
        line = Entry.after(self.files().head(), deed(1).facts()).line
        for count in (1, 40, len(line) - 2):
            self.path.write_bytes(whole + line[:count])
            self.files().append(deed(2))
            self.assertEqual(self.actions(), ["begun", "refused", None, "repaired", "refused"])
            self.assertTrue(self.path.read_bytes().startswith(whole + line[:count] + b"\n"))
            verdict = self.verdict()
            self.assertEqual((verdict.entries, verdict.torn, verdict.broken), (4, 1, None))

    def test_newline_missing(self) -> None:
        """An entry that lacks nothing but its newline is one; nothing was torn."""
        self.files().append(deed())
        self.path.write_bytes(self.path.read_bytes()[:-1])
        self.files().append(deed(1))
        self.assertEqual(self.actions(), ["begun", "refused", "refused"])
        self.assertEqual(self.verdict().torn, 0)
        self.assertIsNone(self.verdict().broken)

    def test_torn_beginning(self) -> None:
        """Even a trail whose first line was torn goes on."""
        (self.state / "audit").mkdir(0o700)
        (self.state / "audit" / "000000000000.jsonl").write_bytes(b'{"action')
        self.files().append(deed())
        self.assertEqual(self.actions(), [None, "begun", "refused"])
        self.assertIsNone(self.verdict().broken)

    def test_torn_new_file(self) -> None:
        """A file that was just begun when the power failed is gone on with, whatever is in it."""
        for rest in (b"", b"\0" * 4096, b'{"ac'):
            files = self.files()
            files.append(deed())
            number = files.head().number + 1  # type: ignore[union-attr]
            path = self.path.parent / f"{number:012d}.jsonl"
            path.write_bytes(rest)
            self.files().append(deed(1))
            self.assertEqual(self.path, path)
            self.assertIsNone(self.verdict().broken)
        self.assertEqual(self.verdict().torn, 2)

    def test_noise_at_the_end(self) -> None:
        """What a broken disk has put at the end does not stop the trail, however much it is."""
        self.files().append(deed())
        with self.path.open("ab") as file:
            file.write((b"\0" * 999 + b"\n") * (2 * audittail._BLOCK // 1000))
        files = self.files()
        files.append(deed(1))
        files.append(deed(2))
        verdict = self.verdict()
        self.assertEqual((verdict.entries, verdict.torn, verdict.broken), (5, 1, None))

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.binary(max_size=60), st.binary(max_size=60))
    def test_any_noise(self, first: bytes, second: bytes) -> None:
        """Whatever writers leave behind, the trail goes on and is whole."""
        state = Path(self.mktemp()).absolute()
        state.mkdir(0o700)
        self.state = state
        self.files().append(deed())
        for noise in (first, second):
            with self.path.open("ab") as file:
                file.write(noise)
            self.files().append(deed(1))
        self.assertIsNone(self.verdict().broken)

    def test_disk_full(self) -> None:
        """An entry for which there was no room is refused; what got onto the disk of it is told by the next."""
        files = self.files()
        files.append(deed())
        self.short(30)
        error = self.assertRaises(OSError, files.append, deed(1))
        self.assertEqual(error.errno, errno.ENOSPC)
        files.append(deed(2))
        self.assertEqual(self.actions(), ["begun", "refused", None, "repaired", "refused"])
        self.assertIsNone(self.verdict().broken)

    def test_no_room_for_a_newline(self) -> None:
        """An entry that has all but its newline on the disk is not written twice."""
        files = self.files()
        length = len(files.append(deed()).line)
        self.short(length - 1)
        files.append(deed(1))
        files.append(deed(2))
        self.assertEqual(self.actions(), ["begun", "refused", "refused", "refused"])
        self.assertIsNone(self.verdict().broken)

    def test_end_cut_off(self) -> None:
        """A writer that is still there notices that the end was cut off, and says so."""
        files = self.files()
        for number in range(3):
            files.append(deed(number))
        lost = files.head()
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.path.write_bytes(b"".join(lines[:2]))
        files.append(deed(4))
        self.assertEqual(self.actions(), ["begun", "refused", "end-lost", "refused"])
        self.assertIsNone(self.verdict().broken)
        assert lost is not None
        self.assertIn(f"entries up to {lost.number} were written", self.path.read_text())
        self.assertIsNotNone(self.verdict(known=lost).broken)

    def test_end_cut_off_and_grown(self) -> None:
        """Nor does it help to let others write until there are as many entries again, or more."""
        for others in (1, 2, 3, 5):
            self.state = self.state / "next"
            files = self.files()
            for number in range(3):
                files.append(deed(number))
            lost = files.head()
            lines = self.path.read_bytes().splitlines(keepends=True)
            self.path.write_bytes(b"".join(lines[:2]))
            for number in range(others):
                # Of the same length, so that the file is as long as it was.
                self.files().append(deed(number + 4))
            files.append(deed(9))
            self.assertEqual(self.actions(), ["begun", "refused", *["refused"] * others, "end-lost", "refused"])
            self.assertIsNone(self.verdict().broken)
            self.assertEqual(files.loss, lost)
            self.assertIn(f"the last one was {lost}", self.path.read_text())
            files.append(deed(10))
            self.assertEqual(self.actions().count("end-lost"), 1)

    def test_cut_off_in_an_earlier_file(self) -> None:
        """Nor that the trail has come to another file meanwhile; that it has is no loss."""
        files = self.files()
        files.append(deed())
        other = self.files()
        other.rotate_bytes = 10
        other.append(deed(1))
        files.append(deed(2))
        self.assertEqual((files.loss, self.actions()[-1]), (None, "refused"))
        path, mark = self.path, files.head()
        path.write_bytes(path.read_bytes()[:-1])
        other.append(deed(3))
        files.append(deed(4))
        self.assertIsNone(files.loss)
        path.write_bytes(b"")
        other.append(deed(5))
        other.append(deed(6))
        files.append(deed(7))
        self.assertIn("end-lost", self.actions())
        assert mark is not None and files.loss is not None
        self.assertGreater(files.loss.number, mark.number)

    def test_looked_after(self) -> None:
        """Whoever only looks sees it as well, and records it; as long as all is there he writes nothing."""
        files = self.files()
        files.look(NOW)
        self.assertEqual(list(self.state.iterdir()), [])
        files.append(deed())
        self.files().append(deed(1))
        before = self.path.read_bytes()
        files.look(NOW)
        self.assertEqual((self.path.read_bytes(), files.loss), (before, None))
        lost = Entry.from_line(before.splitlines()[2]).mark
        self.path.unlink()
        files.look(NOW)
        files.look(NOW)
        self.assertEqual((self.actions(), files.loss), (["end-lost"], lost))

    def test_directory_deleted(self) -> None:
        """When even the directory was taken away, the trail goes on in a new one, from where it was."""
        files = self.files()
        files.append(deed())
        for gone in ("moved", "removed"):
            (self.state / "audit").rename(self.state / gone)
            files.append(deed(1))
            self.assertEqual(self.actions(), ["end-lost", "refused"])
            self.assertEqual(stat.S_IMODE((self.state / "audit").stat().st_mode), 0o700)

    def test_one_byte_short(self) -> None:
        """Where there was no room for the newline of an entry about the trail, the next begins a line all the same."""
        files = self.files()
        files.append(deed())
        for path in list(self.state.glob("audit/*")):
            path.unlink()
        real = os.write

        def write(fd: int, data: bytes) -> int:
            self.patch(os, "write", real)
            return real(fd, data[:-1])

        self.patch(os, "write", write)
        files.append(deed(1))
        self.assertEqual(self.actions(), ["end-lost", "refused"])

    def test_all_deleted(self) -> None:
        """A writer that is still there does not begin anew when all was deleted."""
        files = self.files()
        files.append(deed())
        for path in list(self.state.glob("audit/*")):
            path.unlink()
        files.append(deed(1))
        self.assertEqual(self.actions(), ["end-lost", "refused"])
        self.assertEqual(
            str(self.verdict().broken), "broken at entry 0, line 1: entries 0 to 1 are not here: taken out"
        )

    def test_replaced(self) -> None:
        """A writer goes on in the file that is there, not in the one that was."""
        files = self.files()
        files.append(deed())
        copy = self.path.read_bytes()
        path = self.path
        path.rename(self.state / "old")
        path.write_bytes(copy)
        files.append(deed(1))
        self.assertEqual(self.actions(), ["begun", "refused", "refused"])

    def test_append_only(self) -> None:
        """All that is ever written stays as it is: the file only grows."""
        files = self.files()
        before = b""
        for number in range(10):
            if number % 3 == 0:
                self.short(20)
            try:
                files.append(deed(number))
            except OSError:
                pass
            after = b"".join(files.lines())
            self.assertTrue(after.startswith(before))
            before = after
