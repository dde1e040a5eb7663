"""
Where faults are injected: a lab with a deployment whose disks are small and whose clocks can be put wrong.

The state directory of each service is a file system of its own, which can be
filled up; the wall clock of each service is its own, too (L{tests.lab.skew}).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rdvtwisted.errors import RDVError
from tests.lab.deployment import MASTER, PROGRAMS, Deployment, master_id, onsite_id
from tests.lab.lab import Lab
from tests.lab.namespaces import command
from tests.lab.private import clear_abandoned
from tests.lab.processes import LabProcess
from tests.lab.topology import CUSTOMER_LAN
from tests.lab.traffic import digest

PREFIX = "rdvf"
"""What the prefixes of these labs start with, before the process id."""

SITES = 2
"""Customers; at the second one's is nothing but a twin, when there is one."""

ENGINEERS = 2
"""Engineers, each with a master and a PC; the second one comes only to be in the way."""

ACCOUNTS = ("server", onsite_id(), MASTER, master_id(2))
"""Whoever has a state directory, each on a disk of its own."""

DISK_BYTES = 4 << 20
"""Size of such a disk; the server's inventory with its write-ahead log takes half a megabyte."""

GUEST = f"{CUSTOMER_LAN[200]}/{CUSTOMER_LAN.prefixlen}"
"""The address that the PC takes in the customer's LAN when it is bridged there."""

IDLE_SECONDS, ANSWER_SECONDS = 4.0, 3.0
"""Settings of the server here: how soon an idle device that has fallen silent is asked, and how long it may take."""

DEVICES_SILENCE_SECONDS = 9.0
"""Setting of the devices here: how long they believe in a silent server outside of a session."""

