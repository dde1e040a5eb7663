"""Files that decide what a device does, and that nobody but root may therefore have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from rdvtwisted.errors import ConfigError

#: Symbolic links that may be on the way to a file, as many as the kernel follows (path_resolution(7)).
MOST_LINKS = 40
#: What nobody but the owner may have of such a file and of the directories on the way to it.
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
#: How one step of the way is taken: no link is followed, and no pipe opened, whose writer would be waited for.
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: How a file is opened that may not be what it was when it was looked at.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def read(path: Path, largest: int) -> str:
    """
    The text of a file that belongs to root, and that nobody else can write, or put another one in the place of, as
    L{require} has it. Nothing is waited for.

    @param largest: bytes that it may have.
    @raise FileNotFoundError: there is none.
    @raise ConfigError: it cannot be read, or may be somebody else's work.
    """
    try:
        with open(_open(path, (0,), _READ), "rb") as file:
            data = file.read(largest + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
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

    @param owners: those it may belong to, and the directories and links; by default root alone.
    @return: what there is to know of it.
    @raise FileNotFoundError: there is none.
    @raise ConfigError: it may be somebody else's work, or is no file.
    """
    try:
        descriptor = _open(path, owners, None)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None


def _open(path: Path, owners: Collection[int], flags: int | None) -> int:
    """
    A descriptor of the file that C{path} leads to, opened with these flags; C{None}: good for fstat(2) only.

    The way is taken step by step from C{/}, each from the descriptor of the step before, so that what was checked is
    what is used.
    """
    names, links = list(reversed(path.absolute().parts)), 0
    # How many steps are left of those that the path itself names; the others are those of links.
    own = len(names)
    here, at, loose = os.open("/", _STEP), "/", False
    try:
        while names:
            name = names.pop()
            there = os.path.normpath(os.path.join(at, name))
            try:
                step = os.open(name, _STEP, dir_fd=here)
            except FileNotFoundError:
                if len(names) < own:
                    raise
                raise ConfigError("file", f"{path} leads to {there}, which is not there") from None
            own = min(own, len(names))
            try:
                found = os.fstat(step)
                _check(there, found, owners)
                # Into a directory with the sticky bit others can put a file or link of root's, by a hard link, or out
                # of a directory of their own that it was left in. A directory of root's they can put nowhere.
                if loose and not stat.S_ISDIR(found.st_mode):
                    cure = "keep it in a directory that only root can write"
                    raise ConfigError("file", f"others than root can have put {there} there: {cure}")
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > MOST_LINKS:
                        raise ConfigError("file", f"{path} is behind more than {MOST_LINKS} links")
                    names.extend(reversed(Path(os.readlink("", dir_fd=step)).parts))
                    continue
                if not names:
                    return _opened(path, name, here, step, owners, flags)
                here, step, at = step, here, there
                loose = bool(found.st_mode & _WRITABLE)
            finally:
                os.close(step)
    finally:
        os.close(here)
    raise ConfigError("file", f"{path} is no file")


def _opened(path: Path, name: str, directory: int, step: int, owners: Collection[int], flags: int | None) -> int:
    """Another descriptor of what a step has found, if that is a file; and still is one, once it is opened."""
    if not stat.S_ISREG(os.fstat(step).st_mode):
        raise ConfigError("file", f"{path} is no file")
    descriptor = os.dup(step) if flags is None else os.open(name, flags, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("file", f"{path} is no file")
        _check(str(path), found, owners)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: str, found: os.stat_result, owners: Collection[int]) -> None:
    link = stat.S_ISLNK(found.st_mode)
    if found.st_uid not in owners:
        raise ConfigError("file", f"{path} does not belong to root: chown {'-h ' if link else ''}root {path}")
    # In a directory with the sticky bit nobody can rename or remove what belongs to root.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & _WRITABLE and not sticky and not link:
        raise ConfigError("file", f"{path} can be written by others than root: chmod go-w {path}")


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError("file", f"cannot read {path}: {(error.strerror or str(error)).lower()}")
