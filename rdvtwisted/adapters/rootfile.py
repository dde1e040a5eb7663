"""Files that decide what a device does, and that nobody but root may therefore have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rdvtwisted.errors import ConfigError

#: What nobody but the owner may have of such a file and of its directory.
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def read(path: Path, largest: int) -> str:
    """
    The text of a file that belongs to root, and that nobody else can write or put another one in the place of.

    @param largest: bytes that it may have.
    @raise FileNotFoundError: there is none.
    @raise ConfigError: it cannot be read, or may be somebody else's work.
    """
    try:
        with open(path, "rb") as file:
            _check(str(path), os.fstat(file.fileno()))
            _check(str(path.parent), os.stat(path.parent))
            data = file.read(largest + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError("file", f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > largest:
        raise ConfigError("file", f"{path} is larger than {largest} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("file", f"{path} is not UTF-8 text") from None


def _check(path: str, found: os.stat_result) -> None:
    if found.st_uid != 0:
        raise ConfigError("file", f"{path} does not belong to root: chown root {path}")
    # In a directory with the sticky bit nobody can rename or remove what belongs to root.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & _WRITABLE and not sticky:
        raise ConfigError("file", f"{path} can be written by others than root: chmod go-w {path}")
