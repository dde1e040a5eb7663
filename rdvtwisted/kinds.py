"""
Kinds of settings: which values one takes, from a file, from a text, and in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, ip_address

from attrs import frozen

#: The longest time, in seconds, and the longest text, in characters, that any setting takes.
MOST_SECONDS = 86400
LONGEST_TEXT = 4096

# RFC 1123, section 2.1: labels of letters, digits and inner dashes, at most 63 long, 253 together.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@frozen
class Kind:
    """Which values a setting takes: C{accept} a file's value, or C{parse} a text into one; L{ValueError} if not."""

    what: str
    accept: Callable[[object], object]
    parse: Callable[[str], object] = str


def whole(least: int, most: int) -> Kind:
    """Whole numbers from C{least} to C{most}."""

    def accept(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return Kind(f"a whole number from {least} to {most}", accept, int)


def _seconds(value: object) -> float:
    if type(value) not in (int, float) or not 0 < (number := float(str(value))) <= MOST_SECONDS:
        raise ValueError
    return number


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise ValueError
    return value


def choice(*words: str) -> Kind:
    """One of C{words}."""

    def accept(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(words), accept)


def _address(value: object) -> str:
    text = _text(value)
    return str(ip_address(text)) if text else ""


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    names = tuple(_text(name) for name in value)
    for name in names:
        if _DNS_NAME.fullmatch(name) is None:
            ip_address(name)
    return names


def _network(value: object) -> IPv4Network:
    return IPv4Network(_text(value))


SECONDS = Kind(f"a number of seconds above 0 and up to {MOST_SECONDS}", _seconds, float)
SWITCH = Kind("true or false", _switch, lambda text: _SWITCH[text.lower()])
TEXT = Kind("a text on one line", _text)
ADDRESS = Kind("an IPv4 or IPv6 address, or empty for all", _address)
NAMES = Kind(
    "a list of DNS names or IP addresses",
    _names,
    lambda text: [name.strip() for name in text.split(",") if name.strip()],
)
NETWORK = Kind("an IPv4 network such as 192.168.128.0/17", _network)
