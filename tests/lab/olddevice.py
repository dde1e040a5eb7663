"""
An old device: C{python -m tests.lab.olddevice onsite|master ...} in a host of the lab.

It says and does what the original scripts did, with the same options, with
OpenSSH's client and stock vtund, and ends as they did. Besides, it reports to
tests, in lines of JSON: C{connected} with the process ids of C{script}
and C{ssh}, C{online} (an onsite waits), C{not_ready} (it waits again),
C{devices} (what a master was told), C{parameters}, C{up}, C{ended} with its
C{reason} and the C{transcript}, and C{failed} with the C{step}, the C{error}
and the C{transcript}.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from tests.lab.olddialogue import SELECTION_SECONDS, WAIT_SECONDS, OldScriptError, Shell
from tests.lab.oldtunnel import Tunnel

STUNNEL_PORT = 222
"""Where a device's stunnel accepts what is to go to the server through TLS."""

LIST_SECONDS = 10.0
"""Between two looks for an onsite that is not here yet."""

POLL_SECONDS = 1.0

ENDINGS = {
    "onsite": {
        "signal": "Stopped by receiving signal",
        "ssh": "Stopped by losing SSH Connection",
        "vtun": "Stopped by losing Vtun Tunnel",
    },
    "master": {
        "signal": "Stopped due to UNIX signal received",
        "ssh": "Stopped due to a dropped SSH connection ",
        "vtun": "Stopped due to a dropped vtun tunnel",
    },
}
"""What the log says at the end, by role and reason."""

REQUIRED = ("tunnel_ip_network", "tunnel_ip_prefix", "tunnelling_dev_ip_address", "rdv_server_ip_address")


def lan_address(interface: str) -> str:
    """The address of an interface with its prefix length, or C{None}, written so."""
    argv = ["ip", "-json", "-4", "address", "show", "dev", interface]
    [link, *_] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    addresses = link.get("addr_info", [])
    return f"{addresses[0]['local']}/{addresses[0]['prefixlen']}" if addresses else "None"


def name_servers() -> str:
    """The IPv4 name servers of this device."""
    lines = (line.split() for line in Path("/etc/resolv.conf").read_text().splitlines())
    return " ".join(words[1] for words in lines if words[:1] == ["nameserver"] and ":" not in words[1])


def quoted_hostname() -> str:
    """This device's name as a Python 2 string."""
    escaped: tuple[bytes, int] = codecs.escape_encode(os.fsencode(socket.gethostname()))
    return f"'{escaped[0].decode('ascii')}'"


