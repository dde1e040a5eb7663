"""
The C{stunnel} backend: frames over TCP that a stock stunnel4 of the device
wraps in TLS, for sites that prescribe stunnel. The server ends it.
"""

from __future__ import annotations

import os
import shutil

from attrs import field, frozen
from zope.interface import implementer

from rdvtwisted.interfaces import IDeviceTunnel, IServerSite, IServerTunnel, ITunnelBackend, ITunnelSite
from rdvtwisted.values import Missing, Mode, TunnelParameters, TunnelTerms
from tunnels.requirements import missing_for_packets

#: What the program is called: on Debian, and elsewhere.
PROGRAMS = ("stunnel4", "stunnel")
#: Seconds between heartbeats in a session.
HEARTBEAT = 5.0
#: Seconds in which nothing at all was heard, after which the tunnel has failed.
SILENCE = 15.0

#: Where it is looked for besides PATH.
_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")


@implementer(ITunnelBackend)
@frozen
class StunnelBackend:
    """
    Packets through a stock stunnel4 to the server's usual port.

    Listing it costs nothing: what it needs is imported when a tunnel is built.
    """

    heartbeat: float = HEARTBEAT
    silence: float = SILENCE
    name: str = field(default="stunnel", init=False)
    summary: str = field(default="Packets through a stock stunnel4, ended and joined by the server.", init=False)
    modes: frozenset[Mode] = field(default=frozenset({Mode.L3, Mode.L2}), init=False)
    relay: bool = field(default=False, init=False)
    glue: bool = field(default=True, init=False)
    inside: bool = field(default=True, init=False)
    #: A stream has no MTU of its own, so the tunnel has that of an Ethernet.
    mtu: int = field(default=1500, init=False)

    def missing(self) -> list[Missing]:
        """What this machine lacks; see L{ITunnelBackend}."""
        missing = missing_for_packets()
        places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES))
        if not any(shutil.which(name, path=places) for name in PROGRAMS):
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
