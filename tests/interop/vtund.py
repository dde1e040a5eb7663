"""
Two network namespaces joined by a cable, C{device} and C{server}: a stock vtund client runs in the one; in the other,
this module runs as a small program of its own that puts the product's end of vtun between a TCP port and a real
TUN or TAP device.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from struct import pack
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport, IReadDescriptor
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.network.tuntap import IFF_NO_PI, IFF_TAP, IFF_TUN, NODE, TUNSETIFF
from rdvtwisted.values import Mode
from tests.lab.programs import obstacles
from tests.source import CHECKOUT
from tunnels.vtun_server import Authenticated, Closed, Event, Packets, VtunServer

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
        #: Fires with its exit status, or minus the number of the signal that ended it.
        self.ended: Deferred[int] = Deferred()
        self.status: int | None = None
        self._awaited: list[tuple[str, Deferred[None]]] = []

    def saying(self, text: str) -> Deferred[None]:
        """A Deferred that fires once it has said C{text}, and fails if it ends without."""
        said: Deferred[None] = Deferred()
        self._awaited.append((text, said))
        self._look()
        return said

    def signal(self, name: str) -> None:
        """Send it a signal."""
        self.transport.signalProcess(name)

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
        self.ended.callback(self.status)


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


@implementer(IReadDescriptor)
class Device:
    """A TUN or TAP device with bare packets, up, with the addresses of the server's end."""

    def __init__(self, mode: Mode, interface: str) -> None:
        self._fd = os.open(NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        kind = IFF_TUN if mode is Mode.L3 else IFF_TAP
        fcntl.ioctl(self._fd, TUNSETIFF, pack("16sH22x", interface.encode(), kind | IFF_NO_PI))
        far = ["peer", f"{TUNNEL['device']}/32"] if mode is Mode.L3 else []
        near = TUNNEL["server"] if mode is Mode.L3 else f"{TUNNEL['server']}/30"
        _run("ip", "address", "add", near, *far, "dev", interface)
        _run("ip", "address", "add", f"{TUNNEL6['server']}/64", "dev", interface, "nodad")
        _run("ip", "link", "set", interface, "mtu", str(MTU), "up")
        self.link: Link | None = None

    def write(self, packet: memoryview) -> None:
        """Hand a packet to the kernel, which may refuse it."""
        try:
            os.write(self._fd, packet)
        except OSError as error:
            say(f"the kernel refused a packet: {error.strerror}")

    def doRead(self) -> None:
        """Give the packets of the kernel to whoever is connected."""
        try:
            while True:
                packet = os.read(self._fd, 65_536)
                if self.link is not None:
                    self.link.core.send(packet)
        except BlockingIOError:
            pass
        if self.link is not None:
            self.link.flush()

    def fileno(self) -> int:
        return self._fd

    def connectionLost(self, reason: Failure) -> None:
        """The program ends."""

    def logPrefix(self) -> str:
        return "device"

    def close(self) -> None:
        """The interface vanishes."""
        reactor.removeReader(self)
        os.close(self._fd)


class Link(Protocol):
    """Drives the product's end of vtun for one connection."""

    def __init__(self, number: int, room: Room) -> None:
        self._number = number
        self._room = room
        self._timer: IDelayedCall | None = None
        settings = room.settings
        self.core = VtunServer(settings.session, settings.secret, settings.mode)

    def connectionMade(self) -> None:
        """Greet, and keep time."""
        self._restart()
        self.flush()

    def flush(self) -> None:
        """Send what there is."""
        output = self.core.take_output()
        if output:
            self.transport.write(output)

    def _restart(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = reactor.callLater(self.core.wait, self._tick)

    def _tick(self) -> None:
        self._timer = reactor.callLater(self.core.wait, self._tick)
        self._happened(self.core.tick())

    def dataReceived(self, data: bytes) -> None:
        self._happened(self.core.receive(data))

    def connectionLost(self, reason: object = None) -> None:
        """The connection is gone."""
        self._happened(self.core.lost())
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._room.leave(self)

    def _happened(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Packets):
                if not self._room.carried:
                    self._say("carrying")
                self._room.take(event.packets)
            elif isinstance(event, Authenticated):
                self._admit()
            elif isinstance(event, Closed):
                self._say(f"ended: {type(event.error).__name__}: {event.error}")
                self.flush()
                self.transport.loseConnection()
        self.flush()

    def _admit(self) -> None:
        if not self._room.enter(self):
            self._say("refused")
            self.core.close()
            self.flush()
            self.transport.loseConnection()
            return
        self.core.open()
        if self._room.settings.hasty:
            self.core.tick()
        self._say("open")
        self._restart()

    def bye(self) -> None:
        """Take leave of the client."""
        self.core.close()
        self.flush()
        self.transport.loseConnection()

    def _say(self, text: str) -> None:
        say(f"{self._number} {text}")


class Room(Factory):
    """One seat: a device that belongs to one link at a time."""

    def __init__(self, settings: Namespace) -> None:
        self.settings = settings
        self.carried = 0
        self._numbers = count(1)
        self._device: Device | None = None

    def buildProtocol(self, address: object) -> Link:
        """A link for each connection."""
        return Link(next(self._numbers), self)

    def enter(self, link: Link) -> bool:
        """Give the seat to a link, unless it is taken."""
        if self._device is not None:
            return False
        self._device = Device(self.settings.mode, self.settings.interface)
        self._device.link = link
        self.carried = 0
        reactor.addReader(self._device)
        return True

    def take(self, packets: Sequence[memoryview]) -> None:
        """Packets from the client."""
        assert self._device is not None
        for packet in packets:
            self._device.write(packet)
        self.carried += len(packets)

    def leave(self, link: Link) -> None:
        """A link is over."""
        if self._device is not None and self._device.link is link:
            self._device.close()
            self._device = None

    def bye(self, *_: object) -> None:
        """Take leave of the client, if there is one."""
        if self._device is not None and self._device.link is not None:
            self._device.link.bye()


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
    Serve one session until a signal comes. Says C{listening}; then, with the
    number of the connection, C{open}, C{refused} (the seat is taken),
    C{carrying} (the client's first packet) and C{ended} with the reason.
    """
    from twisted.internet.stdio import StandardIO

    parser = ArgumentParser()
    parser.add_argument("--hasty", action="store_true", help="send packets before the client's interface is up")
    parser.add_argument("--interface", default="rdvserver")
    parser.add_argument("mode", type=Mode)
    parser.add_argument("session")
    parser.add_argument("secret")
    room = Room(parser.parse_args())
    reactor.listenTCP(PORT, room, interface=CABLE["server"])
    StandardIO(Stdin(room))
    say("listening")
    reactor.run()


if __name__ == "__main__":
    main()
