"""
Become a program that may make some system calls only: C{seccomp.py CALL,CALL,... PROGRAM ARGUMENT ...}.

Any other call fails with EPERM, as SystemCallErrorNumber=EPERM has it in the units.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

LIBRARY = "libseccomp.so.2"

# seccomp.h
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_UNKNOWN = -1


def confine(names: list[str]) -> None:
    """Allow this process, and those that it starts, these system calls and no other."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p
    ]  # fmt: skip
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise OSError("seccomp_init failed")
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode("ascii"))
        # What this architecture, or this library, does not know needs no permission.
        if number != _UNKNOWN and number >= 0:
            _check(library.seccomp_rule_add_array(context, _ALLOW, number, 0, None), name)
    _check(library.seccomp_load(context), "the filter")


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


if __name__ == "__main__":
    confine(sys.argv[1].split(","))
    os.execv(sys.argv[2], sys.argv[2:])
