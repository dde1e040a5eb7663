"""
What an administrator's command may ask of the running server, over the control socket.

A UNIX socket that only the server's user (and root) can reach. One connection carries one request and one reply,
each a JSON object on a line of its own::

    {"verb": "end", "id": "rpi1100"}            {"ok": true, "result": true}
    {"verb": "dance"}                           {"ok": false, "error": "there is no verb 'dance': use end, ..."}

L{rdvtwisted.adapters.control_server} is the server's end, L{rdvtwisted.adapters.control_client} the command's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence

from zope.interface import Interface

from rdvtwisted.errors import ConfigError, RDVError
from rdvtwisted.values import EndReason, Presence, SessionView

#: Bytes of a request. An id has at most 64 characters, so that one is far below.
MAX_REQUEST = 4096
#: Characters of an id of a session or device.
MAX_ID = 64
#: Bytes of a UNIX socket's path: sun_path of linux/un.h, less its closing NUL.
MAX_PATH = 107
#: Seconds in which a request must be made and its reply be read.
SECONDS = 10.0


class ServerRefused(RDVError):
    """The running server said why it does not do what was asked."""


def require_short(path: str, setting: str, cure: str = "name a shorter path") -> None:
    """
    Make sure that there can be a socket of this path.

    @param setting: what the path comes from.
    @raise ConfigError: it is too long.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(setting, f"{path} is longer than {MAX_PATH} bytes; {cure}")


class IAdministration(Interface):
    """What the control socket asks of the server; all of it answers at once, from memory."""

    def status() -> Mapping[str, object]:
        """Words and what JSON can hold: version, doors, counts."""

    def presences() -> Sequence[Presence]:
        """Each registered device."""

    def sightings() -> Sequence[Mapping[str, object]]:
        """Of each device that was ever here: its latest registration, as L{rdvtwisted.sightings.Sighting} has it."""

    def views() -> Sequence[SessionView]:
        """Each session."""

    def end_session(id: str, reason: EndReason) -> bool:
        """
        End a session.

        @param id: of the session, or of one of its devices.
        @return: whether there was one.
        """

    def refresh() -> int:
        """
        Read the inventory again, and drop every device that may no longer be here.

        @return: how many were dropped.
        """

    def renew_certificate() -> str:
        """
        Issue the TLS door a new certificate, and use it from now on.

        @return: a sentence on the new certificate.
        """

    def record(action: str, actor: str, target: str) -> None:
        """
        Have the audit trail say that an administrator has done something.

        @param actor: who, as L{rdvtwisted.adapters.users} names him.
        @param target: id of a session or device; may be empty.
        """


def presence_document(presence: Presence) -> dict[str, object]:
    """A registration as JSON shows it; times in seconds since the epoch."""
    profile = presence.profile
    return {
        "id": presence.id,
        "role": presence.role.value,
        "address": presence.address,
        "door": presence.door,
        "since": presence.since,
        "last_heard": presence.last_heard,
        "round_trip": presence.round_trip,
        "fingerprint": presence.key.fingerprint,
        "session": presence.session or None,
        "mode": profile.mode.value,
        "lan": None if profile.lan is None else str(profile.lan),
        "dns": [str(address) for address in profile.dns],
        "hostname": profile.hostname,
        "uplink": profile.uplink,
        "backends": list(profile.backends),
    }


def session_document(view: SessionView) -> dict[str, object]:
    """A session as JSON shows it; times in seconds since the epoch, null when not reached."""
    return {
        "id": view.id,
        "state": view.state.value,
        "waiting": view.waiting or None,
        "onsite": view.onsite,
        "master": view.master,
        "mode": view.mode.value,
        "backend": view.backend or None,
        "join": view.join or None,
        "selected_at": view.selected_at or None,
        "up_at": view.up_at or None,
        "to_onsite": view.to_onsite,
        "to_master": view.to_master,
        "reason": None if view.reason is None else view.reason.value,
    }


def _end(server: IAdministration, request: Mapping[str, object]) -> bool:
    id = request.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID:
        raise ServerRefused(f"end needs an id, a text of 1 to {MAX_ID} characters")
    return server.end_session(id, EndReason.ADMINISTRATOR)


#: All that can be asked, and how each is answered.
VERBS: Mapping[str, Callable[[IAdministration, Mapping[str, object]], object]] = {
    "end": _end,
    "online": lambda server, _: [presence_document(each) for each in server.presences()],
    "refresh": lambda server, _: server.refresh(),
    "renew-certificate": lambda server, _: server.renew_certificate(),
    "sessions": lambda server, _: [session_document(each) for each in server.views()],
    "sightings": lambda server, _: list(server.sightings()),
    "status": lambda server, _: dict(server.status()),
}


#: What is an act of an administrator's, to be recorded when it was done: the verb, and the action that it is.
RECORDED: Mapping[str, str] = {"end": "session-end-ordered", "renew-certificate": "certificate-renewed"}


def perform(server: IAdministration, line: bytes, actor: str) -> object:
    """
    What C{server} answers to the request in C{line}.

    @param actor: who makes it.
    @raise ServerRefused: the line is no request.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ServerRefused("the request is not JSON") from None
    if not isinstance(request, dict):
        raise ServerRefused("the request is not a JSON object")
    verb = request.get("verb")
    if not isinstance(verb, str) or verb not in VERBS:
        raise ServerRefused(f"there is no verb {verb!r:.80}: use {', '.join(VERBS)}")
    result = VERBS[verb](server, request)
    if result and verb in RECORDED:
        server.record(RECORDED[verb], actor, str(request.get("id", "")))
    return result
