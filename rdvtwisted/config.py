"""
The server's settings: one frozen tree, from which file, environment, options and sample are all read.

A setting comes from the first of these that has it: an option, the environment (C{RDV_SERVER_SSH_PORT}), the
file (TOML), the default. The fields below are the table: each has its default, what values it takes and the
sentence that documents it.
"""

from __future__ import annotations

import json
import math
import posixpath
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Network
from typing import Any

from attrs import evolve, field, fields, frozen

from rdvtwisted.addressing import NETWORKS, private
from rdvtwisted.errors import ConfigError
from rdvtwisted.kinds import ADDRESS, NAMES, NETWORK, SECONDS, SWITCH, TEXT, Kind, choice, whole
from rdvtwisted.ports import SSH_PORT, TLS_PORT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Seconds that a client has from its first byte until it is logged in.
LOGIN_SECONDS = 30.0
#: Seconds of silence after which a registered device is asked for a sign of life, and has for its answer; their
#: sum bounds how long a half-open link is taken for a live one.
KEEPALIVE_IDLE_SECONDS = 45.0
KEEPALIVE_ANSWER_SECONDS = 15.0
#: Connections that may be logging in at one time, in all and from one address: bounds what strangers can hold.
MAX_UNAUTHENTICATED = 256
MAX_UNAUTHENTICATED_PER_ADDRESS = 8
#: Connections that may be logged in at one time, in all and of one device; the oldest of a device goes first.
MAX_CONNECTIONS = 16384
MAX_CONNECTIONS_PER_DEVICE = 8
#: Requests a second that one connection may make in the long run.
REQUESTS_PER_SECOND = 20
#: Connections at the TLS door that have not shown yet what they are, in all and from one address.
MAX_TLS_UNAUTHENTICATED = 256
MAX_TLS_UNAUTHENTICATED_PER_ADDRESS = 32
#: Tunnel addresses come out of this network, in blocks of this prefix length (four addresses).
POOL = IPv4Network("192.168.128.0/17")
BLOCK_PREFIX = 30
#: Seconds for both tunnels of a session to be built, and for a ticket to be used.
BUILD_SECONDS = 60.0
TICKET_SECONDS = 60.0
#: Sessions at a time whose tunnels end at the server.
MAX_GLUED = 256

ENVIRONMENT_PREFIX = "RDV_SERVER_"
#: Names with the prefix that belong to the devices' programs, where they name the server to connect to.
DEVICES_VARIABLES = frozenset({"RDV_SERVER_HOSTNAME"})
SYSTEM_STATE_DIRECTORY = "/var/lib/rdvtwisted/server"
SYSTEM_CONFIG_FILE = "/etc/rdvtwisted/server.toml"


def _setting(default: object, kind: Kind, doc: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"kind": kind, "doc": doc, "secret": secret})


def _section(cls: type, doc: str) -> Any:
    return field(factory=cls, metadata={"section": cls, "doc": doc})


@frozen
class SSHSettings:
    """The SSH door."""

    address: str = _setting("", ADDRESS, "Address to listen on; empty for all, IPv4 and IPv6.")
    port: int = _setting(SSH_PORT, whole(0, 65535), "TCP port; 0 takes any free one.")
    legacy_algorithms: bool = _setting(
        False,
        SWITCH,
        "Offer to everybody the algorithms that only old devices need (ssh-rsa, diffie-hellman-group14-sha1).",
    )
    login_seconds: float = _setting(LOGIN_SECONDS, SECONDS, "Seconds a client has to log in.")
    keepalive_idle: float = _setting(
        KEEPALIVE_IDLE_SECONDS, SECONDS, "Seconds of silence after which a device is asked for a sign of life."
    )
    keepalive_answer: float = _setting(
        KEEPALIVE_ANSWER_SECONDS, SECONDS, "Seconds it then has to answer before it is taken for gone."
    )
    max_unauthenticated: int = _setting(
        MAX_UNAUTHENTICATED, whole(1, 65535), "Connections that may be logging in at one time."
    )
    max_unauthenticated_per_address: int = _setting(
        MAX_UNAUTHENTICATED_PER_ADDRESS, whole(1, 65535), "The same, from one address."
    )
    max_connections: int = _setting(
        MAX_CONNECTIONS, whole(1, 1048576), "Connections that may be logged in at one time; more are turned away."
    )
    max_connections_per_device: int = _setting(
        MAX_CONNECTIONS_PER_DEVICE, whole(1, 65535), "The same, of one device; its oldest goes for another one."
    )
    requests_per_second: int = _setting(
        REQUESTS_PER_SECOND,
        whole(1, 10000),
        "Requests a second that one connection may make in the long run; others wait.",
    )


