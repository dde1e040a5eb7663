"""Files that nobody but root may have written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters.rootfile import read, require
from rdvtwisted.errors import ConfigError

NOBODY = 65534


class RootFileTests(SynchronousTestCase):
    """What is read, and what is not."""

    def setUp(self) -> None:
        """A file of root's in a directory of root's."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to have files of root's and of others")
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.folder.chmod(0o755)
        self.path = self.folder / "rules.toml"
        self.path.write_text("Zürich")
        self.path.chmod(0o644)

    def refused(self, line: str, largest: int = 100) -> None:
        error = self.assertRaises(ConfigError, read, self.path, largest)
        self.assertEqual(str(error), f"setting file: {line}")

    def test_read(self) -> None:
        """It is text."""
        self.assertEqual(read(self.path, 100), "Zürich")

    def test_missing(self) -> None:
        """That there is none is for the caller to judge."""
        self.assertRaises(FileNotFoundError, read, self.folder / "none", 100)

    def test_somebody_elses(self) -> None:
        """A file of somebody else's is refused."""
        os.chown(self.path, NOBODY, 0)
        self.refused(f"{self.path} does not belong to root: chown root {self.path}")

    def test_written_by_others(self) -> None:
        """So is one that the group or everybody can write."""
        for mode in (0o664, 0o646):
            self.path.chmod(mode)
            self.refused(f"{self.path} can be written by others than root: chmod go-w {self.path}")

    def test_link(self) -> None:
        """What a link of root's leads to is what counts; anybody else's link leads nowhere."""
        target = self.folder / "target"
        self.path.rename(target)
        self.path.symlink_to(target)
        self.assertEqual(read(self.path, 100), "Zürich")
        os.chown(self.path, NOBODY, NOBODY, follow_symlinks=False)
        self.refused(f"{self.path} does not belong to root: chown -h root {self.path}")
        os.chown(self.path, 0, 0, follow_symlinks=False)
        os.chown(target, NOBODY, 0)
        self.refused(f"{target} does not belong to root: chown root {target}")

    def test_dangling(self) -> None:
        """A link to what is not there is no file that is merely missing; one is missing also behind a link."""
        self.path.unlink()
        self.path.symlink_to("a/b")
        self.refused(f"{self.path} leads to {self.folder}/a, which is not there")
        (self.folder / "etc").symlink_to(self.folder)
        self.assertRaises(FileNotFoundError, read, self.folder / "etc" / "none", 100)
        self.assertRaises(FileNotFoundError, require, self.folder / "none" / "none")

    def test_directory(self) -> None:
        """And one in whose place others can put another."""
        self.folder.chmod(0o777)
        self.refused(f"{self.folder} can be written by others than root: chmod go-w {self.folder}")
        self.folder.chmod(0o755)
        os.chown(self.folder, NOBODY, 0)
        self.refused(f"{self.folder} does not belong to root: chown root {self.folder}")

    def test_way(self) -> None:
        """So it is with each directory on the way, whatever stands before the file."""
        inner = self.folder / "a" / "b"
        inner.mkdir(parents=True)
        self.path = self.path.rename(inner / "rules.toml")
        self.assertEqual(read(self.path, 100), "Zürich")
        for each in (inner, inner.parent, self.folder):
            os.chown(each, NOBODY, 0)
            self.refused(f"{each} does not belong to root: chown root {each}")
            os.chown(each, 0, 0)
            each.chmod(0o775)
            self.refused(f"{each} can be written by others than root: chmod go-w {each}")
            each.chmod(0o755)

    def test_sticky(self) -> None:
        """
        Others can put a link of their own, or one of root's files, into a directory such as C{/tmp}, but no directory
        of root's, nor take one away.
        """
        for mode in (0o1777, 0o1775):
            self.folder.chmod(mode)
            words = f"others than root can have put {self.path} there: keep it in a directory that only root can write"
            self.refused(words)
            self.assertRaises(ConfigError, require, self.path)
            lure = self.folder / "lure"
            lure.symlink_to("/proc/version")
            self.assertRaises(ConfigError, require, lure)
            os.chown(lure, NOBODY, NOBODY, follow_symlinks=False)
            self.assertRaises(ConfigError, require, lure)
            lure.unlink()
            inner = self.folder / "inner"
            inner.mkdir()
            (inner / "rules.toml").write_text("x")
            self.assertEqual(read(inner / "rules.toml", 100), "x")
            self.assertEqual(read(inner / ".." / "inner" / "rules.toml", 100), "x")
            os.chown(inner, NOBODY, 0)
            self.assertRaises(ConfigError, read, inner / "rules.toml", 100)
            rmtree(inner)

    def test_swapped(self) -> None:
        """What takes the place of the file after it was looked at is looked at, too."""
        opened = os.open

        def swap(name: str, flags: int, *arguments: int, dir_fd: int | None = None) -> int:
            if name == self.path.name and not flags & os.O_PATH:
                self.path.unlink()
                os.mkfifo(self.path)
            return opened(name, flags, *arguments, dir_fd=dir_fd)

        self.patch(os, "open", swap)
        self.refused(f"{self.path} is no file")

    def test_unusable(self) -> None:
        """What is too long, no text or no file at all is refused; nothing is waited for, as for who writes a pipe."""
        before = len(os.listdir("/proc/self/fd"))
        self.refused(f"{self.path} is larger than 3 bytes", 3)
        self.path.write_bytes(b"\xff")
        self.refused(f"{self.path} is not UTF-8 text")
        self.path.unlink()
        self.path.mkdir()
        self.refused(f"{self.path} is no file")
        self.path.rmdir()
        os.mkfifo(self.path)
        self.refused(f"{self.path} is no file")
        self.path.unlink()
        self.path.symlink_to(self.path)
        self.refused(f"{self.path} is behind more than 40 links")
        self.path.unlink()
        self.path.write_text("x")
        self.path = self.path / "below"
        self.refused(f"cannot read {self.path}: not a directory")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
