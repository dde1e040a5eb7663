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
    """How the two tunnels of a session are carried."""

    join: str
    mode: Mode
    onsite: Carrier
    master: Carrier

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


def choose(carriers: Mapping[str, Carrier], master: Presence, onsite: Presence, *, glue: bool) -> Choice:
    """
    How to carry a session of the master's mode: by the first backend of the
    master that both have and that is relayed, else by the first that both have
    and the server can end, else by the first of each that the server can end.

    @param glue: the server can end tunnels.
    @raise NoCommonBackend: there is no way.
    @raise GlueNotAvailable: there would be one if the server could end tunnels.
    """
    mode = master.profile.mode
    at_master = _usable(carriers, master.profile.backends, mode)
    at_onsite = _usable(carriers, onsite.profile.backends, mode)
    common = [carrier for carrier in at_master if carrier in at_onsite]
    for carrier in common:
        if carrier.relay:
            return Choice("relay", mode, carrier, carrier)
    ended = [carrier for carrier in common if carrier.server_end is not None]
    pairs = [(carrier, carrier) for carrier in ended] or [
        (theirs, ours)
        for ours in at_master
        for theirs in at_onsite
        if ours.server_end is not None and theirs.server_end is not None
    ]
    if not pairs:
        raise NoCommonBackend(master.id, onsite.id)
    if not glue:
        raise GlueNotAvailable(master.id, onsite.id)
    return Choice("glue", mode, *pairs[0])


def _usable(carriers: Mapping[str, Carrier], names: Iterable[str], mode: Mode) -> list[Carrier]:
    """The carriers that a device names and that can have this mode, in its order."""
    named = [carriers[name] for name in tuple(names) or OLD if name in carriers]
    return [carrier for carrier in named if mode in carrier.modes]
