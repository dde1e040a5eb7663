"""
Run in a host: a terminal window with a command in it.

What the command prints goes to standard output. When this process ends, be it
by SIGKILL, the window is closed, and the command is hung up on.
"""

from __future__ import annotations

import os
import pty
import sys


def main(argv: list[str]) -> int:
    """Show a command until it ends; its exit status."""
    child, window = pty.fork()
    if child == 0:
        os.execvp(argv[0], argv)
    while True:
        try:
            data = os.read(window, 65_536)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        os.write(1, data)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
