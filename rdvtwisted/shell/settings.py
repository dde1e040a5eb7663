"""What a device says of itself: the commands that set it, each checked whole before anything changes."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import define, evolve

from rdvtwisted.errors import InvalidTunnelMode
from rdvtwisted.requests import Publish
from rdvtwisted.shell.grammar import words
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.quoting import hostname, unquote
from rdvtwisted.shell.steps import Ask, Say, Step
from rdvtwisted.values import Mode, Profile, Role

#: What an onsite may be connected to the Internet by.
UPLINKS = ("lan", "wlan", "3g")

#: Tunnel backends that a device may name.
BACKENDS_LIMIT = 16

#: Seconds for which a site may be asked for its consent; meanwhile the session holds addresses of the server.
MOST_CONSENT_SECONDS = 600

_CONSENT = re.compile(r"[0-9]{1,3}")

BACKEND_NAME = re.compile(r"[a-z0-9-]{1,32}")


@define(eq=False)
class Settings:
    """
    What one shell knows of its device. They live as long as the shell.

    @ivar profile: what the device has published; changes once the server has taken a change.
    @ivar unusable_mode: the master's wish for a mode that does not exist. It
        is refused only when a tunnel is asked for, as masters expect.
    """

    device: str
    role: Role
    profile: Profile = Profile()
    unusable_mode: str | None = None
    debug: bool = False

    def publish(self, **changes: Any) -> Ask:
        """Tell the server a changed profile; it is the device's own once the server knows it."""
        profile = evolve(self.profile, **changes)

        def published(_: object) -> Say:
            self.profile = profile
            return Say()

        return Ask(Publish(profile), published)

    def require_mode(self) -> None:
        """
        Make sure that a tunnel could have the mode that was set.

        @raise InvalidTunnelMode: it does not exist.
        """
        if self.unusable_mode is not None:
            raise InvalidTunnelMode(printable(self.unusable_mode))


def set_lan_address(settings: Settings, argument: str) -> Step:
    """One address with an optional prefix length, netmask or wildcard mask."""
    try:
        return settings.publish(lan=IPv4Interface(argument))
    except ValueError:
        return _invalid("Invalid IP network", argument)


def set_dns_servers(settings: Settings, argument: str) -> Step:
    """Any number of addresses; they replace the former ones."""
    try:
        return settings.publish(dns=tuple(map(IPv4Address, words(argument))))
    except ValueError:
        return _invalid("Invalid DNS list", argument)


def set_hostname(settings: Settings, argument: str) -> Step:
    """A name, in quotes or not."""
    try:
        return settings.publish(hostname=hostname(unquote(argument)))
    except ValueError:
        return _invalid("Invalid hostname", argument)


def set_uplink_type(settings: Settings, argument: str) -> Step:
    """One of L{UPLINKS}."""
    if argument not in UPLINKS:
        return _invalid("Unsupported uplink type", argument)
    return settings.publish(uplink=argument)


def set_tunnel_mode(settings: Settings, argument: str) -> Step:
    """Any word is taken; whether such a mode exists matters later."""
    try:
        mode = Mode(argument)
    except ValueError:
        settings.unusable_mode = argument
        return Say()
    settings.unusable_mode = None
    return settings.publish(mode=mode)


def set_tunnel_backends(settings: Settings, argument: str) -> Step:
    """One or more names, the preferred one first."""
    names = words(argument)
    if not 0 < len(names) <= BACKENDS_LIMIT or not all(map(BACKEND_NAME.fullmatch, names)):
        return _invalid("Invalid tunnel backends", argument)
    return settings.publish(backends=tuple(names))


def set_consent_time(settings: Settings, argument: str) -> Step:
    """A number of seconds up to L{MOST_CONSENT_SECONDS}; 0 for a site that is not asked."""
    if _CONSENT.fullmatch(argument) is None or int(argument) > MOST_CONSENT_SECONDS:
        return _invalid("Invalid number of seconds", argument)
    return settings.publish(consent_seconds=float(argument) or None)


def set_debug_mode(settings: Settings, argument: str) -> Step:
    """Exactly C{on} or C{off}."""
    if argument not in ("on", "off"):
        return _invalid("Unsupported debug mode", argument)
    settings.debug = argument == "on"
    return Say()


def _invalid(what: str, argument: str) -> Say:
    return Say(errors=f"{what}: {printable(argument)}\n")
