"""The quotes around a hostname on its way to the server: Python 2's C{string_escape} codec between apostrophes."""

from __future__ import annotations

import re

from rdvtwisted.shell.grammar import BLANKS

#: Bytes of a hostname that are kept; longer names are cut (HOST_NAME_MAX is 64, a DNS name has at most 253).
HOSTNAME_BYTES = 255

_UNSAFE = re.compile(rb"[^ -~]|[\\']")
_NAMED = {b"\\": rb"\\", b"'": rb"\'", b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t"}

_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{2})|(.?))", re.DOTALL)
_MEANING = {
    b"\\": b"\\",
    b"'": b"'",
    b'"': b'"',
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\n": b"",
}


def quote(name: bytes) -> str:
    """C{name} in apostrophes, printable ASCII whatever it holds."""
    return "'" + _UNSAFE.sub(_escape, name).decode("ascii") + "'"


def _escape(match: re.Match[bytes]) -> bytes:
    return _NAMED.get(match[0]) or b"\\x%02x" % ord(match[0])


def unquote(argument: str) -> bytes:
    """
    The name that an argument stands for; without quotes it is taken literally.

    @raise ValueError: there is a lone backslash at the end, or C{\\x} without two hexadecimal digits.
    """
    argument = argument.strip(BLANKS)
    name = argument.encode("utf-8", "replace")
    if len(argument) < 2 or not (argument.startswith("'") and argument.endswith("'")):
        return name
    return _ESCAPE.sub(_unescape, name[1:-1])


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, other = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal is not None:
        return bytes.fromhex(hexadecimal.decode("ascii"))
    if other in (b"", b"x"):
        raise ValueError("incomplete escape")
    return _MEANING.get(other, match[0])


def hostname(name: bytes) -> str:
    """
    C{name} as it is kept: text of at most L{HOSTNAME_BYTES} bytes in UTF-8,
    without the control characters that could harm a log or a terminal.
    """
    text = "".join(letter for letter in name.decode("utf-8", "replace") if letter.isprintable())
    return text.encode("utf-8")[:HOSTNAME_BYTES].decode("utf-8", "ignore")
