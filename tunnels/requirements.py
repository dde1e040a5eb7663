"""What this machine must have for a tunnel backend that makes TUN or TAP devices."""

from __future__ import annotations

from pathlib import Path

from rdvtwisted.values import Missing

TUN_DEVICE = Path("/dev/net/tun")
OWN_STATUS = Path("/proc/self/status")

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
