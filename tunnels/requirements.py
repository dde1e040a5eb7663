"""What this machine must have for a tunnel backend: TUN and TAP devices, stock programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from rdvtwisted.values import Missing

#: What every backend needs that makes a TUN or TAP device.
PACKETS = ("/dev/net/tun", "CAP_NET_ADMIN")

TUN_DEVICE = Path("/dev/net/tun")
OWN_STATUS = Path("/proc/self/status")

#: Where stock programs are looked for: PATH of a service often lacks the last three.
PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/sbin", "/sbin", "/usr/local/sbin"))
#: Seconds that a program may take to tell its version.
_PATIENCE = 2.0

#: Bit of CAP_NET_ADMIN in a capability set (linux/capability.h).
_CAP_NET_ADMIN = 12


def missing_for_packets(tun: Path = TUN_DEVICE, status: Path = OWN_STATUS) -> list[Missing]:
    """
    What keeps this process from making a TUN or TAP device.

    @param tun: the device node of the driver (Documentation/networking/tuntap.rst).
    @param status: the process's C{status} file (proc(5)).
    """
    missing = []
    if not tun.exists():
        missing.append(Missing(str(tun), "load the kernel module: modprobe tun"))
    if not _may_administer_networks(status):
        missing.append(Missing("CAP_NET_ADMIN", "run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN"))
    return missing


def stock_program(names: Iterable[str], places: str = PLACES) -> str | None:
    """The absolute path of the first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name, path=places)) is not None), None)


@lru_cache
def version(path: str, option: str, pattern: str) -> str | None:
    """
    What a program says of its version when it is run with an option.

    @param pattern: matches the line that has it; its first group is the version.
    @return: L{None} if it says nothing such.
    """
    try:
        said = subprocess.run(
            [path, option], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(pattern, (said.stderr + said.stdout).decode("ascii", "replace"), re.MULTILINE)
    return match[1] if match is not None and match[1].isprintable() else None


def _may_administer_networks(status: Path) -> bool:
    try:
        lines = status.read_text("ascii", "replace").splitlines()
    except OSError:
        return False
    for line in lines:
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> _CAP_NET_ADMIN & 1)
    return False
