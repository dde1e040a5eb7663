"""Puts a device together from its settings, so that everything that can be refused is refused at once."""

from __future__ import annotations

import atexit
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from rdvtwisted.adapters.backends import discover
from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.ssh.identity import Identity, identity
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.errors import MissingProgram
from rdvtwisted.services.console import Console
from rdvtwisted.services.device import DeviceSettings, make_state_directory, require_net_admin
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.link import Link, open_link
from rdvtwisted.services.master import MasterService, MasterSettings
from rdvtwisted.services.onsite import OnsiteService
from rdvtwisted.services.pace import Pace

#: Where the network journals are: gone after a reboot, as is what they are about.
JOURNALS = Path("/run/rdvtwisted")

_log = Logger()


def _log_line(line: str) -> None:
    _log.info("{line}", line=line)


def _log_complaint(line: str) -> None:
    _log.error("{line}", line=line)


def _print(line: str) -> None:
    print(line, flush=True)


def announce(settings: DeviceSettings, who: Identity, say: Callable[[str], None]) -> None:
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
        settings.identity.with_name(settings.identity.name + ".pub").write_text(
            f"{who.public.line} {settings.account}\n"
        )
        announce(settings, who, _print)
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
            announce(settings, who, _print)
        return 0
    found = discover()
    for problem in found.problems:
        _print(problem)
    for backend in found.backends:
        modes = ", ".join(sorted(mode.value for mode in backend.modes))
        _print(f"{backend.name:10} {modes:7} {backend.summary}")
        for missing in backend.missing():
            _print(f"{'':10} missing: {missing.what}; {missing.cure}")
    return 0


def _equipment(settings: DeviceSettings, reactor: Any) -> Equipment:
    who = load_identity(settings)
    backends = {backend.name: backend for backend in discover().backends if not backend.missing()}
    peers = KnownPeers(settings.known_peers, settings.strict_peers)
    peers.read()
    authority = Authority(settings.authority)
    authority.read()
    return Equipment(
        settings=settings,
        reactor=reactor,
        network=LinuxNetwork(reactor, JOURNALS),
        identity=who,
        peers=peers,
        authority=authority,
        backends=backends,
    )


def _require_backends(equipment: Equipment) -> None:
    if not equipment.backends:
        found = discover()
        lacking = [f"{each.what} ({each.cure})" for backend in found.backends for each in backend.missing()]
        raise MissingProgram("no tunnel backend can be used here: " + "; ".join([*lacking, *found.problems]))


def _connector(equipment: Equipment) -> Callable[[], Awaitable[Link]]:
    return lambda: open_link(equipment.settings, equipment.identity, equipment.authority, equipment.reactor)


def make_onsite(
    settings: DeviceSettings,
    *,
    interface: str | None,
    session_seconds: float | None,
    report: Path | None,
    reactor: Any = None,
) -> OnsiteService:
    """
    An onsite device, not started.

    @raise RDVError: this machine lacks something, or a file cannot be used.
    """
    console = Console(_log_line, _log_complaint, report)
    console.check()
    equipment = _equipment(settings, reactor or _global_reactor())
    require_net_admin()
    _require_backends(equipment)
    return OnsiteService(
        equipment=equipment,
        console=console,
        pace=Pace(random.random),
        connect=_connector(equipment),
        interface=interface,
        session_seconds=session_seconds,
    )


def make_master(
    settings: DeviceSettings,
    wanted: MasterSettings,
    *,
    report: Path | None,
    terminal: bool,
    reactor: Any = None,
) -> MasterService:
    """
    A master device, not started. When it is finished it stops the reactor.

    @param terminal: what the operator is told goes to the terminal instead of the log.
    @raise RDVError: this machine lacks something, or a file cannot be used.
    """
    reactor = reactor or _global_reactor()
    complain = _complain_on_terminal if terminal else _log_complaint
    console = Console(_print if terminal else _log_line, complain, report)
    console.check()
    equipment = _equipment(settings, reactor)
    if wanted.onsite is not None:
        require_net_admin()
        _require_backends(equipment)

    def finished() -> None:
        # It is stopping already if it was interrupted.
        with suppress(ReactorNotRunning):
            reactor.stop()

    return MasterService(
        equipment=equipment,
        console=console,
        settings=wanted,
        connect=_connector(equipment),
        finished=finished,
    )


def _complain_on_terminal(line: str) -> None:
    print(f"rdv-master: {line}", file=sys.stderr, flush=True)


def _global_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def exit_with_status_of(service: MasterService) -> None:
    """
    Let the process end with the status of C{service}, also when a signal has ended it: for programs whose own
    exit status is not ours to choose.
    """
    reactor = _global_reactor()

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    def take_signals() -> None:
        # twistd ends itself with the signal that has reached its reactor, whatever came of it: none reaches it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(stop))

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(service.exit_status)

    def register() -> None:
        if service.exit_status:
            atexit.register(end)

    reactor.callWhenRunning(take_signals)
    reactor.addSystemEventTrigger("after", "shutdown", register)


def run_in_foreground(service: Service, debug: bool) -> int:
    """
    Run C{service} on the terminal until it stops the reactor or is interrupted.

    @return: its exit status.
    """
    reactor = _global_reactor()
    level = LogLevel.debug if debug else LogLevel.warn
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return int(getattr(service, "exit_status", 0))
