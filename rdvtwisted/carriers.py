"""Which tunnel backends carry a session, and whether the server joins them blindly or ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

from rdvtwisted.errors import GlueNotAvailable, NoCommonBackend
from rdvtwisted.interfaces import IServerTunnel
from rdvtwisted.values import Mode, Presence, Role, TunnelTerms

#: What an old device has, which names no backend.
OLD = ("vtun",)
#: MTU of a bridged session, in bytes: whatever the carriers, it is the LAN's.
BRIDGED_MTU = 1500
#: What old devices give their tunnels in any mode, in bytes.
OLD_MTU = 1450


@frozen
class Carrier:
    """
    What the server knows of a tunnel backend.

    @ivar mtu: of routed packets, in bytes.
    @ivar relay: two devices that both use it are joined blindly.
    @ivar server_end: makes the server's end of a device's tunnel; C{None} if the server cannot end such.
    @ivar inside: its streams stay inside the TLS of the server's door.
    """

    name: str
    modes: frozenset[Mode]
    mtu: int
    relay: bool
    server_end: Callable[[TunnelTerms], IServerTunnel] | None = None
    inside: bool = False


@frozen
class Choice:
    """
    How the two tunnels of a session are carried.

    @ivar old: one of the devices is an old one.
    """

    join: str
    mode: Mode
    onsite: Carrier
    master: Carrier
    old: bool = False

    def of(self, role: Role) -> Carrier:
        """The carrier of one device's tunnel."""
        return self.onsite if role is Role.ONSITE else self.master

    @property
    def backend(self) -> str:
        """The backend's name; in a mixed pair the onsite's and the master's, with a dash between."""
        onsite, master = self.onsite.name, self.master.name
        return onsite if onsite == master else f"{onsite}-{master}"

    @property
    def mtu(self) -> int:
        """Of what both tunnels carry, in bytes."""
        return min(self.onsite.mtu, self.master.mtu) if self.mode is Mode.L3 else BRIDGED_MTU

    @property
    def path(self) -> int:
        """Bytes of the largest packets that get through both devices, for all that is known."""
        return min(self.mtu, OLD_MTU) if self.old else self.mtu


def choose(carriers: Mapping[str, Carrier], master: Presence, onsite: Presence, *, glue: bool) -> Choice:
    """
    How to carry a session of the master's mode: by the first backend of the
    master that both have and that is relayed. Else the server ends two tunnels:
    the master's is by its first backend that can be ended, the onsite's by the
    same if it has that, or by its own first. An old master has no wish, so an
    onsite that knows better need not follow it.

    @param glue: the server can end tunnels.
    @raise NoCommonBackend: there is no way.
    @raise GlueNotAvailable: there would be one if the server could end tunnels.
    """
    mode = master.profile.mode
    at_master = _usable(carriers, master.profile.backends, mode)
    at_onsite = _usable(carriers, onsite.profile.backends, mode)
    for carrier in at_master:
        if carrier.relay and carrier in at_onsite:
            return Choice("relay", mode, carrier, carrier)
    ours, theirs = ([each for each in usable if each.server_end is not None] for usable in (at_master, at_onsite))
    if not ours or not theirs:
        raise NoCommonBackend(master.id, onsite.id)
    if not glue:
        raise GlueNotAvailable(master.id, onsite.id)
    follows = ours[0] in theirs and master.profile.backends
    old = not master.profile.backends or not onsite.profile.backends
    return Choice("glue", mode, ours[0] if follows else theirs[0], ours[0], old)


def _usable(carriers: Mapping[str, Carrier], names: Iterable[str], mode: Mode) -> list[Carrier]:
    """The carriers that a device names and that can have this mode, in its order."""
    named = [carriers[name] for name in tuple(names) or OLD if name in carriers]
    return [carrier for carrier in named if mode in carrier.modes]
