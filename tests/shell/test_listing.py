"""The table of onsites, written and read."""

from __future__ import annotations

from ipaddress import IPv4Interface

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ProtocolError
from rdvtwisted.shell import listing
from rdvtwisted.shell.listing import OnsiteEntry
from rdvtwisted.values import Profile
from tests.shell.conversation import ONSITES, presence

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)


class ListingTests(SynchronousTestCase):
    """What the server lists the master reads."""

    def test_round_trip(self) -> None:
        """All that the table has arrives."""
        table = listing.render_table(ONSITES).removesuffix("\n")
        shop = OnsiteEntry("rpi1100", "shopbox", IPv4Interface("192.168.1.50/24"), "lan", True, "203.0.113.7:1")
        self.assertEqual(
            listing.parse_table(table), (shop, OnsiteEntry("rpi1102", "", None, "", False, "203.0.113.7:1"))
        )
        self.assertEqual(listing.parse_table(listing.render_table(())), ())

    def test_ids(self) -> None:
        """The list of ids is read from any server, and checked."""
        ids = listing.render_ids(ONSITES).removesuffix("\n")
        self.assertEqual(listing.parse_ids(ids), ("rpi1100", "rpi1102"))
        self.assertEqual(listing.parse_ids(""), ())
        for text in ["rpi1100 x", "Error: no", "rpi1100;reboot"]:
            self.assertRaises(ProtocolError, listing.parse_ids, text)

    def test_more_fields(self) -> None:
        """Fields that follow the known ones are skipped."""
        (entry,) = listing.parse_table("rpi1\t\t\t\tidle\t\tnew\tfields")
        self.assertEqual(entry, OnsiteEntry("rpi1"))

    def test_garbage(self) -> None:
        """A line that is not of the table refuses it."""
        for text in [
            "rpi1",
            "rpi1\t\t\t\tasleep\t",
            "Rpi1\t\t\t\tidle\t",
            "rpi1\t\tx\t\tidle\t",
            "\n",
            "rpi1\t\t\t\tidle",
        ]:
            self.assertRaises(ProtocolError, listing.parse_table, text)

    @given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
    @PROPERTY
    def test_hostile(self, hostname: str, uplink: str, address: str) -> None:
        """Whatever an onsite calls itself, the table keeps its form, and the onsite harms its own line only."""
        rude = presence("rpi1", Profile(hostname=hostname, uplink=uplink), address=address)
        table = listing.render_table([rude, *ONSITES]).removesuffix("\n")
        entries = listing.parse_table(table)
        self.assertEqual([entry.id for entry in entries], ["rpi1", "rpi1100", "rpi1102"])
        self.assertEqual(len(entries[0].hostname), len(hostname))
