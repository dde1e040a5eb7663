"""Small files with secrets in a directory of their own: read with suspicion, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from rdvtwisted.errors import StateDirectoryError

#: Bytes that such a file may have.
SIZE_LIMIT = 64 * 1024

_DIRECTORY_MODE = 0o700


def prepare(directory: Path) -> None:
    """
    Make the directory if it is missing, for its owner alone; its parent must be there.

    @raise StateDirectoryError: that cannot be done, or others may look into it.
    """
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise _unusable(directory, error) from None
    _require_private(directory, status)


def read(path: Path) -> bytes | None:
    """
    What the file holds; L{None} if there is none.

    @raise StateDirectoryError: it cannot be read, is too long, or others may read it.
    """
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()))
            held = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    if len(held) > SIZE_LIMIT:
        raise StateDirectoryError(f"{path} is damaged: it is longer than {SIZE_LIMIT} bytes")
    return held


def create(path: Path, content: bytes) -> bytes:
    """
    Make the file, unless somebody else was faster.

    @return: what it holds now, the other's content if there was another.
    @raise StateDirectoryError: it can be neither written nor read.
    """

    def first(temporary: str) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        os.unlink(temporary)

    _write(path, content, first)
    held = read(path)
    return content if held is None else held


def replace(path: Path, content: bytes) -> None:
    """
    Write the file anew: whoever reads it, also after a crash, finds the old content or the new one.

    @raise StateDirectoryError: it cannot be written.
    """
    _write(path, content, lambda temporary: os.replace(temporary, path))


def _write(path: Path, content: bytes, put: Callable[[str], None]) -> None:
    """Write a new file beside C{path}, readable for its owner alone, and C{put} it in its place."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            put(temporary)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync(path.parent)
    except OSError as error:
        raise _unusable(path, error) from None


def _sync(directory: Path) -> None:
    """Have the names in a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise StateDirectoryError(f"{path} belongs to another user: make it your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise StateDirectoryError(f"{path} is open to other users: chmod {mode} it, and renew what it held")


def _unusable(path: Path, error: OSError) -> StateDirectoryError:
    return StateDirectoryError(f"{path}: {error.strerror}")
