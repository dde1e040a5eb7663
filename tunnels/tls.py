"""
The C{tls} backend: a TLS 1.3 stream per device, end to end between the two
devices through a blind relay. Needs nothing but Python and CAP_NET_ADMIN.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.values import Missing, Mode, TunnelParameters, TunnelTerms
from tunnels.requirements import PACKETS, missing_for_packets

#: Seconds between heartbeats in a session.
HEARTBEAT = 5.0
#: Seconds in which nothing at all was heard, after which the tunnel has failed.
SILENCE = 15.0


@implementer(ITunnelBackend)
@frozen
class TLSBackend:
    """
    Packets in a TLS stream on the server's usual port.

    Listing it costs nothing: what it needs is imported when a tunnel is built.
    """

    heartbeat: float = HEARTBEAT
    silence: float = SILENCE
    name: str = field(default="tls", init=False)
    summary: str = field(default="TLS 1.3 from device to device through a relay that cannot read it.", init=False)
    modes: frozenset[Mode] = field(default=frozenset({Mode.L3, Mode.L2}), init=False)
    needs: tuple[str, ...] = field(default=PACKETS, init=False)
    relay: bool = field(default=True, init=False)
    glue: bool = field(default=True, init=False)
    inside: bool = field(default=False, init=False)
    #: A stream has no MTU of its own, so the tunnel has that of an Ethernet.
    mtu: int = field(default=1500, init=False)

    def missing(self) -> list[Missing]:
        """What this machine lacks; see L{ITunnelBackend}."""
        missing = missing_for_packets()
        try:
            from OpenSSL import SSL  # noqa: F401
        except ImportError as error:
            missing.append(Missing(f"pyOpenSSL ({error})", "install pyOpenSSL"))
        return missing

    def device_end(self, parameters: TunnelParameters, site: ITunnelSite) -> IDeviceTunnel:
        """One device's tunnel of one session; see L{ITunnelBackend}."""
        from tunnels.relayed import RelayedTunnel

        tunnel: IDeviceTunnel = RelayedTunnel(self.name, parameters, site, (self.heartbeat, self.silence))
        return tunnel

    def server_end(self, terms: TunnelTerms, site: IServerSite) -> IServerTunnel:
        """The server's end of one device's tunnel; see L{ITunnelBackend}."""
        from tunnels.tls_end import TLSServerTunnel

        tunnel: IServerTunnel = TLSServerTunnel(terms, site, (self.heartbeat, self.silence))
        return tunnel
