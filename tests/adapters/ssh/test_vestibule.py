"""Strangers find room only so far, and never keep out who comes to log in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh.vestibule import Vestibule
from rdvtwisted.origin import origin


class VestibuleTests(SynchronousTestCase):
    """L{Vestibule}."""

    def setUp(self) -> None:
        """Nobody was put out yet."""
        self.out: list[str] = []

    def enter(self, vestibule: Vestibule, name: str, host: str) -> bool:
        """A stranger of this name comes."""
        return vestibule.enter(name, host, lambda: self.out.append(name))

    def test_per_origin(self) -> None:
        """One address cannot take all places, and gets its own back."""
        vestibule = Vestibule(10, 2)
        self.assertEqual([self.enter(vestibule, f"a{n}", "a") for n in range(3)], [True, True, False])
        self.assertTrue(self.enter(vestibule, "b", "b"))
        vestibule.leave("a0")
        vestibule.leave("a0")
        self.assertTrue(self.enter(vestibule, "a3", "a"))
        self.assertEqual((self.out, len(vestibule)), ([], 3))

    def test_oldest_of_the_busiest_makes_room(self) -> None:
        """When all places are taken the busiest origin loses its oldest, and the newcomer gets in."""
        vestibule = Vestibule(4, 2)
        for name, host in (("c", "c"), ("a0", "a"), ("a1", "a"), ("b", "b")):
            self.enter(vestibule, name, host)
        self.assertTrue(self.enter(vestibule, "d", "d"))
        self.assertEqual((self.out, len(vestibule)), (["a0"], 4))
        vestibule.leave("a0")
        self.assertEqual(len(vestibule), 4)

    def test_flood(self) -> None:
        """However many say nothing, there is room for the next one, and never more than the places."""
        vestibule = Vestibule(64, 8)
        for number in range(1000):
            self.assertTrue(self.enter(vestibule, str(number), f"host{number}"))
        self.assertEqual((len(vestibule), len(self.out)), (64, 936))

    def test_origins(self) -> None:
        """An IPv6 site is one origin, and so is an IPv4 host however it is written."""
        self.assertEqual(origin("2001:db8::1"), origin("2001:db8::ffff:1%eth0"))
        self.assertNotEqual(origin("2001:db8::1"), origin("2001:db8:0:1::1"))
        self.assertEqual(origin("::ffff:192.0.2.1"), origin("192.0.2.1"))
