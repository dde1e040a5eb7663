"""The end of a file of the audit trail: where the chain goes on, and what a writer that was stopped has left there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

from rdvtwisted.audit import MAX_LINE, Entry, InvalidEntry, Mark

#: Bytes that are read when the last entry is looked for.
_BLOCK = 4 * MAX_LINE


@frozen
class Last:
    """
    The last entry, and where it stands.

    @ivar name: of its file.
    @ivar at: where in that its line begins, bytes.
    @ivar line: without its newline.
    """

    mark: Mark
    name: str
    at: int
    line: bytes = field(repr=False)

    def stands(self, directory: Path) -> bool:
        """
        Whether it is still where it was.

        @raise OSError: its file is there, and cannot be read.
        """
        try:
            with open(directory / self.name, "rb", buffering=0) as file:
                file.seek(self.at)
                return file.read(len(self.line)) == self.line
        except FileNotFoundError:
            return False


@frozen
class Tail:
    """
    The end of the trail.

    @ivar name: of the newest file; empty if there is none.
    @ivar size: of that file, bytes.
    @ivar last: the last entry, in that file or in one before it; C{None} if there is none.
    @ivar torn: what stands behind it.
    @ivar ended: whether the last line has its newline.
    """

    name: str = ""
    size: int = 0
    last: Last | None = None
    torn: bytes = field(default=b"", repr=False)
    ended: bool = True

    @property
    def mark(self) -> Mark | None:
        """Number and hash of the last entry."""
        return None if self.last is None else self.last.mark


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
            found, end = _last_entry(data, start == 0)
            if found is not None or start == 0:
                break
    last = None
    if found is not None:
        line = found.line[:-1]
        last = Last(found.mark, path.name, start + data.rindex(line, 0, end), line)
    return Tail(path.name, size, last, data[end:], ended)


def lines_back(path: Path, size: int, limit: int) -> Iterator[bytes]:
    """
    The lines of one file, the last first, without their newlines.

    @param size: how much of the file counts, bytes.
    @param limit: of how many bytes at its end; a line that begins before them is left out.
    @raise OSError: it cannot be read.
    """
    least, end, rest = max(0, size - limit), size, b""
    with path.open("rb") as file:
        while end > least:
            start = max(least, end - _BLOCK)
            file.seek(start)
            rest, *lines = (file.read(end - start) + rest).split(b"\n")
            # What is longer is no entry, and is to cost no memory.
            rest, end = rest[:MAX_LINE], start
            yield from filter(None, reversed(lines))
    if least == 0 and rest:
        yield rest


def _last_entry(data: bytes, whole: bool) -> tuple[Entry | None, int]:
    """The last entry in C{data} and where it ends; what stands before the first newline counts only if C{whole}."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole:
            break
        try:
            return Entry.from_line(data[begin:end]), end
        except InvalidEntry:
            end = begin
    return None, 0
