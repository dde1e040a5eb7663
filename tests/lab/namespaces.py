"""
Namespaces of a lab: entered, found by their names, and swept away.

Each host is a set of three: network (known to C{ip netns}), mount (its own
C{/sys}, C{/run}, C{/etc/resolv.conf}) and UTS (its own host name).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.lab.processes import MARK, LabError

RUN = Path("/run")
NETNS = Path("/run/netns")
ETC = Path("/etc/netns")

_MNT_DETACH = 2
"""From linux/fs.h: unmount now for names, later for those who still look inside."""

_libc = ctypes.CDLL(None, use_errno=True)


def run_directory(prefix: str) -> Path:
    """Where a lab keeps its state; all of it is lost when the lab goes down."""
    return RUN / f"rdvlab-{prefix}"


def entering(prefix: str, host: str, argv: Sequence[str], directory: str = "/") -> list[str]:
    """The command line that becomes C{argv} in a host of the lab, in a working directory."""
    place = run_directory(prefix) / host
    return [
        "nsenter",
        f"--net={NETNS}/{prefix}-{host}",
        f"--mount={place}.mnt",
        f"--uts={place}.uts",
        "env",
        f"--chdir={directory}",
        "--default-signal=INT,QUIT",  # which are ignored by what a shell has started in the background
        *argv,
    ]


def environment(prefix: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, marked as the lab's."""
    return {**os.environ, MARK: prefix, **(extra or {})}


def command(argv: Sequence[str], text: str | None = None) -> str:
    """
    What a program prints, given C{text} on its input.

    @raise LabError: if it fails; with its own words.
    """
    [output] = commands([(argv, text)])
    return output


def commands(jobs: Iterable[tuple[Sequence[str], str | None]]) -> list[str]:
    """
    What several programs print that run at the same time.

    @raise LabError: when all have ended and one has failed; with its own words.
    """
    running = []
    for argv, text in jobs:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append((popen, argv, text))
    outputs, failures = [], []
    for popen, argv, text in running:
        output, errors = popen.communicate(text or "")
        outputs.append(output)
        if popen.returncode:
            failures.append(f"{' '.join(argv)}: {errors.strip() or f'exit status {popen.returncode}'}")
    if failures:
        raise LabError("\n".join(failures))
    return outputs


def inodes(prefix: str) -> dict[int, str]:
    """The lab's network namespaces that exist: the host's name by inode."""
    start = f"{prefix}-"
    return {path.stat().st_ino: path.name[len(start) :] for path in NETNS.glob(f"{start}*") if _is_mounted(path)}


def _is_mounted(name: Path) -> bool:
    """Whether a name in /run/netns stands for a namespace, or is the empty file that a crash left."""
    return name.stat().st_dev != name.parent.stat().st_dev


def traces(prefix: str) -> list[str]:
    """Every path of this machine that exists only because of the lab."""
    found = [*NETNS.glob(f"{prefix}-*"), *ETC.glob(f"{prefix}-*")]
    if run_directory(prefix).exists():
        found.append(run_directory(prefix))
    return sorted(str(path) for path in found)


def write_files(namespace: str, files: Mapping[str, str]) -> None:
    """Lay down what C{ip netns exec} shows as C{/etc} in a network namespace."""
    directory = ETC / namespace
    while not directory.is_dir():
        with suppress(FileNotFoundError):  # another lab has just taken away the empty directory around it
            directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)


def hold(prefix: str, hosts: Iterable[str]) -> None:
    """Make the lab's run directory a place that mount namespaces can be held in (unshare(1), --mount=)."""
    place = run_directory(prefix)
    command(["mount", "--bind", str(place), str(place)])
    command(["mount", "--make-private", str(place)])
    for host in hosts:
        for kind in ("mnt", "uts"):
            (place / f"{host}.{kind}").touch()


def furnishing(prefix: str, host: str) -> list[str]:
    """The command line of a shell that is the first in a host's new namespaces."""
    place = run_directory(prefix) / host
    return [
        "unshare",
        f"--mount={place}.mnt",
        f"--uts={place}.uts",
        "--propagation=slave",
        "nsenter",
        f"--net={NETNS}/{prefix}-{host}",
        "sh",
        "-e",
    ]


def sweep(prefix: str) -> None:
    """Take away every namespace, mount and file of a lab; its processes must have ended. Any part may be missing."""
    place = run_directory(prefix)
    for mount in _mounts_below(place):
        _unmount(mount)
    for path in NETNS.glob(f"{prefix}-*"):
        if _is_mounted(path):
            _unmount(str(path))
        path.unlink(missing_ok=True)
    for path in ETC.glob(f"{prefix}-*"):
        shutil.rmtree(path)
    with suppress(OSError):  # it is not empty, or another lab was faster
        ETC.rmdir()
    if place.exists():
        shutil.rmtree(place)


def _mounts_below(place: Path) -> list[str]:
    """The mount points at and below a directory, the last mounted first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in reversed(points) if point == str(place) or point.startswith(f"{place}/")]


def _unmount(point: str) -> None:
    """Take a mount point away, also while somebody looks inside."""
    if _libc.umount2(os.fsencode(point), _MNT_DETACH):
        code = ctypes.get_errno()
        raise LabError(f"cannot unmount {point}: {os.strerror(code)}")
