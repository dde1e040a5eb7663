"""What a stock stunnel says of itself, and what of it matters to a user."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: A line of its log: time, level from 0 (emergency) to 7 (debug), who says it, and what. While it reads its
#: configuration: a letter, which is C{!} for an error, and what.
_LINE = re.compile(r"(?:[\d.]+ [\d:]+ LOG([0-7])\[[^\]]*\]:|\[(.)\]) (.*)")
#: Where it tells what is wrong with a certificate; the lines after it are but the consequence.
_VERIFICATION = re.compile(r"CERT: (?:Pre-)?[Vv]erification error: (.*)")
#: What OpenSSL's words end with after the place in its source: C{...c:1889: error:0A000086:SSL routines::reason}.
_OPENSSL = re.compile(r"(?:\.\./)?[\w/.-]+\.c:\d+: error:[0-9A-F]+:[^:]*:[^:]*:(.+)")
#: Levels that tell of errors.
_ERRORS = ("0", "1", "2", "3", "!")

_CIPHER = re.compile(r"TLSv[\d.]+ ciphersuite: (\S+)")
_KEY_EXCHANGE = re.compile(r"Peer temporary key: ([^\s,]+)")

#: What to do about faults of certificates, by words of OpenSSL.
_CURES = {
    "not yet valid": "is this device's clock right?",
    "has expired": "is this device's clock right? Else renew the server's certificate",
    "self-signed": "it is not signed by the authority that this device knows",
    "self signed": "it is not signed by the authority that this device knows",
    "unable to get": "it is not signed by the authority that this device knows",
    "certificate signature failure": "it is not signed by the authority that this device knows",
}


def complaint(lines: Sequence[str]) -> str:
    """What best says why it ended, of its log: the first error, or what is wrong with a certificate; may be empty."""
    first = ""
    for line in lines:
        level, said = _parse(line)
        if (fault := _VERIFICATION.fullmatch(said)) is not None:
            cure = next((cure for words, cure in _CURES.items() if words in fault[1]), "")
            return f"the server's certificate is refused: {fault[1]}" + (f" ({cure})" if cure else "")
        if level in _ERRORS:
            first = first or said
    return _OPENSSL.sub(r"\1", first)


def encryption(lines: Sequence[str]) -> tuple[str, str]:
    """Key exchange and cipher of its connection, as it names them; empty as long as it has not."""
    found = ["", ""]
    for line in lines:
        said = _parse(line)[1]
        for index, pattern in enumerate((_KEY_EXCHANGE, _CIPHER)):
            if (match := pattern.match(said)) is not None:
                found[index] = match[1]
    return found[0], found[1]


def _parse(line: str) -> tuple[str, str]:
    """Level and text of a line of its log; both empty for any other line."""
    match = _LINE.fullmatch(line)
    return ("", "") if match is None else (match[1] or match[2], match[3])
