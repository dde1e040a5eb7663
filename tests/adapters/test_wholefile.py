"""Files that hold the old or the new content, whatever happens."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import StateDirectoryError


class WritingTests(SynchronousTestCase):
    """Files that hold the old or the new content, whatever happens."""

    def setUp(self) -> None:
        """A folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def test_new_and_old(self) -> None:
        """A file is made for its owner alone, and replaced; nothing else stays in the folder."""
        for data in (b"one", b"two"):
            write_whole(self.path, data)
            self.assertEqual(self.path.read_bytes(), data)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(self.names(), ["file"])

    def test_mode(self) -> None:
        """What everybody may read can be written so."""
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        write_whole(self.path, b"x", mode=0o644)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)

    def test_interrupted(self) -> None:
        """When it cannot be finished the old content stays, and no half of the new one."""
        write_whole(self.path, b"old")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", full)
        error = self.assertRaises(StateDirectoryError, write_whole, self.path, b"new")
        self.assertEqual(str(error), f"cannot write {self.path}: No space left on device")
        self.assertEqual((self.path.read_bytes(), self.names()), (b"old", ["file"]))

    def test_no_folder(self) -> None:
        """A folder that is missing, or is none, is one clear line."""
        self.path.write_bytes(b"")
        for path, reason in (
            (self.folder / "gone" / "file", "No such file or directory"),
            (self.path / "file", "Not a directory"),
        ):
            error = self.assertRaises(StateDirectoryError, write_whole, path, b"x")
            self.assertEqual(str(error), f"cannot write {path}: {reason}")

    def test_left_over(self) -> None:
        """What a process that was killed has left is in nobody's way; nor is a link that leads elsewhere."""
        draft, other = self.folder / "draft", self.folder / "other"
        other.write_bytes(b"somebody else's")
        draft.symlink_to(other)
        write_whole(self.path, b"new", draft=draft)
        self.assertEqual((self.path.read_bytes(), other.read_bytes()), (b"new", b"somebody else's"))
        self.assertEqual(self.names(), ["file", "other"])

    def test_put(self) -> None:
        """Who puts it in its place otherwise leaves nothing behind if that cannot be done."""

        def refuse(draft: Path, path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        error = self.assertRaises(StateDirectoryError, write_whole, self.path, b"x", put=refuse)
        self.assertEqual((str(error), self.names()), (f"cannot write {self.path}: Permission denied", []))
        write_whole(self.path, b"x", put=lambda draft, path: draft.rename(path))
        self.assertEqual(self.names(), ["file"])

    def test_order(self) -> None:
        """A loss of power finds the file on disk before its name, and its name before anybody goes on."""
        done: list[str] = []
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def put(draft: Path, path: Path) -> None:
            done.append("name")
            draft.rename(path)

        self.patch(os, "fsync", noted)
        write_whole(self.path, b"x", put=put)
        self.assertEqual(done, ["file", "name", "directory"])
