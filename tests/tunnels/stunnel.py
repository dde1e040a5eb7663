"""A stunnel in memory, and the server's door behind it: what the device writes in the clear, the door reads so."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, ITunnelStream
from rdvtwisted.testing.programs import MemoryProgram, MemoryPrograms
from rdvtwisted.testing.standins import TunnelCaller
from rdvtwisted.testing.tunnels import MemoryIdentity, MemoryTunnelSite, identity, parameters
from rdvtwisted.values import Mode, Role
from tests.tunnels.door import Authority
from tunnels.stunnel import StunnelBackend

reactor: Any = global_reactor

#: The device at the tunnels' other end.
DEVICE = "rpi1100"
#: The longest ticket line.
LINE = 256


@implementer(ITunnelStream)
class Connection(Protocol):
    """One connection through stunnel at the server, from its ticket on."""

    transport: Any

    def __init__(self, door: ClearDoor, program: MemoryProgram) -> None:
        self.address = "192.0.2.1:40000"
        self.line = b""
        self._door = door
        self._program = program
        self._over = False

    def connectionMade(self) -> None:
        """Stunnel runs; when it ends, so does this."""
        self._door.connections.append(self)
        self._program.ended.addCallback(self._program_ended)

    def dataReceived(self, data: bytes) -> None:
        self.line += data
        if self.line.endswith(b"\n"):
            self._door.shown(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The device has hung up, and stunnel ends."""
        self._over = True
        if self._program.running:
            self._program.exit()

    def _program_ended(self, sentence: str) -> str:
        self.abort()
        return sentence

    def fileno(self) -> int:
        return -1

    def deliver(self, protocol: IProtocol) -> None:
        self.transport.protocol = Lookout(self, protocol)
        protocol.makeConnection(self.transport)
        self.transport.resumeProducing()

    def close(self) -> None:
        self.transport.loseConnection()

    def abort(self) -> None:
        if not self._over:
            self.transport.abortConnection()


class Lookout(Protocol):
    """Passes on what comes to who has taken a connection, and tells the connection of its end."""

    def __init__(self, connection: Connection, taker: IProtocol) -> None:
        self._connection = connection
        self.dataReceived = taker.dataReceived  # type: ignore[method-assign]
        self._taker = taker

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._taker.connectionLost(reason)
        self._connection.connectionLost(reason)


@define(eq=False)
class ClearDoor:
    """The door for all devices' stunnels: knows one ticket for each."""

    #: Who gets a good ticket's stream.
    sitters: dict[str, Callable[[ITunnelStream], object]] = field(factory=dict)
    connections: list[Connection] = field(factory=list)
    #: What it answers, if not what it should.
    answer: bytes | None = None
    programs: MemoryPrograms = field(factory=lambda: MemoryPrograms("stunnel4", "sh"))

    def __attrs_post_init__(self) -> None:
        self.programs.behaviour = self._run

    def _run(self, program: MemoryProgram) -> None:
        assert program.stdin is not None
        factory = Factory.forProtocol(lambda: Connection(self, program))  # type: ignore[arg-type]
        factory.noisy = False
        os.set_blocking(program.stdin, False)
        reactor.adoptStreamConnection(program.stdin, socket.AF_UNIX, factory)
        os.close(program.stdin)

    def shown(self, connection: Connection) -> None:
        """A device shows its ticket."""
        word, _, ticket = connection.line.decode("ascii").strip().partition(" ")
        sitter = self.sitters.get(ticket)
        if self.answer is not None:
            connection.transport.write(self.answer)
        elif word != "RDV-TUNNEL/1" or sitter is None or len(connection.line) > LINE:
            connection.transport.write(b"ERR the ticket is unknown\n")
            connection.transport.loseConnection()
        else:
            connection.transport.write(b"OK\n")
            connection.transport.pauseProducing()
            sitter(connection)

    def cut(self) -> None:
        """Break all connections."""
        for connection in self.connections:
            connection.abort()


def device_end(site: MemoryTunnelSite, mode: Mode, ticket: str) -> IDeviceTunnel:
    """A device's end of the C{stunnel} backend."""
    told = parameters("stunnel", mode, site.role, "rpi66", identity("server").public, ticket)
    tunnel: IDeviceTunnel = StunnelBackend().device_end(evolve(told, join="glue"), site)
    return tunnel


class StunnelDevice(TunnelCaller):
    """Comes with a device's end of the C{stunnel} backend."""

    def __init__(self, site: MemoryTunnelSite, mode: Mode, ticket: str, cut: Callable[[], None]) -> None:
        """
        @param cut: breaks its connection, without a word to either end. Idempotent.
        """
        super().__init__(device_end(site, mode, ticket), site, cut)


def clear_site(door: ClearDoor, own: MemoryIdentity | None = None, clock: Any = reactor) -> MemoryTunnelSite:
    """A device whose stunnel leads to C{door}."""
    return MemoryTunnelSite(
        DEVICE,
        Role.ONSITE,
        clock,
        own or identity(DEVICE),
        TCP4ClientEndpoint(reactor, "127.0.0.1", 1),
        Authority().der,
        programs=door.programs,
        door_address=("rdv.example.com", 443),
    )
