"""
The blocks of C{key: value} lines by which server and device tell each other values.

Each block is one table, used in both directions, so that the two cannot
drift apart. A reader skips keys that it does not know: more may come.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Generic, TypeVar

from attrs import evolve, frozen

from rdvtwisted.access import SessionGrant
from rdvtwisted.addressing import check_ends
from rdvtwisted.errors import InvalidValue, ProtocolError
from rdvtwisted.scope import Scope
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.quoting import HOSTNAME_BYTES
from rdvtwisted.shell.settings import BACKEND_NAME
from rdvtwisted.values import (
    EndReason,
    Mode,
    PublicKey,
    RemoteSite,
    Role,
    SessionState,
    SessionView,
    TunnelParameters,
    device_id,
)

T = TypeVar("T")

#: Lines that a block may have; the longest of ours has 12.
BLOCK_LINES = 64

#: Smallest MTU of an IPv4 link that carries every datagram a host must accept (RFC 791), and the largest packet.
MTU_RANGE = (576, 65535)


def render_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """A line C{key: value} for each pair. Old devices split it at its first colon, which must be there."""
    return "".join(f"{printable(key)}: {printable(value)}\n" for key, value in pairs)


def parse_pairs(text: str) -> dict[str, str]:
    """
    The pairs of a block, in its order.

    @raise ProtocolError: a line has no colon, a key comes twice, or there are too many lines.
    """
    lines = text.split("\n") if text else []
    if len(lines) > BLOCK_LINES:
        raise ProtocolError("the server's answer has too many lines")
    pairs: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon or key.strip() in pairs:
            raise ProtocolError(f"not one 'key: value' line: {printable(line[:80])!r}")
        pairs[key.strip()] = value.strip()
    return pairs


@frozen
class Form:
    """
    How a value is written.

    @ivar read: the value of a text; raises L{ValueError} or an L{rdvtwisted.errors.RDVError}.
    @ivar absent: what a key that is not there stands for, as text: one that came later. C{None}: it must be there.
    """

    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    absent: str | None = None


@frozen
class Block(Generic[T]):
    """All keys of a kind of value, which are its attributes, and how each is written."""

    kind: Callable[..., T]
    forms: Mapping[str, Form]

    def render(self, value: T) -> str:
        """The lines that say C{value}."""
        return render_pairs((key, form.write(getattr(value, key))) for key, form in self.forms.items())

    def parse(self, text: str) -> T:
        """
        The value that lines say.

        @raise ProtocolError: a key is missing, or its value cannot be used.
        """
        pairs = parse_pairs(text)
        for key, form in self.forms.items():
            if form.absent is not None:
                pairs.setdefault(key, form.absent)
        return self.kind(**{key: read_key(pairs, key, form.read) for key, form in self.forms.items()})


def read_key(pairs: Mapping[str, str], key: str, read: Callable[[str], T]) -> T:
    """
    The value of one key.

    @raise ProtocolError: it is missing or cannot be used. The value is not told: it may be a secret.
    """
    if key not in pairs:
        raise ProtocolError(f"the server's answer lacks {key}")
    try:
        return read(pairs[key])
    except (ValueError, InvalidValue):
        raise ProtocolError(f"the server's answer has an unusable {key}") from None


# Forms


def _matching(pattern: str) -> Form:
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError("not of the expected form")
        return text

    return Form(read)


def _number(low: int, high: int) -> Form:
    def read(text: str) -> int:
        if _DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
            raise ValueError("not a number in range")
        return int(text)

    return Form(read)


def _moment(text: str) -> float:
    moment = float(text)
    if not 0 <= moment < math.inf:
        raise ValueError("not a moment")
    return moment


def _free(text: str) -> str:
    return printable(text)[:HOSTNAME_BYTES]


def _optional(form: Form) -> Form:
    """A form in which an empty text stands for C{None}."""
    return Form(
        lambda text: form.read(text) if text else None,
        lambda value: "" if value is None else form.write(value),
    )


_DIGITS = re.compile(r"[0-9]{1,20}")
_DEVICE = Form(device_id)
_ADDRESS = Form(IPv4Address)
_INTERFACE = Form(IPv4Interface)
_PORT = _number(1, 65535)
_MOMENT = Form(_moment, repr)
_COUNT = _number(0, 2**64 - 1)
_FREE = Form(_free)


# Blocks

_TUNNEL = Block(
    TunnelParameters,
    {
        "session": _matching(r"[A-Za-z0-9_-]{1,64}"),
        "backend": _matching(BACKEND_NAME.pattern),
        "mode": Form(Mode),
        "join": _matching("relay|glue"),
        "peer": _DEVICE,
        "peer_role": Form(Role),
        "peer_key": Form(PublicKey.from_line, lambda key: str(key.line)),
        "address": _INTERFACE,
        "peer_address": _ADDRESS,
        "mtu": _number(*MTU_RANGE),
        "door_port": _PORT,
        "ticket": _matching(r"[A-Za-z0-9_-]{1,128}"),
    },
)

#: A session, or that there is none: then most values are empty.
SESSION = Block(
    SessionView,
    {
        "state": Form(SessionState),
        "id": _matching(r"[A-Za-z0-9_-]{0,64}"),
        "master": _matching(r"[a-z0-9_-]{0,32}"),
        "onsite": _matching(r"[a-z0-9_-]{0,32}"),
        "mode": Form(Mode),
        "backend": _matching(r"[a-z0-9-]{0,32}"),
        "join": _matching("relay|glue|"),
        "selected_at": _MOMENT,
        "up_at": _MOMENT,
        "to_onsite": _COUNT,
        "to_master": _COUNT,
        "reason": _optional(Form(EndReason)),
        "grant": evolve(_COUNT, absent="0"),
        "waiting": evolve(_matching(r"[a-z-]{0,32}"), absent=""),
    },
)

#: What may be done in a session.
GRANT = Block(
    SessionGrant,
    {"revision": _COUNT, "seconds": _optional(_MOMENT), "scope": Form(Scope.parse)},
)

#: The onsite at the other end of a master's session; what is unknown is empty.
SITE = Block(
    RemoteSite,
    {
        "id": _DEVICE,
        "lan": _optional(_INTERFACE),
        "dns": Form(lambda text: tuple(map(IPv4Address, text.split())), lambda dns: " ".join(map(str, dns))),
        "hostname": _optional(_FREE),
        "uplink": _optional(_FREE),
        "address": _FREE,
        "consent_seconds": evolve(_optional(_MOMENT), absent=""),
    },
)

#: What a device needs of the parameters of a vtun tunnel; there may be more.
_VTUN = {
    "tunnel_ip_network": _ADDRESS,
    "tunnel_ip_prefix": _matching(r"/(?:[12]?[0-9]|3[0-2])"),
    "tunnelling_dev_ip_address": _ADDRESS,
    "rdv_server_ip_address": _ADDRESS,
    "rdv_server_vtun_tcp_port": _PORT,
    "tunnel_secret": _matching(r"(?![0-9]*$)[A-Za-z0-9_+=!$%&*^@~.-]{1,128}"),
}

_AUTHORITY = "certificate_authority"
_RETURN = "return_within"
#: Seconds that a server may say; what a device makes of them is its own business.
_RETURN_FORM = _number(0, 9999)


def render_tunnel(parameters: TunnelParameters) -> str:
    """The lines that tell a device how to build its tunnel."""
    return _TUNNEL.render(parameters)


def parse_tunnel(text: str) -> TunnelParameters:
    """
    How to build a tunnel.

    @raise ProtocolError: something is missing or unusable, or no tunnel may have such addresses.
    """
    parameters = _TUNNEL.parse(text)
    check_ends(parameters.address, parameters.peer_address)
    return parameters


def parse_vtun(text: str) -> tuple[tuple[str, str], ...]:
    """
    All pairs of the parameters of a vtun tunnel, in their order.

    @raise ProtocolError: one that a device needs is missing or unusable.
    """
    pairs = parse_pairs(text)
    for key, form in _VTUN.items():
        read_key(pairs, key, form.read)
    return tuple(pairs.items())


def render_authority(certificate: bytes) -> str:
    """The line that tells a certificate (DER)."""
    return render_pairs([(_AUTHORITY, base64.b64encode(certificate).decode("ascii"))])


def parse_authority(text: str) -> bytes:
    """
    A certificate (DER); what stands in it is for its user to find out.

    @raise ProtocolError: it is missing or not base64.
    """
    return read_key(parse_pairs(text), _AUTHORITY, lambda value: base64.b64decode(value, validate=True))


def render_return_time(seconds: int) -> str:
    """The line that tells over how many seconds devices are to spread."""
    return render_pairs([(_RETURN, str(seconds))])


def parse_return_time(text: str) -> int:
    """
    Over how many seconds devices are to spread.

    @raise ProtocolError: it is missing or no such number.
    """
    seconds: int = read_key(parse_pairs(text), _RETURN, _RETURN_FORM.read)
    return seconds
