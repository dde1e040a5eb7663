"""
Undoes what this process has configured, should it end without doing so.

A small shell waits at a pipe for a word. When the process dies, by whatever
signal, the kernel closes the pipe, and the shell becomes the program that
sweeps; so a machine whose device was killed is as before within a second, and
not only when the device starts again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import rdvtwisted
from rdvtwisted.errors import MissingProgram

_SCRIPT = 'read -r word || exec "$0" "$@"'
#: Not heard: whoever ends a device asks all of its processes at once.
_UNHEARD = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
#: Seconds that the shell has to end once it is dismissed.
_PATIENCE = 2.0


class Keeper:
    """
    One such shell, for what is journalled under one owner.

    It is in a session of its own, so that a terminal that is closed is none of its business.
    """

    def __init__(self, module: str, directory: Path, owner: str) -> None:
        """
        @param module: the program that sweeps; it is given the directory and the owner.
        @param directory: where the journals are.
        @raise MissingProgram: there is no shell.
        """
        words = ["sh", "-c", _SCRIPT, sys.executable, "-s", "-m", module, str(directory), owner]
        waiting, self._word = os.pipe()
        # Programs inherit what is blocked (signal(7)), and this is so before they could be asked anything.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=waiting,
                stdout=subprocess.DEVNULL,
                # "-m" looks in the current directory first: where this package is, be it installed or a checkout.
                cwd=Path(rdvtwisted.__file__).parents[1],
                env={
                    "LC_ALL": "C",
                    "PATH": os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")),
                },
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._word)
            raise MissingProgram(f"nobody would clean up after this process: sh: {error.strerror}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.close(waiting)

    @property
    def pid(self) -> int:
        """The shell's process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """Nothing is left to undo. Idempotent."""
        if self._word < 0:
            return
        word, self._word = self._word, -1
        with suppress(OSError):  # somebody has ended it
            os.write(word, b"done\n")
        os.close(word)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
