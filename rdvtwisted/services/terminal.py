"""The operator's terminal, and how it comes to this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

#: What sshd tells whatever it starts: address and port of the client, then of the server.
_VARIABLE = "SSH_CONNECTION"
#: How many ancestors are asked; a terminal that is further away is not one that somebody sits at.
_ANCESTORS = 32


def ssh_connection(
    environment: Mapping[str, str] | None = None, pid: int | None = None, processes: Path = Path("/proc")
) -> str | None:
    """
    How this process's terminal comes over the network by SSH, as sshd has told;
    C{None} if it does not, or nobody knows. C{sudo} keeps that from the
    process, so its ancestors are asked, too.

    @param environment: the process's; by default this one's, and likewise C{pid}.
    """
    told = (os.environ if environment is None else environment).get(_VARIABLE)
    pid = os.getpid() if pid is None else pid
    for _ in range(_ANCESTORS):
        if told is not None or pid <= 1:
            break
        pid = _parent(processes / str(pid))
        told = _environment(processes / str(pid)).get(_VARIABLE)
    return told


def _parent(process: Path) -> int:
    for line in _read(process / "status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _environment(process: Path) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in _read(process / "environ").split("\0"))
    return {name: value for name, _, value in pairs}


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""  # it has ended, or is none of our business
