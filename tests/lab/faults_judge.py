"""
Tells whether everything is as it should be when nothing happens: on every machine of a lab, and in the server's memory.

What is as it should be, the judge has seen once. It names every difference,
one a line, and an empty list means that there is none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from rdvtwisted.adapters.front.pipes import SPARE_LIMIT
from rdvtwisted.errors import RDVError
from tests.lab.deployment import Deployment
from tests.lab.lab import Lab
from tests.lab.processes import LabProcess
from tests.lab.size import Size
from tests.lab.snapshot import Snapshot

HOSTS = ("server", "onsite", "onsite2", "master", "master2", "pc")
"""Whose network settings, processes and files are looked at."""

GROWTH_BYTES = 24_000_000
"""How much more memory a service may have than when it was first looked at: its caches, and the allocator's slack."""

SLACK = {"descriptors": 0, "pipes": 2 * SPARE_LIMIT, "threads": 0}
"""How many more of each a service may have: a relay keeps spare pipes, and a flow that halts borrows another one."""

_PASSING = (".lock", "-wal", "-shm", "-journal", ".pyc")
"""Ends of names of files that come and go while services run, and say nothing."""
_STAYING = ("sightings.json", "open-sessions.json", "known_hosts", "known_peers", "server-ca.pem", "vtund.server.pid")
"""Names of files that are made when they are first needed, and stay; the last is Debian's vtund's."""

_CARRIER = re.compile("'linkdown'|LOWER_UP,|NO-CARRIER,")
"""What the kernel says of an interface and its routes when a cable is pulled or plugged in."""


@frozen
class Process:
    """One line of the table of processes."""

    pid: int
    parent: int
    dead: bool
    command: str

    def __str__(self) -> str:
        return f"{'zombie' if self.dead else 'process'} {self.pid}: {self.command}"


def table() -> dict[int, Process]:
    """Every process of this machine, by its number."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().partition("(")[2].rpartition(")")
            words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        state, parent = rest.split()[:2]
        found[int(entry)] = Process(int(entry), int(parent), state == "Z", words or name)
    return found


def descendants(processes: Mapping[int, Process], pid: int) -> Iterator[Process]:
    """What a process has started, and what that has."""
    for process in processes.values():
        if process.parent == pid:
            yield process
            yield from descendants(processes, process.pid)


def namespaces_of(pids: Iterable[int]) -> set[str]:
    """The network namespaces that processes are in or have open."""
    found = set()
    for pid in pids:
        try:
            links = [Path(f"/proc/{pid}/ns/net"), *Path(f"/proc/{pid}/fd").iterdir()]
            found |= {link for link in (os.readlink(path) for path in links) if link.startswith("net:")}
        except OSError:
            continue
    return found


def registry_faults(
    status: Mapping[str, Any],
    online: Iterable[Mapping[str, Any]],
    sessions: Iterable[Mapping[str, Any]],
    expected: Iterable[str],
) -> list[str]:
    """What is wrong in a server's memory: who is listed and should not be, who is not and should, what is held."""
    present = {str(each["id"]): each for each in online}
    wanted = set(expected)
    found = [f"server: {id} is not listed" for id in sorted(wanted - set(present))]
    found += [f"server: {id} is listed" for id in sorted(set(present) - wanted)]
    found += [f"server: {id} is listed in session {each['session']}" for id, each in present.items() if each["session"]]
    found += [f"server: there is session {each['id']} ({each['state']})" for each in sessions]
    for what in ("leases", "tickets"):
        if what not in status:
            found.append(f"server: it does not say how many {what} it holds")
        elif status[what]:
            found.append(f"server: it holds {status[what]} {what}")
    return found


def plugged(snapshot: Snapshot) -> Snapshot:
    """The same configuration, whether its cables are plugged in or not."""
    return Snapshot(tuple(_CARRIER.sub("", line) for line in snapshot.lines))


