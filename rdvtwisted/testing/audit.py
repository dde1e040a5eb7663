"""The audit trail's twin in memory, and the contract of whatever keeps one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rdvtwisted.audit import Deed, Entry, Mark
from rdvtwisted.interfaces import IAuditTrail
from rdvtwisted.verification import verify

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


@implementer(IAuditTrail)
class MemoryTrail:
    """
    An L{IAuditTrail} that forgets everything at the end.

    @ivar deeds: what was recorded.
    """

    def __init__(self) -> None:
        self.trouble = self.loss = ""
        self.deeds: list[Deed] = []
        self._entries: list[Entry] = []

    def record(self, deed: Deed) -> None:
        """Add an entry; see L{IAuditTrail}."""
        if not self._entries:
            self._add(Deed("begun", "server", deed.time, detail="audit trail in memory, format 1"))
        self.deeds.append(deed)
        self._add(deed)

    def look(self) -> None:
        """Nobody can take anything away; see L{IAuditTrail}."""

    def head(self) -> Mark | None:
        """The last entry; see L{IAuditTrail}."""
        return self._entries[-1].mark if self._entries else None

    def lines(self) -> Iterator[bytes]:
        """All lines; see L{IAuditTrail}."""
        return iter([entry.line for entry in self._entries])

    def _add(self, deed: Deed) -> None:
        self._entries.append(Entry.after(self.head(), deed.facts()))


class AuditTrailContract(_Case):
    """What every L{IAuditTrail} keeps; a test case that mixes it in makes the trail in L{make}."""

    def make(self) -> Any:
        """An empty trail that can be written."""
        raise NotImplementedError

    def facts(self, trail: Any) -> list[dict[str, object]]:
        """What was recorded, without its place in the chain."""
        places = ("entry", "previous", "hash")
        entries = [Entry.from_line(line) for line in trail.lines()]
        return [{name: value for name, value in entry.facts.items() if name not in places} for entry in entries]

    def test_empty(self) -> None:
        """A trail on which nothing was recorded has no entry."""
        trail = self.make()
        self.assertEqual((list(trail.lines()), trail.head(), trail.trouble), ([], None, ""))

    def test_recorded(self) -> None:
        """What is recorded stands there in its order, behind an entry that begins the trail."""
        trail = self.make()
        deeds = [Deed("refused", f"stranger:{n}", 1_704_067_200.0 + n, detail="x\ny" * n) for n in range(20)]
        for deed in deeds:
            trail.record(deed)
        first, *rest = self.facts(trail)
        self.assertEqual(first["action"], "begun")
        self.assertEqual(rest, [deed.facts() for deed in deeds])

    def test_whole(self) -> None:
        """It is whole at any time, and its head is its last entry; nothing is lost."""
        trail = self.make()
        for n in range(5):
            trail.record(Deed("refused", "stranger:", n))
            trail.look()
            self.assertEqual(trail.loss, "")
            verdict = verify(trail.lines())
            self.assertEqual((verdict.broken, verdict.entries, verdict.head), (None, n + 2, trail.head()))
