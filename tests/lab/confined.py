"""
Services that run as their systemd units let them: another user, the units' capabilities and system calls only, a file
system that cannot be written. There is no systemd in a lab; this is what mount(8), setpriv(1) and libseccomp do of it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.lab.deployment import PROGRAMS, Deployment
from tests.lab.processes import LabProcess
from tests.source import CHECKOUT
from tests.unitfile import Section, service, words

USERS = {"rdv-server": 4711, "rdv-device": 4712}
"""Numbers for the users that the units name."""

UNITS = {"rdv-server": "rdv-server.service", "onsite-dev": "onsite-dev.service", "master-dev": "master-dev@.service"}
"""The unit of each plugin."""

_LAUNCHER = str(Path(__file__).parent / "seccomp.py")


HOME = "/var/lib/rdvtwisted"
"""Where the units have their state."""


class ConfinedDeployment(Deployment):
    """Starts each service as its unit does."""

    def twistd(self, host: str, *arguments: str) -> LabProcess:
        """Start a plugin within what its unit allows; its log is its output."""
        unit = service(UNITS[arguments[0]])
        user = USERS[unit["User"][0]]
        state = arguments[arguments.index("--state-dir") + 1]
        twistd = [str(PROGRAMS / "twistd"), "--nodaemon", "--pidfile=", *arguments]
        confined = [*_setpriv(unit, user), sys.executable, _LAUNCHER, ",".join(sorted(allowed(unit))), *twistd]
        command = [word.replace(str(self.directory), HOME) for word in confined]
        script = "\n".join([*self._mounts(unit, user, state), "exec " + shlex.join(command)])
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/", **self.environment(host)}
        return self.lab.start(host, ["unshare", "--mount", "sh", "-ec", script], env=environment)

    def _mounts(self, unit: Section, user: int, state: str) -> Iterator[str]:
        """Shell commands that make the file system what the unit has it be."""
        yield "mount --make-rprivate /"
        # All state directories, and the reports beside them, which are the lab's and not the units'.
        yield f"mkdir -p -m 700 {state}; chown -R {user}:{user} {state}; chmod 1777 {self.directory}"
        yield f"mount -t tmpfs -o mode=755 tmpfs /var/lib; mkdir {HOME}; mount --bind {self.directory} {HOME}"
        for name in words(unit, "RuntimeDirectory"):
            path = f"/run/{name}"
            yield f"mkdir -p -m 700 {path}; chown -R {user}:{user} {path}; mount --bind {path} {path}"
        if unit.get("ProtectHome") == ["yes"]:
            for home in ("/root", "/home"):
                yield from _hide(home, "755")
        if unit.get("ProtectKernelTunables") == ["yes"]:
            yield "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"
        if unit.get("ProtectSystem") == ["strict"]:
            yield from _hide("/tmp", "1777")
            yield "if mountpoint -q /run; then mount -o remount,bind,ro /run; fi"
            yield "mount -o remount,bind,ro /"
        yield f"cd {HOME}"


def _hide(directory: str, mode: str) -> Iterator[str]:
    """Put something empty over a directory, but for what these tests are run from, where that is in it."""
    needed = {Path(sys.base_prefix), Path(sys.prefix), CHECKOUT}
    kept = [path for path in sorted(needed) if Path(directory) in path.parents and not needed & set(path.parents)]
    for number, path in enumerate(kept, 3):
        yield f"exec {number}<{path}"
    yield f"mount -t tmpfs -o mode={mode} tmpfs {directory}"
    for number, path in enumerate(kept, 3):
        yield f"mkdir -p {path}; mount --no-canonicalize --bind /proc/self/fd/{number} {path}; exec {number}<&-"
        yield f"mount -o remount,bind,ro {path}"


def _setpriv(unit: Section, user: int) -> list[str]:
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in sorted(words(unit, "CapabilityBoundingSet")))
    lent = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in sorted(words(unit, "AmbientCapabilities")))
    return [
        "setpriv",
        f"--reuid={user}",
        f"--regid={user}",
        "--clear-groups",
        f"--bounding-set=-all,{kept}",
        f"--inh-caps=-all,{lent}",
        f"--ambient-caps=-all,{lent}",
        *(["--no-new-privs"] if unit.get("NoNewPrivileges") == ["yes"] else []),
    ]


def allowed(unit: Section) -> frozenset[str]:
    """The system calls that a unit allows, group by group in their order (systemd.exec(5), SystemCallFilter=)."""
    found: set[str] = set()
    for value in unit["SystemCallFilter"]:
        taken = value.startswith("~")
        names = set[str]().union(*(_calls(word) for word in value.removeprefix("~").split()))
        found = found - names if taken else found | names
    return frozenset(found)


@cache
def _calls(name: str) -> frozenset[str]:
    """A system call, or all of a group's."""
    if not name.startswith("@"):
        return frozenset([name])
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = {line.strip() for line in lines} - {name, ""}
    return frozenset[str]().union(*(_calls(word) for word in words if not word.startswith("#")))


def capabilities(pid: int) -> dict[str, int]:
    """What a process may, by the words of C{/proc/PID/status}, sets as numbers; and its user."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    sets = {key: int(status[key][0], 16) for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return {**sets, "NoNewPrivs": int(status["NoNewPrivs"][0]), "Uid": int(status["Uid"][0])}


def writable(pid: int, *paths: str) -> list[str]:
    """Which of these paths, as a process sees them, are on a file system that can be written."""
    root = f"/proc/{pid}/root"
    return [path for path in paths if not os.statvfs(root + path).f_flag & os.ST_RDONLY]
