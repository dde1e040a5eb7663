"""The commands as child processes, as an operator calls them, on 127.0.0.1 and in folders of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.openssh import Child, Result, environment
from tests.source import CHECKOUT

reactor: Any = global_reactor

#: Seconds between two looks whether something has happened in another process.
LOOK_SECONDS = 0.05

_PROGRAMS = {
    "twistd": "from twisted.scripts.twistd import run; run()",
    "rdv-master": "import sys; from tap.master_dev import main; sys.exit(main())",
    "rdvctl": "import sys; from rdvtwisted.services.rdvctl import main; sys.exit(main())",
}


@frozen
class Server:
    """A server that runs."""

    child: Child
    ssh_port: int
    tls_port: int
    state: Path


def without(*capabilities: str) -> list[str]:
    """What to put before a command so that it lacks these capabilities; nothing for who has none anyway."""
    if os.geteuid() != 0:
        return []
    names = ",".join(f"-{name}" for name in capabilities)
    return ["setpriv", f"--bounding-set={names}", f"--inh-caps={names}"]


def alive(pid: int) -> bool:
    """Whether a process is there, and not just waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class CommandCase(TestCase):
    """Runs commands; whatever a test leaves running is ended after it."""

    timeout = 240

    def setUp(self) -> None:
        """A folder whose name is short enough for sockets, where every process works."""
        self.folder = Path(tempfile.mkdtemp(prefix="rdv-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.environment = {**environment(), "HOME": str(self.folder), "PYTHONPATH": str(CHECKOUT)}
        # Bytecode of a checkout that belongs to somebody else is not ours to write.
        self.environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def spawn(self, *words: str, before: Sequence[str] = ()) -> Child:
        """Start a command, with other words before it."""
        command = [*before, sys.executable, "-c", _PROGRAMS[words[0]], *words[1:]]
        return self.start(command)

    def start(self, command: Sequence[str]) -> Child:
        """Start any program."""
        child = Child(b"")
        reactor.spawnProcess(child, command[0] if "/" in command[0] else shutil.which(command[0]), command,
                             env=self.environment, path=str(self.folder))  # fmt: skip
        self.addCleanup(self._end, child)
        return child

    async def _end(self, child: Child) -> None:
        if child.transport.pid is not None:
            child.transport.signalProcess("KILL")
            while child.transport.pid is not None:  # a test that has run out of time has cancelled what it waited for
                await self.pause()

    async def command(self, *words: str, before: Sequence[str] = ()) -> Result:
        """Run a command to its end."""
        result: Result = await self.spawn(*words, before=before).done
        return result

    async def server(self, *options: str, before: Sequence[str] = ()) -> Server:
        """A server that serves, on free ports."""
        state = self.folder / "server"
        child = self.spawn("twistd", "-n", "--pidfile=", "rdv-server", *self.places(state), *options, before=before)
        await self.until_said(child, b"Certificate authority")
        match = re.search(rb"SSH on port (\d+), TLS on port (\d+)", child.out)
        assert match is not None, child.out
        return Server(child, int(match[1]), int(match[2]), state)

    async def until_said(self, child: Child, text: bytes) -> None:
        """Wait until a child has said something; it is a failure if it ends before."""
        while text not in child.out + child.err:
            if child.transport.pid is None:
                self.fail(f"ended without {text!r}: {child.out + child.err!r}")
            await self.pause()

    async def until_gone(self, pid: int) -> None:
        """Wait until a process is gone."""
        while alive(pid):
            await self.pause()

    async def pause(self) -> None:
        """Let other processes go on."""
        await deferLater(reactor, LOOK_SECONDS)

    def places(self, state: Path) -> list[str]:
        """Options of a server that disturbs nobody."""
        return [
            "--state-dir", str(state), "--ssh-address", "127.0.0.1", "--ssh-port", "0",
            "--tls-address", "127.0.0.1", "--tls-port", "0", "--set", "tls.names=localhost",
        ]  # fmt: skip

    async def register(self, server: Server, id: str, role: str, before: Sequence[str] = ()) -> None:
        """Make a device's key where L{device} looks for it, and tell the administrator; an onsite is for everybody."""
        made = await self.command("rdv-master", *self.device(server, id), "--make-key", before=before)
        self.assertEqual((made.status, made.err), (0, b""))
        key = (self.folder / id / "identity.pub").read_text()
        added = await self.command(
            "rdvctl", "--state-dir", str(server.state), "device", "add", id, "--role", role, "--key", key, before=before
        )
        self.assertEqual((added.status, added.err), (0, b""))
        if role == "onsite":
            allow = ("rdvctl", "--state-dir", str(server.state), "access", "allow", "*", id)
            allowed = await self.command(*allow, before=before)
            self.assertEqual((allowed.status, allowed.err), (0, b""))

    def device(self, server: Server, id: str, *, tls: bool = False) -> list[str]:
        """Options of a device."""
        port = server.tls_port if tls else server.ssh_port
        return ["-u", id, "-R", f"127.0.0.1:{port}", "-s", str(self.folder / id), *(["-T"] if tls else [])]

    def assert_refused(self, result: Result, status: int, line: str) -> None:
        """It ended with this status and one line on standard error, which begins with C{line}, and no other word."""
        self.assertEqual(result.out, b"")
        text = result.err.decode()
        self.assertTrue(text.startswith(line), text)
        self.assertEqual((text.count("\n"), result.status), (1, status), text)

    def interrupt(self, child: Child, number: int = signal.SIGINT) -> None:
        """Send a signal to a child of ours."""
        assert child.transport.pid is not None
        os.kill(child.transport.pid, number)
