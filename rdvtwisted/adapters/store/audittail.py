"""The end of a file of the audit trail: where the chain goes on, and what a writer that was stopped has left there."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import field, frozen

from rdvtwisted.audit import MAX_LINE, Entry, InvalidEntry, Mark

#: Bytes that are read when the last entry is looked for.
_BLOCK = 4 * MAX_LINE


@frozen
class Tail:
    """
    The end of the trail.

    @ivar name: of the newest file; empty if there is none.
    @ivar size: of that file, bytes.
    @ivar mark: the last entry; C{None} if there is none.
    @ivar torn: what stands behind it.
    @ivar ended: whether the last line has its newline.
    """

    name: str = ""
    size: int = 0
    mark: Mark | None = None
    torn: bytes = field(default=b"", repr=False)
    ended: bool = True


def tail_of(path: Path) -> Tail:
    """
    The end of one file; the last entry may lack its newline.

    @raise OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # Nearly always the end of the file will do; if it holds no entry, it is damaged, and all of it is looked at.
        for start in (max(0, size - _BLOCK), 0):
            file.seek(start)
            data = file.read(size - start)
            ended = not data or data.endswith(b"\n")
            mark, end = _last_entry(data, start == 0)
            if mark is not None or start == 0:
                break
    return Tail(path.name, size, mark, data[end:], ended)


def _last_entry(data: bytes, whole: bool) -> tuple[Mark | None, int]:
    """The last entry in C{data} and where it ends; what stands before the first newline counts only if C{whole}."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole:
            break
        try:
            return Entry.from_line(data[begin:end]).mark, end
        except InvalidEntry:
            end = begin
    return None, 0
