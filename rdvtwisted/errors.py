"""
Every error that a user may meet, in one tree.

The text of an error is the one line that the user reads: what is wrong, and what to do.
C{exit_status} is what a command exits with when this error ends it.
"""

from __future__ import annotations


class RDVError(Exception):
    """The root: anything that rdvtwisted refuses or gives up."""

    exit_status = 1


class InvalidValue(RDVError):
    """A value from an operator, a peer or a file cannot be used."""

    def __init__(self, what: str, text: str, cure: str) -> None:
        self.what = what
        self.text = text[:80]
        self.cure = cure
        super().__init__(f"invalid {what} {self.text!r}: {cure}" if text else f"invalid {what}: {cure}")


class ConfigError(RDVError):
    """A setting is unknown or cannot be used; the key is named."""

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"setting {key}: {problem}")


class StateDirectoryError(RDVError):
    """The state directory cannot be used."""


class MissingPrivilege(RDVError):
    """The process lacks a right that it needs."""


class MissingProgram(RDVError):
    """A program or kernel feature that is needed is not there."""


class AddressInUse(RDVError):
    """A listening address is taken by somebody else."""


class NetworkError(RDVError):
    """The kernel refused a step of a network plan."""


# What the server answers to a device


class RequestRefused(RDVError):
    """The server will not do what a device asked for. The old protocol closes the shell after it."""


class LanAddressMissing(RequestRefused):
    """A device must publish its LAN address before it registers."""

    def __init__(self) -> None:
        super().__init__("LanIpShouldBeProvidedBeforeRegistrationToManager: publish a LAN address first")


class InvalidTunnelMode(RequestRefused):
    """The tunnel mode is not one of those that exist."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        super().__init__(f"InvalidTunnelMode:{mode}")


class OnsiteNotRegistered(RequestRefused):
    """The wanted onsite is unknown, offline or not for this master; which of the three is not told."""

    def __init__(self, onsite: str) -> None:
        self.onsite = onsite
        super().__init__(f"OnsiteDeviceIsNotRegistered: {onsite} is not online")


class ModeNotGranted(RequestRefused):
    """The wanted onsite is for this master, but not in this mode."""

    def __init__(self, onsite: str, mode: str) -> None:
        self.onsite = onsite
        super().__init__(f"ModeNotGranted: the access rules let you use {onsite} in another mode than {mode} only")


class OnsiteBusy(RequestRefused):
    """The wanted onsite is in a session with another master."""

    def __init__(self, onsite: str) -> None:
        self.onsite = onsite
        super().__init__(f"OnsiteDeviceIsBusy: {onsite} is in a session with another master")


class NoSession(RequestRefused):
    """The device has no session for which it could build a tunnel."""

    def __init__(self) -> None:
        super().__init__("NoSession: there is no session to build a tunnel for")


class NoCommonBackend(RequestRefused):
    """The two devices have no tunnel backend in common."""

    def __init__(self, master: str, onsite: str) -> None:
        super().__init__(f"NoCommonTunnelBackend: {master} and {onsite} have no tunnel backend in common")


class GlueNotAvailable(RequestRefused):
    """The two devices could only be joined by a server that ends their tunnels, and this one cannot."""

    def __init__(self, master: str, onsite: str) -> None:
        super().__init__(
            f"GlueNotAvailable: this server cannot end the tunnels of {master} and {onsite}, which have none in"
            " common that it relays; its log says why"
        )


class VtunNotAvailable(RequestRefused):
    """This server cannot end tunnels."""

    def __init__(self) -> None:
        super().__init__("VtunNotAvailable: this server cannot end tunnels; its log says why")


class VtunNotStarted(RequestRefused):
    """The device has no vtun tunnel that could be taken down."""

    def __init__(self) -> None:
        super().__init__("VtundNotRunning: this device has no tunnel at the server")


class VtunNotChosen(RequestRefused):
    """The device's session has a tunnel of another kind."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"VtunNotChosen: this session has a tunnel by {backend}: ask with get_tunnel_parameters")


class PoolExhausted(RequestRefused):
    """All address blocks of the pool are leased."""

    def __init__(self, pool: str) -> None:
        super().__init__(f"BufferError: the address pool {pool} is exhausted")


class TicketRefused(RDVError):
    """A tunnel stream brought no valid ticket: unknown, used, late, or of another device."""


# What happens to a device


class ConnectionLost(RDVError):
    """The connection to the server was refused, lost, or fell silent."""

    exit_status = 3


class FellSilent(ConnectionLost):
    """The connection to the server was there, and nothing that was awaited came through it in time."""


class KeyRejected(RDVError):
    """The server does not accept this device's key."""

    exit_status = 3


class ServerKeyChanged(RDVError):
    """The server shows another host key or certificate authority than the pinned one."""

    exit_status = 3

    def __init__(self, what: str, pinned: str, shown: str, cure: str) -> None:
        self.pinned = pinned
        self.shown = shown
        super().__init__(f"{what} has changed: pinned {pinned}, shown {shown}. {cure}")


class PeerKeyChanged(RDVError):
    """The other device shows, or is registered with, another key than the pinned one."""

    exit_status = 4

    def __init__(self, peer: str, pinned: str, shown: str, cure: str) -> None:
        self.peer = peer
        self.pinned = pinned
        self.shown = shown
        super().__init__(f"the key of {peer} has changed: pinned {pinned}, shown {shown}. {cure}")


class AccessDenied(RDVError):
    """Access rules, the server's or a device's own, forbid a session, or what it was to be."""


class ConsentDenied(RDVError):
    """Nobody at the site has agreed to a session."""

    exit_status = 4


class HookFailed(RDVError):
    """A program of this machine's administrator, run before or after something, has failed."""

    exit_status = 4


class TunnelFailed(RDVError):
    """The tunnel could not be built, or broke."""

    exit_status = 4


class TunnelSilent(TunnelFailed):
    """The connection under a tunnel was there, and nothing that was awaited came through it in time."""


class PartnerGone(TunnelFailed):
    """The other device broke off while the two met: for a reason of its own, which the server may know."""


class RoleMismatch(RDVError):
    """The account has the other role."""


class ProtocolError(RDVError):
    """A peer sent bytes that the protocol does not allow."""

    exit_status = 3