class Judge:
    """
    Compares what is with what was.

    @ivar expected: the ids of the devices that are to be listed, and no other.
    """

    def __init__(self, lab: Lab, deployment: Deployment, expected: Sequence[str], states: Sequence[Path]) -> None:
        """
        @param states: the state directories of the services.
        """
        self._lab = lab
        self._deployment = deployment
        self.expected = tuple(expected)
        self._states = tuple(states)
        self._before: dict[str, Snapshot] = {}
        self._files: set[str] = set()
        self._children: dict[str, list[str]] = {}
        self._namespaces = 0
        self._sizes: dict[str, Size] = {}

    def learn(self) -> None:
        """From now on, it should be as it is now."""
        self._before = {host: self._lab.snapshot(host) for host in HOSTS}
        self._files = self._present_files()
        self._children = self._present_children()
        self._namespaces = self._present_namespaces()
        self._sizes = {name: Size.of(process) for name, process in self._services().items()}

    def wrong(self) -> list[str]:
        """Everything that is not as it should be at rest."""
        return [
            *self.services(), *self.network(), *self.processes(), *self.files(), *self.registry(), *self.sizes()
        ]  # fmt: skip

    def left(self) -> list[str]:
        """What should have gone with a session, whoever of the devices is here."""
        return [*self.network(), *self.processes(), *self.files()]

    # One by one

    def services(self) -> list[str]:
        """Services that should run, and do not."""
        known = [("server", self._deployment.server)]
        known += [(f"onsite {site}", process) for site, process in self._deployment.onsites.items()]
        return [f"{name}: it does not run" for name, process in known if process is None or process.poll() is not None]

    def network(self, *hosts: str, cut: bool = False) -> list[str]:
        """
        Links, addresses, routes, rules, nft rules, named namespaces and kernel settings of hosts.

        @param cut: it does not matter whether a cable is plugged in.
        """
        found = []
        for host in hosts or HOSTS:
            before, now = self._before[host], self._lab.snapshot(host)
            if cut:
                before, now = plugged(before), plugged(now)
            found += [f"{host}: {change}" for change in before.changes(now)]
        return found

    def processes(self) -> list[str]:
        """Processes that nobody should have, zombies, services without what they should have started."""
        present = table()
        services = {process.pid for process in self._services().values()}
        known = set(services)
        found = []
        for name, commands in self._present_children().items():
            before = self._children.get(name, [])
            found += [f"{name}: it has started {each}" for each in commands if each not in before]
            found += [f"{name}: it has no {each}" for each in before if each not in commands]
        for pid in services:
            for process in descendants(present, pid):
                known.add(process.pid)
                if process.dead:
                    found.append(str(process))
        members = [each for each in self._lab.members() if each.pid not in known and "website.py" not in each.command]
        found += [f"process {each.pid}: {each.command}" for each in members]
        count = self._present_namespaces()
        if count != self._namespaces:
            found.append(f"server: its processes have {count} network namespaces, not {self._namespaces}")
        return found

    def files(self) -> list[str]:
        """Files in state directories and below /run that were not there."""
        return [f"file {name}" for name in sorted(self._present_files() - self._files)]

    def registry(self) -> list[str]:
        """What the server has in its memory."""
        try:
            status, online, sessions = (self._deployment.ask(verb) for verb in ("status", "online", "sessions"))
        except RDVError as error:
            return [f"server: {error}"]
        return registry_faults(status, online, sessions, self.expected)

    def sizes(self) -> list[str]:
        """Services that hold more than they did."""
        found = []
        for name, process in self._services().items():
            before = self._sizes.get(name)
            if before is None:
                continue
            try:
                size = Size.of(process)
            except OSError:
                continue  # it has just ended, which is told elsewhere
            found += [
                f"{name}: {getattr(size, what)} {what}, not {getattr(before, what)}"
                for what, slack in SLACK.items()
                if getattr(size, what) > getattr(before, what) + slack
            ]
            if size.memory > before.memory + GROWTH_BYTES:
                found.append(f"{name}: {size.memory} bytes of memory, not about {before.memory}")
        return found

    # What is there

    def _services(self) -> dict[str, LabProcess]:
        """Those that run."""
        known = {"server": self._deployment.server}
        known |= {f"onsite {site}": process for site, process in self._deployment.onsites.items()}
        return {name: each for name, each in known.items() if each is not None and each.poll() is None}

    def _present_children(self) -> dict[str, list[str]]:
        present = table()
        return {
            name: sorted(each.command for each in descendants(present, process.pid) if not each.dead)
            for name, process in self._services().items()
        }

    def _present_namespaces(self) -> int:
        present = table()
        pids = [
            each.pid
            for name, process in self._services().items()
            if name == "server"
            for each in descendants(present, process.pid)
        ]
        return len(namespaces_of(pids))

    def _present_files(self) -> set[str]:
        places = [*self._states, *(self._lab.directory / "hosts" / host / "run" for host in HOSTS)]
        return {
            str(path)
            for place in places
            for path in place.rglob("*")
            if not path.name.endswith(_PASSING)
            and path.name not in _STAYING
            and (not path.is_dir() or path.name.startswith("program-"))
        }
