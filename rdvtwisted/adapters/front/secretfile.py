"""Small files with secrets in a directory of their own: read with suspicion, written whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from rdvtwisted.adapters.wholefile import write_whole
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

    def first(draft: Path, path: Path) -> None:
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()

    write_whole(path, content, put=first)
    held = read(path)
    return content if held is None else held


def _require_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise StateDirectoryError(f"{path} belongs to another user: make it your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise StateDirectoryError(f"{path} is open to other users: chmod {mode} it, and renew what it held")


def _unusable(path: Path, error: OSError) -> StateDirectoryError:
    return StateDirectoryError(f"{path}: {error.strerror}")
