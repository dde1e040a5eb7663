"""
Many devices whose server is restarted: how soon they are back, and what that costs the server.

The server is the real one, in a process of its own on 127.0.0.1; the devices
are the real onsite service and the real SSH client, each with its own key and
its own address, in two other processes. First they all come; then the server
gets SIGTERM, or SIGKILL, and is started again at once. What is measured counts
from when its door is open again.

The rivals are the same server without limit on connections that log in, and
devices that do as if each of them were alone; what counts are the ratios of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from attrs import asdict, define, field, frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.herd_players import name, play
from benchmarks.herd_strangers import come
from benchmarks.hosts import BenchmarkError
from rdvtwisted.adapters.store.inventory import open_inventory
from rdvtwisted.config import load, placed
from rdvtwisted.values import Device, PublicKey, Role

#: Processes that the devices share.
PLAYERS = 2
#: Seconds between two looks, and at most until all devices are back.
LOOK_SECONDS = 0.02
PATIENCE = 90.0
#: Seconds for the devices to do what they do a minute after they have come.
REST_SECONDS = 2.0
#: Connections that a server without limit has room for.
UNLIMITED = "65535"

_TICKS = os.sysconf("SC_CLK_TCK")
_ARRIVED = re.compile(rb" (\w+) \(onsite\) arrived from ")
_OPEN = re.compile(rb"RDV server .*: SSH on port ")


@frozen
class Rival:
    """One way to have devices and a server."""

    #: The server limits connections that log in; the devices listen to what it says of spreading.
    limit: bool
    spread: bool


RIVALS = {
    "ours": Rival(limit=True, spread=True),
    "no limit": Rival(limit=False, spread=True),
    "no spread": Rival(limit=True, spread=False),
    "neither": Rival(limit=False, spread=False),
}
SIGNALS = {"term": signal.SIGTERM, "kill": signal.SIGKILL}


@frozen
class Figures:
    """What one restart came to."""

    #: Seconds from the signal until the door was open again.
    down: float
    #: Seconds from then until so many of the devices were listed again.
    half: float
    most: float
    all: float
    #: Tries to connect, of which the last one succeeded, per device.
    tries: float
    #: CPU milliseconds of the server per device.
    cpu: float
    #: Connections at a time that were not listed yet, at most.
    entering: int
    #: Lines that the server has logged.
    lines: int


@define(eq=False)
class Server:
    """The server's process, and its log."""

    port: int
    folder: Path
    limit: bool
    process: subprocess.Popen[bytes] = field(init=False)
    listed: set[bytes] = field(factory=set, init=False)
    lines: int = field(default=0, init=False)
    open: bool = field(default=False, init=False)
    _log: Path = field(init=False)
    _read: int = field(default=0, init=False)
    _base_cpu: float = field(default=0.0, init=False)
    _base_files: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it, and return when its door is open."""
        self._log = self.folder / "server.log"
        self._read, self.lines, self.open = 0, 0, False
        self.listed.clear()
        settings = {
            "SSH_ADDRESS": "127.0.0.1",
            "SSH_PORT": str(self.port),
            "TLS_ENABLED": "no",
            "SESSION_GLUE": "no",
        }
        if not self.limit:
            settings |= dict.fromkeys(("SSH_MAX_UNAUTHENTICATED", "SSH_MAX_UNAUTHENTICATED_PER_ADDRESS"), UNLIMITED)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("twistd")),
                    *("--nodaemon", "--pidfile=", "rdv-server", "--state-dir", str(self.folder / "state")),
                ],
                env={**os.environ, **{f"RDV_SERVER_{key}": value for key, value in settings.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + PATIENCE
        while not self.open:
            self.look()
            if self.process.poll() is not None or time.monotonic() > until:
                raise BenchmarkError(f"the server does not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(LOOK_SECONDS / 4)
        self._base_cpu, self._base_files = self._cpu(), self._files()

    def look(self) -> None:
        """Read what it has logged since."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        self.lines += text.count(b"\n")
        self.listed.update(_ARRIVED.findall(text))
        self.open = self.open or _OPEN.search(text) is not None

    def stop(self, how: signal.Signals) -> None:
        """End it, and return when it has ended."""
        self.process.send_signal(how)
        self.process.wait()

    @property
    def cpu(self) -> float:
        """CPU seconds since its door was open."""
        return self._cpu() - self._base_cpu

    @property
    def entering(self) -> int:
        """Connections that are not listed (yet)."""
        return max(0, self._files() - self._base_files - len(self.listed))

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@define(eq=False)
class Devices:
    """The processes of the devices, and what they tell."""

    processes: list[subprocess.Popen[bytes]]
    tries: int = 0
    failures: Counter[str] = field(factory=Counter)
    _rests: dict[int, bytes] = field(factory=dict, init=False)

    def look(self, seconds: float) -> None:
        """Read what they tell for so long."""
        until = time.monotonic() + seconds
        pipes = [process.stdout for process in self.processes if process.stdout is not None]
        while (left := until - time.monotonic()) > 0:
            for pipe in select.select(pipes, [], [], left)[0]:
                text = os.read(pipe.fileno(), 1 << 16)
                if not text:
                    raise BenchmarkError("the devices have ended")
                *lines, self._rests[pipe.fileno()] = (self._rests.get(pipe.fileno(), b"") + text).split(b"\n")
                for line in lines:
                    word, _, reason = line.decode("utf-8", "replace").partition(" ")
                    if word == "try":
                        self.tries += 1
                    else:
                        self.failures[reason] += 1

    def pass_a_minute(self) -> None:
        """Have the devices do what they do a minute after they have come."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

    def forget(self) -> None:
        """Count anew."""
        self.tries = 0
        self.failures.clear()


@contextmanager
def _devices(count: int, port: int, folder: Path, *, spread: bool) -> Iterator[Devices]:
    bounds = [count * each // PLAYERS for each in range(PLAYERS + 1)]
    processes = []
    try:
        for first, behind in pairwise(bounds):
            words = map(str, (port, folder, first, behind - first, int(spread)))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.herd", "--part", *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        yield Devices(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def prepare(folder: Path, count: int) -> None:
    """Make the devices' keys, and an inventory that has them."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    inventory = open_inventory(placed(load("", {}, {"state_directory": str(state)}), {}, True), create=True)
    with (folder / "keys").open("wb") as keys:
        for number in range(count):
            key = Ed25519PrivateKey.generate()
            keys.write(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
            line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
            inventory.add(Device(name(number), Role.ONSITE, (PublicKey.from_line(line),)))
    inventory.close()


def _come(server: Server, devices: Devices, count: int, down: float = 0.0) -> Figures:
    """Wait until all devices are listed at a server whose door was opened just now."""
    opened = time.monotonic()
    marks: dict[float, float] = {}
    entering = 0
    while True:
        devices.look(LOOK_SECONDS)
        server.look()
        entering = max(entering, server.entering)
        now = time.monotonic() - opened
        for part in (0.5, 0.95, 1.0):
            if len(server.listed) >= part * count:
                marks.setdefault(part, now)
        if len(server.listed) == count:
            break
        if now > PATIENCE:
            raise BenchmarkError(f"only {len(server.listed)} of {count} devices are back after {now:.0f} s")
    return Figures(
        down=down,
        half=marks[0.5],
        most=marks[0.95],
        all=marks[1.0],
        tries=devices.tries / count,
        cpu=server.cpu / count * 1000,
        entering=entering,
        lines=server.lines,
    )


def measure(rival: Rival, count: int, hows: list[str], folder: Path, *, verbose: bool) -> dict[str, Figures]:
    """Let so many devices come, and restart their server in each of these ways."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(port, folder, rival.limit)
    server.start()
    try:
        with _devices(count, port, folder, spread=rival.spread) as devices:
            _come(server, devices, count)
            found = {}
            for how in hows:
                devices.pass_a_minute()
                devices.look(REST_SECONDS)
                devices.forget()
                signalled = time.monotonic()
                server.stop(SIGNALS[how])
                server.start()
                found[how] = _come(server, devices, count, time.monotonic() - signalled)
                if verbose:
                    for reason, times in devices.failures.most_common(5):
                        sys.stderr.write(f"{times:>6} {reason}\n")
    finally:
        server.stop(signal.SIGKILL)
    return found


def shed(count: int, folder: Path) -> dict[str, float]:
    """
    What connections cost the server that come as far as the key exchange.

    @return: its CPU milliseconds for each that waits for the server's part, and for each that has closed before.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(port, folder, limit=True)
    server.start()
    found = {}
    try:
        for manners in ("staying", "gone"):
            before = server.cpu
            come(port, 0, count, stay=manners == "staying")
            while server.entering:
                time.sleep(LOOK_SECONDS)
            found[manners] = (server.cpu - before) / count * 1000
    finally:
        server.stop(signal.SIGKILL)
    return found


_COLUMNS = ("down", "half", "most", "all", "tries", "cpu", "entering", "lines")
_HEADS = ("down s", "half s", "95 % s", "all s", "tries", "CPU ms", "entering", "lines")


def report(found: dict[str, dict[str, Figures]], strangers: dict[str, float]) -> str:
    """The figures as a table, and their ratios to ours."""
    lines = [" " * 18 + "".join(f"{head:>9}" for head in _HEADS)]
    for how in SIGNALS:
        for rival, figures in found.items():
            if how in figures:
                values = asdict(figures[how])
                cells = (values[column] for column in _COLUMNS)
                texts = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
                lines.append(f"{how + ', ' + rival:<18}" + "".join(f"{text:>9}" for text in texts))
    for how, own in found.get("ours", {}).items():
        for rival, figures in found.items():
            if rival != "ours" and how in figures:
                each = figures[how]
                lines.append(
                    f"ratio of ours to {rival} ({how}): {own.most / each.most:.2f} of the time for 95 %,"
                    f" {own.tries / each.tries:.2f} of the tries, {own.cpu / each.cpu:.2f} of the CPU,"
                    f" {own.entering / max(1, each.entering):.2f} of the connections at a time"
                )
    gone, staying = strangers["gone"], strangers["staying"]
    lines.append(
        f"a key exchange costs the server {staying:.2f} ms, and {gone:.2f} ms with who has closed before:"
        f" {gone / staying:.2f} of it"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="script/bench herd", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--devices", type=int, default=500, help="how many there are [default: 500]")
    parser.add_argument("--rivals", default="ours,neither", help="of: " + ", ".join(RIVALS) + " [default: %(default)s]")
    parser.add_argument("--how", default="term,kill", help="the signals, in their order [default: %(default)s]")
    parser.add_argument("--verbose", action="store_true", help="tell why tries have failed")
    parser.add_argument("--part", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        port, folder, first, count, spread = options.part
        play(int(port), Path(folder), int(first), int(count), spread=spread == "1")
        return
    found = {}
    for rival in options.rivals.split(","):
        with tempfile.TemporaryDirectory(prefix="rdv-herd-") as folder:
            prepare(Path(folder), options.devices)
            found[rival] = measure(
                RIVALS[rival], options.devices, options.how.split(","), Path(folder), verbose=options.verbose
            )
    with tempfile.TemporaryDirectory(prefix="rdv-herd-") as folder:
        prepare(Path(folder), 0)
        strangers = shed(options.devices, Path(folder))
    if options.json:
        figures = {rival: {how: asdict(each) for how, each in ways.items()} for rival, ways in found.items()}
        sys.stdout.write(json.dumps({"restarts": figures, "exchange_ms": strangers}) + "\n")
    else:
        sys.stdout.write(report(found, strangers) + "\n")


if __name__ == "__main__":
    main()
