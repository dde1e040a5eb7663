"""Whether an audit trail is whole: nothing altered, taken out, put in, moved or, as far as can be known, cut off."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from rdvtwisted.audit import LOSS, NOTHING, Entry, InvalidEntry, Mark

#: Bytes that may stand in one place and be no entry: far more than a writer that is stopped can leave.
MAX_TORN = 64 << 20


@frozen
class Break:
    """
    Where a trail is broken, and how.

    @ivar line: number of the line, from 1; one past the last if it is the end that is missing.
    @ivar entry: number of the entry that should stand there.
    """

    line: int
    entry: int
    problem: str

    def __str__(self) -> str:
        return f"broken at entry {self.entry}, line {self.line}: {self.problem}"


@frozen
class Verdict:
    """
    What a trail was found to be.

    @ivar entries: how many follow one another without fault from its beginning.
    @ivar head: the last of these; C{None} if there is none.
    @ivar torn: how many places hold half a line that the entry behind it knows of.
    @ivar broken: the first fault, C{None} if there is none.
    @ivar losses: how many entries tell that what stood before them was cut off.
    """

    entries: int
    head: Mark | None
    torn: int
    broken: Break | None
    losses: int = 0


def verify(lines: Iterable[bytes], after: Mark | None = None, known: Mark | None = None) -> Verdict:
    """
    Follow a trail from its beginning to its end.

    @param lines: with their newlines; in pieces of any size where there is no newline for long.
    @param after: the last entry of an earlier part that is kept elsewhere; C{None} if this is the beginning.
    @param known: an entry that must be there, noted down earlier.
    """
    walk = _Walk(after, after, known)
    rest = iter(lines)
    for line in rest:
        if walk.broken is None:
            walk.take(line)
        if walk.broken is not None:
            walk.look_on(rest)
            break
    walk.end()
    return Verdict(walk.entries, walk.head, walk.torn, walk.broken, walk.losses)


@define
class _Walk:
    """Where the verification of a trail has come to."""

    after: Mark | None
    head: Mark | None
    known: Mark | None
    entries: int = 0
    torn: int = 0
    losses: int = 0
    broken: Break | None = None
    _line: int = 0
    #: What was read since the last entry and is none, where that began, and why it is none.
    _unread: bytearray = field(factory=bytearray)
    _unread_line: int = 0
    _why: str = ""
    #: The entry that came too early.
    _early: int = -1

    def _next(self) -> int:
        return 0 if self.head is None else self.head.number + 1

    def take(self, line: bytes) -> None:
        """Read on."""
        self._line += 1
        try:
            entry = Entry.from_line(line)
        except InvalidEntry as error:
            if not self._unread:
                self._unread_line, self._why = self._line, str(error)
            self._unread += line
            if len(self._unread) > MAX_TORN:
                self._break(self._unread_line, f"the line is no entry: {self._why}")
            return
        if self._unread and not (self._follows(entry) and entry.explains(self._unread)):
            self._break(self._unread_line, f"the line was altered or put in: {self._why}")
        elif not self._follows(entry):
            self._misplaced(entry)
        elif not entry.explains(self._unread):
            self._break(self._line, "the torn line before it, which it speaks of, was taken out")
        else:
            self.torn += bool(self._unread)
            self.losses += entry.facts["action"] == LOSS
            self.entries += 1
            self._unread.clear()
            self.head = entry.mark
            if self.known is not None and self.known.number == self.head.number and self.known != self.head:
                self._break(self._line, f"it is not the entry that was noted down: its hash is {self.head.hash}")

    def _follows(self, entry: Entry) -> bool:
        return entry.mark.number == self._next() and entry.previous == (
            NOTHING if self.head is None else self.head.hash
        )

    def _misplaced(self, entry: Entry) -> None:
        number, wanted = entry.mark.number, self._next()
        if number > wanted:
            self._early = number
            missing = f"entry {wanted} is" if number == wanted + 1 else f"entries {wanted} to {number - 1} are"
            self._break(self._line, f"{missing} not here: taken out")
        elif number < wanted:
            self._break(
                self._line, f"entry {number} stands here, behind entry {wanted - 1}: it was put in again, or moved"
            )
        elif self.head is None:
            self._break(self._line, "it does not begin a trail")
        else:
            self._break(self._line, f"it does not follow from entry {wanted - 1}: one of the two was replaced")

    def look_on(self, rest: Iterable[bytes]) -> None:
        """See in what follows a fault whether what is missing stands elsewhere."""
        if self._early < 0 or self.broken is None:
            return
        for line in rest:
            try:
                entry = Entry.from_line(line)
            except InvalidEntry:
                continue
            if self._follows(entry):
                problem = f"entry {self._early} stands here, before entry {self.broken.entry}: they were reordered"
                self.broken = Break(self.broken.line, self.broken.entry, problem)
                return

    def end(self) -> None:
        """There is no more."""
        if self.broken is not None:
            return
        if self._unread:
            problem = f"the line is no entry: {self._why}; it was altered, or its writer was stopped within it"
            self._break(self._unread_line, problem)
        elif self.known is not None and self.known.number >= self._next():
            self._break(
                self._line + 1, f"the trail ends before entry {self.known.number}, which was noted down: cut off"
            )
        elif self.known is not None and self.known.number < self._next() - self.entries and self.known != self.after:
            self._break(1, f"entry {self.known.number}, which was noted down, belongs to an earlier part")

    def _break(self, line: int, problem: str) -> None:
        self.broken = Break(line, self._next(), problem)
