"""What surrounds a device's services: a tunnel backend, a network and a server that do what the test says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rdvtwisted.access import SessionGrant
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.plan import Attachment, Port, Site
from rdvtwisted.requests import (
    EndSession,
    GetCertificateAuthority,
    GetReturnTime,
    GetSessionGrant,
    GetTunnelParameters,
    LimitSession,
    Publish,
)
from rdvtwisted.scope import ALL
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.programs import MemoryPrograms
from rdvtwisted.testing.tunnels import identity, parameters
from rdvtwisted.values import Missing, Mode, Role, TunnelParameters, TunnelReport, TunnelTerms
from tests.services.twin import DEVICE, SSHTwin

PEER = identity("rpi2200").public
AUTHORITY = identity("authority").certificate.public_bytes(Encoding.DER)
REPORT = TunnelReport("twin", "X25519MLKEM768", "TLS_AES_256_GCM_SHA384", 1000, 2000, 10, 20, 0.001, PEER)
SITE = Site(
    interface="eth0",
    lan=IPv4Interface("192.168.7.9/24"),
    dns=(IPv4Address("192.168.7.1"),),
    hostname="cellar",
    uplink="lan",
    attachments=(
        Attachment("eth0", IPv4Interface("192.168.7.9/24")),
        Attachment("eth1", IPv4Interface("10.1.2.3/16"), "wlan"),
    ),
    ports=(
        Port("eth0", "02:00:00:00:00:01", addresses=(IPv4Interface("192.168.7.9/24"),)),
        Port("eth1", "02:00:00:00:00:02", "wlan", addresses=(IPv4Interface("10.1.2.3/16"),)),
        Port("eth2", "02:00:00:00:00:03"),
    ),
)


@implementer(IDeviceTunnel)
@define(eq=False)
class Tunnel:
    """Attached at once; everything else the test decides."""

    parameters: TunnelParameters
    site: ITunnelSite
    carrying: Deferred[TunnelReport] = field(factory=Deferred)
    closed: Deferred[None] = field(factory=Deferred)
    closings: int = 0

    def attach(self) -> Deferred[str]:
        return succeed(self.site.interface)

    def carry(self) -> Deferred[TunnelReport]:
        return self.carrying

    def report(self) -> TunnelReport:
        return REPORT

    def close(self) -> Deferred[None]:
        self.closings += 1
        return succeed(None)


@implementer(ITunnelBackend)
@define(eq=False, slots=False)
class Backend:
    """Makes such tunnels."""

    name: str = "twin"
    summary: str = "For tests."
    needs: tuple[str, ...] = ()
    modes: frozenset[Mode] = frozenset({Mode.L3})
    relay: bool = True
    glue: bool = False
    inside: bool = False
    mtu: int = 1500
    lacking: list[Missing] = field(factory=list)
    tunnels: list[Tunnel] = field(factory=list)

    def missing(self) -> list[Missing]:
        return self.lacking

    def device_end(self, parameters: TunnelParameters, site: ITunnelSite) -> Tunnel:
        self.tunnels.append(Tunnel(parameters, site))
        return self.tunnels[-1]

    def server_end(self, terms: TunnelTerms, site: IServerSite) -> IServerTunnel:
        raise NotImplementedError("no server is built of these neighbours")


class Reactor(Clock):
    """As much of a reactor as it takes to make an endpoint that nobody connects with."""

    nameResolver: object = None


class DeviceCase(SynchronousTestCase):
    """A device with its equipment, and servers that it may connect to."""

    role = Role.ONSITE

    def setUp(self) -> None:
        """Make them."""
        self.clock = Reactor()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.network = MemoryNetwork(SITE)
        self.backend = Backend()
        self.equipment = Equipment(
            settings=DeviceSettings(
                role=self.role,
                account=DEVICE,
                host="rdv.example.org",
                port=22,
                tls=False,
                state=self.folder,
                identity=self.folder / "identity",
                known_hosts=self.folder / "known_hosts",
                known_peers=self.folder / "known_peers",
                authority=self.folder / "server-ca.pem",
            ),
            reactor=self.clock,
            network=self.network,
            identity=identity(DEVICE),
            peers=KnownPeers(self.folder / "known_peers"),
            authority=Authority(self.folder / "server-ca.pem"),
            backends={"twin": self.backend},
            programs=MemoryPrograms(),
        )
        self.servers: list[SSHTwin] = []
        self._events: list[LogEvent] = []
        globalLogPublisher.addObserver(self._events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self._events.append)

    def logged(self, *levels: LogLevel) -> list[str]:
        """What our own rooms have logged at these levels."""
        ours = [event for event in self._events if event["log_namespace"].startswith("rdvtwisted.services")]
        return [formatEvent(event) for event in ours if event["log_level"] in levels]

    def change(self, **settings: Any) -> None:
        """Give the device other settings."""
        self.equipment.settings = evolve(self.equipment.settings, **settings)

    def server(self) -> SSHTwin:
        """A server that gives everybody what a session needs, and waits when it is asked to wait."""
        server = SSHTwin(self.role, obliging=True)
        server.answers = {
            LimitSession: None,
            Publish: None,
            EndSession: None,
            GetTunnelParameters: self.parameters(),
            GetSessionGrant: SessionGrant(1, None, ALL),
            GetCertificateAuthority: AUTHORITY,
            GetReturnTime: 0,
        }
        self.servers.append(server)
        return server

    def parameters(self) -> TunnelParameters:
        """Those of the device's end of a session."""
        return parameters("twin", Mode.L3, self.role, "rpi2200", PEER, "0" * 32)

    @property
    def tunnel(self) -> Tunnel:
        """The newest."""
        return self.backend.tunnels[-1]

    @property
    def requests(self) -> list[Any]:
        """What the newest server was asked for."""
        return [request for request, _ in self.servers[-1].asked]

    def asked(self, kind: type) -> list[Any]:
        """What it was asked for of this kind."""
        return [request for request in self.requests if isinstance(request, kind)]

    def pump(self) -> None:
        """Let all servers and the device talk until neither has more to say."""
        while any(server.typed or server.said for server in self.servers):
            for server in list(self.servers):
                server.pump()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and then all talk."""
        self.clock.advance(seconds)
        self.pump()
