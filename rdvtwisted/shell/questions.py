"""What a device can ask: for each request the lines that ask it, and how the value is read from the reply."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any, Union

from attrs import evolve, field, frozen

from rdvtwisted import requests
from rdvtwisted.errors import InvalidValue, ProtocolError, RequestRefused
from rdvtwisted.requests import Readiness, Request
from rdvtwisted.shell import listing, parameters
from rdvtwisted.shell.inquiries import CHANGE_WAIT_RANGE, MOST_SESSION_SECONDS
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.quoting import quote
from rdvtwisted.shell.reply import UNKNOWN_SYNTAX, Reply
from rdvtwisted.shell.settings import UPLINKS
from rdvtwisted.values import Mode, Profile, Role, device_id


@frozen
class GetRole:
    """Which role the account has. Value: L{Role}."""


@frozen
class Heartbeat:
    """Whether the server's shell answers. Value: C{None}."""

    word: str


@frozen
class ListOnsiteIds:
    """As L{requests.ListOnsite}, of any server. Value: a tuple of device ids."""


@frozen
class GetRemoteLan:
    """The LAN of the session's onsite, of any server. Value: an C{IPv4Interface}, or C{None} if it is not known."""


#: All that a device can ask. The value is what the request's class says, but
#: that of L{requests.ListOnsite} is a tuple of L{listing.OnsiteEntry}.
Asked = Union[Request, GetRole, Heartbeat, ListOnsiteIds, GetRemoteLan]


@frozen
class Question:
    """
    Lines to be sent together, each of which a prompt will answer.

    @ivar read: makes the value of the reply to all of them.
    """

    lines: tuple[str, ...]
    read: Callable[[Reply], Any] = field(eq=False)


def question(role: Role, asked: Asked) -> Question:
    """
    How a device of this role asks something.

    @raise InvalidValue: what is asked cannot be said.
    """
    return _QUESTIONS[type(asked)](role, asked)


# Reading


def _nothing(reply: Reply) -> None:
    reply.check()
    if reply.output:
        raise ProtocolError(f"the server said {_excerpt(reply)} where nothing was to be said")


def _excerpt(reply: Reply) -> str:
    return repr(printable(reply.output[:80]))


def _parsed(parse: Callable[[str], Any]) -> Callable[[Reply], Any]:
    def read(reply: Reply) -> Any:
        reply.check()
        try:
            return parse(reply.output)
        except ValueError:
            raise ProtocolError(f"the server's answer {_excerpt(reply)} cannot be used") from None

    return read


#: What a server answers to settings that came later than it.
_UNKNOWN_SETTINGS = tuple(f"{UNKNOWN_SYNTAX} {name}" for name in ("set_tunnel_backends", "set_consent_time"))


def _published(reply: Reply) -> None:
    """
    An old server does not know of tunnel backends, nor of consent: no refusal, the reply's C{unknown_syntax} tells it.
    """
    lines = reply.output.split("\n")
    known = [line for line in lines if not line.startswith(_UNKNOWN_SETTINGS)]
    _nothing(evolve(reply, output="\n".join(known)))


def _readiness(reply: Reply) -> Readiness:
    """No word on standard output is C{not_ready}: an old server may have been late with it on standard error."""
    reply.check()
    word = reply.output or Readiness.NOT_READY.value
    try:
        return Readiness(word)
    except ValueError:
        raise ProtocolError(f"the server answered {_excerpt(reply)} to wait_master_connection") from None


def _if_connected(parse: Callable[[str], Any]) -> Callable[[Reply], Any]:
    def parse_any(text: str) -> Any:
        return None if not text or text.startswith("No remote onsite") else parse(text)

    return _parsed(parse_any)


# Asking


def _plain(line: str, read: Callable[[Reply], Any]) -> Callable[[Role, Any], Question]:
    """A question that is the same for everybody."""
    fixed = Question((line,), read)
    return lambda role, asked: fixed


def _publish(role: Role, asked: requests.Publish) -> Question:
    return Question(tuple(_profile_lines(role, asked.profile)), _published)


