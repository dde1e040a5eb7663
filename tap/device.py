"""Options that both kinds of devices have."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.python import usage

from rdvtwisted.errors import InvalidValue
from rdvtwisted.ports import SSH_PORT, TLS_PORT
from rdvtwisted.services.device import (
    SESSION_SECONDS,
    SILENCE_SECONDS,
    DeviceSettings,
    HookSettings,
    default_state_directory,
    server_addresses,
)
from rdvtwisted.values import Role, device_id
from tap.options import CommandOptions

#: Seconds that a session is given at least: one that is over before it is up cannot be told from one that has failed.
LEAST_SESSION_SECONDS = 1.0
#: Seconds that a hook may be given; the server waits this long for a session to be built.
MOST_HOOK_SECONDS = 45.0
#: Bounds of --silence: below, a slow line is taken for a dead one; above, routers forget a connection that is idle.
LEAST_SILENCE, MOST_SILENCE = 3.0, 3600.0


def _number(text: str) -> float:
    """The number that a text holds; if there is none, that which is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def seconds(option: str, least: float = 0.0) -> Callable[[str], float | None]:
    """
    How a time limit is read that C{option} gives: a number of seconds, negative for none, as old wrappers write it.

    What is returned raises L{usage.UsageError} if it is no number, or below C{least} without being negative.
    """
    bound = f", at least {least:g}" if least else ""

    def read(text: str) -> float | None:
        value = _number(text)
        if not math.isfinite(value) or 0 <= value < least:
            raise usage.UsageError(f"{option} {text}: give a number of seconds{bound}; a negative one means no limit")
        return None if value < 0 else value

    return read


def span(option: str, most: float, least: float = 1.0) -> Callable[[str], float]:
    """How a number of seconds from C{least} to C{most} is read that C{option} gives."""

    def read(text: str) -> float:
        value = _number(text)
        if not least <= value <= most:
            raise usage.UsageError(f"{option} {text}: give a number of seconds from {least:g} to {most:g}")
        return value

    return read


class DeviceOptions(CommandOptions):
    """What every device wants to know; subclasses name the role."""

    role: Role
    #: Environment variable that has the account.
    account_variable: str

    optFlags = [
        ["with-tls", "T", "Connect by TLS, port 443, and speak SSH inside it."],
        ["debug", "d", "Log in detail, and what is said between device and server, but for secrets."],
        ["make-key", None, "Make the device's key if it has none, print its public half, and exit."],
        ["strict-peers", None, "Refuse a device whose key is not in the known peers yet, instead of pinning it."],
        ["end-to-end", None, "Refuse sessions that the server could read."],
        ["help-backends", None, "List the tunnel backends, what each needs and what is missing here, and exit."],
    ]
    optParameters: list[list[Any]] = [
        [
            "username",
            "u",
            None,
            "The device's account on the server, its id. [environment: ONSITEDEV_USERNAME or MASTERDEV_USERNAME]",
        ],
        [
            "rdv-server",
            "R",
            None,
            "HOST, HOST:PORT or [IPV6]:PORT of the server; or several, with commas. [environment: RDV_SERVER_HOSTNAME]",
        ],
        [
            "session-time",
            "t",
            SESSION_SECONDS,
            "End each session after so many seconds; a negative number: no end of this device's own.",
            seconds("--session-time", LEAST_SESSION_SECONDS),
        ],
        [
            "silence",
            None,
            SILENCE_SECONDS,
            "Seconds of silence until the server is connected to anew.",
            span("--silence", MOST_SILENCE, LEAST_SILENCE),
        ],
        [
            "state-dir",
            "s",
            None,
            (
                "Directory for the key and what is pinned. [default: for root /var/lib/rdvtwisted/ROLE, for others"
                " ~/.local/state/rdvtwisted/ROLE; ROLE is onsite or master]"
            ),
        ],
        ["identity", None, None, "Private key file. [default: STATE-DIR/identity]"],
        ["known-hosts", None, None, "The server's SSH host keys. [default: STATE-DIR/known_hosts]"],
        ["known-peers", None, None, "Keys of other devices. [default: STATE-DIR/known_peers]"],
        ["ca", None, None, "The server's certificate authority, PEM. [default: STATE-DIR/server-ca.pem]"],
        [
            "hooks",
            None,
            None,
            f"Directory of programs to run before and after a session. [default: {HookSettings().directory}, if there]",
        ],
        [
            "hook-time",
            None,
            HookSettings().seconds,
            "Seconds that each may take.",
            span("--hook-time", MOST_HOOK_SECONDS),
        ],
        ["report", None, None, "Append what happens to this file, a JSON object a line."],
    ]

    def opt_with_stunnel(self) -> None:
        """The same as --with-tls; the name that old wrappers use."""
        self["with-tls"] = True

    @property
    def log_level(self) -> str:
        """Name of the least level that is logged."""
        return "debug" if self["debug"] else "info"

    @property
    def only_informs(self) -> bool:
        """The command is to say something and exit."""
        return bool(self["make-key"] or self["help-backends"])

    def postOptions(self) -> None:
        """Refuse what makes no sense."""
        if self["username"] is None:
            self["username"] = os.environ.get(self.account_variable)
        if self["rdv-server"] is None:
            self["rdv-server"] = os.environ.get("RDV_SERVER_HOSTNAME")
        if self["help-backends"]:
            return
        if self["username"] is None:
            raise usage.UsageError(f"name the account with --username or {self.account_variable}")
        try:
            device_id(self["username"])
            if self["rdv-server"] is not None:
                server_addresses(self["rdv-server"])
        except InvalidValue as error:
            raise usage.UsageError(str(error)) from None
        if self["rdv-server"] is None and not self.only_informs:
            raise usage.UsageError("name the server with --rdv-server or RDV_SERVER_HOSTNAME")

    def hooks(self) -> HookSettings:
        """Where the hooks are."""
        named = self["hooks"]
        usual = HookSettings(seconds=self["hook-time"])
        return evolve(usual, directory=Path(named).absolute(), required=True) if named else usual

    def settings(self) -> DeviceSettings:
        """The settings that these options make."""
        state = Path(self["state-dir"] or default_state_directory(self.role.value, os.environ)).absolute()
        (host, port), *others = server_addresses(self["rdv-server"] or "localhost")

        def place(option: str, name: str) -> Path:
            return Path(self[option]).absolute() if self[option] else state / name

        return DeviceSettings(
            role=self.role,
            account=self["username"],
            host=host,
            port=port or (TLS_PORT if self["with-tls"] else SSH_PORT),
            tls=bool(self["with-tls"]),
            state=state,
            identity=place("identity", "identity"),
            known_hosts=place("known-hosts", "known_hosts"),
            known_peers=place("known-peers", "known_peers"),
            authority=place("ca", "server-ca.pem"),
            strict_peers=bool(self["strict-peers"]),
            silence=self["silence"],
            others=tuple(others),
            port_named=port is not None,
            end_to_end=bool(self["end-to-end"]),
        )
