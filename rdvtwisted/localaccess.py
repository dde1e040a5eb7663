"""
An onsite's own access rules, which hold whatever the server says: a file
(TOML) that root keeps on the device, with any of these settings::

    masters = ["SHA256:pEbCzbFfd+KlvmBVgPsaNtRcSNsbbM32EqskDqe7NnU"]
    modes = ["L3"]
    allow = ["192.168.1.10:tcp/80,443", "192.168.1.0/24:icmp"]
    deny = ["192.168.1.1"]

What is left out limits nothing. Masters are named by their keys, as
fingerprints or whole: an id is but what the server calls somebody.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from rdvtwisted.errors import AccessDenied, ConfigError, InvalidValue
from rdvtwisted.scope import ALL, Destination, Scope
from rdvtwisted.values import Mode, PublicKey, TunnelParameters

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Bytes of a file; and entries of each of its lists.
LARGEST_FILE = 1 << 20
MOST_ENTRIES = 10_000

#: How a session is joined in which the master proves its key to the onsite; whoever builds the tunnel sees to that.
_PROVED = "relay"

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@frozen
class LocalRules:
    """
    What an onsite allows, at most.

    @ivar scope: where packets may go.
    @ivar modes: the modes that a session may have.
    @ivar masters: fingerprints of the keys that a master may have; C{None} for any.
    """

    scope: Scope = ALL
    modes: frozenset[Mode] = frozenset(Mode)
    masters: frozenset[str] | None = None

    def within(self, scope: Scope) -> LocalRules:
        """These rules, and nothing outside C{scope}."""
        return evolve(self, scope=self.scope & scope)

    def limit(self, parameters: TunnelParameters, granted: Scope) -> Scope:
        """
        Where the packets of a session may go.

        @param granted: what the server allows.
        @raise AccessDenied: there can be no such session.
        """
        if parameters.mode not in self.modes:
            raise AccessDenied(f"this device's own rules allow no session in mode {parameters.mode}")
        if self.masters is not None:
            if parameters.join != _PROVED:
                raise AccessDenied(
                    "this device's own rules name masters by their keys, and in a session that ends at the server none"
                    " is proved"
                )
            key = parameters.peer_key.fingerprint
            if key not in self.masters:
                raise AccessDenied(f"this device's own rules do not name the key of {parameters.peer}: {key}")
        scope = self.scope & granted
        if parameters.mode is Mode.L2 and scope != ALL:
            raise AccessDenied(
                "destinations are limited here, by this device's own rules or the server's, and cannot be kept in a"
                " bridged session"
            )
        if not scope:
            raise AccessDenied("this device's own rules leave nothing of what the server allows")
        return scope


def parse(text: str) -> LocalRules:
    """
    The rules that a file holds.

    @raise ConfigError: a setting is unknown or cannot be used; nothing is to be allowed then.
    """
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number of too many digits
        raise ConfigError("file", f"it is not TOML: {error}") from None
    except RecursionError:
        raise ConfigError("file", "it is nested too deeply") from None
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if name not in _SETTINGS:
            raise ConfigError(name, f"there is no such setting; use {', '.join(_SETTINGS)}")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ConfigError(name, 'it is a list of texts, such as ["..."]')
        if len(value) > MOST_ENTRIES:
            raise ConfigError(name, f"it has more than {MOST_ENTRIES} entries")
        try:
            found[name] = [_SETTINGS[name](each) for each in value]
        except (InvalidValue, ValueError) as error:
            raise ConfigError(name, str(error)) from None
    rules = LocalRules()
    if "allow" in found:
        rules = rules.within(Scope.of(found["allow"]))
    if "deny" in found:
        rules = rules.within(ALL - Scope.of(found["deny"]))
    if "modes" in found:
        rules = evolve(rules, modes=frozenset(found["modes"]))
    if "masters" in found:
        rules = evolve(rules, masters=frozenset(found["masters"]))
    return rules


def _master(text: str) -> str:
    if _FINGERPRINT.fullmatch(text):
        return text
    if text.startswith("SHA256:"):
        raise InvalidValue("fingerprint", text, "it is SHA256: and 43 more characters")
    return PublicKey.from_line(text).fingerprint


_SETTINGS: Mapping[str, Callable[[str], object]] = {
    "masters": _master,
    "modes": Mode,
    "allow": Destination.parse,
    "deny": Destination.parse,
}
