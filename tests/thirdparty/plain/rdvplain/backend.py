"""The backend, as rdvtwisted's servers and devices see it."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.values import Missing, Mode, TunnelParameters, TunnelTerms

TUN = Path("/dev/net/tun")


@implementer(ITunnelBackend)
@frozen
class PlainBackend:
    """
    Frames in a channel of the device's SSH connection.

    It is listed often and used seldom, so what it needs is imported when a tunnel is built.
    """

    name: str = field(default="plain", init=False)
    summary: str = field(default="Packets in the device's SSH connection; the server can read them.", init=False)
    modes: frozenset[Mode] = field(default=frozenset(Mode), init=False)
    #: Two devices cannot reach each other by SSH connections that end at the server.
    relay: bool = field(default=False, init=False)
    glue: bool = field(default=True, init=False)
    inside: bool = field(default=False, init=False)
    mtu: int = field(default=1500, init=False)
    needs: tuple[str, ...] = field(default=("/dev/net/tun", "CAP_NET_ADMIN"), init=False)

    def missing(self) -> list[Missing]:
        """What this machine lacks; see L{ITunnelBackend}."""
        return [] if TUN.exists() else [Missing(str(TUN), "load the kernel module: modprobe tun")]

    def device_end(self, parameters: TunnelParameters, site: ITunnelSite) -> IDeviceTunnel:
        """One device's tunnel of one session; see L{ITunnelBackend}."""
        from rdvplain.device import PlainTunnel

        tunnel: IDeviceTunnel = PlainTunnel(self.name, parameters, site)
        return tunnel

    def server_end(self, terms: TunnelTerms, site: IServerSite) -> IServerTunnel:
        """The server's end of one device's tunnel; see L{ITunnelBackend}."""
        from rdvplain.server import PlainServerTunnel

        tunnel: IServerTunnel = PlainServerTunnel(terms, site)
        return tunnel
