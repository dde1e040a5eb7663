"""Pipes, through which the kernel moves bytes from one socket to another."""

from __future__ import annotations

import fcntl
import os

from attrs import frozen

#: Bytes that a pipe is to hold. Larger ones gained nothing measurable, and a
#: blocked flow keeps that much in the kernel.
PIPE_SIZE = 256 * 1024
#: Pipes kept for reuse. Flows that are not blocked need one at a time between
#: them all; more are used only by those whose target does not take its bytes.
SPARE_LIMIT = 16


@frozen
class Pipe:
    """A non-blocking pipe: its two descriptors and the bytes it holds."""

    outlet: int
    inlet: int
    size: int

    @classmethod
    def open(cls) -> Pipe:
        """
        Make a pipe, as large as we want it or, where that is not allowed, as large as we get it.

        @raise OSError: the process has no descriptors left.
        """
        outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except PermissionError:
            # Above /proc/sys/fs/pipe-max-size, or too many pages in pipes already (pipe-user-pages-soft).
            size = fcntl.fcntl(inlet, fcntl.F_GETPIPE_SZ)
        return cls(outlet, inlet, size)

    def close(self) -> None:
        """Close both ends; what is inside is lost."""
        os.close(self.outlet)
        os.close(self.inlet)


class PipePool:
    """Empty pipes to borrow."""

    def __init__(self) -> None:
        self._spare: list[Pipe] = []

    def borrow(self) -> Pipe:
        """
        An empty pipe; to be given back empty, or closed.

        @raise OSError: there is none spare, and the process has no descriptors left.
        """
        return self._spare.pop() if self._spare else Pipe.open()

    def give_back(self, pipe: Pipe) -> None:
        """Take an B{empty} pipe back."""
        if len(self._spare) < SPARE_LIMIT:
            self._spare.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close the spare pipes; the pool may be used further."""
        while self._spare:
            self._spare.pop().close()
