"""What a killed device has left behind is cleared away by the program that its keeper becomes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network import transaction
from rdvtwisted.adapters.network.journal import Journal
from rdvtwisted.services import assembly, sweeping
from tests.adapters.network.memory import device
from tests.adapters.network.test_linux import OWNER, PLAN


class SweepingTests(SynchronousTestCase):
    """The program."""

    def setUp(self) -> None:
        self.kernel, self.directory = device(), Path(self.mktemp())
        self.before = self.kernel.snapshot()
        self.errors = io.StringIO()
        self.patch(sys, "stderr", self.errors)

    def leave(self) -> Journal:
        """A process configures the network, and is killed unless its journal is kept open."""
        journal = Journal(self.directory)
        with self.kernel() as kernel:
            transaction.apply(kernel, journal, PLAN)
        return journal

    def sweep(self) -> int:
        """Run it; its exit status."""
        return sweeping.main([str(self.directory), OWNER], self.kernel)

    def test_swept(self) -> None:
        """What a killed device has left behind is undone, and named in a line; there is nothing the second time."""
        self.leave().close()
        left = self.directory / sweeping.PROGRAMS_NAME / "program-1"
        left.mkdir(parents=True)
        (left / "identity.pem").write_text("a key")
        self.assertEqual(self.sweep(), 0)
        self.assertEqual(self.kernel.state, self.before)
        self.assertFalse(left.exists())
        self.assertIn(f"{OWNER} was ended; removed what it has left behind: ", self.errors.getvalue())
        self.errors.truncate(0)
        self.assertEqual((self.sweep(), self.errors.getvalue()), (0, ""))

    def test_started_again(self) -> None:
        """A device that is here again is left alone."""
        journal = self.leave()
        self.addCleanup(journal.close)
        now = self.kernel.snapshot()
        self.assertEqual((self.sweep(), self.errors.getvalue()), (0, ""))
        self.assertEqual(self.kernel.state, now)

    def test_refused(self) -> None:
        """What cannot be undone is told."""
        self.leave().close()
        (self.directory / f"{OWNER}.json").write_text("{")
        self.assertEqual(self.sweep(), 1)
        self.assertIn("cannot be undone: journal ", self.errors.getvalue())

    def test_name(self) -> None:
        """It is there under the name by which the devices' keepers know it, and looks where their programs are."""
        self.assertEqual(assembly.SWEEPING, sweeping.__name__)
        self.assertEqual(assembly.PROGRAMS, assembly.JOURNALS / sweeping.PROGRAMS_NAME)
