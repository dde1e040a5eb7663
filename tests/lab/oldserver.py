"""
An old RDV server: stock sshd, stock stunnel, stock vtund, and between them the
shells and the manager of the old world (L{tests.lab.oldshell},
L{tests.lab.oldmanager}). It has no line of the product in it.

C{python -m tests.lab.oldserver DIRECTORY} is the program that runs in the
lab's server; L{OldServer} lays down its files, and starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tests.lab import oldglue
from tests.lab.lab import Lab
from tests.lab.oldmanager import Manager
from tests.lab.processes import LabProcess, eventually

SSH_PORT, TLS_PORT = 22, 443

RACES = 3
"""How often at most a session between stock vtunds is begun: now and then one ends over a packet that came too soon."""

START_SECONDS = 60.0
"""How long the server may take to start, with its keys, on a slow machine."""

_SHELL = Path(__file__).with_name("oldshell.py")

_SSHD = """\
Port {port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/keys/%u
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PrintMotd no
PrintLastLog no
PidFile none
LogLevel VERBOSE
"""

_STUNNEL = """\
foreground = yes
pid =
syslog = no
cert = {directory}/stunnel.pem
[ssh]
accept = 0.0.0.0:{tls_port}
connect = 127.0.0.1:{port}
"""


class OldServer:
    """
    An old server in the lab's host C{server}.

    @param wait_seconds: how long C{wait_master_connection} waits; 60 in the old world.
    @param host_key: the type of the server's key, as C{ssh-keygen -t} has it.
    @ivar process: L{None} before it is started.
    """

    def __init__(self, lab: Lab, wait_seconds: float = 60.0, host_key: str = "ed25519") -> None:
        self.lab = lab
        self.directory = lab.directory / "oldserver"
        self.process: LabProcess | None = None
        self._wait_seconds = wait_seconds
        (self.directory / "keys").mkdir(parents=True)
        for role in ("onsite", "master"):
            shell = self.directory / f"{role}dev_shell.py"
            shell.write_text(f"#!{sys.executable} -ISB\n{_SHELL.read_text()}")
            shell.chmod(0o755)
        shutil.copy("/etc/passwd", self.directory / "passwd")
        make_key(self.directory / "host_key", host_key)
        files = {"directory": self.directory, "port": SSH_PORT, "tls_port": TLS_PORT}
        (self.directory / "sshd_config").write_text(_SSHD.format(**files))
        (self.directory / "stunnel.conf").write_text(_STUNNEL.format(**files))
        make_certificate(self.directory / "stunnel.pem")

    def add(self, id: str, role: str, key: str) -> None:
        """
        Make the account of a device, also while the server runs.

        @param key: its public key, as a line of OpenSSH.
        """
        # The accounts are root under other names: no other user of this machine can reach the lab's files.
        entry = f"{id}:*:0:0::{self.directory}:{self.directory}/{role}dev_shell.py\n"
        with (self.directory / "passwd").open("a") as passwd:
            passwd.write(entry)
        (self.directory / "keys" / id).write_text(key.strip() + "\n")

    def start(self) -> LabProcess:
        """Start it; returns when both its doors are open."""
        argv = ["unshare", "--mount", "--propagation=private", sys.executable, "-Bm", __name__]
        self.process = self.lab.start("server", [*argv, str(self.directory), "--wait", str(self._wait_seconds)])
        self.process.wait_listening(SSH_PORT, TLS_PORT, timeout=START_SECONDS)
        eventually((self.directory / "manager.sock").exists, START_SECONDS, "the manager to listen")
        return self.process

    def stop(self) -> None:
        """End it with all its connections and tunnels; it can be started again."""
        if self.process is not None:
            self.process.stop()

    def status(self) -> dict[str, Any]:
        """C{bindings}, by id, and C{sessions}, each with its C{state}."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(str(self.directory / "manager.sock"))
            asking.sendall(b'{"verb": "status"}\n')
            answer: dict[str, Any] = json.loads(asking.makefile().readline())["value"]
        return answer


def make_key(path: Path, kind: str = "ed25519") -> str:
    """Make an SSH key without passphrase; its public line."""
    size = ["-b", "2048"] if kind == "rsa" else []
    argv = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(path.name + ".pub").read_text().strip()


def make_certificate(path: Path) -> None:
    """Make a key and a certificate that nobody has signed, in one file, as stunnel wants it."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]
    certificate = path.with_suffix(".crt")
    argv = ["openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=rdv", "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(certificate.read_text())
    path.chmod(0o600)


# ---------------------------------------------------- the program in C{server}


def _say(text: str) -> None:
    sys.stderr.write(f"manager: {text}\n")


def _replace(by: Path, file: Path) -> None:
    """Have a file look like another one to this process and all that it starts."""
    if file.exists():
        subprocess.run(["mount", "--bind", str(by), str(file)], check=True)


def _end_offspring() -> None:
    """Kill what runs in the mount namespace that was made for this process: all that it has ever started."""
    own = os.stat("/proc/self/ns/mnt").st_ino
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and int(entry) != os.getpid() and os.stat(f"/proc/{entry}/ns/mnt").st_ino == own:
                os.kill(int(entry), signal.SIGKILL)


def _interrupted(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--wait", type=float)
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    signal.signal(signal.SIGTERM, _interrupted)
    _replace(directory / "passwd", Path("/etc/passwd"))
    (directory / "logins").touch()
    for name in ("wtmp", "btmp", "lastlog"):  # this machine's, in which sshd writes who has come
        _replace(directory / "logins", Path("/var/log", name))
    Path("/run/sshd").mkdir(exist_ok=True)  # which sshd does not run without
    for name in ("manager.sock", "reports"):  # of an earlier run
        (directory / name).unlink(missing_ok=True)
    oldglue.forbid_forwarding()
    manager = Manager(directory, arguments.wait, _say)
    children = [
        subprocess.Popen([str(shutil.which("sshd")), "-D", "-e", "-f", str(directory / "sshd_config")]),
        subprocess.Popen(["stunnel4", str(directory / "stunnel.conf")]),
    ]
    try:
        manager.serve()
    finally:
        for child in children:
            child.terminate()
        manager.close()
        oldglue.allow_forwarding()
        _end_offspring()


if __name__ == "__main__":
    main()
