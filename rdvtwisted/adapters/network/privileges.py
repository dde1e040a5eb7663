"""
The privileges of this process (capabilities(7)): what it holds, and how it gives them up for good.

Whoever gives up capabilities does so for one thread, so this is for a process
that has no other yet: at its start, after it has gone into the background.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
from collections.abc import Set
from pathlib import Path

from attrs import frozen

from rdvtwisted.errors import InvalidValue, MissingPrivilege

# linux/capability.h
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21

_NAMES = {
    CAP_SETPCAP: "CAP_SETPCAP",
    CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
}

_VERSION_3 = 0x20080522

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

#: linux/securebits.h: root gets no capabilities by being root; a change of user changes none, nor keeps any;
#: none becomes ambient. Each with its lock.
_SECUREBITS = 0x3 | 0xC | 0x20 | 0xC0

#: Since Linux 4.3 (ambient capabilities) no kernel has more than 64.
_WORDS = 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def name_of(capability: int) -> str:
    """The name of a capability as manuals have it, or its number."""
    return _NAMES.get(capability, f"capability {capability}")


@frozen
class Held:
    """What a thread holds: sets of the numbers of capabilities."""

    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]
    bounding: frozenset[int]
    ambient: frozenset[int]
    #: Programs that it starts get no more than it has.
    no_new_privileges: bool

    def __str__(self) -> str:
        names = ", ".join(name_of(capability) for capability in sorted(self.permitted))
        return names or "no capability"


def held(task: str = "thread-self") -> Held:
    """
    What a thread holds.

    @param task: its number, or the calling one.
    """
    lines = Path(f"/proc/{task}/status").read_text("ascii", "replace").splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def some(key: str) -> frozenset[int]:
        bits = int(status[key], 16)
        return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)

    return Held(
        effective=some("CapEff"),
        permitted=some("CapPrm"),
        inheritable=some("CapInh"),
        bounding=some("CapBnd"),
        ambient=some("CapAmb"),
        no_new_privileges=status["NoNewPrivs"] == "1",
    )


def account(name: str) -> tuple[int, int]:
    """
    The numbers of a user and of its own group.

    @raise InvalidValue: there is no such user.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise InvalidValue("user", name, "this machine has no such account") from None
    return entry.pw_uid, entry.pw_gid


def become(user: int, group: int) -> None:
    """
    Run as another user, in no group but this, with the capabilities held until now.

    @raise MissingPrivilege: the process may not.
    """
    _alone()
    if (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (user, user, group, group):
        return
    permitted = held().permitted
    _prctl(_PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except PermissionError:
        raise MissingPrivilege(
            f"may not become the user with the number {user}: run as root or with the capabilities CAP_SETUID"
            " and CAP_SETGID"
        ) from None
    _prctl(_PR_SET_KEEPCAPS, 0)
    _capset(permitted, permitted, frozenset())


def restrict(keep: Set[int] = frozenset(), ambient: Set[int] = frozenset()) -> None:
    """
    Give up all capabilities but C{keep}, for good: neither this process nor
    one that it starts gets another, not even as root. Call it once.

    @param ambient: those of C{keep} that the programs have that this process starts.
    @raise MissingPrivilege: it lacks some of C{keep}, or the kernel has it keep more.
    """
    _alone()
    before = held()
    if lacking := keep - before.permitted:
        raise MissingPrivilege(f"lacks {', '.join(name_of(each) for each in sorted(lacking))}")
    # Without CAP_SETPCAP the limit stays as it is, and "no new privileges" alone keeps the rest away.
    limiting = CAP_SETPCAP in before.permitted
    meanwhile = keep | {CAP_SETPCAP} if limiting else keep
    if limiting:
        for capability in before.bounding - keep:
            _prctl(_PR_CAPBSET_DROP, capability)
    _capset(meanwhile, meanwhile, ambient)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in ambient:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    if limiting:
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    _capset(keep, keep, ambient)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    after = held()
    if (after.permitted, after.ambient, after.no_new_privileges) != (keep, ambient, True):
        raise MissingPrivilege(f"cannot give up all capabilities: this process still has {after}")


def drop(identity: tuple[int, int] | None = None) -> None:
    """
    Give up every capability for good, and run as another user if one is given.

    @param identity: see L{account}.
    @raise MissingPrivilege: the process may not become that user.
    """
    if identity is not None:
        become(*identity)
    restrict()


def die_with_parent() -> None:
    """
    Have the kernel kill this process when the thread that started it ends. A
    change of user or capabilities would undo it: call it after those.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _alone() -> None:
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"privileges are each thread's own, and there are {threads}: give them up earlier")


def _prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(argument) for argument in (*arguments, *[0] * (4 - len(arguments)))]
    if _libc.prctl(option, *words):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _capset(effective: Set[int], permitted: Set[int], inheritable: Set[int]) -> None:
    sets = (_Sets * _WORDS)()
    for word in range(_WORDS):
        sets[word].effective, sets[word].permitted, sets[word].inheritable = (
            sum(1 << number % 32 for number in numbers if number // 32 == word)
            for numbers in (effective, permitted, inheritable)
        )
    if _libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), sets):
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
