"""The server: its doors, its registry and its control socket, made together and stopped in order."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

import rdvtwisted
from rdvtwisted.access import Effect
from rdvtwisted.adapters.backends import discover
from rdvtwisted.adapters.control import perform
from rdvtwisted.adapters.control_server import ControlService
from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.front.relay import Relay
from rdvtwisted.adapters.front.visit import Limits
from rdvtwisted.adapters.sinks import Sinks
from rdvtwisted.adapters.ssh.hostkeys import HostKeys, host_keys
from rdvtwisted.adapters.ssh.server import SSHServer
from rdvtwisted.adapters.ssh.settings import ServerSettings as SSHServerSettings
from rdvtwisted.adapters.store import directory
from rdvtwisted.adapters.store.inventory import SqlInventory, open_inventory
from rdvtwisted.adapters.store.settings import read_settings
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import AddressInUse, StateDirectoryError
from rdvtwisted.leases import LeasePool
from rdvtwisted.registry import Registry
from rdvtwisted.services.administration import Administration
from rdvtwisted.services.concessions import Concessions
from rdvtwisted.services.joinery import Joinery, confine, make_ends
from rdvtwisted.services.lastseen import FILE_NAME, LastSeen
from rdvtwisted.services.recording import Recording
from rdvtwisted.services.sockets import Bound, bind
from rdvtwisted.services.timekeeping import steady
from rdvtwisted.services.upkeep import Upkeep
from rdvtwisted.shell.shell import Shell
from rdvtwisted.sightings import Sightings
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import Device

#: File in the state directory that the running server holds locked.
LOCK_NAME = "server.lock"


@define(eq=False)
class ServerService(Service):
    """
    A server whose doors are bound and whose files are loaded; starting it serves them.

    @ivar lock: keeps other servers out of the state directory.
    @ivar confine: gives up the privileges of this process.
    """

    _log = Logger()

    reactor: Any
    registry: Registry
    ssh: SSHServer
    door: Door
    bound: Mapping[str, Bound]
    control: ControlService
    inventory: SqlInventory
    lock: int
    upkeep: Upkeep
    joinery: Joinery
    recording: Recording
    last_seen: LastSeen
    confine: Callable[[], None]
    greeting: Sequence[str]
    #: Name of the least level that is to be logged.
    log_level: str
    _ports: list[IListeningPort] = field(factory=list, init=False)

    def privilegedStartService(self) -> None:
        """Start what needs privileges: in the background already, and still with them."""
        super().privilegedStartService()
        self.joinery.start()

    def startService(self) -> None:
        """Give up all privileges, and open the doors."""
        super().startService()
        self.confine()
        self.recording.start()
        self.inventory.connect()
        self.last_seen.start()
        self._ports = self.bound["ssh"].serve(self.reactor, self.ssh.factory("ssh"))
        if "tls" in self.bound:
            self._ports += self.bound["tls"].serve(self.reactor, self.door)
        self.control.startService()
        self.upkeep.start()
        for line in self.greeting:
            self._log.info("{line}", line=line)

    async def _stop(self) -> None:
        # In order: nobody new, then sessions and devices told, then what they used.
        self.upkeep.stop()
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        self._ports = []
        await self.ssh.close(self.registry.close())
        self.last_seen.stop()
        await self.joinery.stop()
        await self.control.stopService()
        self.recording.stop()
        self.inventory.close()
        os.close(self.lock)

    def stopService(self) -> Deferred[None]:
        """Close the doors, end all sessions, tell every device, and give everything back."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def make_server(
    file: str | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    reactor: Any = None,
    *,
    confined: bool = False,
) -> ServerService:
    """
    A server, not started, from its settings.

    @param file: the settings file; C{None} for the usual place, where there need be none.
    @param overrides: settings from the command line, by name.
    @param confined: the process is the server's alone, and gives up its privileges when the server starts.
    @raise RDVError: a setting, the state directory, a port or a privilege is not as it must be.
    """
    if reactor is None:
        from twisted.internet import reactor as global_reactor

        reactor = steady(global_reactor)
    settings = read_settings(file, environment, overrides, root=os.geteuid() == 0)
    with ExitStack() as undo:
        service = _assemble(settings, reactor, undo, confined)
        undo.pop_all()
    return service


