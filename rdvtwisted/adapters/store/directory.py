"""The state directory: the server's own, closed to everybody else."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from rdvtwisted.errors import StateDirectoryError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
#: Permission bits that nobody but the owner may have on either.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def prepare(path: str) -> None:
    """
    See to it that C{path} is a directory which only its owner can enter; make it if it is missing.

    One that exists is left as it is, for it may be anything that somebody named by mistake.

    @raise StateDirectoryError: it cannot be made or written to, is no directory, or is open to others.
    """
    try:
        os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
        mode = os.stat(path).st_mode
    except FileExistsError:
        raise StateDirectoryError(f"{path} is not a directory: name another state directory") from None
    except OSError as error:
        raise _unusable("make", path, error) from None
    if mode & _OTHERS:
        raise StateDirectoryError(
            f"the state directory {path} is open to others (mode {stat.S_IMODE(mode):04o}): name one of its own,"
            f" or, if it is for nothing else, chmod 700 {path}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable("write to", path, PermissionError(0, "permission denied"))


@contextmanager
def alone(path: str) -> Iterator[None]:
    """
    Let no other process that asks for the same do what is done meanwhile in the directory C{path}.

    @raise StateDirectoryError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable("open", path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def private_file(path: str) -> None:
    """
    See to it that the file C{path} exists and that only the owner of its directory can read it.

    @raise StateDirectoryError: it cannot be made or opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise _unusable("open", path, error) from None
    try:
        if os.fstat(descriptor).st_mode & _OTHERS:
            os.fchmod(descriptor, FILE_MODE)
        if os.geteuid() == 0:
            # The server may run as the directory's owner, and must be able to open what root has made.
            owner = os.stat(os.path.dirname(path))
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise _unusable("protect", path, error) from None
    finally:
        os.close(descriptor)


def _unusable(verb: str, path: str, error: OSError) -> StateDirectoryError:
    reason = (error.strerror or str(error)).lower()
    cure = ": run as its owner or as root" if isinstance(error, PermissionError) else ""
    return StateDirectoryError(f"cannot {verb} {path}: {reason}{cure}")
