"""Immutable values that every room speaks of."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from attrs import field, frozen

from rdvtwisted.errors import InvalidValue


class Role(str, Enum):
    """Which end of a session a device can be; a device has exactly one."""

    ONSITE = "onsite"
    MASTER = "master"

    def __str__(self) -> str:
        return self.value


class Mode(str, Enum):
    """How a session carries packets: routed (L3) or bridged (L2)."""

    L3 = "L3"
    L2 = "L2"

    def __str__(self) -> str:
        return self.value


_DEVICE_ID = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def device_id(text: str) -> str:
    """
    C{text} if it can be a device id, which is also an SSH account name: 1 to
    32 characters, lower-case letters, digits, C{_} and C{-}, not starting with
    a digit or a dash.

    @raise InvalidValue: otherwise.
    """
    if _DEVICE_ID.fullmatch(text) is None:
        raise InvalidValue("device id", text, "use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash")
    return text


@frozen
class PublicKey:
    """A public key in SSH's wire format (RFC 4253, section 6.6)."""

    algorithm: str
    blob: bytes = field(repr=False)

    @classmethod
    def from_blob(cls, blob: bytes) -> PublicKey:
        """
        The key that C{blob} holds.

        @raise InvalidValue: C{blob} does not start with the name of its algorithm.
        """
        if len(blob) < 4:
            raise InvalidValue("public key", "", "it is too short")
        (length,) = struct.unpack("!I", blob[:4])
        name = blob[4 : 4 + length]
        if not 0 < length <= 64 or len(name) != length or not name.isascii():
            raise InvalidValue("public key", "", "it does not name its algorithm")
        return cls(name.decode("ascii"), blob)

    @classmethod
    def from_line(cls, line: str) -> PublicKey:
        """
        The key of one line of C{authorized_keys} without options:
        C{algorithm base64 [comment]}.

        @raise InvalidValue: the line is not of that form.
        """
        words = line.split()
        if len(words) < 2:
            raise InvalidValue("public key", line, "it should read: algorithm base64 [comment]")
        try:
            key = cls.from_blob(base64.b64decode(words[1], validate=True))
        except ValueError:  # binascii.Error, or of what is not even ASCII
            raise InvalidValue("public key", line, "its second word is not base64") from None
        if key.algorithm != words[0]:
            raise InvalidValue("public key", line, f"it says {words[0]} but holds {key.algorithm}")
        return key

    @property
    def line(self) -> str:
        """The key as C{authorized_keys} has it, without comment."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode('ascii')}"

    @property
    def fingerprint(self) -> str:
        """C{SHA256:} and the unpadded base64 digest, as OpenSSH shows it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def __str__(self) -> str:
        return f"{self.algorithm} {self.fingerprint}"


@frozen
class Device:
    """An account of the inventory."""

    id: str
    role: Role
    keys: tuple[PublicKey, ...] = ()
    enabled: bool = True
    #: An old device, for which the old signature algorithms are accepted.
    legacy: bool = False
    label: str = ""


@frozen
class Profile:
    """What a device publishes of itself; unset fields are C{None} or empty."""

    mode: Mode = Mode.L3
    lan: IPv4Interface | None = None
    dns: tuple[IPv4Address, ...] = ()
    hostname: str | None = None
    uplink: str | None = None
    #: Names of the tunnel backends it can use, the preferred one first; empty
    #: for an old device, which knows nothing but vtun.
    backends: tuple[str, ...] = ()
    #: Of an onsite: its site is asked for its consent before a session, for so many seconds; C{None}: it is not.
    consent_seconds: float | None = None


@frozen
class Lease:
    """A block of four tunnel addresses; the onsite end has the first host, the master the second."""

    network: IPv4Network

    @property
    def first(self) -> IPv4Interface:
        """The first host, with the block's prefix length."""
        return IPv4Interface(f"{self.network[1]}/{self.network.prefixlen}")

    @property
    def second(self) -> IPv4Interface:
        """The second host, with the block's prefix length."""
        return IPv4Interface(f"{self.network[2]}/{self.network.prefixlen}")


@frozen
class TunnelParameters:
    """What the server tells a device so that it can build its tunnel of one session."""

    session: str
    backend: str
    mode: Mode
    #: C{relay}: the two devices' tunnel is one, from end to end. C{glue}: each device's tunnel ends at the server.
    join: str
    #: The other device's id; and the key of the tunnel's other end: the one with
    #: which that device is registered now, or in a glued session the server's.
    peer: str
    peer_key: PublicKey
    peer_role: Role
    #: Own and far address inside the tunnel.
    address: IPv4Interface
    peer_address: IPv4Address
    mtu: int
    #: TCP port of the TLS door, on the host by which the device reached the server; of a C{vtun} tunnel the
    #: port at the server to which the device opens a C{direct-tcpip} channel.
    door_port: int
    #: Proof of belonging to this session, a secret: a one-time ticket, of a C{vtun} tunnel its shared secret.
    ticket: str = field(repr=False)


