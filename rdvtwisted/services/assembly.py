"""Puts a device together from its settings, so that everything that can be refused is refused at once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from rdvtwisted.adapters import rootfile
from rdvtwisted.adapters.backends import discover, joins
from rdvtwisted.adapters.consent import SOCKET, ConsentFile, ConsentProgram, perform
from rdvtwisted.adapters.control_server import ControlService
from rdvtwisted.adapters.hooks import Hooks
from rdvtwisted.adapters.network.keeper import Keeper
from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.programs import Programs
from rdvtwisted.adapters.ssh.identity import Identity, identity
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.consent import Consent
from rdvtwisted.errors import ConfigError, InvalidValue, MissingProgram
from rdvtwisted.services.boundary import LocalAccess
from rdvtwisted.services.console import Console
from rdvtwisted.services.device import (
    ConsentSettings,
    DeviceSettings,
    HookSettings,
    make_state_directory,
    require_net_admin,
)
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.ladder import Ladder
from rdvtwisted.services.master import MasterService, MasterSettings
from rdvtwisted.services.onsite import OnsiteService
from rdvtwisted.services.pace import Pace
from rdvtwisted.services.process import complain, global_reactor, replacing, say, stop
from rdvtwisted.services.sweeping import PROGRAMS_NAME
from rdvtwisted.services.ways import aloud, by_first, by_ladder, connect_with
from rdvtwisted.values import Missing

#: The program that clears away after this process.
SWEEPING = "rdvtwisted.services.sweeping"
#: Where the network journals are: gone after a reboot, as is what they are about.
JOURNALS = Path("/run/rdvtwisted")
#: Where stock programs have their directories, for as long as they run.
PROGRAMS = JOURNALS / PROGRAMS_NAME

_log = Logger()


def _log_line(line: str) -> None:
    _log.info("{line}", line=line)


def _log_complaint(line: str) -> None:
    _log.error("{line}", line=line)


def announce(settings: DeviceSettings, who: Identity) -> None:
    """Tell the public half of a device's key, and what is to be done with it."""
    say(f"The key of this device: {who.public.line} {settings.account}")
    say(f"Its fingerprint: {who.public.fingerprint}")
    say(
        "Register it on the server with: rdvctl device add"
        f" {settings.account} --role {settings.role} --key '{who.public.line}'"
    )


def load_identity(settings: DeviceSettings) -> Identity:
    """
    The device's identity. A new one is told on standard output, where it is
    seen before the process goes into the background; its public half is also
    written beside it.

    @raise StateDirectoryError: it cannot be read or made.
    """
    make_state_directory(settings.state)
    new = not settings.identity.exists()
    who = identity(settings.identity, settings.account)
    if new:
        public = settings.identity.with_name(settings.identity.name + ".pub")
        write_whole(public, f"{who.public.line} {settings.account}\n".encode(), mode=0o644)
        announce(settings, who)
    return who


def inform(settings: DeviceSettings | None) -> int:
    """
    Print the device's key, or without settings the tunnel backends.

    @return: the exit status.
    """
    if settings is not None:
        make_state_directory(settings.state)
        known = settings.identity.exists()
        who = load_identity(settings)
        if known:
            announce(settings, who)
        return 0
    found = discover()
    for problem in found.problems:
        say(problem)
    for backend in found.backends:
        modes, join = ", ".join(sorted(mode.value for mode in backend.modes)), ", ".join(joins(backend))
        say(f"{backend.name:10} {modes:7} {join:12} {backend.summary}")
        if backend.needs:
            say(f"{'':10} needs: {', '.join(backend.needs)}")
        for missing in backend.missing():
            say(f"{'':10} missing: {missing.what}; {missing.cure}")
    return 0


def _equipment(settings: DeviceSettings, reactor: Any) -> Equipment:
    who = load_identity(settings)
    discovery = discover()
    for problem in discovery.problems:
        _log.error("Tunnel backends: {problem}", problem=problem)
    backends = {
        backend.name: backend
        for backend in discovery.backends
        if not backend.missing() and (backend.relay or not settings.end_to_end)
    }
    programs = Programs(reactor, PROGRAMS)
    programs.sweep()
    peers = KnownPeers(settings.known_peers, settings.strict_peers)
    peers.read()
    authority = Authority(settings.authority)
    authority.read()
    return Equipment(
        settings=settings,
        reactor=reactor,
        network=LinuxNetwork(reactor, JOURNALS, keeper=partial(Keeper, SWEEPING)),
        identity=who,
        peers=peers,
        authority=authority,
        backends=backends,
        programs=programs,
    )


class UnfitBackend(InvalidValue):
    """The command line names a tunnel backend that does not exist, or that goes against what else it says."""

    exit_status = 2


def _check_named(settings: DeviceSettings, wanted: Sequence[str]) -> None:
    """
    Look at the tunnel backends that were named, before anything is made.

    @raise UnfitBackend: there is none of a name, or the server can read it and must not.
    """
    known = {backend.name: backend for backend in discover().backends} if wanted else {}
    for name in wanted:
        if name not in known:
            raise UnfitBackend("tunnel backend", name, f"use one of {', '.join(known) or 'none: there is none here'}")
        if settings.end_to_end and not known[name].relay:
            raise UnfitBackend("tunnel backend", name, "the server can read what it carries: --end-to-end refuses that")


