"""
Processes of a lab: started in a host, found again after a crash, ended.

A process belongs to a lab if the lab recorded it (process id and start time),
if it runs in one of the lab's network namespaces, or if it inherited the lab's
mark in its environment. Nothing else is ever signalled.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "RDVLAB"
"""The environment variable that says which lab a process was started in."""

GRACE = 0.4
"""Seconds between asking a process to end and ending it."""

_POLL = 0.01
"""Seconds between two looks at something that cannot be waited for."""

_LISTEN = "0A"
"""TCP_LISTEN as /proc/net/tcp prints it (include/net/tcp_states.h)."""


class LabError(Exception):
    """The lab could not do what was asked; the text is for a person."""


def eventually(condition: Callable[[], object], timeout: float, what: str) -> None:
    """
    Wait until C{condition()} is true.

    @param timeout: seconds, after which L{LabError} names C{what}.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout:g} s")
        time.sleep(_POLL)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22); L{None} if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])


class LabProcess:
    """
    A program that runs in a host of the lab until it ends, is stopped, or the
    lab is taken down.

    @ivar pid: its process id on this machine; it leads a session of its own.
    @ivar log: the file with its standard output and error.
    """

    def __init__(self, host: str, popen: subprocess.Popen[bytes], log: Path, record: Path) -> None:
        self.host = host
        self.pid = popen.pid
        self.log = log
        self._popen = popen
        self._record = record

    def poll(self) -> int | None:
        """Its exit status (negative: a signal's number), or L{None} while it runs."""
        status = self._popen.poll()
        if status is not None:
            self._record.unlink(missing_ok=True)
        return status

    def wait(self, timeout: float) -> int:
        """
        Its exit status, once it has ended.

        @raise LabError: if it still runs after C{timeout} seconds.
        """
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"process {self.pid} in {self.host} still runs after {timeout:g} s") from None
        status = self.poll()
        assert status is not None
        return status

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended is left alone."""
        if self.poll() is None:
            self._popen.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 5.0) -> int:
        """Ask it to end with a signal and return its exit status, having killed it if C{timeout} seconds pass."""
        self.send(number)
        try:
            return self.wait(timeout)
        except LabError:
            self.send(signal.SIGKILL)
            return self.wait(timeout)

    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_output(self, text: str, timeout: float = 5.0) -> None:
        """
        Wait until it has written C{text}.

        @raise LabError: if it ends first, or time is up; with the end of its log.
        """
        self._wait(lambda: text in self.output(), timeout, f"to write {text!r}")

    def wait_listening(self, *ports: int, timeout: float = 5.0) -> None:
        """
        Wait until something in its host listens on every one of these TCP ports.

        @raise LabError: if it ends first, or time is up; with the end of its log.
        """
        self._wait(
            lambda: set(ports) <= _listening(self.pid),
            timeout,
            "to listen on " + ", ".join(str(port) for port in ports),
        )

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait for something that the process has to do while it lives."""
        subject = f"waiting for process {self.pid} in {self.host} {what}"

        def done() -> bool:
            if condition():
                return True
            status = self.poll()
            if status is not None:
                raise LabError(f"{subject}: it ended with status {status}\n{tail(self.log)}")
            return False

        try:
            eventually(done, timeout, subject)
        except LabError as error:
            if self.poll() is not None:
                raise
            raise LabError(f"{error}\n{tail(self.log)}") from None


def _listening(pid: int) -> set[int]:
    """The TCP ports that are listened on where a process runs."""
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError, OSError):
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a file, indented."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join("    " + line for line in text.splitlines()[-lines:]) or "    (empty log)"


@dataclass(frozen=True)
class Record:
    """What a lab remembers of a process it started."""

    pid: int
    start: int
    host: str
    command: str

    def save(self, directory: Path) -> Path:
        """Write it down, so that it is found after a crash; the file it is in."""
        path = directory / str(self.pid)
        path.write_text(json.dumps(self.__dict__))
        return path

    @classmethod
    def load_all(cls, directory: Path) -> list[Record]:
        """Every record of a process that still runs, whatever else lies about."""
        records = []
        for path in directory.glob("*") if directory.is_dir() else ():
            try:
                record = cls(**json.loads(path.read_text()))
            except (ValueError, TypeError, FileNotFoundError):
                continue  # cut short by a crash: its namespace still gives the process away
            if start_time(record.pid) == record.start:
                records.append(record)
        return records


@dataclass(frozen=True)
class Member:
    """A running process that belongs to a lab; C{namespace} is its network namespace's inode."""

    pid: int
    start: int
    namespace: int
    command: str


def members(namespaces: Iterable[int], mark: str, recorded: Iterable[Record]) -> list[Member]:
    """
    Every process of a lab.

    @param namespaces: the inodes of the lab's network namespaces.
    @param mark: the value of L{MARK} in its processes' environment.
    """
    inodes = set(namespaces)
    known = {(record.pid, record.start) for record in recorded}
    wanted = f"{MARK}={mark}".encode()
    spared = set(_ancestry())
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spared:
            continue
        pid = int(entry)
        try:
            namespace = os.stat(f"/proc/{pid}/ns/net").st_ino
            start = start_time(pid)
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or is a zombie, which holds nothing
        if start is not None and (namespace in inodes or (pid, start) in known or wanted in environment):
            found.append(Member(pid, start, namespace, command))
    return sorted(found, key=lambda member: member.pid)


def _ancestry() -> Iterator[int]:
    """This process and those it descends from, which a lab never ends."""
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            return


def end(found: Iterable[Member], grace: float = GRACE) -> None:
    """End these processes: SIGTERM, up to C{grace} seconds of patience, SIGKILL; returns when all are gone."""
    waiting: dict[int, Member] = {}
    for member in found:
        try:
            descriptor = os.pidfd_open(member.pid)
        except ProcessLookupError:
            continue
        if start_time(member.pid) == member.start:
            waiting[descriptor] = member
        else:
            os.close(descriptor)  # the number has gone to another process
    try:
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for descriptor in waiting:
                _send(descriptor, number)
            _await_ends(waiting, patience)
        if waiting:
            pids = ", ".join(str(member.pid) for member in waiting.values())
            raise LabError(f"processes {pids} do not end, not even by SIGKILL")
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def _send(descriptor: int, number: signal.Signals) -> None:
    """Signal a process that may have ended already."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass


def _await_ends(waiting: dict[int, Member], patience: float) -> None:
    """Take every process off the list that ends within C{patience} seconds."""
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + patience
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            os.close(descriptor)
            del waiting[descriptor]
