"""Three hosts in network namespaces: a master, a server and an onsite, each with a cable to the server only."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

#: What the names of our namespaces start with; a process id follows.
PREFIX = "rdvbench-"

#: The hosts, and for each cable its two ends with their addresses.
HOSTS = ("master", "server", "onsite")
CABLES = (
    (("master", "eth0", "10.201.1.2"), ("server", "eth1", "10.201.1.1")),
    (("onsite", "eth0", "10.201.2.2"), ("server", "eth2", "10.201.2.1")),
)
#: The server's address as each device sees it.
SERVER = {"master": "10.201.1.1", "onsite": "10.201.2.1"}

#: Seconds that something may take to start.
PATIENCE = 20.0

_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """Something that is measured, or is needed to measure, does not work."""


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _remove(namespace: str) -> None:
    """End what runs in a namespace of ours, and remove it."""
    for pid in _ip("netns", "pids", namespace).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    _ip("netns", "del", namespace)


def sweep() -> None:
    """Remove what benchmarks have left that did not come to their ends."""
    for name in re.findall(rf"^({PREFIX}(\d+)-\S+)", _ip("netns", "list"), re.MULTILINE):
        namespace, pid = name
        if not Path(f"/proc/{pid}").exists():
            _remove(namespace)


class Hosts:
    """The hosts while they are there. Needs root; touches no other network configuration of this machine."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._names = {host: f"{PREFIX}{os.getpid()}-{host}" for host in HOSTS}

    def __enter__(self) -> Hosts:
        sweep()
        try:
            for host in HOSTS:
                _ip("netns", "add", self._names[host])
                self.ip(host, "link set lo up")
            for near, far in CABLES:
                ends = [f"{name} netns {self._names[host]}".split() for host, name, _ in (near, far)]
                _ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
            for host, name, address in (end for cable in CABLES for end in cable):
                self.ip(host, f"address add {address}/24 dev {name}")
                self.ip(host, f"link set {name} up")
            self.run("server", ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        there = _ip("netns", "list").split()
        for namespace in self._names.values():
            if namespace in there:
                _remove(namespace)
        for process in self._processes:
            process.wait()

    def ip(self, host: str, command: str) -> None:
        """Run an C{ip} command for a host."""
        _ip("-n", self._names[host], *command.split())

    def run(self, host: str, command: Sequence[str], timeout: float = PATIENCE) -> str:
        """
        What a program prints that runs in a host until it ends.

        @raise BenchmarkError: it fails, or takes longer than C{timeout} seconds.
        """
        try:
            done = subprocess.run(
                self._inside(host, command), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{command[0]} takes more than {timeout:.0f} s") from None
        if done.returncode:
            raise BenchmarkError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program in a host; it ends with this process at the latest."""
        process = subprocess.Popen(
            self._inside(host, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._processes.append(process)
        return process

    def said(self, process: subprocess.Popen[bytes], words: str) -> None:
        """
        Wait until a program has said these words.

        @raise BenchmarkError: it does not.
        """
        assert process.stdout is not None
        heard, end = b"", time.monotonic() + PATIENCE
        while words.encode() not in heard:
            if not select.select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
                raise BenchmarkError(f"{process.args!r} does not say {words!r} but {heard.decode()!r}")
            more = os.read(process.stdout.fileno(), 4096)
            if not more:
                raise BenchmarkError(f"{process.args!r} has ended, saying {heard.decode()!r}")
            heard += more

    def until_answered(self, host: str, address: str) -> None:
        """
        Wait until C{address} answers a ping.

        @raise BenchmarkError: it does not.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.run(host, ["ping", "-c", "1", "-W", "1", address])
            except BenchmarkError:
                if time.monotonic() > end:
                    raise BenchmarkError(f"{address} does not answer") from None
            else:
                return

    def cpu(self, apart: subprocess.Popen[bytes]) -> float:
        """Seconds of CPU that all processes in the hosts, apart from one, have used so far."""
        pids = " ".join(_ip("netns", "pids", name) for name in self._names.values()).split()
        seconds = 0.0
        for pid in pids:
            if int(pid) == apart.pid:
                continue
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            seconds += (int(fields[11]) + int(fields[12])) / _TICKS
        return seconds

    def _inside(self, host: str, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._names[host], "setpriv", "--pdeathsig", "KILL", "--", *command]