@frozen
class TunnelTerms:
    """What a tunnel that ends at the server is for."""

    session: str
    mode: Mode
    #: The device at its other end.
    device: str
    role: Role
    key: PublicKey
    #: Of the packets inside, in bytes.
    mtu: int


@frozen
class RemoteSite:
    """What a master may know of the onsite at the other end of its session."""

    id: str
    lan: IPv4Interface | None
    dns: tuple[IPv4Address, ...]
    hostname: str | None
    uplink: str | None
    #: Address from which the onsite reached the server.
    address: str
    #: The site is asked for its consent before a session, for so many seconds; C{None}: it is not.
    consent_seconds: float | None = None


class SessionState(str, Enum):
    """What a session is waiting for, or is."""

    #: A master has selected an onsite; neither has asked for its tunnel.
    PENDING = "pending"
    #: At least one device builds its tunnel.
    BUILDING = "building"
    #: Both tunnels are joined.
    UP = "up"
    #: It is ending: what it holds is being given back.
    CLOSING = "closing"
    #: There is none (any more).
    NONE = "none"

    def __str__(self) -> str:
        return self.value


class EndReason(str, Enum):
    """Why a session ended: a word for logs, scripts and statistics alike."""

    OPERATOR = "operator"
    TIME_LIMIT = "time-limit"
    MASTER_LEFT = "master-left"
    ONSITE_LEFT = "onsite-left"
    TUNNEL_LOST = "tunnel-lost"
    TUNNEL_FAILED = "tunnel-failed"
    PEER_KEY_REFUSED = "peer-key-refused"
    BUILD_TIMEOUT = "build-timeout"
    REPLACED = "replaced"
    ADMINISTRATOR = "administrator"
    #: The server's access rules do not allow it any more.
    ACCESS_REVOKED = "access-revoked"
    #: The onsite's own rules forbid it.
    ACCESS_DENIED = "access-denied"
    #: The site was asked, and said no; did not answer; or has taken its consent back.
    CONSENT_REFUSED = "consent-refused"
    CONSENT_TIMEOUT = "consent-timeout"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    #: A device's own program, which is run before a session, did not let it begin.
    HOOK_REFUSED = "hook-refused"
    SERVER_STOPPED = "server-stopped"
    #: The server ended without notice, killed or with its machine, as the next one found; only in the audit trail.
    SERVER_LOST = "server-lost"
    #: The interface that a device gives access through is gone, or has lost its link or its address.
    EXTREMITY_LOST = "extremity-lost"

    def __str__(self) -> str:
        return self.value


@frozen
class SessionView:
    """A session as one of its devices, or an administrator, sees it at one moment."""

    state: SessionState = SessionState.NONE
    id: str = ""
    master: str = ""
    onsite: str = ""
    mode: Mode = Mode.L3
    backend: str = ""
    join: str = ""
    #: Seconds since the epoch; 0 when not reached.
    selected_at: float = 0.0
    up_at: float = 0.0
    #: Bytes carried towards the onsite and towards the master.
    to_onsite: int = 0
    to_master: int = 0
    #: Why the last session ended, once C{state} is none or closing.
    reason: EndReason | None = None
    #: Another number whenever something else may be done in it, see L{rdvtwisted.access.SessionGrant}.
    grant: int = 0
    #: For what it waits that people do: C{consent}, the site's; or empty.
    waiting: str = ""


@frozen
class Presence:
    """A registration as an administrator sees it at one moment."""

    id: str
    role: Role
    #: Address and port from which the device came, and the door it used (C{ssh} or C{tls}).
    address: str
    door: str
    #: Seconds since the epoch.
    since: float
    last_heard: float
    profile: Profile
    key: PublicKey
    session: str = ""
    round_trip: float | None = None


@frozen
class Offloads:
    """
    Which kinds of packets larger than the MTU a packet device may hand over
    or take, as TUNSETOFFLOAD names them (linux/if_tun.h).
    """

    checksum: bool = False
    tso4: bool = False
    tso6: bool = False
    uso: bool = False

    def __and__(self, other: Offloads) -> Offloads:
        return Offloads(
            self.checksum and other.checksum,
            self.tso4 and other.tso4,
            self.tso6 and other.tso6,
            self.uso and other.uso,
        )


@frozen
class TunnelReport:
    """What is known of a working tunnel; never holds a secret."""

    backend: str
    #: Key exchange and cipher as the library names them, e.g. C{X25519MLKEM768}.
    key_exchange: str = ""
    cipher: str = ""
    #: Bytes and packets of the tunnel's own interface.
    sent_bytes: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    received_packets: int = 0
    #: Last measured round trip to the other end, in seconds.
    round_trip: float | None = None
    #: The key that the tunnel's other end has proved to hold, to this device and by nobody's word; C{None} if it has
    #: proved none.
    proved: PublicKey | None = None


@frozen
class Missing:
    """Something that a tunnel backend needs and this machine lacks."""

    what: str
    cure: str
