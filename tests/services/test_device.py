"""What a device is told of its server and its places, and what it needs of its machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue, MissingPrivilege, StateDirectoryError
from rdvtwisted.services.device import (
    default_state_directory,
    make_state_directory,
    require_net_admin,
    server_address,
)


class ServerAddressTests(SynchronousTestCase):
    """How the server is named."""

    def test_forms(self) -> None:
        """A host, with or without port; an IPv6 address in brackets, or bare."""
        for text, expected in (
            ("rdv.example.org", ("rdv.example.org", None)),
            (" rdv.example.org:2222 ", ("rdv.example.org", 2222)),
            ("192.0.2.1:1", ("192.0.2.1", 1)),
            ("localhost:65535", ("localhost", 65535)),
            ("[2001:db8::1]", ("2001:db8::1", None)),
            ("[2001:db8::1]:443", ("2001:db8::1", 443)),
            ("2001:db8::1", ("2001:db8::1", None)),
            ("::1", ("::1", None)),
            ("fe80::1%eth0", ("fe80::1%eth0", None)),
        ):
            self.assertEqual(server_address(text), expected)

    def test_refused(self) -> None:
        """Anything else is refused, with what to write."""
        for text in ("", ":22", "host:", "host:port", "host:123456", "two words", "[::1", "[]:22", "a:1:2x", "[::1]:"):
            error = self.assertRaises(InvalidValue, server_address, text)
            self.assertTrue(str(error).endswith(": use HOST, HOST:PORT or [IPV6]:PORT"), str(error))
        for text in ("host:0", "host:65536", "[::1]:99999"):
            error = self.assertRaises(InvalidValue, server_address, text)
            self.assertEqual(str(error), f"invalid RDV server {text!r}: the port must be from 1 to 65535")


class StateDirectoryTests(SynchronousTestCase):
    """Where a device keeps its key and what it has pinned."""

    def test_default(self) -> None:
        """Root has a place in the system, everybody else one at home; a relative XDG_STATE_HOME does not count."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(default_state_directory("onsite", {"HOME": "/home/pi"}), Path("/var/lib/rdvtwisted/onsite"))
        self.patch(os, "geteuid", lambda: 1000)
        for environment, path in (
            ({"HOME": "/home/pi"}, "/home/pi/.local/state/rdvtwisted/master"),
            ({"HOME": "/home/pi", "XDG_STATE_HOME": "/state"}, "/state/rdvtwisted/master"),
            ({"HOME": "/home/pi", "XDG_STATE_HOME": "state"}, "/home/pi/.local/state/rdvtwisted/master"),
            ({"HOME": "/home/pi", "XDG_STATE_HOME": ""}, "/home/pi/.local/state/rdvtwisted/master"),
            ({}, "/.local/state/rdvtwisted/master"),
        ):
            self.assertEqual(default_state_directory("master", environment), Path(path))

    def test_made(self) -> None:
        """It is made with its parents, for its owner alone, and used as it is when it is there."""
        path = Path(self.mktemp()) / "a" / "b"
        for _ in range(2):
            make_state_directory(path)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700)

    def test_cannot_be_made(self) -> None:
        """A file in its place is one clear line."""
        path = Path(self.mktemp())
        path.write_text("")
        for place, reason in ((path, "File exists"), (path / "x", "Not a directory")):
            error = self.assertRaises(StateDirectoryError, make_state_directory, place)
            self.assertEqual(str(error), f"cannot make the state directory {place}: {reason}")

    def test_cannot_be_written(self) -> None:
        """One that belongs to somebody else is one clear line."""
        path = Path(self.mktemp())
        path.mkdir()
        self.patch(os, "access", lambda path, mode: False)
        error = self.assertRaises(StateDirectoryError, make_state_directory, path)
        self.assertEqual(str(error), f"cannot write in the state directory {path}: choose another with --state-dir")


class PrivilegeTests(SynchronousTestCase):
    """Whether this process may configure the network."""

    def require(self, capabilities: str) -> None:
        """Look at a process with these capabilities."""
        status = Path(self.mktemp())
        status.write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\nCapBnd:\t0\n")
        require_net_admin(status)

    def test_has_it(self) -> None:
        """CAP_NET_ADMIN is enough; nobody has to be root."""
        self.require("000001ffffffffff")
        self.require("0000000000001000")

    def test_lacks_it(self) -> None:
        """Everything else is not enough, and the cure is told."""
        for capabilities in ("0000000000000000", "000001ffffffefff"):
            error = self.assertRaises(MissingPrivilege, self.require, capabilities)
            self.assertEqual(
                str(error), "configuring the network needs CAP_NET_ADMIN: run this as root, for example with sudo"
            )
