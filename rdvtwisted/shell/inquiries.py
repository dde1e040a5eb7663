"""The commands that the server must answer, and what their answers come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rdvtwisted import requests
from rdvtwisted.errors import InvalidValue, OnsiteNotRegistered, RDVError
from rdvtwisted.requests import Readiness
from rdvtwisted.shell import listing, parameters
from rdvtwisted.shell.grammar import words
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.settings import Settings
from rdvtwisted.shell.steps import Ask, Say, Step, done, refusal
from rdvtwisted.values import EndReason, Mode, RemoteSite, SessionState, device_id

#: Seconds that an onsite waits for a master: long enough not to spin, and
#: well below the 90 s after which an old device gives its server up.
MASTER_WAIT_SECONDS = 60.0

#: Seconds for which one may wait for a session to change.
CHANGE_WAIT_RANGE = (1.0, 60.0)

#: Seconds in which a device may say that its session is to be over; who wants more says nothing.
MOST_SESSION_SECONDS = 2_592_000.0

_LIMIT = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,6})?")
_GRANT = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,6})?")

Answered = Callable[[Any], Say]


def _printed(render: Callable[[Any], str]) -> Answered:
    return lambda answer: Say(render(answer))


def get_tunnel_mode(settings: Settings, argument: str) -> Step:
    """The session's mode, or else the device's own: as the master said it, even if there is no such mode."""
    if settings.unusable_mode is not None:
        return Say(f"{printable(settings.unusable_mode)}\n")
    return Ask(requests.GetMode(), _printed(lambda mode: f"{Mode(mode).value}\n"))


def show_online_onsites(settings: Settings, argument: str) -> Step:
    """Ids alone, for old masters."""
    return Ask(requests.ListOnsite(), _printed(listing.render_ids))


def show_onsites(settings: Settings, argument: str) -> Step:
    """The whole table."""
    return Ask(requests.ListOnsite(), _printed(listing.render_table))


def wait_for_master(settings: Settings, argument: str) -> Step:
    """One word on standard output, but C{not_ready} on standard error."""

    def said(answer: Readiness) -> Say:
        line = f"{answer.value}\n"
        return Say(errors=line) if answer is Readiness.NOT_READY else Say(line)

    return Ask(requests.WaitForMaster(MASTER_WAIT_SECONDS), said, fatal=True)


def _registering(settings: Settings, ask: Ask) -> Step:
    """C{ask}, which registers a device, unless its mode makes that impossible."""
    try:
        settings.require_mode()
    except RDVError as error:
        return ask.refused(error)
    return ask


def connect(settings: Settings, argument: str) -> Step:
    """An id that cannot exist is as unknown as one that does not."""
    try:
        onsite = device_id(argument)
    except InvalidValue:
        return refusal(OnsiteNotRegistered(argument), fatal=True)
    return _registering(settings, Ask(requests.Connect(onsite), done, fatal=True))


def get_vtun_parameters(settings: Settings, argument: str) -> Step:
    """The lines of a vtun tunnel."""
    return _registering(settings, Ask(requests.GetVtunParameters(), _printed(parameters.render_pairs), fatal=True))


def get_tunnel_parameters(settings: Settings, argument: str) -> Step:
    """The lines of a tunnel of any other backend."""
    return _registering(settings, Ask(requests.GetTunnelParameters(), _printed(parameters.render_tunnel)))


def drop_tunnel(settings: Settings, argument: str) -> Step:
    """A refusal is fatal, as it was."""
    return Ask(requests.DropTunnel(), done, fatal=True)


def show_remote_lan(settings: Settings, argument: str) -> Step:
    """The LAN address alone, for old masters."""

    def said(site: RemoteSite | None) -> Say:
        if site is None or site.lan is None:
            return Say(errors="No remote onsite IP configuration retrieved. Are you connected to an onsite?\n")
        return Say(f"{site.lan}\n")

    return Ask(requests.GetRemoteSite(), said)


def show_remote_onsite(settings: Settings, argument: str) -> Step:
    """All that a master may know of the onsite of its session."""

    def said(site: RemoteSite | None) -> Say:
        if site is None:
            return Say(errors="No remote onsite. Are you connected to an onsite?\n")
        return Say(parameters.SITE.render(site))

    return Ask(requests.GetRemoteSite(), said)


def get_session(settings: Settings, argument: str) -> Step:
    """The session now."""
    return Ask(requests.GetSession(), _printed(parameters.SESSION.render))


def wait_session_change(settings: Settings, argument: str) -> Step:
    """A state, a number of seconds within L{CHANGE_WAIT_RANGE}, and perhaps the number of a grant."""
    low, high = CHANGE_WAIT_RANGE
    try:
        state, seconds, *grants = words(argument)
        [grant] = map(_grant, grants) if grants else [None]
        request = requests.WaitForSessionChange(SessionState(state), float(seconds), grant)
    except ValueError:
        return Say(errors=f"Invalid session state or seconds: {printable(argument)}\n")
    if _SECONDS.fullmatch(seconds) is None or not low <= request.seconds <= high:
        return Say(errors=f"Invalid session state or seconds: {printable(argument)}\n")
    return Ask(request, _printed(parameters.SESSION.render))


def _grant(text: str) -> int:
    if _GRANT.fullmatch(text) is None:
        raise ValueError("not the number of a grant")
    return int(text)


def get_session_grant(settings: Settings, argument: str) -> Step:
    """What may be done in the session."""
    return Ask(requests.GetSessionGrant(), _printed(parameters.GRANT.render))


def limit_session(settings: Settings, argument: str) -> Step:
    """A number of seconds up to L{MOST_SESSION_SECONDS}, and the id of a session."""
    try:
        seconds, session = words(argument)
    except ValueError:
        return Say(errors=f"Invalid seconds or session: {printable(argument)}\n")
    if _LIMIT.fullmatch(seconds) is None or float(seconds) > MOST_SESSION_SECONDS:
        return Say(errors=f"Invalid seconds or session: {printable(argument)}\n")
    return Ask(requests.LimitSession(float(seconds), session), done)


def end_session(settings: Settings, argument: str) -> Step:
    """An L{EndReason}'s word, or none for the operator's wish; then perhaps the id of the session that is meant."""
    word, *ids = words(argument) or [EndReason.OPERATOR.value]
    try:
        reason = EndReason(word)
    except ValueError:
        return Say(errors=f"Unsupported reason: {printable(word)}\n")
    if len(ids) > 1:
        return Say(errors=f"Unsupported session: {printable(' '.join(ids))}\n")
    return Ask(requests.EndSession(reason, *ids), done)


def get_return_time(settings: Settings, argument: str) -> Step:
    """A number of seconds."""
    return Ask(requests.GetReturnTime(), _printed(parameters.render_return_time))


def get_certificate_authority(settings: Settings, argument: str) -> Step:
    """The certificate of the TLS door's authority."""
    return Ask(requests.GetCertificateAuthority(), _printed(parameters.render_authority))