PAGE_BYTES = 200_000
"""Of a page that is fetched through a session: too many for a few packets that come through by luck."""

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parents[1]
_SKEW = _HERE / "skew"
_DISKS = Path("/var/tmp")
_DISK_PREFIX = "rdvdisk-"
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self) -> None:
        """Make it, before the namespaces that are to see it."""
        self.path.mkdir(parents=True)
        command(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "rdvdisk", str(self.path)])

    def fill(self) -> None:
        """Leave no byte free."""
        with open(self.path / "ballast", "wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(b"\0" * 65_536)
            with suppress(OSError):
                while True:
                    file.write(b"\0")

    def free(self) -> None:
        """Take away what L{fill} has put there."""
        (self.path / "ballast").unlink(missing_ok=True)


class Disks:
    """
    The disks of one lab.

    @ivar by_account: each disk, by whom it belongs to.
    """

    def __init__(self, prefix: str) -> None:
        self._home = _DISKS / f"{_DISK_PREFIX}{prefix}"
        self.by_account = {account: Disk(self._home / account) for account in ACCOUNTS}

    def mount(self) -> None:
        """Make all of them, having swept what there was."""
        self.remove()
        for disk in self.by_account.values():
            disk.mount()

    def remove(self) -> None:
        """Take all of them away, however many there are."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in points:
            if point.startswith(f"{self._home}/"):
                _libc.umount2(os.fsencode(point), _MNT_DETACH)
        shutil.rmtree(self._home, ignore_errors=True)


class FaultDeployment(Deployment):
    """
    Services whose state is on small disks, and whose clocks can be wrong.

    @ivar disks: by whom they belong to.
    """

    def __init__(self, lab: Lab, disks: Disks) -> None:
        self.disks = disks.by_account
        super().__init__(lab)
        (self.directory / "clocks").mkdir()
        for host in lab.topology.hosts:
            self.skew(host, 0.0)

    def state(self, name: str) -> Path:
        """The state directory of a device, by its id, or of the C{server}: on its own disk, if it has one."""
        return self.disks[name].path / "state" if name in self.disks else super().state(name)

    def skew(self, host: str, seconds: float) -> None:
        """Put the wall clock of a host's services wrong by so many seconds, at once, also if they run."""
        path = self._clock(host)
        if not path.exists():
            path.write_bytes(struct.pack("d", seconds))
        else:
            with open(path, "r+b", buffering=0) as file:  # in place: whoever has mapped it sees the change
                file.write(struct.pack("d", seconds))

    def environment(self, host: str) -> dict[str, str]:
        """What is different for a service here: its clock, and how soon the server misses who is idle."""
        # The checkout, too: the programs may have been installed from another one.
        return {
            "PYTHONPATH": f"{_SKEW}{os.pathsep}{_CHECKOUT}",
            "RDVLAB_CLOCK": str(self._clock(host)),
            "RDV_SERVER_SSH_KEEPALIVE_IDLE": str(IDLE_SECONDS),
            "RDV_SERVER_SSH_KEEPALIVE_ANSWER": str(ANSWER_SECONDS),
        }

    def start_in_terminal(self, *options: str) -> LabProcess:
        """Start the operator's plain command on the master in a terminal window: this process, as long as it runs."""
        self.forget(MASTER)
        words = [str(PROGRAMS / "rdv-master"), *self.options(MASTER), *options]
        argv = [sys.executable, "-B", str(_HERE / "terminal.py"), *words]
        process = self.lab.start("master", argv, env=self.environment("master"))
        self.master = process
        return process

    def start_copy(self, host: str, id: str, *options: str) -> LabProcess:
        """Start a device on another host by a copy of a device's files: nobody can tell the two apart."""
        copy = self.directory / f"copy-of-{id}"
        copy.mkdir(exist_ok=True)
        for path in self.state(id).iterdir():
            if path.is_file():
                shutil.copy(path, copy)
        plugin = "master-dev" if id == MASTER else "onsite-dev"
        words = self.options(id)
        words[words.index("--state-dir") + 1] = str(copy)
        words[words.index("--report") + 1] = str(copy / "reports")
        return self.twistd(host, plugin, *words, *options)

    def options(self, id: str) -> list[str]:
        """The options that both kinds of devices have."""
        return [*super().options(id), "--silence", f"{DEVICES_SILENCE_SECONDS:g}"]

    def logs(self) -> Iterator[tuple[str, Path]]:
        """The log of every service that was started, the former ones of this deployment's first."""
        for path in sorted((self.lab.directory / "logs").iterdir(), key=lambda path: path.stat().st_mtime)[-6:]:
            yield path.stem, path

    def _clock(self, host: str) -> Path:
        return self.directory / "clocks" / host


class Stage:
    """
    A lab in which a server and an onsite device run.

    @ivar lab: where faults happen.
    @ivar deployment: to whom.
    """

    def __init__(self) -> None:
        clear_abandoned(PREFIX, clear)
        self.lab = Lab(f"{PREFIX}{os.getpid()}", SITES, engineers=ENGINEERS)
        self._disks = Disks(self.lab.prefix)
        try:
            self._disks.mount()
            self.lab.up()
            self.lab.services()
            self.deployment = FaultDeployment(self.lab, self._disks)
            self.deployment.start_server()
            self.deployment.register(self.deployment.make_keys())
            self.deployment.start_onsite()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take everything away."""
        self.lab.down()
        self._disks.remove()

    # Looking

    @property
    def web(self) -> str:
        """The address of the customer's web server."""
        return self.lab.addresses["web"]

    def reaches(self) -> bool:
        """Whether the engineer's PC gets an answer of the customer's web server."""
        return self.lab.pings("pc", self.web)

    def carries(self) -> bool:
        """Whether the engineer's PC gets a page of the customer's web server that is too large for a few packets."""
        return self.lab.probe("pc", "digest", f"http://{self.web}/random/{PAGE_BYTES}") == digest(PAGE_BYTES)

    def online(self) -> dict[str, dict[str, object]]:
        """What the server says of each device that is here, by its id; nobody, if it does not run."""
        try:
            return {each["id"]: each for each in self.deployment.ask("online")}
        except RDVError:
            return {}

    def sessions(self) -> list[dict[str, object]]:
        """What the server says of each session that there is; none, if it does not run."""
        try:
            found: list[dict[str, object]] = self.deployment.ask("sessions")
        except RDVError:
            return []
        return found

    def free(self) -> bool:
        """Whether the onsite device is here, without a session, and knows it."""
        device = self.online().get(onsite_id())
        records = self.deployment.records(onsite_id())
        return device is not None and device["session"] is None and records[-1]["event"] == "online"


def clear(prefix: str) -> None:
    """Take away what a process has left that was killed."""
    Lab(prefix).down()
    Disks(prefix).remove()
