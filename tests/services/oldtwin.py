"""A device's connection in memory to an old server, whose shell says what the old ones said and nothing more."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from rdvtwisted.adapters.ssh.remote import ShellListener
from rdvtwisted.errors import RDVError
from rdvtwisted.testing.tunnels import identity
from rdvtwisted.values import PublicKey, Role
from tests.services.twin import DEVICE

KEY = identity("old-server").public
ONSITE = "rpi2200"
VTUN = """\
tunnel_ip_network: 192.168.128.0
tunnel_ip_prefix: /30
tunnel_ip_netmask: 255.255.255.252
tunnelling_dev_ip_address: 192.168.128.2
rdv_server_ip_address: 192.168.128.1
rdv_server_vtun_tcp_port: 5000
tunnel_secret: _rpi1100
"""
_UNKNOWN = "*** Unknown syntax: "
_COMMON = frozenset(
    ["set_tunnelling_dev_lan_ip_address", "set_tunnelling_dev_dns_server_list", "set_tunnelling_dev_hostname"]
)
_OF = {
    Role.ONSITE: {"set_tunnelling_dev_uplink_type", "wait_master_connection"},
    Role.MASTER: {
        "set_tunnel_mode",
        "show_online_onsite_devs",
        "connect_to_onsite_dev",
        "show_remote_onsite_ip_config",
    },
}


@define(eq=False)
class OldSSHTwin:
    """
    What L{rdvtwisted.services.link.Link} uses of an C{SSHLink}, and of the shell on it.

    @ivar lines: the commands that came in.
    @ivar mode: what it says of the tunnel.
    @ivar vtun: what it says of the tunnel's parameters.
    @ivar stuck: its shell does not end at C{logout}.
    @ivar forwards: hosts and ports of the forwards that were asked for.
    """

    role: Role
    server_key: PublicKey = KEY
    lines: list[str] = field(factory=list)
    mode: str = "L3"
    vtun: str = VTUN
    stuck: bool = False
    forwards: list[tuple[str, int]] = field(factory=list)
    partings: list[str] = field(factory=list)
    closed: Deferred[None] = field(factory=Deferred)
    typed: bytearray = field(factory=bytearray)
    said: list[bytes] = field(factory=list)
    _listener: ShellListener | None = None
    _waiting: bool = False
    _started: bool = False
    _over: bool = False

    # SSHLink

    def open_shell(self, listener: ShellListener) -> Deferred[Any]:
        """A shell; its prompt is under way."""
        self._listener = listener
        self._prompt()
        return succeed(self)

    def endpoint(self, host: str, port: int) -> Any:
        """Take note."""
        self.forwards.append((host, port))
        return f"to {host}:{port}"

    def disconnect(self, reason: str = "goodbye") -> Deferred[None]:
        """Take leave; the server closes at once."""
        self.partings.append(reason)
        if not self.closed.called:
            self._end(None, reason)
            self.closed.callback(None)
        return succeed(None)

    # RemoteShell

    def write(self, data: bytes) -> None:
        """The device types."""
        assert b"\x03" not in data, "Ctrl-C ends the shell of an old server"
        self.typed += data

    # The test

    @property
    def asked(self) -> list[Any]:
        """No requests as values, but C{lines}."""
        return []

    def ready(self, word: str = "ready") -> None:
        """The wait for a master is over."""
        assert self._waiting
        self._waiting = False
        self._say(f"{word}\n")
        self._prompt()
        self.pump()

    def lose(self, error: RDVError) -> None:
        """The connection breaks."""
        self._end(None, "the connection was lost")
        if self.partings:
            self.closed.callback(None)
        else:
            self.closed.errback(error)

    def pump(self) -> None:
        """Move all that is under way."""
        while (self.typed and not self._waiting) or self.said:
            typed, self.typed = bytes(self.typed), bytearray()
            for line in typed.decode("ascii").splitlines():
                if not self._over:
                    self._perform(line)
            said, self.said = self.said, []
            assert self._listener is not None
            for data in said:
                self._listener.output(data)

    def _perform(self, line: str) -> None:
        self.lines.append(line)
        word, _, argument = line.partition(" ")
        if word == "logout":
            if not self.stuck:
                self._end(0, "")
            return
        if word == "wait_master_connection" and self.role is Role.ONSITE:
            self._waiting = True
            return
        if word == "get_vtun_parameters" and self._started:
            self._end(1, "")  # with a traceback: VtundAlreadyRunning
            return
        self._say(self._answer(word, argument, line))
        self._prompt()

    def _answer(self, word: str, argument: str, line: str) -> str:
        if word == "get_role":
            return f"{self.role}\n"
        if word == "get_tunnel_mode":
            return f"{self.mode}\n"
        if word == "get_vtun_parameters":
            self._started = True
            return self.vtun
        if word not in _COMMON | _OF[self.role]:
            return f"{_UNKNOWN}{line}\n"
        if word == "set_tunnel_mode":
            self.mode = argument
        answers = {
            "show_online_onsite_devs": f"rpi3300\n{ONSITE}\n",
            "show_remote_onsite_ip_config": "192.168.50.1/24\n",
        }
        return answers.get(word, "")

    def _say(self, text: str) -> None:
        if text:
            self.said.append(text.encode("ascii"))

    def _prompt(self) -> None:
        self._say(f"{DEVICE}$ ")

    def _end(self, status: int | None, reason: str) -> None:
        if self._listener is not None and not self._over:
            self._over = True
            self._listener.ended(status, reason)
