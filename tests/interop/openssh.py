"""Stock OpenSSH programs as child processes, and places for their files."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh.signatures import PrivateKey

SSH = shutil.which("ssh")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@define
class Result:
    """How a program ended, and what it said."""

    status: int
    out: bytes
    err: bytes


class Child(ProcessProtocol):
    """A program that runs."""

    transport: IProcessTransport

    def __init__(self, given: bytes | None) -> None:
        self._given = given
        self.out = b""
        self.err = b""
        self.done: Deferred[Result] = Deferred()
        self._awaited: tuple[bytes, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        """Give it what it is to read; L{None} leaves its input open."""
        if self._given is not None:
            self.transport.writeToChild(0, self._given)
            self.transport.closeStdin()

    def saying(self, text: bytes) -> Deferred[None]:
        """A Deferred that fires once it has said C{text}, on either stream."""
        said: Deferred[None] = Deferred()
        self._awaited = (text, said)
        self._look()
        return said

    def _look(self) -> None:
        if self._awaited is not None and self._awaited[0] in self.out + self.err:
            _, said = self._awaited
            self._awaited = None
            said.callback(None)

    def outReceived(self, data: bytes) -> None:
        self.out += data
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.err += data
        self._look()

    def processEnded(self, reason: Failure) -> None:
        """It has ended."""
        value = reason.value
        status = 0 if isinstance(value, ProcessDone) else getattr(value, "exitCode", None)
        self.done.callback(Result(-1 if status is None else status, self.out, self.err))


def write_key(path: Path, key: PrivateKey) -> Path:
    """Put a private key where a program takes it from."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@define
class Options:
    """Options by which an ssh client heeds nothing but what it is told here."""

    port: int
    key: Path
    known_hosts: Path
    more: tuple[str, ...] = field(default=())

    def command(self, *words: str) -> list[str]:
        """The command line of an ssh client that runs as C{rpi1100}, unless a word says otherwise."""
        # Of several values for one option the first counts.
        options = [
            *self.more,
            f"Port={self.port}",
            f"IdentityFile={self.key}",
            f"UserKnownHostsFile={self.known_hosts}",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=accept-new",
            "PasswordAuthentication=no",
            "BatchMode=yes",
        ]
        flags = [flag for option in options for flag in ("-o", option)]
        return ["ssh", "-F", "none", *flags, *words]


def environment() -> dict[str, str]:
    """What a program gets to know of our surroundings: as little as it can do with."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), "TERM": "xterm"}
