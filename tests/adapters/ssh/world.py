"""A reception, its desks, and both ends of an SSH connection in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.service import SSHService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rdvtwisted.adapters.ssh.client import ClientTransport, Target, connect
from rdvtwisted.adapters.ssh.hostkeys import HostKeys
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.server import ServerTransport, SSHServer
from rdvtwisted.adapters.ssh.settings import ClientSettings, ServerSettings
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key
from rdvtwisted.errors import RequestRefused
from rdvtwisted.interfaces import IDesk, ILine, IReception
from rdvtwisted.requests import Request
from rdvtwisted.shell.shell import Shell
from rdvtwisted.values import Device, PublicKey, Role

_T = TypeVar("_T")

ED25519 = Ed25519PrivateKey.generate()
ECDSA = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
STRANGER = Ed25519PrivateKey.generate()
HOST_KEYS = HostKeys((Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()), RSA))

DEVICE = Device("rpi1100", Role.ONSITE, (public_key(ED25519), public_key(ECDSA), public_key(RSA)))
OLD_DEVICE = Device("rpi0900", Role.ONSITE, (public_key(RSA),), legacy=True)


def open_shell(device: Device, terminal: bool) -> Shell:
    """The shell of any device."""
    return Shell(device.id, device.role, terminal=terminal)


@implementer(IDesk)
@define(eq=False)
class MemoryDesk:
    """Notes what it is asked, and answers when the test says so."""

    device: Device
    line: ILine
    forwards: dict[tuple[str, int], Callable[[], Deferred[IProtocol]]]
    requests: list[tuple[Request, Deferred[Any]]] = field(factory=list)
    interrupts: int = 0
    heard_count: int = 0
    round_trips: list[float] = field(factory=list)
    left: list[str] = field(factory=list)

    def perform(self, request: Request) -> Deferred[Any]:
        """Leave the answer to the test."""
        answer: Deferred[Any] = Deferred()
        self.requests.append((request, answer))
        return answer

    def interrupt(self) -> None:
        self.interrupts += 1

    def heard(self) -> None:
        self.heard_count += 1

    def measured(self, round_trip: float) -> None:
        self.round_trips.append(round_trip)

    def forward(self, host: str, port: int) -> Deferred[IProtocol]:
        """Only what the test has laid out."""
        if (host, port) not in self.forwards:
            raise RequestRefused("the registration does not own such a target")
        return self.forwards[host, port]()

    def leave(self, reason: str) -> None:
        self.left.append(reason)


@implementer(IReception)
@define(eq=False)
class MemoryReception:
    """Admits some devices."""

    devices: tuple[Device, ...] = (DEVICE, OLD_DEVICE)
    asked: list[tuple[str, PublicKey]] = field(factory=list)
    desks: list[MemoryDesk] = field(factory=list)
    refusals: list[tuple[str, str, str, str]] = field(factory=list)
    #: What desks let through.
    forwards: dict[tuple[str, int], Callable[[], Deferred[IProtocol]]] = field(factory=dict)

    def admit(self, account: str, key: PublicKey) -> Device | None:
        self.asked.append((account, key))
        return next((device for device in self.devices if device.id == account and key in device.keys), None)

    def arrive(self, device: Device, key: PublicKey, line: ILine) -> MemoryDesk:
        desk = MemoryDesk(device, line, self.forwards)
        self.desks.append(desk)
        return desk

    def refused(self, door: str, address: str, account: str, reason: str) -> None:
        self.refusals.append((door, address, account, reason))


class Recorder(Protocol):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = Failure(RuntimeError())) -> None:  # noqa: B008
        self.lost = reason


class Listener:
    """Keeps what a remote shell says."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.end: tuple[int | None, str] | None = None

    def output(self, data: bytes) -> None:
        self.out += data

    def error_output(self, data: bytes) -> None:
        self.err += data

    def ended(self, status: int | None, reason: str) -> None:
        assert self.end is None, "told twice"
        self.end = (status, reason)


