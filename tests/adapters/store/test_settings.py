"""The server's settings, read from where they are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.store.settings import LARGEST_FILE, read_settings
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import ConfigError


class ReadTests(SynchronousTestCase):
    """A server and its administrator's command find the same settings."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def write(self, data: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(data)

    def read(
        self,
        file: str | None = None,
        environment: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        system_file: str = "/nowhere/server.toml",
    ) -> ServerSettings:
        return read_settings(file, environment or {}, overrides or {}, root=True, system_file=system_file)

    def assertMistake(self, line: str) -> None:
        self.assertEqual(str(self.assertRaises(ConfigError, self.read, self.path)), line)

    def test_nothing(self) -> None:
        """Without a file there are the defaults, in the usual places."""
        settings = self.read()
        self.assertEqual(settings.state_directory, "/var/lib/rdvtwisted/server")
        self.assertEqual(settings.control.socket, "/var/lib/rdvtwisted/server/control.sock")

    def test_system_file(self) -> None:
        """The system's file is read if it is there and no other is named."""
        self.write(b"[ssh]\nport = 2222\n")
        self.assertEqual(self.read(system_file=self.path).ssh.port, 2222)

    def test_named_file(self) -> None:
        """A file that is named is read instead of the system's."""
        self.write(b"[ssh]\nport = 2222\n")
        self.assertEqual(self.read(self.path, system_file="/dev/full").ssh.port, 2222)

    def test_absolute(self) -> None:
        """Relative places are meant from here, also when the server goes elsewhere later."""
        settings = self.read(overrides={"state_directory": "state"})
        self.assertEqual(settings.state_directory, os.path.abspath("state"))
        self.assertEqual(settings.control.socket, os.path.abspath("state/control.sock"))

    def test_missing_file(self) -> None:
        """A file that is named must be there."""
        self.assertMistake(f"setting file: cannot read {self.path}: no such file or directory")

    def test_binary_file(self) -> None:
        """It must be text."""
        self.write(b"\xff\xfe")
        self.assertMistake(f"setting file: {self.path} is not UTF-8 text")

    def test_huge_file(self) -> None:
        """It must not be larger than any settings file is."""
        self.write(b"#" * (LARGEST_FILE + 1))
        self.assertMistake(f"setting file: {self.path} is larger than 1048576 bytes")

    def test_mistake(self) -> None:
        """A mistake is reported with the name of the file that was read."""
        self.write(b"[ssh]\nport = 99999\n")
        self.assertMistake(
            f"setting ssh.port: 99999 is not a whole number from 0 to 65535 (settings file: {self.path})"
        )
