"""Strangers find room only so far, and never keep out who comes to log in."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.origin import address_text, origin
from rdvtwisted.vestibule import CROWDED_SECONDS, MAX_REGULARS, PROGRESS_SECONDS, Regulars, Vestibule


class VestibuleTests(SynchronousTestCase):
    """L{Vestibule}."""

    def setUp(self) -> None:
        """Nobody was put out yet."""
        self.out: list[str] = []
        self.reports: list[tuple[str, str, str, str]] = []
        self.clock = Clock()

    def vestibule(self, places: int, places_per_origin: int) -> Vestibule:
        """One with so many places."""
        return Vestibule(
            places, places_per_origin, "too many here", self.clock, lambda *report: self.reports.append(report)
        )

    def enter(self, vestibule: Vestibule, name: str, host: str) -> bool:
        """A stranger of this name comes."""
        return vestibule.enter(name, "ssh", host, lambda: self.out.append(name))

    def test_per_origin(self) -> None:
        """One address cannot take all places, and gets its own back."""
        vestibule = self.vestibule(10, 2)
        self.assertEqual([self.enter(vestibule, f"a{n}", "a") for n in range(3)], [True, True, False])
        self.assertTrue(self.enter(vestibule, "b", "b"))
        vestibule.leave("a0")
        vestibule.leave("a0")
        self.assertTrue(self.enter(vestibule, "a3", "a"))
        self.assertEqual((self.out, len(vestibule)), ([], 3))

    def test_oldest_of_the_busiest_makes_room(self) -> None:
        """When all places are taken the busiest origin loses its oldest, and the newcomer gets in."""
        vestibule = self.vestibule(4, 2)
        for name, host in (("c", "c"), ("a0", "a"), ("a1", "a"), ("b", "b")):
            self.enter(vestibule, name, host)
        self.assertTrue(self.enter(vestibule, "d", "d"))
        self.assertEqual((self.out, len(vestibule)), (["a0"], 4))
        vestibule.leave("a0")
        self.assertEqual(len(vestibule), 4)

    def test_flood(self) -> None:
        """However many say nothing, there is room for the next one, and never more than the places."""
        vestibule = self.vestibule(64, 8)
        for number in range(1000):
            self.assertTrue(self.enter(vestibule, str(number), f"host{number}"))
        self.assertEqual((len(vestibule), len(self.out)), (64, 936))

    def test_least_far(self) -> None:
        """Who has begun to log in stays, and those go who have said nothing, though they came later."""
        vestibule = self.vestibule(3, 1)
        self.enter(vestibule, "device", "device")
        vestibule.advance("device")
        for number in range(10):
            self.enter(vestibule, str(number), f"host{number}")
        self.assertEqual(self.out, [str(number) for number in range(8)])
        vestibule.leave("device")
        vestibule.advance("device")

    def test_regulars(self) -> None:
        """From where somebody was let in one comes in again, however many others come and however far they get."""
        vestibule = self.vestibule(3, 3)
        vestibule.regulars.welcome("2001:db8::1")
        self.enter(vestibule, "device", "2001:db8::2")
        self.enter(vestibule, "other device", "2001:db8::3")
        for number in range(10):
            self.enter(vestibule, str(number), f"host{number}")
            vestibule.advance(str(number))
            self.clock.advance(PROGRESS_SECONDS)
        self.assertEqual(self.out, [str(number) for number in range(9)])
        self.enter(vestibule, "third device", "2001:db8::4")
        self.enter(vestibule, "11", "host11")
        self.assertEqual(self.out[9:], ["9", "device"])

    def test_in_progress(self) -> None:
        """When more come than there are places, those who are getting on finish; newcomers are turned away."""
        vestibule = self.vestibule(3, 1)
        for number in range(3):
            self.enter(vestibule, str(number), f"host{number}")
            vestibule.advance(str(number))
        self.assertEqual([self.enter(vestibule, f"late{n}", f"late{n}") for n in range(20)], [False] * 20)
        self.clock.advance(PROGRESS_SECONDS / 2)
        vestibule.advance("1")
        vestibule.leave("0")
        self.assertTrue(self.enter(vestibule, "late", "late"))
        self.assertEqual((self.out, len(vestibule)), ([], 3))
        # Who stops on the way, or has not begun, is no reason to wait.
        self.clock.advance(PROGRESS_SECONDS / 2)
        self.assertTrue(self.enter(vestibule, "next", "next"))
        self.assertTrue(self.enter(vestibule, "last", "last"))
        self.assertEqual(self.out, ["late", "next"])

    def test_regular_in_a_rush(self) -> None:
        """Who was here before comes in also when all others are getting on; not in the place of another such one."""
        vestibule = self.vestibule(2, 1)
        for number in range(3):
            vestibule.regulars.welcome(f"regular{number}")
        for number in range(2):
            self.enter(vestibule, str(number), f"host{number}")
            vestibule.advance(str(number))
        for number in range(2):
            self.assertTrue(self.enter(vestibule, f"regular{number}", f"regular{number}"))
            vestibule.advance(f"regular{number}")
        self.assertFalse(self.enter(vestibule, "regular2", "regular2"))
        self.assertEqual(self.out, ["0", "1"])

    def test_regulars_are_bounded(self) -> None:
        """Those that have not been here for longest are forgotten."""
        regulars = Regulars()
        for number in range(MAX_REGULARS):
            regulars.welcome(f"host{number}")
        regulars.welcome("host0")
        regulars.welcome("new")
        self.assertEqual(["host0" in regulars, "host1" in regulars, "new" in regulars], [True, False, True])

    def test_reports(self) -> None:
        """However many are turned away, there is a report now and then, and it tells how many there were."""
        vestibule = self.vestibule(2, 1)
        for number in range(100):
            self.enter(vestibule, str(number), f"host{number}")
        self.enter(vestibule, "again", "host99")
        self.assertEqual(self.reports, [("ssh", "host0", "", "too many here")])
        self.clock.advance(CROWDED_SECONDS)
        self.enter(vestibule, "again", "host99")
        self.assertEqual(self.reports[1:], [("ssh", "host99", "", "too many here, 98 others were turned away before")])

    def test_addresses(self) -> None:
        """Addresses are written so that one can read them."""
        self.assertEqual(address_text(IPv4Address("TCP", "192.0.2.1", 22)), "192.0.2.1:22")
        self.assertEqual(address_text(IPv6Address("TCP", "2001:db8::1", 22)), "[2001:db8::1]:22")
        self.assertIn("nowhere", address_text(UNIXAddress("/nowhere")))
        self.assertEqual(address_text(None), "")

    def test_origins(self) -> None:
        """An IPv6 site is one origin, and so is an IPv4 host however it is written."""
        self.assertEqual(origin("2001:db8::1"), origin("2001:db8::ffff:1%eth0"))
        self.assertNotEqual(origin("2001:db8::1"), origin("2001:db8:0:1::1"))
        self.assertEqual(origin("::ffff:192.0.2.1"), origin("192.0.2.1"))
