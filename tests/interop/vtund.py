"""
Two network namespaces joined by a cable, C{device} and C{server}: a stock vtund client runs in the one; in the other,
this module runs as a small program of its own that puts the product's end of vtun between a TCP port and a real
TUN or TAP device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from itertools import count
from pathlib import Path
from signal import Signals
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import RequestRefused
from rdvtwisted.testing.server_tunnels import MemoryServerSite, terms
from rdvtwisted.values import Mode
from tests.lab.programs import obstacles
from tests.source import CHECKOUT
from tunnels.vtun_end import VtunServerTunnel
from tunnels.vtun_handshake import session_name
from tunnels.vtun_server import SETTLING_LIMIT

reactor: Any = global_reactor

VTUND = shutil.which("vtund", path="/usr/sbin:/usr/local/sbin:/usr/bin")

PORT = 15000
#: Addresses at the two ends of the cable, and of the tunnel.
CABLE = {"server": "198.51.100.1", "device": "198.51.100.2"}
TUNNEL = {"server": "192.168.128.1", "device": "192.168.128.2"}
TUNNEL6 = {"server": "fd00:128::1", "device": "fd00:128::2"}
MTU = 1450

_serials = count()


def obstacle() -> str | None:
    """Why stock vtund cannot be run in a namespace here, in words, or L{None} if it can."""
    return obstacles(("ip", "ping", "vtund")) if VTUND else "needs the Debian package vtun"


class Program(ProcessProtocol):
    """A program that runs, and what it has said so far, on either stream."""

    transport: IProcessTransport

    def __init__(self) -> None:
        self.said = ""
        self.status: int | None = None
        self._waiting: list[Deferred[int]] = []
        self._awaited: list[tuple[str, Deferred[None]]] = []

    @property
    def ended(self) -> Deferred[int]:
        """
        A Deferred, each time another, since a test that takes too long cancels what it waits for: fires with the
        program's exit status, or minus the number of the signal that ended it.
        """
        if self.status is not None:
            return succeed(self.status)
        ended: Deferred[int] = Deferred(self._waiting.remove)
        self._waiting.append(ended)
        return ended

    def saying(self, text: str) -> Deferred[None]:
        """A Deferred that fires once it has said C{text}, and fails if it ends without."""
        said: Deferred[None] = Deferred()
        self._awaited.append((text, said))
        self._look()
        return said

    def signal(self, name: str) -> None:
        """Send it a signal."""
        self.transport.signalProcess(Signals[f"SIG{name}"])

    def outReceived(self, data: bytes) -> None:
        self.said += data.decode(errors="replace")
        self._look()

    errReceived = outReceived

    def _look(self) -> None:
        for text, said in self._awaited[:]:
            if text in self.said or self.status is not None:
                self._awaited.remove((text, said))
                if text in self.said:
                    said.callback(None)
                else:
                    said.errback(AssertionError(f"it ended without saying {text!r}, but said:\n{self.said}"))

    def processEnded(self, reason: Failure) -> None:
        """It has ended."""
        value = reason.value
        signal = getattr(value, "signal", None)
        self.status = 0 if isinstance(value, ProcessDone) else -signal if signal else value.exitCode
        self._look()
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended.callback(self.status)


class World:
    """The two namespaces. Nothing outside them is touched, and nothing of them stays."""

    def __init__(self) -> None:
        serial = next(_serials)
        self._names = {host: f"rdvvtun-{os.getpid()}-{serial}-{host}" for host in CABLE}
        self._programs: list[Program] = []

    def build(self) -> None:
        """Make them, joined and with addresses."""
        for name in self._names.values():
            _run("ip", "netns", "add", name)
        device, server = self._names["device"], self._names["server"]
        _run("ip", "-n", device, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", server)
        for host, name in self._names.items():
            _run("ip", "-n", name, "address", "add", f"{CABLE[host]}/30", "dev", "cable")
            for interface in ("lo", "cable"):
                _run("ip", "-n", name, "link", "set", interface, "up")

    async def remove(self) -> None:
        """End what still runs there, then take the namespaces away."""
        for program in self._programs:
            if program.status is None:
                with suppress(ProcessExitedAlready):  # and only its output is still open
                    program.signal("KILL")
                await program.ended
        for name in self._names.values():
            if Path("/run/netns", name).exists():
                _run("ip", "netns", "delete", name)

    def start(self, host: str, *command: str) -> Program:
        """Run a program in one of them."""
        program = Program()
        line = ["ip", "netns", "exec", self._names[host], *command]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        reactor.spawnProcess(program, shutil.which("ip"), line, environment, str(CHECKOUT))
        self._programs.append(program)
        return program

    async def run(self, host: str, *command: str) -> Program:
        """Run a program in one of them to its end."""
        program = self.start(host, *command)
        await program.ended
        return program

    async def pings(self, host: str, address: str, *options: str) -> bool:
        """Whether an address answers within some seconds."""
        program = await self.run(host, "ping", "-n", "-c", "1", "-i", "0.2", "-w", "5", *options, address)
        return program.status == 0

    async def interfaces(self, host: str) -> set[str]:
        """Names of the interfaces that one of them has."""
        program = await self.run(host, "ls", "/sys/class/net")
        return set(program.said.split())

    async def serve(self, mode: Mode, session: str, secret: str, *options: str) -> Program:
        """Run the product's end in C{server}: see L{main} for what it says."""
        program = self.start("server", sys.executable, "-B", "-m", __name__, *options, str(mode), session, secret)
        await program.saying("listening")
        return program


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


