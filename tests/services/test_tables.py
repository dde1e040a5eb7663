"""Tables and lists, as people see them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.tables import listing, table


class TableTests(SynchronousTestCase):
    """Columns are aligned, and nothing in them steers the terminal."""

    def test_aligned(self) -> None:
        """Columns are as wide as what they hold; no line ends in blanks."""
        self.assertEqual(
            table(("DEVICE", "N"), [("a", 1), ("rpi1100-long", 22)]),
            "DEVICE        N\na             1\nrpi1100-long  22",
        )

    def test_nothing_there(self) -> None:
        """What is not there is a dash; zero is there."""
        self.assertEqual(table(("A", "B", "C"), [(None, "", 0)]), "A  B  C\n-  -  0")

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
    def test_any_text(self, rows: list[tuple[str, str]]) -> None:
        """Whatever a device says of itself, each row stays one printable line."""
        lines = table(("A", "B"), rows).split("\n")
        self.assertEqual(len(lines), len(rows) + 1)
        for line in lines:
            self.assertTrue(line.isprintable(), repr(line))


class ListingTests(SynchronousTestCase):
    """Facts stand one below the other."""

    def test_aligned(self) -> None:
        """Values are aligned; lists are joined; what belongs together is set in."""
        self.assertEqual(
            listing({"id": "a", "label": None, "names": ["x", "y"], "none": [], "doors": {"ssh": 22, "other": 0}}),
            "id:    a\nlabel: -\nnames: x, y\nnone:  -\ndoors:\n  ssh:   22\n  other: 0",
        )

    def test_forged(self) -> None:
        """A value cannot make a line of its own."""
        self.assertEqual(listing({"label": "a\nrole: master\x1b[2J"}), "label: a\\nrole: master\\x1b[2J")
