"""A stock vtund as an old server runs one for each device."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from ipaddress import IPv4Network
from pathlib import Path

from tests.lab.processes import LabError, eventually

START_SECONDS = 60.0
"""How long vtund may take until it listens; the original waits for ever."""

END_SECONDS = 1.0
"""How long it, or its child, may take to end before it is killed."""

KINDS = {"L3": ("tun_to_", "tun"), "L2": ("tap_to_", "ether"), "L3_multi": ("tunM_to_", "tun")}
"""By mode, what the names of interfaces start with, and what vtund calls the kind of tunnel."""

PROGRAM = "vtund"

_PROGRAMS = "  ppp /usr/sbin/pppd;\n  ifconfig /sbin/ifconfig;\n  route /sbin/route;\n  ip /sbin/ip;\n"

_LISTEN = "0A"


def options(**settings: str) -> str:
    """The block of a configuration that is the same on either side."""
    return "options {\n" + "".join(f"  {name} {value};\n" for name, value in settings.items()) + _PROGRAMS + "}\n"


class Vtund:
    """
    The tunnel server of one device; it can be started again once it is stopped.

    @ivar mode: what the next start makes of it.
    """

    def __init__(self, directory: Path, id: str, mode: str, network: IPv4Network, port: int) -> None:
        self.directory = directory
        self.id = id
        self.mode = mode
        self.network = network
        self.port = port
        self.secret = f"_{id}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._process is not None

    def start(self) -> bool:
        """Run it; whether it listens in time."""
        path = self.directory / f"vtund-tundev{self.id}-server.conf"
        path.write_text(self._configuration())
        # In the foreground, which no client notices, so that it is known by its number and not by a file.
        self._process = subprocess.Popen([PROGRAM, "-n", "-f", str(path), "-s"])
        try:
            eventually(lambda: self.port in ports_in_use(_LISTEN), START_SECONDS, "vtund to listen")
        except LabError:
            self.stop()
            return False
        return True

    def stop(self) -> None:
        """End it, its children first."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for pid in _children(process.pid):
            _end(pid)
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _configuration(self) -> str:
        prefix, kind = KINDS[self.mode]
        addresses = f"%% {self.network[1]} pointopoint {self.network[2]} mtu 1450"
        reports = self.directory / "reports"
        return (
            # The original names the interface, over which Debian's vtund stumbles while any TUN interface is there.
            options(port=str(self.port), bindaddr="{ addr 127.0.0.1; }", syslog="daemon")
            + f"tundev{self.id} {{\n"
            + f"  device {prefix}{self.id};\n  passwd {self.secret};\n  type {kind};\n  proto tcp;\n"
            + "  compress lzo:9;\n  encrypt no;\n  keepalive yes;\n"
            + f'  up {{\n    ifconfig "{addresses}";\n    program "echo {self.id} %% up >{reports}";\n  }};\n'
            + f'  down {{\n    program "echo {self.id} %% down >{reports}";\n  }};\n'
            + "}\n"
        )


def ports_in_use(state: str | None = None) -> set[int]:
    """The TCP ports of this host that anything is bound to, or is in one state (as /proc/net/tcp has it)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if state in (None, row[3])}


def _children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(facts[1]) == parent and facts[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def _end(pid: int) -> None:
    """Have a process end that is not a child of ours."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_SECONDS
        try:
            os.kill(pid, number)
            while time.monotonic() < deadline and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] != "Z":
                time.sleep(0.01)
        except OSError:
            return