# ------------------------------------------------- the program in C{server}


class HastyReactor:
    """The reactor, but that it does not wait for a client's interface to come up."""

    def __init__(self) -> None:
        self.addReader = reactor.addReader
        self.removeReader = reactor.removeReader
        self.seconds = reactor.seconds

    def callLater(self, delay: float, *call: Any) -> IDelayedCall:
        """Call then; or at once, if that is what is waited for."""
        waiting: IDelayedCall = reactor.callLater(0 if delay == SETTLING_LIMIT else delay, *call)
        return waiting


class Room(Factory):
    """One tunnel after the other, each with a device of its own that is up, with the addresses of the server's end."""

    noisy = False

    def __init__(self, settings: Namespace) -> None:
        self._settings = settings
        self._site = MemoryServerSite(HastyReactor() if settings.hasty else reactor)
        self._number = 0
        self._next()

    def _next(self) -> None:
        settings = self._settings
        self._number += 1
        self._tunnel = tunnel = VtunServerTunnel(
            terms(settings.mode, settings.session.removeprefix(session_name("")), mtu=MTU), self._site
        )
        tunnel.secret = settings.secret
        tunnel.opened.addCallback(lambda _: self._say("carrying"))
        tunnel.closed.addBoth(self._ended)
        tunnel.start(self._device())

    def _device(self) -> PacketDevice:
        mode, interface = self._settings.mode, self._settings.interface
        device = PacketDevice(interface, mode)
        far = ["peer", f"{TUNNEL['device']}/32"] if mode is Mode.L3 else []
        near = TUNNEL["server"] if mode is Mode.L3 else f"{TUNNEL['server']}/30"
        _run("ip", "address", "add", near, *far, "dev", interface)
        _run("ip", "address", "add", f"{TUNNEL6['server']}/64", "dev", interface, "nodad")
        _run("ip", "link", "set", interface, "mtu", str(MTU), "up")
        return device

    def _ended(self, result: object) -> None:
        error = result.value if isinstance(result, Failure) else result
        self._say(f"ended: {type(error).__name__}: {error}")
        self._next()

    def buildProtocol(self, address: object) -> Any:
        """Somebody connects."""
        try:
            return self._tunnel.accept()
        except RequestRefused as error:
            say(f"refused: {error}")
            return None

    def bye(self) -> None:
        """Take leave of the client, if there is one."""
        self._tunnel.close()

    def _say(self, text: str) -> None:
        say(f"{self._number} {text}")


def say(text: str) -> None:
    """Tell who started this program."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Stdin(Protocol):
    """Any line on standard input makes the server take leave of its client."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def dataReceived(self, data: bytes) -> None:
        self._room.bye()


def main() -> None:
    """
    Serve one session after the other until a signal comes. Says C{listening};
    then, with the number of the session, C{carrying}, and C{ended} with the
    reason; and what is logged, such as who was turned away.
    """
    from twisted.internet.stdio import StandardIO

    parser = ArgumentParser()
    parser.add_argument("--hasty", action="store_true", help="send packets before the client's interface is up")
    parser.add_argument("--interface", default="rdvserver")
    parser.add_argument("mode", type=Mode)
    parser.add_argument("session")
    parser.add_argument("secret")
    room = Room(parser.parse_args())
    log: Any = lambda event: say(formatEvent(event))  # noqa: E731
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    reactor.listenTCP(PORT, room, interface=CABLE["server"])
    StandardIO(Stdin(room))
    say("listening")
    reactor.run()


if __name__ == "__main__":
    main()
