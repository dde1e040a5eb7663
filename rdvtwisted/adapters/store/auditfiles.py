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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import define, evolve, field, frozen

from rdvtwisted.adapters.store import directory
from rdvtwisted.adapters.store.audittail import Last, Tail, lines_back, tail_of
from rdvtwisted.audit import LOSS, MAX_LINE, Deed, Entry, Mark, Value
from rdvtwisted.errors import RDVError, StateDirectoryError

#: Directory of the trail, in the state directory.
DIRECTORY_NAME = "audit"
#: Bytes from which on the next entry begins a new file: small enough to be copied, large enough to be few.
ROTATE_BYTES = 32 << 20
#: How often to see whether another writer has finished, for those who can wait.
LOCK_ATTEMPTS = 500

_NAME = re.compile(r"([0-9]{12})\.jsonl")


class TrailBusy(RDVError):
    """Another process holds the trail, and does not let go of it."""

    def __init__(self) -> None:
        super().__init__("another process is writing to the audit trail, or was stopped while it did")


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
    @ivar pause: waits a moment (10 ms) for another writer; C{None} not to wait for any.
    @ivar random: C{random(n)} gives C{n} unpredictable bytes.
    @ivar loss: an entry that this process has seen at the end of the trail, and has then found gone; the latest one.
    """

    path: Path
    pause: Callable[[], None] | None = None
    rotate_bytes: int = ROTATE_BYTES
    random: Callable[[int], bytes] = os.urandom
    loss: Mark | None = field(default=None, init=False)
    _directory: int = field(default=-1, init=False)
    _file: int = field(default=-1, init=False)
    _tail: Tail = field(factory=Tail, init=False)

    @classmethod
    def within(cls, state_directory: str, pause: Callable[[], None] | None = None) -> AuditFiles:
        """The trail of a state directory, whether it has one yet or not."""
        return cls(Path(state_directory, DIRECTORY_NAME), pause)

    def open(self) -> None:
        """
        Make sure that the directory is there, and only its owner's.

        @raise StateDirectoryError: it cannot be used.
        """
        if self._directory >= 0:
            if _is_there(self.path, self._directory):
                return
            self.close()  # it was taken away, or another one was put in its place
        directory.prepare(str(self.path.parent))
        try:
            made = _make(self.path)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if made:
                _give_away(descriptor, self.path.parent)
        except OSError as error:
            raise StateDirectoryError(f"cannot open {self.path}: {(error.strerror or str(error)).lower()}") from None
        self._directory = descriptor

    def append(self, deed: Deed) -> Entry:
        """
        Write one entry; it is in the hands of the kernel then, and survives the end of this process.

        @raise TrailBusy: another writer does not let go.
        @raise StateDirectoryError: the trail cannot be opened.
        @raise OSError: it cannot be written now. What was written of it stays, and the next entry will say so.
        """
        self.open()
        with self._alone():
            self._go_on(deed.time)
            return self._write(deed.facts())

    def look(self, time: float) -> None:
        """
        See whether what was written is still there, and what others have written. If something is gone, there is an
        entry on that, and L{loss} says so.

        @param time: now, in seconds since the epoch.
        @raise TrailBusy: another writer does not let go.
        @raise StateDirectoryError: the trail cannot be opened.
        @raise OSError: it cannot be read, or written.
        """
        if self._tail.last is not None:
            self.open()
            with self._alone():
                self._go_on(time)

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
        self._release()
        if self._directory >= 0:
            os.close(self._directory)
        self._directory = -1

    def lines(self) -> Iterator[bytes]:
        """
        All lines that are there at this moment, the oldest first, with their newlines.

        @raise OSError: a file cannot be read.
        """
        for _, line in self._numbered():
            yield line

    def lines_back(self, limit: int) -> Iterator[bytes]:
        """
        The lines of the last C{limit} bytes that are there at this moment, the newest first, without their newlines.

        @raise OSError: a file cannot be read.
        """
        for name, size in reversed(self._sizes()):
            yield from lines_back(self.path / name, size, limit)
            limit -= size
            if limit <= 0:
                break

    def place(self, number: int) -> Place:
        """Where the line is, or would be, that L{lines} gives as C{number}th, from 1."""
        place = Place(str(self.path), 0)
        for count, (place, _) in enumerate(self._numbered(), 1):
            if count == number:
                return place
        return evolve(place, line=place.line + 1)

    # Inside

    def _numbered(self) -> Iterator[tuple[Place, bytes]]:
        for name, size in self._sizes():
            path = self.path / name
            with path.open("rb") as file:
                number, left = 0, size
                while left > 0 and (line := file.readline(min(left, MAX_LINE + 1))):
                    number, left = number + 1, left - len(line)
                    yield Place(str(path), number), line

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
        for _ in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if self.pause is None:
                    break
                self.pause()
            else:
                return
        raise TrailBusy()

    def _go_on(self, time: float) -> None:
        """Come to where the next entry belongs; what has become of the trail has an entry of its own first."""
        lost = self._catch_up()
        if self._tail.mark is None:
            self._write({**_begun(time, self.random(16).hex())})
        if lost is not None:
            self.loss = lost
            reason = f"entries up to {lost.number} were written, and are not here any more"
            self._write(Deed(LOSS, "server", time, reason=reason, detail=f"the last one was {lost}").facts())
        elif self._tail.torn and self._tail.mark is not None:
            self._write(Deed("repaired", "server", time, reason="a writer was stopped within a line").facts())

    def _catch_up(self) -> Mark | None:
        """
        See what others have written since, and open the newest file.

        @return: the last entry that was there before, if it is gone.
        """
        names = self._names()
        name, known = (names[-1] if names else ""), self._tail
        same = (
            self._file >= 0 and name == known.name and os.path.samestat(os.fstat(self._file), os.stat(self.path / name))
        )
        # Numbers alone do not tell: others may have gone on behind what was cut off.
        stands = known.last is None or known.last.stands(self.path)
        if stands and same and os.fstat(self._file).st_size == known.size:
            return None
        if not same:
            self._release()
            if name:
                self._file = self._open(name)
        self._tail = self._find_tail()
        if stands or known.last is None:
            return None
        if self._tail.last is None:
            # All is gone. Going on from what was there shows more than beginning anew.
            self._tail = evolve(self._tail, last=known.last)
        return known.last.mark

    def _open(self, name: str, flags: int = 0) -> int:
        flags |= os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, directory.FILE_MODE, dir_fd=self._directory)

    def _find_tail(self) -> Tail:
        names = self._names()
        newest = Tail()
        for name in reversed(names):
            tail = tail_of(self.path / name)
            if name == names[-1]:
                newest = tail
            if tail.last is not None:
                return evolve(newest, last=tail.last)
        return newest

    def _write(self, facts: Mapping[str, Value]) -> Entry:
        tail = self._tail
        entry = Entry.after(tail.mark, facts, tail.torn)
        if self._file < 0 or (tail.size >= self.rotate_bytes and tail.ended and not tail.torn):
            self._begin_file(entry.mark.number)
            tail = self._tail
        data = entry.line if tail.ended else b"\n" + entry.line
        self._tail = evolve(tail, size=-1)  # unknown, should this go wrong
        written = os.write(self._file, data)
        if written < len(data) - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Without its newline an entry is an entry; who comes next ends its line.
        last = Last(entry.mark, tail.name, tail.size + len(data) - len(entry.line), entry.line[:-1])
        self._tail = Tail(tail.name, tail.size + written, last, ended=written == len(data))
        return entry

    def _begin_file(self, number: int) -> None:
        name = f"{number:012d}.jsonl"
        self.sync()
        self._release()
        self._file = self._open(name, os.O_CREAT | os.O_EXCL)
        _give_away(self._file, self.path)
        os.fsync(self._directory)
        self._tail = Tail(name, 0, self._tail.last)

    def _release(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether what is open is what stands there."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _make(path: Path) -> bool:
    """Make a directory; whether it was not there before."""
    try:
        path.mkdir(directory.DIRECTORY_MODE)
    except FileExistsError:
        return False
    return True


def _give_away(descriptor: int, parent: Path) -> None:
    """What root has just made in C{parent} is to be its owner's: the server may run as that user."""
    if os.geteuid() == 0 and (owner := parent.stat()).st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _begun(time: float, id: str) -> dict[str, Value]:
    return Deed("begun", "server", time, detail=f"audit trail {id}, format 1").facts()
