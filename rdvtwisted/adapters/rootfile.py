"""Files that decide what a device does, and that nobody but root may therefore have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from rdvtwisted.errors import ConfigError

#: Symbolic links that may be on the way to a file, as many as the kernel follows (path_resolution(7)).
MOST_LINKS = 40
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


def require(path: Path, owners: Collection[int] = (0,)) -> os.stat_result:
    """
    Make sure that a file belongs to root, and that nobody else can write it, or put another one in the place of it
    or of any directory or link on the way to it: then what is true now is true when it is used, but for root's doing.

    @param owners: those it may belong to, and the directories; by default root alone.
    @return: what there is to know of it.
    @raise FileNotFoundError: there is none.
    @raise ConfigError: it may be somebody else's work, or is no file.
    """
    try:
        descriptor = os.open(_walk(path, owners), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError("file", f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError("file", f"{path} is no file")
    _check(str(path), found, owners)
    return found


def _walk(path: Path, owners: Collection[int]) -> str:
    """Where C{path} leads, every directory on the way being checked, also by which links lead."""
    here, names, links = "/", list(reversed(path.absolute().parts)), 0
    while names:
        name = names.pop()
        if name == "/":
            here = "/"
        elif name == "..":
            here = os.path.dirname(here)
        else:
            _check(here, os.stat(here), owners)
            there = os.path.join(here, name)
            if not stat.S_ISLNK(os.lstat(there).st_mode):
                here = there
                continue
            links += 1
            if links > MOST_LINKS:
                raise ConfigError("file", f"{path} is behind more than {MOST_LINKS} links")
            names.extend(reversed(Path(os.readlink(there)).parts))
    return here


def _check(path: str, found: os.stat_result, owners: Collection[int] = (0,)) -> None:
    if found.st_uid not in owners:
        raise ConfigError("file", f"{path} does not belong to root: chown root {path}")
    # In a directory with the sticky bit nobody can rename or remove what belongs to root.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & _WRITABLE and not sticky:
        raise ConfigError("file", f"{path} can be written by others than root: chmod go-w {path}")
