"""
The login shell of an account on an old server: a copy of this file, called
C{onsitedev_shell.py} or C{masterdev_shell.py}, which tells it its role.

It is Python's C{cmd} module, as the originals are, so that prompts, unknown
words, empty lines, help and the end of input are what they were. Line editing
is left to the terminal. What goes wrong ends it with a traceback and status 1.
It runs without the rest of the lab, and asks L{tests.lab.oldmanager} for
everything that outlives it, at a socket beside it.
"""

from __future__ import annotations

import cmd
import codecs
import json
import os
import pwd
import select
import socket
import sys
import traceback
import warnings
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

ROLES = ("onsite", "master")
UPLINKS = ("lan", "wlan", "3g")

PARAMETERS = (
    "tunnel_ip_network",
    "tunnel_ip_prefix",
    "tunnel_ip_netmask",
    "tunnelling_dev_ip_address",
    "rdv_server_ip_address",
    "rdv_server_vtun_tcp_port",
    "tunnel_secret",
)
"""What C{get_vtun_parameters} prints, in this order."""


class TundevManagerError(Exception):
    """The manager refuses; its word for why."""


class LanIpShouldBeProvidedBeforeRegistrationToManager(Exception):
    """A device may not wait or connect before it has told its address."""


class Manager:
    """The other end of the manager's socket; while it is open the manager knows that the shell lives."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb", buffering=0)

    def ask(self, verb: str, **arguments: object) -> Any:
        """
        What the manager answers.

        @raise TundevManagerError: it refuses, or is gone.
        """
        self._socket.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        while True:
            answer = self._read()
            if "signal" not in answer:  # one that came too late to be waited for is lost
                break
        if "error" in answer:
            raise TundevManagerError(answer["error"])
        return answer["value"]

    def wait(self, id: str) -> bool:
        """Whether a master selects this device in the time that there is for it."""
        seconds = self.ask("wait", id=id)
        signalled = bool(select.select([self._socket], [], [], seconds)[0])
        if signalled:
            self._read()
        self.ask("stop waiting")
        return signalled

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise TundevManagerError("the manager is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _decoded(argument: str) -> str:
    """A hostname as the device meant it."""
    text = argument.strip()
    if len(text) < 2 or not (text.startswith("'") and text.endswith("'")):
        return text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown escape stays what it is
        decoded: tuple[bytes, int] = codecs.escape_decode(text[1:-1].encode("latin-1"))
    return decoded[0].decode("latin-1")


class Shell(cmd.Cmd):
    """What both roles understand."""

    role = ""

    def __init__(self, id: str, manager: Manager) -> None:
        super().__init__(completekey=None)  # or it would load readline, and that its escape sequences
        self.id = id
        self.prompt = f"{id}$ "
        self.mode = "L3"
        self.lan = ""
        self.dns = ""
        self.hostname = ""
        self.uplink = ""
        self.registered = False
        self.manager = manager

    def say(self, text: str) -> None:
        """A line of output."""
        self.stdout.write(text + "\n")
        self.stdout.flush()

    def complain(self, text: str) -> None:
        """A line about an error."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def register(self) -> None:
        """Register with the manager, once."""
        if self.registered:
            return
        if not self.lan:
            raise LanIpShouldBeProvidedBeforeRegistrationToManager
        facts = {"mode": self.mode, "lan": self.lan, "dns": self.dns, "hostname": self.hostname}
        self.manager.ask("register", id=self.id, role=self.role, **facts)
        self.registered = True

    def do_get_role(self, _: str) -> None:
        """Usage: get_role. Prints the role of this device."""
        self.say(self.role)

    def do_get_tunnel_mode(self, _: str) -> None:
        """Usage: get_tunnel_mode. Prints the mode of the tunnel."""
        self.say(self.mode)

    def do_set_tunnelling_dev_lan_ip_address(self, argument: str) -> None:
        """Usage: set_tunnelling_dev_lan_ip_address ADDRESS/PREFIX."""
        try:
            self.lan = IPv4Interface(argument).with_prefixlen
        except ValueError:
            self.complain(f"Invalid IP network: {argument}")

    def do_set_tunnelling_dev_dns_server_list(self, argument: str) -> None:
        """Usage: set_tunnelling_dev_dns_server_list [ADDRESS ...]."""
        try:
            self.dns = " ".join(str(IPv4Address(address)) for address in argument.split())
        except ValueError:
            self.complain(f"Invalid DNS list: {argument}")

    def do_set_tunnelling_dev_hostname(self, argument: str) -> None:
        """Usage: set_tunnelling_dev_hostname 'HOSTNAME'."""
        try:
            self.hostname = _decoded(argument)
        except ValueError:
            self.complain(f"Invalid hostname: {argument}")

    def do_get_vtun_parameters(self, _: str) -> None:
        """Usage: get_vtun_parameters. Starts the tunnel's server and prints what its client has to know."""
        self.register()
        values = self.manager.ask("start", id=self.id)
        for key in PARAMETERS:
            self.say(f"{key}: {values[key]}")

    def do_drop_vtun(self, _: str) -> None:
        """Usage: drop_vtun. Stops the tunnel's server."""
        if self.registered:
            self.manager.ask("stop", id=self.id)

    def do_echo(self, argument: str) -> None:
        """Usage: echo TEXT."""
        self.say(argument)

    def do_debug_mode(self, argument: str) -> None:
        """Usage: debug_mode on|off."""
        if argument not in ("on", "off"):
            self.complain(f"Unsupported debug mode: {argument}")

    def do_logout(self, _: str) -> bool:
        """Usage: logout. Ends this connection."""
        self.manager.ask("unregister", id=self.id)
        return True

    def do_exit(self, _: str) -> bool:
        """Usage: exit. Ends this connection."""
        return self.do_logout("")

    def do_EOF(self, _: str) -> bool:
        """Usage: Ctrl-D. Ends this connection."""
        return self.do_logout("")


