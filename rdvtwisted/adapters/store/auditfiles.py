"""
The files of the audit trail: a directory of JSON lines, to which any process may append, one at a time.

A file is named for the number of its first entry, C{000000000000.jsonl}. Nothing is ever altered or deleted, so that
the files may be append-only for the kernel too (C{chattr +a}): half a line that a killed writer left is closed with a
newline and stays, and the entry behind it says what it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from rdvtwisted.adapters.store import directory
from rdvtwisted.audit import MAX_LINE, Deed, Entry, InvalidEntry, Mark, Value
from rdvtwisted.errors import RDVError, StateDirectoryError

#: Directory of the trail, in the state directory.
DIRECTORY_NAME = "audit"
#: Bytes from which on the next entry begins a new file: small enough to be copied, large enough to be few.
ROTATE_BYTES = 32 << 20
#: Bytes that are read at a time when the last entry is looked for.
_BLOCK = 4 * MAX_LINE
#: Seconds between two looks whether another writer has finished.
_LOCK_PAUSE = 0.01

_NAME = re.compile(r"([0-9]{12})\.jsonl")


class TrailBusy(RDVError):
    """Another process holds the trail, and does not let go of it."""

    def __init__(self) -> None:
        super().__init__("another process is writing to the audit trail, or was stopped while it did")


@frozen
class Tail:
    """
    The end of the trail.

    @ivar name: of the newest file; empty if there is none.
    @ivar size: of that file, bytes.
    @ivar mark: the last entry; C{None} if there is none.
    @ivar torn: what stands behind it.
    """

    name: str = ""
    size: int = 0
    mark: Mark | None = None
    torn: bytes = field(default=b"", repr=False)


@frozen
class Place:
    """A line in the files."""

    path: str
    line: int


@define(eq=False)
class AuditFiles:
    """
    The trail in a state directory, as one process has it.

    @ivar path: of the trail's own directory.
    @ivar patience: seconds to wait for another writer; 0 not to wait at all.
    @ivar random: C{random(n)} gives C{n} unpredictable bytes.
    """

    path: Path
    patience: float = 0.0
    rotate_bytes: int = ROTATE_BYTES
    random: Callable[[int], bytes] = os.urandom
    _directory: int = field(default=-1, init=False)
    _file: int = field(default=-1, init=False)
    _tail: Tail = field(factory=Tail, init=False)

    @classmethod
    def within(cls, state_directory: str, patience: float = 0.0) -> AuditFiles:
        """The trail of a state directory, whether it has one yet or not."""
        return cls(Path(state_directory, DIRECTORY_NAME), patience)

    def open(self) -> None:
        """
        Make sure that the directory is there, and only its owner's.

        @raise StateDirectoryError: it cannot be used.
        """
        if self._directory >= 0:
            return
        directory.prepare(str(self.path))
        try:
            if os.geteuid() == 0:
                # The server may run as the state directory's owner, and must be able to use what root has made.
                owner = os.stat(self.path.parent)
                os.chown(self.path, owner.st_uid, owner.st_gid)
            self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StateDirectoryError(f"cannot open {self.path}: {(error.strerror or str(error)).lower()}") from None

    def append(self, deed: Deed) -> Entry:
        """
        Write one entry; it is in the hands of the kernel then, and survives the end of this process.

        @raise TrailBusy: another writer does not let go.
        @raise StateDirectoryError: the trail cannot be opened.
        @raise OSError: it cannot be written now. What was written of it stays, and the next entry will say so.
        """
        self.open()
        with self._alone():
            lost = self._catch_up()
            if self._tail.mark is None:
                self._write({**_begun(deed.time, self.random(16).hex())})
            if lost is not None:
                reason = f"entries up to {lost} were written, and are not here any more"
                self._write(Deed("end-lost", "server", deed.time, reason=reason).facts())
            elif self._tail.torn and self._tail.mark is not None:
                self._write(Deed("repaired", "server", deed.time, reason="a writer was stopped within a line").facts())
            return self._write(deed.facts())

    def head(self) -> Mark | None:
        """
        The last entry; C{None} if there is none.

        @raise OSError: the files cannot be read.
        """
        return self._find_tail().mark

    def sync(self) -> None:
        """
        Have what was written put on the disk.

        @raise OSError: that failed.
        """
        if self._file >= 0:
            os.fsync(self._file)

    def descriptor(self) -> int:
        """A descriptor of one's own for the newest file, to be synced and closed elsewhere; -1 if there is none."""
        return -1 if self._file < 0 else os.dup(self._file)

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        for descriptor in (self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._directory = -1
        self._tail = Tail()

    def lines(self) -> Iterator[bytes]:
        """
        All lines that are there at this moment, the oldest first, with their newlines.

        @raise OSError: a file cannot be read.
        """
        for name, size in self._sizes():
            with (self.path / name).open("rb") as file:
                left = size
                while left > 0 and (line := file.readline(min(left, MAX_LINE + 1))):
                    left -= len(line)
                    yield line

    def place(self, number: int) -> Place:
        """Where the line is that L{lines} gives as C{number}th, from 1."""
        before, last = 0, ""
        for name, size in self._sizes():
            last = name
            with (self.path / name).open("rb") as file:
                count, left = 0, size
                while left > 0 and (line := file.readline(min(left, MAX_LINE + 1))):
                    left -= len(line)
                    count += 1
            if number <= before + count:
                return Place(str(self.path / name), number - before)
            before += count
        return Place(str(self.path / last), number)

    # Inside

    def _sizes(self) -> list[tuple[str, int]]:
        """The files and how much of them is written, at one moment when nobody was writing, if such can be had."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            self._lock(descriptor, fcntl.LOCK_SH)
        except TrailBusy:
            pass  # who was stopped while writing writes nothing now
        try:
            return [(name, (self.path / name).stat().st_size) for name in self._names()]
        finally:
            os.close(descriptor)

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path) if _NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock(self._directory, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._directory, fcntl.LOCK_UN)

    def _lock(self, descriptor: int, kind: int) -> None:
        # Never a lock that blocks: a writer that was stopped (SIGSTOP) must not stop the server with it.
        deadline = time.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TrailBusy() from None
                time.sleep(_LOCK_PAUSE)
            else:
                return

    def _catch_up(self) -> int | None:
        """
        See what others have written since, and open the newest file.

        @return: the last entry that was there before, if it is gone.
        """
        names = self._names()
        name, known = (names[-1] if names else ""), self._tail
        if name != known.name or self._file < 0:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            if name:
                self._file = self._open(name)
        if name and name == known.name and os.fstat(self._file).st_size == known.size:
            return None
        self._tail = self._find_tail()
        before, now = known.mark, self._tail.mark
        if before is None or (now is not None and now.number >= before.number):
            return None
        if now is None:
            # All is gone. Going on from what was there shows more than beginning anew.
            self._tail = Tail(self._tail.name, self._tail.size, before, self._tail.torn)
        return before.number

    def _open(self, name: str) -> int:
        path = self.path / name
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, directory.FILE_MODE)
        if os.geteuid() == 0:
            owner = os.stat(self.path)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def _find_tail(self) -> Tail:
        names = self._names()
        newest = Tail()
        for name in reversed(names):
            tail = _tail(self.path / name)
            if name == names[-1]:
                newest = tail
            if tail.mark is not None:
                return Tail(newest.name, newest.size, tail.mark, newest.torn)
        return newest

    def _write(self, facts: Mapping[str, Value]) -> Entry:
        tail = self._tail
        entry = Entry.after(tail.mark, facts, tail.torn)
        if self._file < 0 or (tail.size >= self.rotate_bytes and not tail.torn):
            self._begin_file(entry.mark.number)
            tail = self._tail
        data = (b"\n" if tail.torn and not tail.torn.endswith(b"\n") else b"") + entry.line
        self._tail = Tail(tail.name, -1, tail.mark, tail.torn)  # unknown, should this go wrong
        written = os.write(self._file, data)
        if written < len(data) - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Without its newline an entry is an entry; the next writer will end its line.
        size = tail.size + len(data) if written == len(data) else -1
        self._tail = Tail(tail.name, size, entry.mark)
        return entry

    def _begin_file(self, number: int) -> None:
        name = f"{number:012d}.jsonl"
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1
        self._file = self._open(name)
        os.fsync(self._directory)
        self._tail = Tail(name, os.fstat(self._file).st_size, self._tail.mark, self._tail.torn)


def _begun(time: float, id: str) -> dict[str, Value]:
    return Deed("begun", "server", time, detail=f"audit trail {id}, format 1").facts()


def _tail(path: Path) -> Tail:
    """The end of one file. An entry that lacks nothing but its newline is torn by nothing: see L{AuditFiles._write}."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        data, start = b"", size
        while start > 0:
            step = min(_BLOCK, start)
            start -= step
            file.seek(start)
            data = file.read(step) + data
            found = _last_entry(data, whole=start == 0)
            if found is not None:
                mark, end = found
                return Tail(path.name, size, mark, data[end:])
    return Tail(path.name, size, None, data)


def _last_entry(data: bytes, whole: bool) -> tuple[Mark, int] | None:
    """The last entry in C{data} and where it ends; the first line counts if C{data} is the C{whole} file."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole:
            return None
        try:
            return Entry.from_line(data[begin:end]).mark, end
        except InvalidEntry:
            end = begin
    return None
