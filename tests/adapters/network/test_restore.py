"""What others undo or change of a plan that is applied is put back, and no more than that."""

from __future__ import annotations

import copy
import errno
from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network import transaction
from rdvtwisted.adapters.network.journal import Journal
from rdvtwisted.errors import MissingPrivilege, NetworkError
from rdvtwisted.plan import Plan
from tests.adapters.network.memory import MemoryKernel, State, device, refuse
from tests.adapters.network.test_transaction import OWNER, PLANS, fail, limited, plan_of

ASPECTS = [each.name for each in fields(State) if each.name not in ("connections", "hardware", "pairs", "default")]
"""Parts of what can be seen of a machine that steps bring about, each by itself."""


class RestoreTests(SynchronousTestCase):
    """A plan that is applied, to a kernel in memory."""

    def apply(self, plan: Plan) -> MemoryKernel:
        """A device to which it is applied, and which was looked at once."""
        self.listings: dict[str, str] = {}
        self.journal = Journal(Path(self.mktemp()))
        self.addCleanup(self.journal.close)
        kernel = device()
        with kernel() as ends:
            transaction.apply(ends, self.journal, plan)
        self.assertEqual(self.restore(kernel), [])
        kernel.changes.clear()
        return kernel

    def restore(self, kernel: MemoryKernel) -> list[str]:
        """Put everything back."""
        with kernel() as ends:
            return transaction.restore(ends, self.journal, OWNER, self.listings)

    def test_each(self) -> None:
        """Whatever of a plan is undone, as if it had never been taken, is there again, and is told."""
        for plan in PLANS:
            done = 0
            for aspect in ASPECTS:
                kernel = self.apply(plan)
                whole, before = kernel.snapshot(), device().state
                if aspect == "sysctls":  # they are there as long as their interface is
                    kernel.state.sysctls.update(before.sysctls)
                else:
                    setattr(kernel.state, aspect, copy.deepcopy(getattr(before, aspect)))
                lines = self.restore(kernel)
                self.assertEqual(kernel.state, whole, aspect)
                self.assertEqual(bool(lines), bool(kernel.changes))
                self.assertLessEqual(set(lines), set(map(str, plan.steps)))
                done += len(lines)
                kernel.changes.clear()
                self.assertEqual((self.restore(kernel), kernel.changes), ([], []))
            self.assertGreater(done, 0)

    def test_table_changed(self) -> None:
        """A table in which others change a rule is as it was again; one that was amended is left as it is now."""
        kernel = self.apply(plan_of())
        (key,) = set(kernel.state.tables) - set(device().state.tables)
        rules = kernel.state.tables[key]
        kernel.state.tables[key] = "chain forward { accept; }\n"
        self.assertEqual(self.restore(kernel), [f"firewall table {' '.join(key)}"])
        self.assertEqual(kernel.state.tables[key], rules)
        with kernel() as ends:
            transaction.amend(ends, self.journal, limited("192.168.1.10:tcp/80"))
        self.listings.clear()
        amended = kernel.state.tables[key]
        self.assertEqual(self.restore(kernel), [])
        del kernel.state.tables[key]
        self.restore(kernel)
        self.assertEqual(kernel.state.tables[key], amended)

    def test_nothing_applied(self) -> None:
        """Where nothing is applied there is nothing to put back."""
        self.listings = {}
        self.journal = Journal(Path(self.mktemp()))
        self.assertEqual(self.restore(device()), [])

    def test_impossible(self) -> None:
        """When the interface is gone, or the kernel refuses, that is an error with the step in it."""
        kernel = self.apply(plan_of())
        kernel.unplug("rdv-t")
        error = self.assertRaises(NetworkError, self.restore, kernel)
        self.assertIn("to put back address 192.168.128.1/32 on rdv-t", str(error))
        kernel = self.apply(plan_of())
        kernel.state.rules.clear()
        kernel.before_change = lambda _: fail(refuse(errno.EPERM))  # type: ignore[assignment,return-value]
        self.assertRaises(MissingPrivilege, self.restore, kernel)