class OnsiteShell(Shell):
    """What an onsite device may say besides."""

    role = "onsite"

    def do_set_tunnelling_dev_uplink_type(self, argument: str) -> None:
        """Usage: set_tunnelling_dev_uplink_type lan|wlan|3g."""
        if argument in UPLINKS:
            self.uplink = argument
        else:
            self.complain(f"Unsupported uplink type: {argument}")

    def do_wait_master_connection(self, _: str) -> None:
        """Usage: wait_master_connection. Waits a minute for a master to select this device."""
        self.register()
        if self.manager.wait(self.id):
            self.say("ready")
        else:
            self.complain("not_ready")


class MasterShell(Shell):
    """What a master device may say besides."""

    role = "master"

    def do_set_tunnel_mode(self, argument: str) -> None:
        """Usage: set_tunnel_mode L2|L3|L3_multi."""
        self.mode = argument

    def do_show_online_onsite_devs(self, _: str) -> None:
        """Usage: show_online_onsite_devs. Prints the ids of the onsite devices that are here."""
        for id in self.manager.ask("online"):
            self.say(id)

    def do_connect_to_onsite_dev(self, argument: str) -> None:
        """Usage: connect_to_onsite_dev ID. Selects an onsite device."""
        self.register()
        self.manager.ask("connect", id=self.id, onsite=argument)

    def do_show_remote_onsite_ip_config(self, _: str) -> None:
        """Usage: show_remote_onsite_ip_config. Prints the address that the onsite device has on its LAN."""
        lan = self.manager.ask("lan", id=self.id)
        if lan:
            self.say(lan)
        else:
            self.complain("No remote onsite IP configuration retrieved. Are you connected to an onsite?")


def main(program: Path) -> int:
    """Be the shell of the account that this runs as, until its end; the exit status."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="latin-1")  # type: ignore[union-attr]  # bytes pass as they are
    names = (os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    id = next(filter(None, names), None) or pwd.getpwuid(os.getuid()).pw_name
    kind = MasterShell if program.name == "masterdev_shell.py" else OnsiteShell
    try:
        kind(id, Manager(program.parent / "manager.sock")).cmdloop()
    except KeyboardInterrupt:  # by which Python itself would end in another way
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__)))
