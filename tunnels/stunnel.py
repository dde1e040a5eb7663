"""
The C{stunnel} backend: frames over TCP that a stock stunnel4 of the device
wraps in TLS, for sites that prescribe stunnel. The server ends it.
"""

from __future__ import annotations

from attrs import field, frozen
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.values import Missing, Mode, TunnelParameters, TunnelTerms
from tunnels.requirements import PACKETS, PLACES, missing_for_packets, stock_program, version

#: What the program is called: on Debian, and elsewhere.
PROGRAMS = ("stunnel4", "stunnel")
#: Seconds between heartbeats in a session.
HEARTBEAT = 5.0
#: Seconds in which nothing at all was heard, after which the tunnel has failed.
SILENCE = 15.0

#: How it tells its version, such as C{5.68}.
_VERSION = ("-version", r"^stunnel (\S{1,40})")


@implementer(ITunnelBackend)
@frozen
class StunnelBackend:
    """
    Packets through a stock stunnel4 to the server's usual port.

    Listing it costs nothing: what it needs is imported when a tunnel is built.
    """

    heartbeat: float = HEARTBEAT
    silence: float = SILENCE
    places: str = PLACES
    name: str = field(default="stunnel", init=False)
    modes: frozenset[Mode] = field(default=frozenset({Mode.L3, Mode.L2}), init=False)
    needs: tuple[str, ...] = field(default=(*PACKETS, "stunnel 5 (Debian: stunnel4)"), init=False)
    relay: bool = field(default=False, init=False)
    glue: bool = field(default=True, init=False)
    inside: bool = field(default=True, init=False)
    #: A stream has no MTU of its own, so the tunnel has that of an Ethernet.
    mtu: int = field(default=1500, init=False)

    @property
    def summary(self) -> str:
        """One sentence, with the version of the program that is found here."""
        path = stock_program(PROGRAMS, self.places)
        found = None if path is None else version(path, *_VERSION)
        program = "the stock program stunnel4" if found is None else f"the stock program stunnel4 (version {found})"
        return f"TLS of {program} on a device; the server ends it and can read it."

    def missing(self) -> list[Missing]:
        """What this machine lacks; see L{ITunnelBackend}."""
        missing = missing_for_packets()
        if stock_program(PROGRAMS, self.places) is None:
            missing.append(Missing("stunnel4", "install it: apt-get install stunnel4"))
        return missing

    def device_end(self, parameters: TunnelParameters, site: ITunnelSite) -> IDeviceTunnel:
        """One device's tunnel of one session; see L{ITunnelBackend}."""
        from tunnels.stunnel_client import StunnelTunnel

        tunnel: IDeviceTunnel = StunnelTunnel(self.name, parameters, site, (self.heartbeat, self.silence))
        return tunnel

    def server_end(self, terms: TunnelTerms, site: IServerSite) -> IServerTunnel:
        """The server's end of one device's tunnel; see L{ITunnelBackend}."""
        from tunnels.stunnel_end import StunnelServerTunnel

        tunnel: IServerTunnel = StunnelServerTunnel(terms, site, (self.heartbeat, self.silence))
        return tunnel
