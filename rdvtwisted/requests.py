"""
What a device's shell asks of the server, one class a request.

Each class says what the answer to it is; an L{RDVError} instead of an answer
is rendered by the shell as its text and, where the old protocol demands it,
ends the shell.
"""

from __future__ import annotations

from enum import Enum
from typing import Union

from attrs import frozen

from rdvtwisted.values import EndReason, Profile, SessionState


class Readiness(str, Enum):
    """Answers to L{WaitForMaster}."""

    READY = "ready"
    NOT_READY = "not_ready"
    RESET = "reset"


@frozen
class Publish:
    """The device's profile is now this one. Answer: C{None}."""

    profile: Profile


@frozen
class GetMode:
    """Which mode the tunnel has: the session's, or else the device's own. Answer: L{Mode}."""


@frozen
class ListOnsite:
    """Which onsite devices this master can select. Answer: a tuple of L{Presence}, by id."""


@frozen
class WaitForMaster:
    """Register, then wait until a master selects this onsite. Answer: a L{Readiness}."""

    seconds: float = 60.0


@frozen
class Connect:
    """Register, then open a session to this onsite. Answer: C{None}."""

    onsite: str


@frozen
class GetRemoteSite:
    """The onsite of this master's session. Answer: L{RemoteSite}, or C{None} without session."""


@frozen
class GetVtunParameters:
    """Start the server's vtun end for this device. Answer: a tuple of C{(key, value)} text pairs."""


@frozen
class GetTunnelParameters:
    """Parameters of this device's tunnel of the current session. Answer: L{TunnelParameters}."""


@frozen
class DropTunnel:
    """Take this device's tunnel down, keep the registration. Answer: C{None}."""


@frozen
class GetSession:
    """The device's session now. Answer: L{SessionView}."""


@frozen
class WaitForSessionChange:
    """
    Wait until the state of the device's session is not C{state}, or what may
    be done in it is not what it was at C{grant} (C{None}: whatever it is), at
    most C{seconds}. Answer: L{SessionView}. The question is level-triggered: a
    change between two waits is never lost.
    """

    state: SessionState
    seconds: float
    grant: int | None = None


@frozen
class GetSessionGrant:
    """What may be done in the device's session. Answer: L{rdvtwisted.access.SessionGrant}."""


@frozen
class LimitSession:
    """
    The device's session, if it is the one with this id, is to be over in so many seconds from now, whatever the
    other device and the access rules let it be. A later one replaces it. Answer: C{None}.
    """

    seconds: float
    session: str


@frozen
class EndSession:
    """
    End the device's session, if it has one. Answer: C{None}.

    @ivar session: the id of the session that is meant; another one, which the device has been selected for
        meanwhile, is left alone. Empty: whichever there is.
    """

    reason: EndReason
    session: str = ""


@frozen
class GetCertificateAuthority:
    """The certificate authority of the TLS door. Answer: its certificate, DER, as C{bytes}."""


@frozen
class GetReturnTime:
    """
    Over how many seconds all devices are to spread that come back to the server after a restart of it, as far as is
    known now. Answer: seconds, a whole number.
    """


Request = Union[
    Publish,
    GetMode,
    ListOnsite,
    WaitForMaster,
    Connect,
    GetRemoteSite,
    GetVtunParameters,
    GetTunnelParameters,
    DropTunnel,
    GetSession,
    WaitForSessionChange,
    GetSessionGrant,
    LimitSession,
    EndSession,
    GetCertificateAuthority,
    GetReturnTime,
]
