"""The RDV server and its devices, running in a lab as twistd plugins, as on real machines."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rdvtwisted.adapters.control_client import ControlClient
from tests.lab.lab import Lab
from tests.lab.processes import LabError, LabProcess, eventually
from tests.lab.topology import site_suffix

MASTER = "rpi1101"
EXTREMITY = "eth1"

DOORS = {"ssh": 22, "tls": 443}
"""The server's doors and their ports; a device uses one of them."""

START_SECONDS = 60.0
"""How long a program may take to start: Python, its imports, and keys on a slow machine that others use, too."""

SESSION_SECONDS = 20.0
"""How long a session may take from the start of the master's program until it is up."""

END_SECONDS = 5.0
"""How long after its end anything of a session may be left (design promise)."""

PROGRAMS = Path(sys.executable).parent
"""The virtualenv's C{bin}, which has C{twistd} and C{rdvctl}."""


def onsite_id(site: int = 1) -> str:
    """The id of the onsite device at a site: rpi1100, then rpi1102 and on."""
    return "rpi1100" if site == 1 else f"rpi{1100 + site}"


def master_id(engineer: int = 1) -> str:
    """The id of an engineer's master device: rpi1101, then rpi1202 and on."""
    return MASTER if engineer == 1 else f"rpi{1200 + engineer}"


