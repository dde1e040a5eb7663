"""What a lab needs of the machine that it is built on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux", "mount": "mount"}
"""What the lab is built with, and the Debian packages that have it."""

OLD_PROGRAMS = {
    "brctl": "bridge-utils",
    "ifconfig": "net-tools",
    "iptables": "iptables",
    "openssl": "openssl",
    "ping": "iputils-ping",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "stunnel4": "stunnel4",
    "sysctl": "procps",
    "vtund": "vtun",
}
"""What old servers and old devices run besides, and the Debian packages that have it."""


def obstacles(programs: Iterable[str] = PROGRAMS) -> str | None:
    """Why no lab can be built here, in words, or L{None} if one can as far as can be told beforehand."""
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    missing = missing_programs(programs)
    return f"not installed: {', '.join(missing)}" if missing else None


def missing_programs(programs: Iterable[str] = PROGRAMS) -> list[str]:
    """Those of these programs that are not along PATH."""
    path = [Path(directory) for directory in os.get_exec_path()]
    return [name for name in programs if not any(os.access(directory / name, os.X_OK) for directory in path)]
