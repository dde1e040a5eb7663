"""Kernel settings, through C{/proc/sys}: it is that of the network namespace we are in."""

from __future__ import annotations

from pathlib import Path

from zope.interface import implementer

from rdvtwisted.adapters.network.kernel import ISysctls


@implementer(ISysctls)
class Sysctls:
    """The files below a directory."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def read(self, path: str) -> str | None:
        try:
            return (self._root / path).read_text("ascii").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, value: str) -> None:
        # Without O_CREAT: /proc answers it with EACCES, which is not what is wrong.
        with open(self._root / path, "r+", encoding="ascii") as file:
            file.write(value + "\n")