def _assemble(settings: ServerSettings, reactor: Any, undo: ExitStack, confined: bool) -> ServerService:
    """The service; C{undo} gives back what was taken for it."""
    state = Path(settings.state_directory)
    directory.prepare(settings.state_directory)
    lock = _lock(state)
    undo.callback(os.close, lock)
    inventory = open_inventory(settings)
    undo.callback(inventory.close)
    keys = host_keys(state)
    authority = Authority.open(state, settings.tls.names or _own_names(), reactor)
    credentials = authority.credentials()
    bound = {"ssh": bind(settings.ssh.address, settings.ssh.port, "ssh")}
    undo.callback(bound["ssh"].close)
    if settings.tls.enabled:
        bound["tls"] = bind(settings.tls.address, settings.tls.port, "tls")
        undo.callback(bound["tls"].close)
    ports = {name: each.port for name, each in bound.items()}
    recording = Recording.within(settings.state_directory, reactor)
    registry = _registry(settings, inventory, reactor, authority.der, ports.get("tls", 0), recording)
    ssh = SSHServer(
        host_keys=keys,
        reception=registry,
        open_shell=_shell,
        clock=reactor,
        settings=_ssh_settings(settings),
    )
    tls = settings.tls
    door = Door(
        clock=reactor,
        credentials=credentials,
        office=registry.tickets,
        ssh=ssh.factory("tls"),
        refused=registry.refused,
        tls12=settings.tls.minimum_version == "1.2",
        limits=Limits(visits=tls.max_unauthenticated, visits_per_address=tls.max_unauthenticated_per_address),
        regulars=ssh.vestibule.regulars,
    )
    concessions = Concessions(inventory, ssh, door, settings)
    concessions.review()
    sightings = Sightings(registry.presences, time.time)
    recording.sink = Sinks((*recording.sink.sinks, sightings))
    registry.events = recording.sink
    administration = Administration(
        inventory, registry, authority, door, ports, recording.trail, concessions, sightings
    )
    control = ControlService(reactor, reactor, settings.control.socket, partial(perform, administration))
    control.check()
    # twistd may go into the background now.
    inventory.disconnect()
    return ServerService(
        reactor=reactor,
        registry=registry,
        ssh=ssh,
        door=door,
        bound=bound,
        control=control,
        inventory=inventory,
        lock=lock,
        upkeep=Upkeep(reactor, inventory, registry, authority, door, concessions),
        joinery=Joinery(reactor, registry.ends, settings.session.max_glued if settings.session.glue else 0),
        recording=recording,
        last_seen=LastSeen(
            sightings, state / FILE_NAME, reactor, lambda: [device.id for device in inventory.devices()]
        ),
        confine=partial(confine, state) if confined else _unconfined,
        greeting=_greeting(settings, keys, authority, ports, inventory),
        log_level=settings.log.level,
    )


def _registry(
    settings: ServerSettings,
    inventory: SqlInventory,
    reactor: Any,
    authority: bytes,
    door_port: int,
    recording: Recording,
) -> Registry:
    session = settings.session
    leases = LeasePool(session.pool, session.prefix)
    return Registry(
        inventory=inventory,
        clock=reactor,
        relay=Relay(reactor),
        tickets=TicketOffice(reactor, secrets.token_bytes, session.ticket_seconds),
        leases=leases,
        ends=make_ends(reactor, leases, door=bool(door_port)),
        events=recording.sink,
        random=secrets.token_bytes,
        authority=authority,
        door_port=door_port,
        build_seconds=session.build_seconds,
        wall=time.time,
    )


def _unconfined() -> None:
    """The process is somebody else's, too."""


def _own_names() -> tuple[str, ...]:
    """The names by which this machine knows itself; an operator's settings know better."""
    return tuple(dict.fromkeys((socket.getfqdn(), socket.gethostname(), "localhost")))


def _shell(device: Device, terminal: bool) -> Shell:
    return Shell(device.id, device.role, terminal=terminal)


def _ssh_settings(settings: ServerSettings) -> SSHServerSettings:
    ssh = settings.ssh
    return SSHServerSettings(
        keepalive_idle=ssh.keepalive_idle,
        keepalive_answer=ssh.keepalive_answer,
        login_seconds=ssh.login_seconds,
        strangers=ssh.max_unauthenticated,
        strangers_per_address=ssh.max_unauthenticated_per_address,
        connections=ssh.max_connections,
        connections_per_account=ssh.max_connections_per_device,
        requests_per_second=ssh.requests_per_second,
        legacy_algorithms=ssh.legacy_algorithms,
    )


def _greeting(
    settings: ServerSettings, keys: HostKeys, authority: Authority, ports: Mapping[str, int], inventory: SqlInventory
) -> list[str]:
    doors = ", ".join(f"{name.upper()} on port {port}" for name, port in ports.items())
    lines = [f"RDV server {rdvtwisted.__version__}: {doors}; state in {settings.state_directory}"]
    lines += [f"Host key {key}" for key in keys.public]
    lines.append(f"Certificate authority {authority.fingerprint}")
    if not any(rule.effect is Effect.ALLOW for rule in inventory.policy().rules):
        lines.append("No access rule allows anything, so no master may use any onsite; see rdvctl access allow --help")
    return lines + [f"Tunnel backends: {problem}" for problem in discover().problems]


def _lock(state: Path) -> int:
    path = state / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirectoryError(f"cannot open {path}: {error.strerror}: run as its owner or as root") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AddressInUse(f"another server is running with the state directory {state}: stop that one first") from None
    return descriptor
