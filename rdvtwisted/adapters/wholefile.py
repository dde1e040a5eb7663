"""Files that are there whole or not at all, and for their owner alone unless something else is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rdvtwisted.errors import StateDirectoryError


def write_whole(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    draft: Path | None = None,
    put: Callable[[Path, Path], object] | None = None,
) -> None:
    """
    Write the file anew: whoever reads it, also after a crash or a loss of power, finds the old content or the new one.

    @param mode: its permissions, less the umask.
    @param draft: where it is written first, in the same directory, over whatever is left there; by default under a
        name that no other process uses.
    @param put: C{put(draft, path)} moves it to its place; by default it takes the place of what is there.
    @raise StateDirectoryError: it cannot be written; then nothing is changed, and no draft left.
    """
    try:
        write_parts(path, [content], mode=mode, draft=draft, put=put)
    except OSError as error:
        raise StateDirectoryError(f"cannot write {path}: {error.strerror}") from None


def write_parts(
    path: Path,
    parts: Iterable[bytes],
    *,
    mode: int = 0o600,
    draft: Path | None = None,
    put: Callable[[Path, Path], object] | None = None,
) -> None:
    """
    The same as L{write_whole}, of a content that is had part by part; what is raised meanwhile goes through.

    @raise OSError: it cannot be written.
    """
    draft = draft or path.with_name(f".{path.name}.{os.getpid()}")
    # What a process that was killed has left, or a link that somebody has laid there.
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        (put or os.replace)(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was just renamed or made in a directory outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
