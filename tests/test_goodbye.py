"""Devices whose server stops do not come back all at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ConnectionLost
from rdvtwisted.goodbye import LONGEST_SPREAD, bounded, return_time, spread, stopping


class GoodbyeTests(SynchronousTestCase):
    """The server's last words."""

    def test_spread(self) -> None:
        """The more devices, the longer they have; a minute at most; a few need not wait."""
        for devices, seconds in ((0, 0), (1, 0), (99, 0), (100, 1), (199, 1), (800, 8), (1_000_000, LONGEST_SPREAD)):
            error = ConnectionLost(f"the connection to rdv.example.org was lost: {stopping(devices)}")
            self.assertEqual(spread(str(error)), seconds)
            self.assertEqual(bounded(return_time(devices)), seconds)

    def test_other_words(self) -> None:
        """Any other end says nothing of it, nor do numbers that make no sense."""
        for text in ("", "goodbye", "come back", "come back within a while", "come back within 99999 s"):
            self.assertIsNone(spread(text))

    @given(st.text())
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_anything(self, text: str) -> None:
        """Whatever a server says, no device stays away for longer than a minute."""
        self.assertIn(spread(f"{text} come back within 9999 s {text}"), [*range(LONGEST_SPREAD + 1)])
