"""Strangers find room only so far."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh.vestibule import Vestibule


class VestibuleTests(SynchronousTestCase):
    """L{Vestibule}."""

    def test_per_address(self) -> None:
        """One address cannot take all places, and gets its own back."""
        vestibule = Vestibule(10, 2)
        self.assertEqual([vestibule.enter("a") for _ in range(3)], [True, True, False])
        self.assertTrue(vestibule.enter("b"))
        vestibule.leave("a")
        self.assertTrue(vestibule.enter("a"))

    def test_crowded(self) -> None:
        """Whoever listens is told when the last place is taken and when one is free again, each once."""
        told: list[bool] = []
        vestibule = Vestibule(2, 2, told.append)
        self.assertEqual([vestibule.enter(host) for host in "abc"], [True, True, False])
        self.assertEqual(told, [True])
        vestibule.leave("a")
        vestibule.leave("b")
        self.assertEqual((told, len(vestibule)), ([True, False], 0))
