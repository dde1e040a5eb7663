"""The server's keys as a device knows them."""

from __future__ import annotations

import base64
import hmac
import stat
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.signatures import public_key
from rdvtwisted.errors import ServerKeyChanged, StateDirectoryError
from tests.adapters.ssh.world import ECDSA, ED25519, STRANGER

KEY, OTHER, OTHER_KIND = public_key(ED25519), public_key(STRANGER), public_key(ECDSA)


class KnownHostsTests(SynchronousTestCase):
    """L{KnownHosts}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "known_hosts"
        self.hosts = KnownHosts(self.path)

    def put(self, *lines: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text("\n".join(lines))

    def test_first_use(self) -> None:
        """An unknown server's key is noted, for its owner's eyes, and is what the server is known by from then on."""
        self.hosts.check("RDV.example.org", 22, KEY)
        self.hosts.check("rdv.example.org", 2222, OTHER)
        self.assertEqual(self.path.read_text(), f"rdv.example.org {KEY.line}\n[rdv.example.org]:2222 {OTHER.line}\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.hosts.check("rdv.example.org", 22, KEY)
        self.assertEqual(self.hosts.pinned("rdv.example.org", 2222), (OTHER,))

    def test_changed(self) -> None:
        """Another key is refused: the line names both, and which line to remove if that is as it should be."""
        self.put("# a comment", f"rdv {KEY.line} comment", "")
        error = self.assertRaises(ServerKeyChanged, self.hosts.check, "rdv", 22, OTHER)
        for words in (KEY.fingerprint, OTHER.fingerprint, f"line 2 of {self.path}"):
            self.assertIn(words, str(error))
        self.assertNotIn(OTHER.line, self.path.read_text())

    def test_other_kind(self) -> None:
        """A key of another kind than the known one is another key: nobody gets past the known one that way."""
        self.put(f"rdv {KEY.line}", "")
        self.assertRaises(ServerKeyChanged, self.hosts.check, "rdv", 22, OTHER_KIND)
        self.put(f"rdv {KEY.line}", f"rdv {OTHER_KIND.line}")
        self.hosts.check("rdv", 22, OTHER_KIND)

    def test_torn_file(self) -> None:
        """A file whose last line has no end is continued on a new line."""
        self.put(f"a {KEY.line}")
        self.hosts.check("b", 22, OTHER)
        self.hosts.check("a", 22, KEY)
        self.assertEqual(self.hosts.pinned("b", 22), (OTHER,))

    def test_hashed(self) -> None:
        """A hashed name is recognised, and only by that name."""
        salt = b"0123456789abcdefghij"
        words = [base64.b64encode(part).decode() for part in (salt, hmac.digest(salt, b"[rdv]:2222", "sha1"))]
        self.put(f"|1|{words[0]}|{words[1]} {KEY.line}")
        self.assertEqual(self.hosts.pinned("rdv", 2222), (KEY,))
        self.assertEqual(self.hosts.pinned("rdv", 22), ())

    def test_patterns(self) -> None:
        """Lists, wildcards and exceptions mean what they mean to OpenSSH."""
        self.put(f"other,*.example.org,!b.example.org,10.0.0.? {KEY.line}")
        known = [
            name
            for name in ("other", "a.example.org", "b.example.org", "example.org", "10.0.0.7", "10.0.0.77", "10x0x0x7")
            if self.hosts.pinned(name, 22)
        ]
        self.assertEqual(known, ["other", "a.example.org", "10.0.0.7"])

    def test_revoked(self) -> None:
        """A revoked key is refused, also where it is known; lines for certificates mean nothing."""
        self.put(f"@revoked * {KEY.line}", f"rdv {KEY.line}", f"@cert-authority * {OTHER.line}")
        error = self.assertRaises(ServerKeyChanged, self.hosts.check, "rdv", 22, KEY)
        self.assertIn("revoked", str(error))
        self.assertRaises(ServerKeyChanged, self.hosts.check, "rdv", 22, OTHER)

    def test_unreadable(self) -> None:
        """A file that cannot be read is one line, and not an unknown server."""
        self.path.mkdir(parents=True)
        self.assertRaises(StateDirectoryError, self.hosts.check, "rdv", 22, KEY)

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """Lines that mean nothing are left alone, and those around them count."""
        path = Path(self.mktemp())
        hosts = KnownHosts(path)
        path.write_bytes(data + b"\nrdv " + KEY.line.encode() + b"\n")
        self.assertEqual(hosts.pinned("rdv", 22)[-1:], (KEY,))
