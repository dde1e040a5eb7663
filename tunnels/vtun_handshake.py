"""
The handshake of vtun 3.x, as its server has it, without any I/O.

Each message has 50 bytes: a line of text and NULs. The server greets; the
client names its session; the server sends a challenge of 16 random bytes in
letters C{a} to C{p}, one for each four bits; the client answers with the
challenge encrypted by Blowfish in ECB mode under the MD5 digest of their
secret; the server dictates flags or says C{ERR}. This is how vtund 3.0.3 and
3.0.4 speak when built with OpenSSL, as Debian's are.

Blowfish, ECB and MD5 are what the old clients know. What rests on them is
only that a stranger does not get in who has heard no handshake of this very
secret; the packets themselves are protected by the SSH connection around.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from enum import Enum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from rdvtwisted.errors import MissingProgram, ProtocolError
from rdvtwisted.values import Mode
from tunnels.packets import printable

#: Bytes of each message, both ways.
MESSAGE = 50
#: Bytes of a challenge, and of the answer to it.
CHALLENGE = 16
#: Characters of the longest session name: stock programs cut a message's text at 48.
LONGEST_SESSION = 41

#: What the server may dictate: TCP, a TUN or TAP device, keepalive; neither compression nor encryption.
FLAGS = {Mode.L3: "<TuK>", Mode.L2: "<TeK>"}

_HOST = b"HOST: "
_CHAL = b"CHAL: "
_NAMED = re.compile(rb"HOST: ([A-Za-z0-9_-]+)\r?\n?")
_ANSWERED = re.compile(rb"CHAL: <([a-p]{%d})>\r?\n?" % (2 * CHALLENGE))
_TO_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_FROM_LETTERS = bytes.maketrans(b"abcdefghijklmnop", b"0123456789abcdef")


class NotVtun(ProtocolError):
    """What came in is not what a vtun client says at that point."""


class WrongSession(ProtocolError):
    """A vtun client asked for another session than the one that is here."""

    def __init__(self, said: str) -> None:
        self.said = said
        super().__init__(f"the vtun client asked for the session {said!r}, which is not here")


class WrongSecret(ProtocolError):
    """A vtun client does not know the session's secret."""

    def __init__(self) -> None:
        super().__init__("the vtun client does not know the secret of its session")


def session_name(device: str) -> str:
    """The vtun session of a device: both ends derive it from the device's id."""
    return f"tundev{device}"


def message(text: str) -> bytes:
    """
    One message as it goes on the wire.

    @raise ValueError: it is too long, or not ASCII.
    """
    line = f"{text}\n".encode("ascii")
    if len(line) >= MESSAGE:
        raise ValueError("too long for a message of vtun")
    return line.ljust(MESSAGE, b"\0")


def letters(binary: bytes) -> str:
    """A challenge, or the answer to one, as a message has it."""
    return f"<{binary.hex().encode('ascii').translate(_TO_LETTERS).decode('ascii')}>"


def answer(challenge: bytes, secret: str) -> bytes:
    """
    What who knows the secret answers to a challenge.

    @raise MissingProgram: the OpenSSL of this machine cannot do Blowfish any more.
    """
    key = hashlib.md5(secret.encode("utf-8"), usedforsecurity=False).digest()
    try:
        # No choice of ours: see above for what it may be trusted with.
        blowfish = Cipher(Blowfish(key), modes.ECB()).encryptor()  # noqa: S305
    except UnsupportedAlgorithm:
        raise MissingProgram(
            "the OpenSSL of this machine has no Blowfish, which vtun needs:"
            " enable its legacy provider, or install the cryptography package as a wheel from PyPI"
        ) from None
    return blowfish.update(challenge) + blowfish.finalize()


class _Awaited(Enum):
    """The client's next message."""

    HOST = _HOST
    CHAL = _CHAL
    NONE = b""


class ServerHandshake:
    """
    The server's end until the client has proved that it knows the secret.

    Judges the first bytes of a message without waiting for all 50 of them, so
    that what speaks something else learns it at once. Keeps no secret, and
    less than one message.
    """

    def __init__(self, session: str, secret: str, random: Callable[[int], bytes]) -> None:
        """
        @param random: that many bytes that nobody can guess.
        @raise MissingProgram: the OpenSSL of this machine cannot do Blowfish any more.
        """
        self._session = session.encode("ascii")
        self._challenge = random(CHALLENGE)
        self._answer = answer(self._challenge, secret)
        self._begun = b""
        self._awaited = _Awaited.HOST

    @property
    def proved(self) -> bool:
        """Whether the client has answered the challenge rightly."""
        return self._awaited is _Awaited.NONE

    def greeting(self) -> bytes:
        """What the server says first."""
        return message("VTUN server ver 3.X rdvtwisted")

    def receive(self, data: bytes) -> bytes:
        """
        The client's next bytes; there may be none after it has proved to know the secret.

        @return: what to send to it now.
        @raise NotVtun: a vtun client says something else.
        @raise WrongSession: it is here for another session.
        @raise WrongSecret: it does not know the secret.
        """
        reply = b""
        while data:
            room = MESSAGE - len(self._begun)
            self._begun += data[:room]
            data = data[room:]
            expected = self._awaited.value
            if not expected or not expected.startswith(self._begun[: len(expected)]):
                raise NotVtun(f"not a vtun client: it said {printable(self._begun, 16)!r}")
            if len(self._begun) == MESSAGE:
                text = self._begun.partition(b"\0")[0]
                self._begun = b""
                reply += self._named(text) if self._awaited is _Awaited.HOST else self._answered(text)
        return reply

    def _named(self, text: bytes) -> bytes:
        match = _NAMED.fullmatch(text)
        if match is None:
            raise NotVtun("not a vtun client: it did not name a session")
        if match[1] != self._session:
            raise WrongSession(printable(match[1], LONGEST_SESSION))
        self._awaited = _Awaited.CHAL
        return message(f"OK CHAL: {letters(self._challenge)}")

    def _answered(self, text: bytes) -> bytes:
        match = _ANSWERED.fullmatch(text)
        if match is None:
            raise NotVtun("not a vtun client: it did not answer the challenge")
        given = bytes.fromhex(match[1].translate(_FROM_LETTERS).decode("ascii"))
        if not hmac.compare_digest(given, self._answer):
            raise WrongSecret
        self._awaited = _Awaited.NONE
        return b""


def accepted(mode: Mode) -> bytes:
    """The server's last message to a client that may come in: after it, both speak in frames."""
    return message(f"OK FLAGS: {FLAGS[mode]}")


def refused() -> bytes:
    """The server's last message to one that may not."""
    return message("ERR")
