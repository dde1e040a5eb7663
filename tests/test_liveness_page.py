"""The page on liveness says what the code does."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.config import SETTINGS
from tests.source import CHECKOUT

PAGE = (CHECKOUT / "docs" / "liveness.md").read_text()

ROW = re.compile(r"^\| [^|]+ \| ([0-9.]+) \| `([\w.]+)` \| ([^|]*)\|", re.MULTILINE)
"""A limit: seconds, where it stands, its setting."""

LEAST = 30
"""How many limits there are at least: the page is not to become empty unnoticed."""


def found(place: str) -> Any:
    """What stands at a dotted name: a constant of a module, or the default of a class's field."""
    module, _, name = place.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:
        module, _, kind = module.rpartition(".")
        return getattr(getattr(import_module(module), kind)(), name)


class PageTests(SynchronousTestCase):
    """Each limit of the page."""

    def test_numbers(self) -> None:
        """It is the one in the code."""
        rows = ROW.findall(PAGE)
        self.assertGreater(len(rows), LEAST)
        for seconds, place, _ in rows:
            self.assertEqual(float(found(place)), float(seconds), place)

    def test_settings(self) -> None:
        """Its setting is one that there is."""
        named = [name for _, _, cell in ROW.findall(PAGE) for name in re.findall(r"`(\w+\.\w+)`", cell)]
        self.assertGreater(len(named), 3)
        for name in named:
            self.assertIn(name, SETTINGS)
