"""Files that an administrator names on a command line: to be read, or to be written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from rdvtwisted.adapters.wholefile import write_parts
from rdvtwisted.errors import RDVError


def opened(path: str) -> BinaryIO:
    """
    A file to be read; a pipe that nobody has opened to write into it is empty, and not waited for.

    @raise OSError: it cannot be opened.
    """
    return open(path, "rb", opener=_at_once)


def _at_once(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    # Whoever is writing into a pipe is waited for.
    os.set_blocking(descriptor, True)
    return descriptor


def export(path: str, parts: Iterable[bytes], mode: int) -> None:
    """
    Write a file anew, part by part. What was there stays as it is until all is written; if that cannot be done, also
    after that. A link stays one; what is no file, such as C{/dev/null}, is written into.

    @param mode: permissions of a file that was not there, less the umask.
    @raise RDVError: it cannot be written; or what is raised while the parts are had.
    """
    try:
        try:
            found = os.stat(path).st_mode
        except FileNotFoundError:
            found = stat.S_IFREG | mode
        if stat.S_ISREG(found):
            # Who could read it can do so again, but for special bits, such as the one that changes the user.
            write_parts(Path(os.path.realpath(path)), parts, mode=found & 0o777)
        else:
            with open(path, "wb") as file:
                file.writelines(parts)
    except OSError as error:
        raise RDVError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None