@frozen
class TLSSettings:
    """The TLS door: SSH inside TLS and tunnel streams on one port."""

    enabled: bool = _setting(True, SWITCH, "Whether there is a TLS door. Tunnels of kind tls need it.")
    address: str = _setting("", ADDRESS, "Address to listen on; empty for all, IPv4 and IPv6.")
    port: int = _setting(TLS_PORT, whole(0, 65535), "TCP port; 0 takes any free one.")
    names: tuple[str, ...] = _setting(
        (), NAMES, "DNS names and IP addresses that the server's certificate is for; empty for the host's own name."
    )
    minimum_version: str = _setting(
        "1.3", choice("1.2", "1.3"), "Oldest TLS version that is accepted, 1.2 or 1.3; an old stunnel may need 1.2."
    )
    max_unauthenticated: int = _setting(
        MAX_TLS_UNAUTHENTICATED, whole(1, 65535), "Connections that may be on their way through the door at one time."
    )
    max_unauthenticated_per_address: int = _setting(
        MAX_TLS_UNAUTHENTICATED_PER_ADDRESS, whole(1, 65535), "The same, from one address."
    )


@frozen
class SessionSettings:
    """Sessions and their tunnel addresses."""

    pool: IPv4Network = _setting(POOL, NETWORK, "Private network out of which tunnels get their addresses.")
    prefix: int = _setting(BLOCK_PREFIX, whole(24, 30), "Prefix length of the block that a session gets.")
    build_seconds: float = _setting(BUILD_SECONDS, SECONDS, "Seconds for both tunnels of a session to be built.")
    ticket_seconds: float = _setting(TICKET_SECONDS, SECONDS, "Seconds for which a tunnel's ticket is good.")
    glue: bool = _setting(
        True,
        SWITCH,
        "Whether the server may end tunnels, for old devices and for pairs of unlike ones. It needs to be started by"
        " root for that, and gives the rights up once a small process of its own has them.",
    )
    max_glued: int = _setting(
        MAX_GLUED, whole(1, 4096), "Sessions at a time whose tunnels end here; each takes some hundred kB."
    )


@frozen
class InventorySettings:
    """The database of devices and keys."""

    url: str = _setting(
        "",
        TEXT,
        "Database as an SQLAlchemy URL; empty for the file inventory.db in the state directory.",
        secret=True,
    )


@frozen
class ControlSettings:
    """The socket by which rdvctl speaks to the running server."""

    socket: str = _setting("", TEXT, "Path of the UNIX socket; empty for control.sock in the state directory.")


@frozen
class LogSettings:
    """The log."""

    level: str = _setting(
        "info",
        choice("debug", "info", "warn", "error", "critical"),
        "Least level that is written: debug, info, warn, error or critical.",
    )


@frozen
class ServerSettings:
    """Everything that can be set on a server."""

    state_directory: str = _setting(
        "",
        TEXT,
        "Directory for the inventory, keys and certificates. Empty for /var/lib/rdvtwisted/server, or for"
        " ~/.local/state/rdvtwisted/server when not run by root.",
    )
    ssh: SSHSettings = _section(SSHSettings, "The SSH door.")
    tls: TLSSettings = _section(TLSSettings, "The TLS door: SSH inside TLS and tunnel streams on one port.")
    session: SessionSettings = _section(SessionSettings, "Sessions and their tunnel addresses.")
    inventory: InventorySettings = _section(InventorySettings, "The database of devices and keys.")
    control: ControlSettings = _section(ControlSettings, "The socket by which rdvctl speaks to the running server.")
    log: LogSettings = _section(LogSettings, "The log.")


@frozen
class Setting:
    """One line of the table: a setting's place, its default and what it takes."""

    section: str
    key: str
    default: object
    kind: Kind
    doc: str
    secret: bool

    @property
    def name(self) -> str:
        """C{section.key}, or C{key} outside of the sections."""
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()


def _settings(cls: type, section: str = "") -> Iterator[Setting]:
    for each in fields(cls):
        data = each.metadata
        if "section" in data:
            yield from _settings(data["section"], each.name)
        else:
            yield Setting(section, each.name, each.default, data["kind"], data["doc"], data["secret"])


#: Every setting there is, by name, in the order of the sample.
SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _settings(ServerSettings)}
_SECTIONS: Mapping[str, tuple[type, str]] = {
    each.name: (each.metadata["section"], each.metadata["doc"])
    for each in fields(ServerSettings)
    if "section" in each.metadata
}
_VARIABLES: Mapping[str, Setting] = {setting.variable: setting for setting in SETTINGS.values()}


