"""
The tunnels that end at this server: their addresses, their ports, and the namespaces that join them.

A tunnel has a block of four addresses: the server's end, then the device's. To
a device that opens channels to its tunnel's end the end is a TCP port of
127.0.0.1, though nothing listens there; each block has a port of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network

from attrs import define, field, frozen
from zope.interface import implementer

from rdvtwisted.carriers import BRIDGED_MTU, OLD, Carrier
from rdvtwisted.errors import RDVError, VtunNotAvailable
from rdvtwisted.glue import GlueSpec
from rdvtwisted.interfaces import IGlue, IServerTunnel
from rdvtwisted.junction import GlueJunction
from rdvtwisted.leases import LeasePool
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.session import IJunctionListener, Terms
from rdvtwisted.values import Device, EndReason, Lease, Mode, PublicKey, Role, TunnelTerms

#: The port of the first block of the pool, as old servers had it.
FIRST_PORT = 5000
#: Where devices find these ports.
LOOPBACK = "127.0.0.1"


def vtun_lines(lease: Lease, port: int, secret: str) -> tuple[tuple[str, str], ...]:
    """What an old device is told of its tunnel, as it is told: tundev-shell.md, section 8."""
    network = lease.network
    return (
        ("tunnel_ip_network", str(network.network_address)),
        ("tunnel_ip_prefix", f"/{network.prefixlen}"),
        ("tunnel_ip_netmask", str(network.netmask)),
        ("tunnelling_dev_ip_address", str(lease.second.ip)),
        ("rdv_server_ip_address", str(lease.first.ip)),
        ("rdv_server_vtun_tcp_port", str(port)),
        ("tunnel_secret", secret),
    )


@frozen
class End:
    """The server's end of a device's tunnel, and how the device finds it."""

    tunnel: IServerTunnel
    lease: Lease
    port: int

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """As an old device is told."""
        return vtun_lines(self.lease, self.port, self.tunnel.secret)


@implementer(IJunctionListener)
@define(eq=False)
class LoneTunnel:
    """The tunnel of an old device that has no session (yet): it reaches the server's end, and nothing behind it."""

    point: End
    junction: GlueJunction = field(init=False)

    def arrived(self, role: Role) -> None:
        """The device is in."""

    def end(self, reason: EndReason) -> None:
        """It is over. Idempotent."""
        self.junction.stop()


@define(eq=False)
class Ends:
    """
    Makes the server's ends of tunnels.

    @ivar carriers: the tunnel backends that may be used, by name.
    @ivar key: the server's own for tunnels, which devices expect of it.
    @ivar random: C{random(n)} gives C{n} unpredictable bytes.
    @ivar glue: what makes namespaces; C{None} on a server that cannot.
    @ivar lacking: why it cannot, in a sentence.
    """

    leases: LeasePool
    carriers: Mapping[str, Carrier]
    key: PublicKey
    random: Callable[[int], bytes] = field(repr=False)
    glue: IGlue | None = None
    lacking: str = "the server has not started yet"

    def port(self, lease: Lease) -> int:
        """The port of a block."""
        return FIRST_PORT + self.leases.number(lease)

    def junction(
        self, terms: Terms, keys: Mapping[Role, PublicKey], listener: IJunctionListener, scope: Scope = ALL
    ) -> GlueJunction:
        """
        The ends of both tunnels of a session, and what joins them.

        @param keys: those of the two devices.
        @param scope: where the master's packets may go.
        """
        assert self.glue is not None
        choice = terms.choice
        tunnels = {
            role: self._tunnel(choice.of(role), TunnelTerms(terms.id, choice.mode, id, role, keys[role], choice.mtu))
            for role, id in ((Role.ONSITE, terms.onsite), (Role.MASTER, terms.master))
        }
        routed = choice.mode is Mode.L3
        onsite, master = (terms.lease(role) if routed else None for role in (Role.ONSITE, Role.MASTER))
        path = choice.path if choice.mode is Mode.L2 else None
        spec = GlueSpec(terms.id, choice.mode, onsite, master, mtu=choice.mtu, headers=True, path=path, scope=scope)
        return GlueJunction(self.glue, spec, listener, tunnels)

    def end(self, terms: Terms, junction: GlueJunction, role: Role) -> End:
        """The end of one device's tunnel of a session."""
        lease = terms.lease(role)
        return End(junction.tunnels[role], lease, self.port(lease))

    def lone(self, device: Device, key: PublicKey, mode: Mode, avoid: Iterable[IPv4Network]) -> LoneTunnel:
        """
        A tunnel of the kind that old devices have, without a session.

        @param avoid: networks that its addresses must not hide.
        @raise VtunNotAvailable: this server has none.
        @raise PoolExhausted: there is no address for it.
        @raise RDVError: the server lacks something else that it needs.
        """
        carrier = self.carriers.get(OLD[0])
        if self.glue is None or carrier is None or carrier.server_end is None:
            raise VtunNotAvailable()
        # The second one is that of the other side, where nobody is.
        leases = self.leases.allocate_several(2, avoid)
        mtu = carrier.mtu if mode is Mode.L3 else BRIDGED_MTU
        id = f"lone-{self.random(6).hex()}"
        try:
            tunnel = self._tunnel(carrier, TunnelTerms(id, mode, device.id, device.role, key, mtu))
        except RDVError:
            self._release(leases)
            raise
        blocks = leases if mode is Mode.L3 else (None, None)
        onsite, master = blocks if device.role is Role.ONSITE else blocks[::-1]
        lone = LoneTunnel(End(tunnel, leases[0], self.port(leases[0])))
        spec = GlueSpec(id, mode, onsite, master, mtu=mtu, headers=True)
        lone.junction = GlueJunction(self.glue, spec, lone, {device.role: tunnel})
        lone.junction.ended.addCallback(lambda _: self._release(leases))
        lone.junction.begin()
        return lone

    def _release(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self.leases.release(lease)

    @staticmethod
    def _tunnel(carrier: Carrier, terms: TunnelTerms) -> IServerTunnel:
        assert carrier.server_end is not None
        return carrier.server_end(terms)
