"""
Lets a test put the wall clock of one Python program forward or back, and no other's.

Found along PYTHONPATH by a program that starts; with C{RDVLAB_CLOCK} naming a
file that holds a C{double}, C{time.time} is wrong by so many seconds from then
on. The machine's own clock is never touched.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

_OFFSET = struct.Struct("d")


def _set_wrong(path: str) -> None:
    with open(path, "rb") as file:
        shown = mmap.mmap(file.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
    right = time.time

    def wrong() -> float:
        """Seconds since the epoch, by a clock that somebody has put forward or back."""
        return right() + float(_OFFSET.unpack_from(shown)[0])

    time.time = wrong


if "RDVLAB_CLOCK" in os.environ:
    _set_wrong(os.environ["RDVLAB_CLOCK"])