def _profile_lines(role: Role, profile: Profile) -> list[str]:
    lines = []
    if profile.lan is not None:
        lines.append(f"set_tunnelling_dev_lan_ip_address {profile.lan}")
    lines.append(" ".join(["set_tunnelling_dev_dns_server_list", *map(str, profile.dns)]))
    if profile.hostname is not None:
        lines.append(f"set_tunnelling_dev_hostname {quote(profile.hostname.encode('utf-8', 'replace'))}")
    if role is Role.ONSITE and profile.uplink in UPLINKS:
        lines.append(f"set_tunnelling_dev_uplink_type {profile.uplink}")
    if role is Role.MASTER:
        lines.append(f"set_tunnel_mode {profile.mode.value}")
    if profile.backends:
        lines.append(" ".join(["set_tunnel_backends", *profile.backends]))
    if role is Role.ONSITE and profile.consent_seconds is not None:
        lines.append(f"set_consent_time {profile.consent_seconds:.0f}")
    return lines


def _limit_session(role: Role, asked: requests.LimitSession) -> Question:
    if not 0 <= asked.seconds <= MOST_SESSION_SECONDS:
        raise InvalidValue("time limit", str(asked.seconds), f"use 0 to {MOST_SESSION_SECONDS:g} seconds")
    return Question((f"limit_session {asked.seconds:.3f} {asked.session}",), _nothing)


def _connect(role: Role, asked: requests.Connect) -> Question:
    return Question((f"connect_to_onsite_dev {device_id(asked.onsite)}",), _nothing)


def _wait_for_change(role: Role, asked: requests.WaitForSessionChange) -> Question:
    low, high = CHANGE_WAIT_RANGE
    if not low <= asked.seconds <= high:
        raise InvalidValue("waiting time", str(asked.seconds), f"use {low:g} to {high:g} seconds")
    seconds = f"{asked.seconds:.3f}".rstrip("0").rstrip(".")
    grant = "" if asked.grant is None else f" {asked.grant}"
    return Question((f"wait_session_change {asked.state.value} {seconds}{grant}",), _parsed(parameters.SESSION.parse))


def _end_session(role: Role, asked: requests.EndSession) -> Question:
    return Question((f"end_session {asked.reason.value} {asked.session}".rstrip(),), _nothing)


def _heartbeat(role: Role, asked: Heartbeat) -> Question:
    def read(reply: Reply) -> None:
        reply.check()
        if parameters.parse_pairs(reply.output) != {"heartbeat": asked.word}:
            raise RequestRefused(f"the server answered {_excerpt(reply)} to the heartbeat {asked.word!r}")

    return Question((f"heartbeat {asked.word}",), read)


_QUESTIONS: dict[type, Callable[[Role, Any], Question]] = {
    requests.Publish: _publish,
    requests.GetMode: _plain("get_tunnel_mode", _parsed(Mode)),
    requests.ListOnsite: _plain("show_onsite_devs", _parsed(listing.parse_table)),
    requests.WaitForMaster: _plain("wait_master_connection", _readiness),
    requests.Connect: _connect,
    requests.GetRemoteSite: _plain("show_remote_onsite", _if_connected(parameters.SITE.parse)),
    requests.GetVtunParameters: _plain("get_vtun_parameters", _parsed(parameters.parse_vtun)),
    requests.GetTunnelParameters: _plain("get_tunnel_parameters", _parsed(parameters.parse_tunnel)),
    requests.DropTunnel: _plain("drop_vtun", _nothing),
    requests.GetSession: _plain("get_session", _parsed(parameters.SESSION.parse)),
    requests.WaitForSessionChange: _wait_for_change,
    requests.GetSessionGrant: _plain("get_session_grant", _parsed(parameters.GRANT.parse)),
    requests.LimitSession: _limit_session,
    requests.EndSession: _end_session,
    requests.GetCertificateAuthority: _plain("get_certificate_authority", _parsed(parameters.parse_authority)),
    requests.GetReturnTime: _plain("get_return_time", _parsed(parameters.parse_return_time)),
    GetRole: _plain("get_role", _parsed(Role)),
    Heartbeat: _heartbeat,
    ListOnsiteIds: _plain("show_online_onsite_devs", _parsed(listing.parse_ids)),
    GetRemoteLan: _plain("show_remote_onsite_ip_config", _if_connected(IPv4Interface)),
}