def log(text: str) -> None:
    """A line of the script's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Device:
    """One run of a script."""

    role = ""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.id: str = options.username
        self._signalled = False
        self.shell: Shell | None = None

    def report(self, event: str, **facts: object) -> None:
        """A line for tests."""
        if self.options.report is not None:
            with self.options.report.open("a") as file:
                file.write(json.dumps({"event": event, "time": time.time(), **facts}) + "\n")

    def run(self) -> int:
        """The whole run; its exit status."""
        try:
            self.shell = Shell(self.id, self.ssh())
            self.shell.log_in()
            self.report("connected", script=os.getpid(), ssh=self.shell.terminal.pid)
            return self.script(self.shell)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # as Python ends a script
            transcript = self.shell.terminal.transcript.decode("latin-1") if self.shell is not None else ""
            step = self.shell.step if self.shell is not None else "ssh"
            self.report("failed", step=step, error=str(error) or type(error).__name__, transcript=transcript)
            log("".join(traceback.format_exception_only(type(error), error)).strip())
            log(f"in {step!r}, the conversation being:\n" + "".join(f"|{line}\n" for line in transcript.splitlines()))
            return 1

    def script(self, shell: Shell) -> int:
        """What this kind of device says."""
        raise NotImplementedError

    def ssh(self) -> list[str]:
        """The command line of the client."""
        host, _, port = self.options.rdv_server.partition(":")
        if self.options.with_stunnel:
            host, port = "localhost", port or str(STUNNEL_PORT)
            log(f'Connecting to RDV server over an SSL tunnel as user account "{self.id}"')
        else:
            log(f'Connecting to RDV server directly over SSH ({host}) as user account "{self.id}"')
        # The first line is the originals'; the second is what they find as default, and what OpenSSH 9.2 wants for ~C.
        return [
            *("ssh", "-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no", f"-oPort={port or 22}"),
            *("-F", "none", "-i", str(self.options.identity), "-oIdentityAgent=none", "-oEnableEscapeCommandline=yes"),
            *(f"-o{option}" for option in self.options.ssh_option),
            f"{self.id}@{host}",
        ]

    def open_tunnel(self, shell: Shell, mode: str, extremity: str) -> Tunnel:
        """Ask for the parameters, forward a port, start vtund, and see that it works."""
        parameters = shell.parameters()
        self.report("parameters", **parameters)
        for key in REQUIRED:
            if key not in parameters:
                raise OldScriptError("KeyError", key)
        shell.forward(parameters["rdv_server_vtun_tcp_port"])
        shell.step = "vtund"
        directory = self.options.identity.parent
        tunnel = Tunnel(directory, self.id, mode, parameters, extremity, masquerade=self.role == "onsite")
        if mode == "L3":
            shell.step = "ping of the server through the tunnel"
            if not tunnel.answers():
                log("Peer does not respond to pings inside the tunnel")
                log("Tunnel was not properly setup (no ping response from peer). Output from vtund client was:")
                log(tunnel.output())
                raise OldScriptError("TunnelNotWorking", tunnel.output())
            log("Tunnel to RDV server is up (got a ping reply)")
        return tunnel

    def stay(self, shell: Shell, tunnel: Tunnel) -> str:
        """Wait for the end of the session; why it ends."""
        shell.step = "session"
        seconds: int = self.options.session_time
        if seconds >= 0:
            log(f"Now sleeping {seconds // 60} min {seconds % 60} s")
            time.sleep(seconds)
            return "time"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, self._interrupted)
        while True:
            if self._signalled:
                reason = "signal"
            elif not shell.terminal.lives():
                reason = "ssh"
            elif not tunnel.lives():
                reason = "vtun"
            else:
                time.sleep(POLL_SECONDS)
                continue
            log(ENDINGS[self.role][reason])
            return reason

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        log(f"Handled signal {number}")
        self._signalled = True

    def finish(self, shell: Shell, tunnel: Tunnel, reason: str) -> int:
        """Take the tunnel down and leave; the exit status, which is 0 whatever the reason."""
        sys.stdout.write("...done\n")
        tunnel.stop()
        log("Now exitting tundev script. For debug, output from vtund client was:")
        log(tunnel.output())
        shell.leave()
        self.report("ended", reason=reason, transcript=shell.terminal.transcript.decode("latin-1"))
        return 0


class Onsite(Device):
    """The onsite script."""

    role = "onsite"

    def script(self, shell: Shell) -> int:
        """Wait for a master, have a session with it."""
        shell.require_role(self.role)
        while not self.selected(shell):
            log("RDV server asked us to restart")
        log("RDV server allowed vtun tunnel")
        mode = shell.get("get_tunnel_mode")
        tunnel = self.open_tunnel(shell, mode, self.options.interface)
        self.report("up", mode=mode)
        if self.options.session_time < 0:
            sys.stdout.write("Session now established with remote master\n")
        return self.finish(shell, tunnel, self.stay(shell, tunnel))

    def selected(self, shell: Shell) -> bool:
        """Tell the server who this is and wait; L{False} if all is to be said again."""
        interface: str = self.options.interface
        kinds = {"eth": "lan", "wlan": "wlan"}
        uplink = next((kind for start, kind in kinds.items() if interface.startswith(start)), "other")
        shell.get("get_tunnel_mode")
        shell.run(f"set_tunnelling_dev_lan_ip_address {lan_address(interface)}")
        shell.run(f"set_tunnelling_dev_dns_server_list {name_servers()}")
        shell.run(f"set_tunnelling_dev_hostname {quoted_hostname()}")
        shell.run(f"set_tunnelling_dev_uplink_type {uplink}")
        log("Waiting for a master to request us to start our vtun tunnel to the RDV server")
        self.report("online")
        while (answer := shell.get("wait_master_connection", WAIT_SECONDS)) == "not_ready":
            self.report("not_ready")
        if answer not in ("ready", "reset"):
            raise OldScriptError("TundevShellSyntaxError", f"Unknown reply {answer!r}")
        return answer == "ready"


class Master(Device):
    """The master script."""

    role = "master"

    def script(self, shell: Shell) -> int:
        """Find an onsite device, have a session with it."""
        target: str | None = self.options.onsite
        if self.options.list_onsite:
            devices = self.devices(shell)
            if devices:
                lines = ["Currently available onsite devices:", *devices, f"Total: {len(devices)}"]
            else:
                lines = ["No onsite device currently available"]
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            if target is None:
                shell.terminal.close()
                return 0
        if target is None:
            log("Error: --onsite argument is mandatory if --list-onsite is not used")
            return 1
        log(f"Connecting to onsite {target}")
        if target not in self.devices(shell):
            log(f"Could not connect to {target}. It is not connected (yet). Waiting")
            while target not in self.devices(shell):
                time.sleep(LIST_SECONDS)
        log(f"Selecting onsite dev {target} for this session")
        shell.run(f"set_tunnelling_dev_lan_ip_address {lan_address('eth0')}")
        shell.run(f"set_tunnel_mode {self.options.tunnel_mode}")
        shell.run(f"connect_to_onsite_dev {target}", SELECTION_SECONDS)
        shell.require_role(self.role)
        mode = shell.get("get_tunnel_mode")
        tunnel = self.open_tunnel(shell, mode, self.options.extremity)
        lan = ""
        if self.options.session_time < 0:
            sys.stdout.write(f"Remote session to onsite {target} is now established\n")
            lan = shell.get("show_remote_onsite_ip_config", SELECTION_SECONDS)
            if lan:
                sys.stdout.write(f"Remote onsite has it LAN interface configured with IP address {lan}\n")
        self.report("up", mode=mode, lan=lan)
        return self.finish(shell, tunnel, self.stay(shell, tunnel))

    def devices(self, shell: Shell) -> list[str]:
        """The onsite devices that are here."""
        devices = shell.run("show_online_onsite_devs", SELECTION_SECONDS).split()
        self.report("devices", devices=devices)
        return devices


def arguments() -> argparse.ArgumentParser:
    """The options of both scripts, and those of tests."""
    parser = argparse.ArgumentParser(prog="olddevice")
    roles = parser.add_subparsers(dest="role", required=True)
    onsite, master = roles.add_parser("onsite"), roles.add_parser("master")
    for role in (onsite, master):
        role.add_argument("-u", "--username", required=True)
        role.add_argument("-R", "--rdv-server", required=True)
        role.add_argument("-T", "--with-stunnel", action="store_true")
        role.add_argument("-t", "--session-time", type=int, default=-1)
        role.add_argument("--identity", type=Path, required=True, help="private key; vtund's configuration goes beside")
        role.add_argument("--ssh-option", action="append", default=[], help="of the SSH client, such as KEY=VALUE")
        role.add_argument("--report", type=Path, help="file for lines of JSON")
    onsite.add_argument("-i", "--interface", default="eth0")
    master.add_argument("-l", "--list-onsite", action="store_true")
    master.add_argument("-m", "--tunnel-mode", default="L3")
    master.add_argument("-o", "--onsite")
    master.add_argument("--extremity", default="eth0", help="what the watcher of USB adapters would say")
    return parser


def main() -> int:
    """Run one of the scripts; its exit status."""
    options = arguments().parse_args()
    return (Onsite if options.role == "onsite" else Master)(options).run()


if __name__ == "__main__":
    sys.exit(main())
