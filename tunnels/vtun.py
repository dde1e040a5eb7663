"""
The C{vtun} backend: the vtun 3.x protocol inside the device's SSH connection, for old devices at new servers and new
devices at old ones. On a device it drives the stock program vtund; the server has its end built in.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.values import Missing, Mode, TunnelParameters, TunnelTerms
from tunnels.requirements import PACKETS, PLACES, missing_for_packets, stock_program, version

#: How vtund tells its version, such as C{3.X 05/14/2022}.
_VERSION = ("-h", r"^VTun ver (.{1,40})$")


@implementer(ITunnelBackend)
@frozen
class VtunBackend:
    """
    Packets as vtun frames, which the server ends: it can read them.

    Listing it costs little: what it needs is imported when a tunnel is built.
    """

    places: str = PLACES
    name: str = field(default="vtun", init=False)
    modes: frozenset[Mode] = field(default=frozenset({Mode.L3, Mode.L2}), init=False)
    needs: tuple[str, ...] = field(default=(*PACKETS, "vtund (Debian: vtun)"), init=False)
    relay: bool = field(default=False, init=False)
    glue: bool = field(default=True, init=False)
    inside: bool = field(default=False, init=False)
    #: What old servers and old devices give their tunnels.
    mtu: int = field(default=1450, init=False)

    @property
    def summary(self) -> str:
        """One sentence, with the version of the program that is found here."""
        path = stock_program(["vtund"], self.places)
        found = None if path is None else version(path, *_VERSION)
        program = "the stock program vtund" if found is None else f"the stock program vtund (version {found})"
        return f"vtun inside SSH, on a device by {program}; the server can read it."

    def missing(self) -> list[Missing]:
        """What this machine lacks; see L{ITunnelBackend}."""
        missing = missing_for_packets()
        if stock_program(["vtund"], self.places) is None:
            missing.append(Missing("the program vtund", "apt-get install vtun"))
        return missing

    def device_end(self, parameters: TunnelParameters, site: ITunnelSite) -> IDeviceTunnel:
        """One device's tunnel of one session; see L{ITunnelBackend}."""
        from tunnels.vtun_tunnel import VtunTunnel

        tunnel: IDeviceTunnel = VtunTunnel(self.name, parameters, site)
        return tunnel

    def server_end(self, terms: TunnelTerms, site: IServerSite) -> IServerTunnel:
        """The server's end of one device's tunnel; see L{ITunnelBackend}."""
        from tunnels.vtun_end import VtunServerTunnel

        tunnel: IServerTunnel = VtunServerTunnel(terms, site)
        return tunnel
