"""The users of this machine, as the audit trail names them."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

#: What the kernel says of a process that no login has begun (include/linux/audit.h, AUDIT_UID_UNSET).
_NO_LOGIN = 0xFFFFFFFF
#: C{struct ucred}, unix(7): process, user, group.
_UCRED = struct.Struct("3i")


def this_process(environment: Mapping[str, str]) -> str:
    """
    Who runs this process: C{admin:root (uid 0, logged in as ann)}.

    As whom one logged in is known from the kernel, where PAM told it, and else from C{sudo}, whose word root could
    forge; but root could forge the trail as well.
    """
    return _described(os.getuid(), _login(os.getpid()), environment.get("SUDO_USER", ""))


def peer(transport: object) -> str:
    """Who is at the other end of a UNIX socket: the same, as the kernel knows it (SO_PEERCRED)."""
    credentials = _credentials(transport)
    if credentials is None:
        return "admin:unknown"
    pid, uid = credentials
    return _described(uid, _login(pid), "")


def trusted(transport: object) -> bool:
    """Whether the other end is root or this process's own user. So is what is no UNIX socket, such as one in memory."""
    credentials = _credentials(transport)
    return credentials is None or credentials[1] in (0, os.geteuid())


def _credentials(transport: object) -> tuple[int, int] | None:
    """Process and user at the other end."""
    handle = getattr(transport, "socket", None)
    if handle is None or handle.family != socket.AF_UNIX:
        return None
    pid, uid, _ = _UCRED.unpack(handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def _login(pid: int) -> int | None:
    try:
        uid = int(Path(f"/proc/{pid}/loginuid").read_text("ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == _NO_LOGIN else uid


def _described(uid: int, login: int | None, sudo: str) -> str:
    behind = ""
    if login is not None and login != uid:
        behind = f", logged in as {_name(login)}"
    elif login is None and uid == 0 and sudo:
        behind = f", sudo of {sudo[:32]}"
    return f"admin:{_name(uid)} (uid {uid}{behind})"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
