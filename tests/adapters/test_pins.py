"""Known peers: pinned at first use or by hand, never changed silently, and never lost."""

from __future__ import annotations

import string
from pathlib import Path

from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.pins import MAX_FILE_BYTES, KnownPeers
from rdvtwisted.errors import InvalidValue, PeerKeyChanged, RDVError, StateDirectoryError
from rdvtwisted.testing.tunnels import identity

KEY = identity("a").public
OTHER = identity("b").public


class KnownPeersTests(SynchronousTestCase):
    """The keys of other devices."""

    def setUp(self) -> None:
        """No file yet."""
        self.path = Path(self.mktemp())
        self.peers = KnownPeers(self.path)
        self.strict = KnownPeers(self.path, strict=True)

    def test_first_use(self) -> None:
        """A peer's first key is pinned once it has been used; from then on it is known, to the next process too."""
        self.assertFalse(self.peers.check("rpi1100", KEY))
        self.assertFalse(self.path.exists())
        self.peers.pin("rpi1100", KEY)
        self.assertTrue(self.peers.check("rpi1100", KEY))
        self.assertTrue(KnownPeers(self.path).check("rpi1100", KEY))
        self.assertEqual(self.path.read_text(), f"rpi1100 {KEY.line}\n")

    def test_changed(self) -> None:
        """Another key than the pinned one is refused; the operator learns both and what to do."""
        self.peers.pin("rpi1100", KEY)
        error = self.assertRaises(PeerKeyChanged, self.peers.check, "rpi1100", OTHER)
        self.assertEqual(
            str(error),
            f"the key of rpi1100 has changed: pinned {KEY.fingerprint}, shown {OTHER.fingerprint}."
            f" If it was changed on purpose, remove the line of rpi1100 from {self.path}",
        )
        self.assertEqual((error.peer, error.pinned, error.shown), ("rpi1100", KEY.fingerprint, OTHER.fingerprint))

    def test_accepted(self) -> None:
        """After the operator has removed the line, the new key is as good as any first one, without a restart."""
        self.peers.pin("rpi1100", KEY)
        self.path.write_text("")
        self.assertFalse(self.peers.check("rpi1100", OTHER))

    def test_pinned_meanwhile(self) -> None:
        """A key that somebody else has pinned meanwhile is not overwritten."""
        self.assertFalse(self.peers.check("rpi1100", OTHER))
        KnownPeers(self.path).pin("rpi1100", KEY)
        self.assertRaises(PeerKeyChanged, self.peers.pin, "rpi1100", OTHER)
        self.assertEqual(self.path.read_text(), f"rpi1100 {KEY.line}\n")

    def test_strict(self) -> None:
        """Whoever is strict knows by hand whom to trust; the line to add is told."""
        error = self.assertRaises(PeerKeyChanged, self.strict.check, "rpi1100", KEY)
        line = f"rpi1100 {KEY.line}"
        self.assertIn(f"Add the line '{line}' to {self.path} if that is its key", str(error))
        self.path.write_text(line + "\n")
        self.assertTrue(self.strict.check("rpi1100", KEY))

    def test_by_hand(self) -> None:
        """Comments, blank lines and key comments are for people; pinning another peer leaves them as they are."""
        text = f"# our sites\n\n  rpi1100   {KEY.line} the one in the cellar"
        self.path.write_text(text)
        self.assertTrue(self.peers.check("rpi1100", KEY))
        self.peers.pin("rpi1101", OTHER)
        self.assertEqual(self.path.read_text(), f"{text}\nrpi1101 {OTHER.line}\n")

    def test_pinned_already(self) -> None:
        """A known key is not written again: each session would wear the SD card."""
        self.peers.pin("rpi1100", KEY)
        before = self.path.stat().st_ino
        self.peers.pin("rpi1100", KEY)
        self.assertEqual(self.path.stat().st_ino, before)

    def test_damaged(self) -> None:
        """A line that is no pin is named, and nothing is guessed."""
        words = ("rpi1100 ssh-ed25519 AAAA", "rpi1100 ssh-ed25519 %%%", "rpi1100 ssh-ed25519 äAAA")
        for line in ("rpi1100", f"No-id {KEY.line}", *words, "\xff"):
            self.path.write_text(f"rpi1101 {OTHER.line}\n{line}\n")
            error = self.assertRaises(InvalidValue, self.peers.read)
            self.assertTrue(str(error).startswith(f"invalid line 2 of {self.path} "), str(error))
            self.assertNotIn("\n", str(error))

    def test_too_large(self) -> None:
        """A file too large for pins is refused: what stood beyond the limit would silently not count."""
        self.path.write_text("#" * MAX_FILE_BYTES + f"\nrpi1100 {KEY.line}\n")
        error = self.assertRaises(StateDirectoryError, self.peers.check, "rpi1100", KEY)
        self.assertEqual(str(error), f"{self.path} has more than {MAX_FILE_BYTES} bytes: it is no file of known peers")

    def test_unreadable(self) -> None:
        """What is no file is one clear line."""
        self.path.mkdir()
        error = self.assertRaises(StateDirectoryError, self.peers.read)
        self.assertEqual(str(error), f"cannot read {self.path}: Is a directory")

    @given(st.binary(max_size=300) | st.text(string.printable, max_size=300).map(str.encode))
    @bounds(derandomize=True, max_examples=150, deadline=None)
    def test_any_file(self, data: bytes) -> None:
        """Whatever the file holds, it is read or refused with one line."""
        self.path.write_bytes(data)
        try:
            self.peers.read()
        except RDVError as error:
            self.assertTrue(str(error).isprintable(), str(error))
