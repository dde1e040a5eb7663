"""What both kinds of devices have in common: their settings, and the ground that they stand on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path

from attrs import evolve, frozen

from rdvtwisted.adapters.hooks import HOOK_SECONDS, USUAL_DIRECTORY
from rdvtwisted.consent import ASK_SECONDS, WINDOW_SECONDS
from rdvtwisted.errors import InvalidValue, MissingPrivilege, StateDirectoryError
from rdvtwisted.ports import SSH_PORT, TLS_PORT
from rdvtwisted.values import Role

#: Seconds after the last sign of life of the server until a device takes its connection for lost, outside of sessions.
SILENCE_SECONDS = 60.0
#: Seconds after which a session ends if nobody says otherwise: one that was forgotten is not open for ever.
SESSION_SECONDS = 86_400.0
#: Bit of CAP_NET_ADMIN in a capability set (linux/capability.h).
_CAP_NET_ADMIN = 12

_SERVER = re.compile(r"(?:\[(?P<address>[^\s\]]+)\]|(?P<host>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


def server_address(text: str) -> tuple[str, int | None]:
    """
    Host and port of C{host}, C{host:port} or C{[IPv6]:port}; the port is C{None} when it is not given.

    @raise InvalidValue: it is none of these.
    """
    bare = text.strip()
    match = _SERVER.fullmatch(f"[{bare}]" if _is_ipv6(bare) else bare)
    if match is None or (match["address"] and not _is_ipv6(match["address"])):
        raise InvalidValue("RDV server", text, "use HOST, HOST:PORT or [IPV6]:PORT")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port < 65536:
        raise InvalidValue("RDV server", text, "the port must be from 1 to 65535")
    return match["address"] or match["host"], port


def server_addresses(text: str) -> tuple[tuple[str, int | None], ...]:
    """
    Several servers, with commas between them; each as L{server_address} has it.

    @raise InvalidValue: one of them is none.
    """
    return tuple(map(server_address, text.split(",")))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def default_state_directory(name: str, environment: Mapping[str, str]) -> Path:
    """C{/var/lib/rdvtwisted/NAME} for root; for others below C{XDG_STATE_HOME} or C{~/.local/state}."""
    if os.geteuid() == 0:
        return Path("/var/lib/rdvtwisted") / name
    home = environment.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):  # the base directory specification: a relative path is to be ignored
        home = os.path.join(environment.get("HOME") or "/", ".local", "state")
    return Path(home) / "rdvtwisted" / name


@frozen
class DeviceSettings:
    """What a device knows of itself and of its server."""

    role: Role
    account: str
    host: str
    port: int
    #: SSH inside TLS instead of SSH directly.
    tls: bool
    state: Path
    identity: Path
    known_hosts: Path
    known_peers: Path
    #: PEM file with the server's certificate authority.
    authority: Path
    strict_peers: bool = False
    #: Refuse sessions that the server could read.
    end_to_end: bool = False
    #: See L{SILENCE_SECONDS}.
    silence: float = SILENCE_SECONDS
    #: Hosts and ports of further servers, in case that one is not to be had.
    others: tuple[tuple[str, int | None], ...] = ()
    #: The operator has named the port, so that there is no other door.
    port_named: bool = False
    #: The port by which the server's host keys are known, whatever door leads to it; C{None}: C{port}.
    pinned_port: int | None = None

    @property
    def place(self) -> str:
        """The server and its door, in words."""
        host = f"[{self.host}]" if _is_ipv6(self.host) else self.host
        return f"{'TLS' if self.tls else 'SSH'} to {host}:{self.port}"

    def ways(self) -> tuple[DeviceSettings, ...]:
        """These settings for each server and door there is: first all servers by the chosen door, then by the other."""
        chosen = TLS_PORT if self.tls else SSH_PORT
        servers = [evolve(self, others=(), pinned_port=self.port)]
        for host, port in self.others:
            authority = self.authority.with_name(f"{self.authority.stem}-{host}{self.authority.suffix}")
            other = evolve(self, host=host, port=port or chosen, authority=authority, others=())
            servers.append(evolve(other, port_named=port is not None, pinned_port=other.port))
        doors = [
            evolve(each, tls=not self.tls, port=SSH_PORT if self.tls else TLS_PORT)
            for each in servers
            if not each.port_named
        ]
        return (*servers, *doors)


@frozen
class ConsentSettings:
    """
    How an onsite's site is asked for its consent.

    @ivar seconds: for which it is asked.
    @ivar window: seconds for which a consent holds that does not say it.
    @ivar file: that stands for consent as long as it is there; absolute.
    @ivar program: that is asked; absolute.
    """

    required: bool = False
    seconds: float = ASK_SECONDS
    window: float = WINDOW_SECONDS
    file: Path | None = None
    program: Path | None = None


@frozen
class HookSettings:
    """
    Where a device's hooks are, and for how many seconds each may run.

    @ivar required: the directory has to be there.
    """

    directory: Path = USUAL_DIRECTORY
    seconds: float = HOOK_SECONDS
    required: bool = False


def make_state_directory(path: Path) -> None:
    """
    Make a directory that only its owner can read, if it is not there.

    @raise StateDirectoryError: it cannot be made or written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateDirectoryError(f"cannot make the state directory {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StateDirectoryError(f"cannot write in the state directory {path}: choose another with --state-dir")


def require_net_admin(status: Path = Path("/proc/self/status")) -> None:
    """
    Make sure that this process may configure the network.

    @raise MissingPrivilege: it lacks CAP_NET_ADMIN.
    """
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    if effective is None or not int(effective[1], 16) >> _CAP_NET_ADMIN & 1:
        raise MissingPrivilege("configuring the network needs CAP_NET_ADMIN: run this as root, for example with sudo")
