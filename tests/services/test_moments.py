"""Moments as people give them on a command line."""

from __future__ import annotations

import os
import time

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue
from rdvtwisted.services.moments import moment_gone, moment_to_come

NOW = 1_900_000_000.0  # 2030-03-17T17:46:40Z


class MomentTests(SynchronousTestCase):
    """What is understood, and what is not."""

    def setUp(self) -> None:
        """In a time zone that is one hour ahead."""
        former = os.environ.get("TZ")

        def restore() -> None:
            os.environ.pop("TZ", None) if former is None else os.environ.update(TZ=former)
            time.tzset()

        self.addCleanup(restore)
        os.environ["TZ"] = "XYZ-1"
        time.tzset()

    def test_spans(self) -> None:
        """So long from now."""
        spans = {"+30m": 1800, "+8h": 28_800, "+3d": 259_200, "+2w": 1_209_600}
        self.assertEqual({text: moment_to_come(text, NOW) - NOW for text in spans}, spans)

    def test_dates(self) -> None:
        """A date and time of this machine's time zone, or of the one that is said."""
        for text in ("2030-03-18T01:00", "2030-03-18 01:00:00", "2030-03-18T00:00Z", "2030-03-18T02:00+02:00"):
            self.assertEqual(moment_to_come(text, NOW), 1_900_022_400.0, text)
        self.assertEqual(moment_to_come("2030-03-18", NOW), 1_900_022_400.0 - 3600)

    def test_refused(self) -> None:
        """Nonsense, and what is past."""
        for text in ("", "tomorrow", "+8", "8h", "+1.5h", "-8h", "2030-13-01", "+9999999h"):
            error = self.assertRaises(InvalidValue, moment_to_come, text, NOW)
            self.assertIn("use +30m, +8h", str(error))
        for text in ("+0m", "2030-03-17", "2030-03-17T17:46:40Z"):
            error = self.assertRaises(InvalidValue, moment_to_come, text, NOW)
            self.assertEqual(str(error), f"invalid end {text!r}: it is past")

    def test_gone(self) -> None:
        """So long ago, or a date, which may also be to come."""
        spans = {"30m": 1800, "8h": 28_800, "3d": 259_200, "2w": 1_209_600}
        self.assertEqual({text: NOW - moment_gone(text, NOW) for text in spans}, spans)
        self.assertEqual(moment_gone("2030-03-18T00:00Z", NOW), 1_900_022_400.0)
        for text in ("", "yesterday", "-8h", "+8h", "8", "8y", "9999999h", "2030-13-01"):
            error = self.assertRaises(InvalidValue, moment_gone, text, NOW)
            self.assertIn("use 30m, 8h, 3d, 2w for so long ago, a date such as", str(error))
