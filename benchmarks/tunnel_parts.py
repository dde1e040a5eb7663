"""The processes of the tunnel benchmark: a server with nothing but its door and relay, and a device."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, cast

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.front.relay import Relay
from rdvtwisted.adapters.front.stream import TunnelStream
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat, ITunnelSite
from rdvtwisted.testing.tunnels import MemoryIdentity, identity, parameters
from rdvtwisted.values import Mode, PublicKey, Role
from tunnels.credentials import certified_key
from tunnels.tls import TLSBackend

#: Port of the server's door.
DOOR_PORT = 443

#: The devices' addresses inside the tunnel.
ADDRESSES = {Role.ONSITE: "10.202.0.1/30", Role.MASTER: "10.202.0.2/30"}

#: The name under which the server has a certificate; tunnels do not compare it.
NAME = "rdvbench.example.net"


def make_keys(folder: Path) -> None:
    """Make the keys of both devices and the server's authority, for all parts to find."""
    from twisted.internet import reactor

    for role in Role:
        own = identity(str(role))
        pem = own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{role}.pem").write_bytes(pem + own.certificate.public_bytes(Encoding.PEM))
    Authority.open(folder / "server", [NAME], cast(Any, reactor))


def _load(folder: Path, role: Role) -> MemoryIdentity:
    pem = (folder / f"{role}.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    key = load_pem_private_key(pem, None)
    return MemoryIdentity(cast(Any, key), certificate, certified_key(certificate))


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@implementer(ITicketOffice)
class OpenOffice:
    """Lets in whoever says which role it has, and joins the two."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._streams: dict[str, TunnelStream] = {}

    def redeem(self, ticket: str, key: PublicKey) -> OpenSeat:
        """A seat for the role that the ticket names."""
        return OpenSeat(partial(self._take, ticket))

    def _take(self, role: str, stream: TunnelStream) -> None:
        self._streams[role] = stream
        if len(self._streams) == len(Role):
            self._relay.join(self._streams[Role.ONSITE.value], self._streams[Role.MASTER.value])


@implementer(ITunnelSeat)
class OpenSeat:
    """A place at the relay."""

    inside = False

    def __init__(self, take: Callable[[TunnelStream], None]) -> None:
        self._take = take

    def occupy(self, stream: TunnelStream) -> None:
        """Be joined as soon as the other one is there."""
        self._take(stream)


def server(folder: str) -> None:
    """Be the server; says a line when its door is open."""
    from twisted.internet import reactor as installed

    reactor = cast(Any, installed)
    credentials = Authority.open(Path(folder) / "server", [NAME], reactor).credentials()
    nobody = Factory.forProtocol(Protocol)
    door = Door(reactor, credentials, OpenOffice(Relay(reactor)), nobody, lambda *refusal: _say(refusal))
    reactor.listenTCP(DOOR_PORT, door)
    reactor.callWhenRunning(_say, "open")
    reactor.run()


class KernelNetwork:
    """Packet devices of the kernel, and nothing else."""

    def packet_device(self, name: str, mode: Mode) -> Deferred[PacketDevice]:
        """See L{rdvtwisted.interfaces.INetwork}."""
        return execute(PacketDevice, name, mode)


@implementer(ITunnelSite)
class Site:
    """A device of the benchmark."""

    def __init__(self, reactor: Any, role: Role, folder: Path, host: str) -> None:
        self.device = str(role)
        self.role = role
        self.reactor = reactor
        self.network = KernelNetwork()
        self.interface = "rdv0"
        self.identity = _load(folder, role)
        self.door_address = (host, DOOR_PORT)
        self.door = TCP4ClientEndpoint(reactor, *self.door_address)
        self.authority = Authority.open(folder / "server", [NAME], reactor).der
        # A tls tunnel uses none of these.
        self.programs = None
        self.owner = "benchmark.tunnel"

    def forward(self, port: int) -> IStreamClientEndpoint:
        """See L{ITunnelSite}."""
        raise NotImplementedError


def device(own: Role, folder: str, host: str) -> None:
    """Be a device; says a line when packets flow, with the report."""
    from twisted.internet import reactor as installed

    reactor = cast(Any, installed)
    other = Role.ONSITE if own is Role.MASTER else Role.MASTER
    peer = _load(Path(folder), other).public
    said = evolve(
        parameters("tls", Mode.L3, own, str(other), peer, str(own)),
        address=IPv4Interface(ADDRESSES[own]),
        peer_address=IPv4Address(ADDRESSES[other].partition("/")[0]),
    )
    site = Site(reactor, own, Path(folder), host)
    tunnel = TLSBackend().device_end(said, site)

    async def carry() -> None:
        name = await tunnel.attach()
        subprocess.run(["ip", "address", "add", ADDRESSES[own], "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "mtu", str(said.mtu), "up"], check=True)
        _say(await tunnel.carry())
        await tunnel.closed

    def over(result: object) -> None:
        _say(result)
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(carry()).addBoth(over))
    reactor.run()


PARTS: dict[str, Callable[..., None]] = {
    "server": server,
    "master": partial(device, Role.MASTER),
    "onsite": partial(device, Role.ONSITE),
}