class Deployment:
    """
    Services in a lab that is up, each with a state directory of its own, and a
    log and reports in files that survive until the lab is down.

    @ivar door: which of L{DOORS} devices go through that are started from now on.
    @ivar server: the server's process; L{None} before it is started.
    @ivar onsites: the onsite devices' processes, by site number.
    @ivar masters: the processes of sessions' masters, by the engineer's number.
    """

    def __init__(self, lab: Lab, door: str = "ssh") -> None:
        self.lab = lab
        self.door = door
        self.directory = lab.directory / "deployment"
        self.directory.mkdir(exist_ok=True)
        self.server: LabProcess | None = None
        self.onsites: dict[int, LabProcess] = {}
        self.masters: dict[int, LabProcess] = {}

    @property
    def master(self) -> LabProcess | None:
        """The first engineer's master; L{None} before there is one."""
        return self.masters.get(1)

    @master.setter
    def master(self, process: LabProcess) -> None:
        self.masters[1] = process

    # Before anything runs

    def make_keys(self) -> dict[str, str]:
        """Have every device make its key; the public halves (C{ALGORITHM BASE64}) by device id."""
        keys = {}
        for host, id in self._devices():
            plugin = "master-dev" if host.startswith("master") else "onsite-dev"
            self._program(host, "twistd", plugin, "--username", id, "--make-key", "--state-dir", str(self.state(id)))
            keys[id] = " ".join((self.state(id) / "identity.pub").read_text().split()[:2])
        return keys

    def register(self, keys: dict[str, str]) -> None:
        """Register devices with the server, by the administrator's command; every master may use every onsite."""
        masters = {id for host, id in self._devices() if host.startswith("master")}
        for id, key in keys.items():
            self.rdvctl("device", "add", id, "--role", "master" if id in masters else "onsite", "--key", key)
        self.rdvctl("access", "allow", "*", "*")

    def rdvctl(self, *arguments: str) -> str:
        """
        What the administrator's command prints on the server.

        @raise LabError: if it fails; with its words.
        """
        return self._program("server", "rdvctl", "--state-dir", str(self.state("server")), *arguments)

    def ask(self, verb: str, **arguments: object) -> Any:
        """
        What the running server answers at its control socket; the same as from C{rdvctl --json}, without a process.

        @raise rdvtwisted.errors.RDVError: it is not running, or does not do it.
        """
        return ControlClient(str(self.state("server") / "control.sock")).ask(verb, **arguments)

    # Running

    def environment(self, host: str) -> dict[str, str]:
        """What the services on a host find in their environment beside this process's."""
        return {}

    def twistd(self, host: str, *arguments: str) -> LabProcess:
        """Start a plugin in the foreground; its log is its output."""
        argv = [str(PROGRAMS / "twistd"), "--nodaemon", "--pidfile=", *arguments]
        return self.lab.start(host, argv, env=self.environment(host))

    def begin_server(self) -> LabProcess:
        """Start the server; does not wait for it."""
        self.server = self.twistd("server", "rdv-server", "--state-dir", str(self.state("server")))
        return self.server

    def start_server(self) -> LabProcess:
        """Start the server; returns when both doors are open."""
        server = self.begin_server()
        server.wait_listening(*DOORS.values(), timeout=START_SECONDS)
        return server

    def begin_onsite(self, site: int = 1, backends: str | None = None) -> LabProcess:
        """
        Start the onsite device of a site; does not wait for it.

        @param backends: names of tunnel backends that it offers, with commas between; all if not given.
        """
        offer = ["--backends", backends] if backends is not None else []
        options = [*self.options(onsite_id(site)), "--interface", "eth0", *offer]
        process = self.twistd(f"onsite{site_suffix(site)}", "onsite-dev", *options)
        self.onsites[site] = process
        return process

    def start_onsite(self, site: int = 1, backends: str | None = None) -> LabProcess:
        """As L{begin_onsite}, and returns when it waits for a master."""
        known = len(self.records(onsite_id(site)))
        process = self.begin_onsite(site, backends)
        self.wait_record(process, onsite_id(site), "online", START_SECONDS, after=known)
        return process

    def start_master(
        self,
        mode: str = "L3",
        backend: str | None = None,
        site: int = 1,
        options: Sequence[str] = (),
        engineer: int = 1,
        resume: bool = False,
    ) -> LabProcess:
        """
        Start a session from an engineer's master to the onsite device of a site; does not wait for it.

        @param resume: the session is to be had again when it is lost, instead of the master's end.
        """
        id = master_id(engineer)
        choice = ["--backend", backend] if backend is not None else []
        where = ["--onsite", onsite_id(site), "--tunnel-mode", mode, "--extremity", EXTREMITY]
        self.forget(id)
        if not resume:
            options = (*options, "--no-resume")
        host = f"master{site_suffix(engineer)}"
        process = self.twistd(host, "master-dev", *self.options(id), *where, *choice, *options)
        self.masters[engineer] = process
        return process

    def start_command(self, *options: str) -> LabProcess:
        """Start the operator's plain command on the master, with these options only besides what every device needs."""
        self.forget(MASTER)
        argv = [str(PROGRAMS / "rdv-master"), *self.options(MASTER), *options]
        process = self.lab.start("master", argv, env=self.environment("master"))
        self.masters[1] = process
        return process

    def wait_session(self, engineer: int = 1) -> dict[str, object]:
        """The master's record of a session that is up: backend, mode, join, session_s, kex and more."""
        return self.wait_record(self.masters[engineer], master_id(engineer), "up", SESSION_SECONDS)

    def end_session(self, engineer: int = 1) -> int:
        """Interrupt an engineer's master as Ctrl-C does; its exit status."""
        return self.masters[engineer].stop(signal.SIGINT, timeout=END_SECONDS)

    # Looking

    def records(self, id: str) -> list[dict[str, object]]:
        """What a device has reported so far, oldest first; a record that is half-written is not there yet."""
        try:
            text = self._report(id).read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_record(
        self, process: LabProcess, id: str, event: str, timeout: float, after: int = 0
    ) -> dict[str, object]:
        """
        The first record of an event, at position C{after} or later, once a device has made it.

        @raise LabError: if its process ends first, or time is up; the logs say more.
        """
        found: list[dict[str, object]] = []
        what = f"{id} to report {event!r}"

        def look() -> bool:
            ended = process.poll()  # before the records: what it wrote last counts
            found[:] = [record for record in self.records(id)[after:] if record["event"] == event]
            if not found and ended is not None:
                raise LabError(f"waiting for {what}: it ended with status {ended}")
            return bool(found)

        eventually(look, timeout, f"waiting for {what}")
        return found[0]

    def logs(self) -> Iterator[tuple[str, Path]]:
        """The log of every service that was started, by its host."""
        for process in (self.server, *self.onsites.values(), *self.masters.values()):
            if process is not None:
                yield process.host, process.log

    def state(self, name: str) -> Path:
        """The state directory of a device, by its id, or of the C{server}."""
        return self.directory / name

    def options(self, id: str) -> list[str]:
        """The options that both kinds of devices have."""
        server = self.lab.addresses["server"]
        door = ["--with-tls"] if self.door == "tls" else []
        files = ["--state-dir", str(self.state(id)), "--report", str(self._report(id))]
        return ["--username", id, "--rdv-server", server, *door, *files]

    def forget(self, id: str) -> None:
        """Begin the reports of a device anew."""
        self._report(id).unlink(missing_ok=True)

    # Inside

    def _devices(self) -> Iterator[tuple[str, str]]:
        """The host and id of every device."""
        for site in range(1, len(self.lab.topology.lans) + 1):
            yield f"onsite{site_suffix(site)}", onsite_id(site)
        for engineer in range(1, self.lab.topology.engineers + 1):
            yield f"master{site_suffix(engineer)}", master_id(engineer)

    def _report(self, id: str) -> Path:
        return self.directory / f"{id}.reports"

    def _program(self, host: str, name: str, *arguments: str) -> str:
        """Run one of the project's programs to its end, and return what it prints."""
        options = ["--nodaemon", "--pidfile="] if name == "twistd" else []
        argv = [str(PROGRAMS / name), *options, *arguments]
        result = self.lab.run(host, argv, timeout=START_SECONDS)
        if result.returncode:
            words = (result.stderr.strip() or result.stdout.strip()).splitlines()[-3:]
            raise LabError(f"{name} {' '.join(arguments)}: exit status {result.returncode}\n" + "\n".join(words))
        return result.stdout
