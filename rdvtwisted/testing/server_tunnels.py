"""
The contract of the server's ends of tunnels, for whoever writes one, and what a test needs to run it.

A test case inherits from L{ServerTunnelContract} and trial's C{TestCase}, and
says how a device's end is made. See C{tests/tunnels/test_server_ends.py} of this
project's source for two that do.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from zope.interface import implementer

from rdvtwisted.interfaces import IServerSite
from rdvtwisted.testing.tunnels import MemoryIdentity, identity
from rdvtwisted.values import Mode, PublicKey, Role, TunnelTerms


@implementer(IServerSite)
@define(eq=False)
class MemoryServerSite:
    """A server for a tunnel to end at."""

    reactor: Any
    identity: MemoryIdentity = field(factory=lambda: identity("rdv-server"))


def terms(
    mode: Mode, device: str = "rpi1100", role: Role = Role.ONSITE, key: PublicKey | None = None, mtu: int = 1450
) -> TunnelTerms:
    """
    What the server would say of a device's tunnel in a session called C{s1}.

    @param key: the device's; of no matter if not given.
    """
    return TunnelTerms("s1", mode, device, role, key or identity(device).public, mtu)
