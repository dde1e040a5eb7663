"""Files that nobody but root may have written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters.rootfile import read
from rdvtwisted.errors import ConfigError


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
        os.chown(self.path, 65534, 0)
        self.refused(f"{self.path} does not belong to root: chown root {self.path}")

    def test_written_by_others(self) -> None:
        """So is one that the group or everybody can write."""
        for mode in (0o664, 0o646):
            self.path.chmod(mode)
            self.refused(f"{self.path} can be written by others than root: chmod go-w {self.path}")

    def test_link(self) -> None:
        """What a link leads to is what counts."""
        target = self.folder / "target"
        self.path.rename(target)
        self.path.symlink_to(target)
        self.assertEqual(read(self.path, 100), "Zürich")
        os.chown(target, 65534, 0)
        self.refused(f"{self.path} does not belong to root: chown root {self.path}")

    def test_directory(self) -> None:
        """And one in whose place others can put another."""
        self.folder.chmod(0o777)
        self.refused(f"{self.folder} can be written by others than root: chmod go-w {self.folder}")
        self.folder.chmod(0o1777)
        self.assertEqual(read(self.path, 100), "Zürich")
        os.chown(self.folder, 65534, 0)
        self.refused(f"{self.folder} does not belong to root: chown root {self.folder}")

    def test_unusable(self) -> None:
        """What is too long, no text or no file at all is refused."""
        self.refused(f"{self.path} is larger than 3 bytes", 3)
        self.path.write_bytes(b"\xff")
        self.refused(f"{self.path} is not UTF-8 text")
        self.path.unlink()
        self.path.mkdir()
        self.refused(f"cannot read {self.path}: is a directory")