def _require_backends(equipment: Equipment, wanted: Sequence[str]) -> None:
    """
    Make sure that there is a tunnel backend, and those that are wanted; leave the equipment these only, if any.

    @raise MissingProgram: it lacks something; what, and the cure.
    """
    discovery = discover()
    found = {backend.name: backend.missing() for backend in discovery.backends}
    for name in wanted:
        if found[name]:
            raise MissingProgram(f"the tunnel backend {name} cannot be used here: {'; '.join(_lacking(found[name]))}")
    if not equipment.backends:
        lacking = [*_lacking(each for missing in found.values() for each in missing), *discovery.problems]
        if equipment.settings.end_to_end:
            lacking.append("--end-to-end refuses those that the server can read")
        raise MissingProgram("no tunnel backend can be used here: " + "; ".join(lacking))
    if wanted:
        equipment.backends = {name: equipment.backends[name] for name in wanted}


def _lacking(missing: Iterable[Missing]) -> list[str]:
    return [f"{each.what} ({each.cure})" for each in missing]


def make_onsite(
    settings: DeviceSettings,
    *,
    interface: str | None,
    session_seconds: float | None,
    report: Path | None,
    backends: Sequence[str] | None = None,
    access: LocalAccess | None = None,
    consent: ConsentSettings = ConsentSettings(),  # noqa: B008 - it is immutable
    hooks: HookSettings = HookSettings(),  # noqa: B008 - it is immutable
    reactor: Any = None,
) -> OnsiteService:
    """
    An onsite device, not started.

    @param access: what it allows, whatever the server says; C{None}: anything.
    @param consent: how its site is asked.
    @param backends: the names of the tunnel backends that it may use; C{None} for all that it can.
    @raise RDVError: this machine lacks something, or a file cannot be used.
    """
    console = Console(_log_line, _log_complaint, report)
    _check_named(settings, backends or ())
    console.check()
    _check_hooks(hooks)
    equipment = _equipment(settings, reactor or global_reactor())
    if access is not None:
        access.rules()
        equipment.access = access
    require_net_admin()
    _require_backends(equipment, backends or ())
    equipment.hooks = _hooks(equipment, hooks, console)
    asked = _consent(equipment, consent)
    path = str(settings.state / SOCKET)
    socket = ControlService(equipment.reactor, equipment.reactor, path, partial(perform, asked), "--state-dir")
    if asked.required:
        socket.check()
    ladder = Ladder(settings.ways(), equipment.reactor, replacing(equipment.reactor))
    return OnsiteService(
        equipment=equipment,
        console=console,
        pace=Pace(random.random),
        connect=by_ladder(connect_with(equipment), ladder),
        ladder=ladder,
        interface=interface,
        session_seconds=session_seconds,
        consent=asked,
        socket=socket,
    )


def _check_hooks(settings: HookSettings) -> None:
    """
    @raise ConfigError: the directory is not there, and should be.
    """
    if settings.required and not os.path.isdir(settings.directory):
        raise ConfigError("--hooks", f"there is no directory {settings.directory}")


def _hooks(equipment: Equipment, settings: HookSettings, console: Console) -> Hooks:
    hooks = Hooks(equipment.programs, equipment.reactor, settings.directory, settings.seconds)
    for line in hooks.problems():
        console.complain(line)
    return hooks


def _consent(equipment: Equipment, settings: ConsentSettings) -> Consent:
    """
    The consent of an onsite's site.

    @raise ConfigError: the program that is to be asked cannot be used.
    """
    consent = Consent(equipment.reactor, settings.required, settings.seconds, settings.window)
    if settings.file is not None:
        consent.presence = ConsentFile(settings.file, settings.window, time.time).left
    if settings.program is not None:
        try:
            rootfile.require(settings.program)
        except FileNotFoundError:
            raise ConfigError("consent-program", f"there is no file {settings.program}") from None
        except ConfigError as error:
            raise ConfigError("consent-program", error.problem) from None
        consent.program = ConsentProgram(
            equipment.programs, equipment.reactor, settings.program, equipment.settings.account, settings.seconds
        ).ask
    return consent


def make_master(
    settings: DeviceSettings,
    wanted: MasterSettings,
    *,
    report: Path | None,
    terminal: bool,
    hooks: HookSettings = HookSettings(),  # noqa: B008 - it is immutable
    reactor: Any = None,
) -> MasterService:
    """
    A master device, not started. When it is finished it stops the reactor.

    @param terminal: what the operator is told goes to the terminal instead of the log.
    @raise RDVError: this machine lacks something, or a file cannot be used.
    """
    reactor = reactor or global_reactor()
    console = Console(say, complain, report) if terminal else Console(_log_line, _log_complaint, report)
    _check_named(settings, wanted.backends or ())
    console.check()
    _check_hooks(hooks)
    equipment = _equipment(settings, reactor)
    connect = connect_with(equipment)
    if wanted.onsite is not None:
        require_net_admin()
        _require_backends(equipment, wanted.backends or ())
        connect = aloud(connect, console.say)
    equipment.hooks = _hooks(equipment, hooks, console)
    return MasterService(
        equipment=equipment,
        console=console,
        settings=wanted,
        connect=by_first(connect, settings.ways(), equipment.suspicion),
        finished=lambda: stop(reactor),
    )