def load(text: str, environment: Mapping[str, str], overrides: Mapping[str, str]) -> ServerSettings:
    """
    The settings that a file's C{text}, the C{environment} and the options (C{overrides}, by C{section.key}) make.

    @raise ConfigError: a name is unknown, or a value cannot be used; the name is in it, as it was written.
    """
    found: dict[str, tuple[str, object]] = {}
    for name, value in _flat(_parsed(text)):
        found[_known(name, SETTINGS).name] = (name, value)
    texts = [(name, _known(name, _VARIABLES), value) for name, value in environment.items() if _ours(name)]
    texts += [(name, _known(name, SETTINGS), value) for name, value in overrides.items()]
    for name, setting, value in texts:
        try:
            found[setting.name] = (name, setting.kind.parse(value))
        except (ValueError, KeyError):
            raise _unusable(name, setting, value) from None
    sections: dict[str, dict[str, Any]] = {name: {} for name in ("", *_SECTIONS)}
    for key, (name, value) in found.items():
        setting = SETTINGS[key]
        try:
            sections[setting.section][setting.key] = setting.kind.accept(value)
        except ValueError:
            raise _unusable(name, setting, value) from None
    top = sections.pop("")
    return _consistent(
        ServerSettings(**top, **{name: _SECTIONS[name][0](**values) for name, values in sections.items()})
    )


def placed(settings: ServerSettings, environment: Mapping[str, str], root: bool) -> ServerSettings:
    """
    C{settings} with the places filled in that depend on who runs the server: the state directory and the socket.

    @raise ConfigError: neither a state directory nor a home directory is named.
    """
    directory = settings.state_directory or (SYSTEM_STATE_DIRECTORY if root else _users_directory(environment))
    socket = settings.control.socket or posixpath.join(directory, "control.sock")
    return evolve(settings, state_directory=directory, control=evolve(settings.control, socket=socket))


def sample() -> str:
    """A TOML file that has every setting with its default, and says of each what it does."""
    lines = ["# Settings of rdv-server. Every value below is the default; leave out what you do not change.", ""]
    section = ""
    for setting in SETTINGS.values():
        if setting.section != section:
            section = setting.section
            lines += [f"# {_SECTIONS[section][1]}", f"[{section}]"]
        lines += textwrap.wrap(setting.doc, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        lines += [f"{setting.key} = {_toml(setting.default)}", ""]
    return "\n".join(lines[:-1]) + "\n"


def _parsed(text: str) -> Mapping[str, object]:
    try:
        tree: Mapping[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, a number of too many digits, or much too deep
        raise ConfigError("file", f"it is not TOML: {error}") from None
    return tree


def _flat(tree: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if name in _SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(name, f"it is a section: write [{name}], and its settings below")
            for key, inner in value.items():
                yield f"{name}.{key}", inner
        elif isinstance(value, dict) and name not in SETTINGS:
            raise _unknown(name, _SECTIONS)
        else:
            yield name, value


def _ours(variable: str) -> bool:
    return variable.startswith(ENVIRONMENT_PREFIX) and variable not in DEVICES_VARIABLES


def _known(name: str, table: Mapping[str, Setting]) -> Setting:
    setting = table.get(name)
    if setting is None:
        raise _unknown(name, table)
    return setting


def _unknown(name: str, known: Mapping[str, object]) -> ConfigError:
    tail = name.rpartition(".")[2]
    near: Sequence[str] = get_close_matches(name, known, n=1) or [k for k in known if k.rpartition(".")[2] == tail]
    return ConfigError(name, "there is no such setting" + (f"; did you mean {near[0]}?" if near else ""))


def _unusable(name: str, setting: Setting, value: object) -> ConfigError:
    shown = "its value" if setting.secret else repr(value)[:80]
    return ConfigError(name, f"{shown} is not {setting.kind.what}")


def _consistent(settings: ServerSettings) -> ServerSettings:
    ssh, tls, session = settings.ssh, settings.tls, settings.session
    if session.prefix < session.pool.prefixlen:
        raise ConfigError("session.prefix", f"a block of /{session.prefix} does not fit into the pool {session.pool}")
    if not private(session.pool):
        networks = ", ".join(map(str, NETWORKS))
        raise ConfigError("session.pool", f"devices refuse addresses of {session.pool}; take a part of {networks}")
    for section, door in (("ssh", ssh), ("tls", tls)):
        most = door.max_unauthenticated
        if door.max_unauthenticated_per_address > most:
            raise ConfigError(
                f"{section}.max_unauthenticated_per_address", f"it is above {section}.max_unauthenticated, {most}"
            )
    if ssh.max_connections_per_device > ssh.max_connections:
        raise ConfigError("ssh.max_connections_per_device", f"it is above ssh.max_connections, {ssh.max_connections}")
    if tls.enabled and tls.port and (tls.address, tls.port) == (ssh.address, ssh.port):
        raise ConfigError("tls.port", f"{tls.port} is the port of the SSH door already")
    return settings


def _users_directory(environment: Mapping[str, str]) -> str:
    base = environment.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):  # the base directory specification: a relative path is to be ignored
        home = environment.get("HOME", "")
        if not home:
            raise ConfigError("state_directory", "it is not set, and there is no home directory to put it in")
        base = posixpath.join(home, ".local/state")
    return posixpath.join(base, "rdvtwisted/server")


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value))
    if isinstance(value, float) and math.trunc(value) == value:
        return str(math.trunc(value))
    if isinstance(value, IPv4Network):
        return json.dumps(str(value))
    return json.dumps(value)