class Wire(FakeTransport):
    """An end of a connection in memory; it says of itself what TCP would, and can be cut."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class _Endpoint:
    """Connects to a server in memory."""

    def __init__(self, world: World, door: str) -> None:
        self.world = world
        self.door = door

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        client = factory.buildProtocol(None)
        server = self.world.server.factory(self.door).buildProtocol(self.world.peer)
        if server is None:
            return fail(ConnectionError("turned away"))
        self.world.join(server, client)
        done: Deferred[IProtocol] = Deferred()
        done.callback(client)
        return done


class World(SynchronousTestCase):
    """Has a server, and connects clients to it."""

    peer = IPv4Address("TCP", "192.0.2.7", 4711)
    settings = ServerSettings()
    client_settings = ClientSettings()

    def setUp(self) -> None:
        self.clock = Clock()
        self.reception = MemoryReception()
        self.server = SSHServer(HOST_KEYS, self.reception, open_shell, self.clock, self.settings)
        self.hosts = KnownHosts(Path(self.mktemp()))
        self.pumps: list[IOPump] = []

    def target(self, key: PrivateKey = ED25519, account: str = "rpi1100") -> Target:
        return Target("rdv.example.org", 22, account, key, self.hosts)

    def join(self, server: Any, client: Any) -> IOPump:
        """Connect two ends; L{pump} moves bytes between them."""
        near, far = IPv4Address("TCP", "192.0.2.1", 22), self.peer
        server_io = Wire(server, True, hostAddress=near, peerAddress=far)
        client_io = Wire(client, False, hostAddress=far, peerAddress=near)
        server.makeConnection(server_io)
        client.makeConnection(client_io)
        pump = IOPump(client, server, client_io, server_io, False, clock=self.clock)
        self.pumps.append(pump)
        return pump

    def pump(self) -> None:
        """Move bytes, on all connections, until there are none left to move."""
        while sum(pump.flush() for pump in self.pumps):
            pass

    def begin(self, key: PrivateKey = ED25519, account: str = "rpi1100", door: str = "ssh") -> Deferred[SSHLink]:
        """Begin to log in, and go as far as it goes."""
        link = connect(_Endpoint(self, door), self.target(key, account), self.clock, self.client_settings)
        self.pump()
        return link

    def log_in(self, key: PrivateKey = ED25519, account: str = "rpi1100", door: str = "ssh") -> SSHLink:
        """Log in."""
        link = self.successResultOf(self.begin(key, account, door))
        link.closed.addErrback(lambda failure: None)
        return link

    def puppet(self, door: str = "ssh", peer: IPv4Address | None = None) -> Puppet:
        """A client whose keys are exchanged, and that says nothing by itself."""
        client = Puppet(self.target(), self.client_settings, self.clock)
        client.ready.addErrback(lambda failure: None)
        server = self.server.factory(door).buildProtocol(peer or self.peer)
        assert server is not None
        self.join(server, client)
        self.pump()
        return client

    def result(self, deferred: Deferred[_T]) -> _T:
        """What C{deferred} gives once all bytes have moved."""
        self.pump()
        return self.successResultOf(deferred)

    @property
    def desk(self) -> MemoryDesk:
        """The newest device's."""
        return self.reception.desks[-1]

    @property
    def server_end(self) -> ServerTransport:
        """The newest connection's."""
        end = self.pumps[-1].server
        assert isinstance(end, ServerTransport)
        return end

    @property
    def client_end(self) -> ClientTransport:
        """The newest connection's."""
        end = self.pumps[-1].client
        assert isinstance(end, ClientTransport)
        return end

    def until(self, condition: Callable[[], bool], step: float = 1.0, most: float = 1000.0) -> float:
        """
        Let time pass, and bytes move, until C{condition} holds.

        @return: how many seconds it took.
        """
        passed = 0.0
        while not condition():
            if passed >= most:
                self.fail(f"it did not happen within {most:g} s")
            self.clock.advance(step)
            passed += step
            self.pump()
        return passed


class Notebook(SSHService):
    """A service that does nothing but note what comes."""

    name = b"ssh-userauth"

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []

    def serviceStarted(self) -> None:
        pass

    def serviceStopped(self) -> None:
        pass

    def unblocked(self) -> None:
        pass

    def packetReceived(self, number: int, body: memoryview) -> None:
        self.messages.append((number, bytes(body)))


class Puppet(ClientTransport):
    """A client that says what the test wants it to say, once the keys are exchanged."""

    notebook: Notebook

    def ssh_SERVICE_ACCEPT(self, packet: bytes) -> None:
        self.notebook = Notebook()
        self.setService(self.notebook)

    def heard_numbers(self) -> list[int]:
        """Numbers of the messages that came since the last time."""
        numbers = [number for number, _ in self.notebook.messages]
        self.notebook.messages.clear()
        return numbers
