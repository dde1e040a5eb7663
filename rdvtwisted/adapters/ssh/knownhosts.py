"""The server's keys as a device knows them, in a file of OpenSSH's C{known_hosts} format (sshd(8))."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen
from twisted.logger import Logger

from rdvtwisted.adapters.wholefile import sync_directory
from rdvtwisted.errors import InvalidValue, ServerKeyChanged, StateDirectoryError
from rdvtwisted.ports import SSH_PORT
from rdvtwisted.values import PublicKey

#: Bytes of the largest file that is read.
LARGEST_FILE = 4 << 20

_REVOKED = "@revoked"


@frozen
class _Entry:
    """One line that could be understood."""

    line: int
    marker: str
    hosts: str
    key: PublicKey

    def names(self, host: str) -> bool:
        """Whether the entry is about C{host}, which is written as in the file."""
        if self.hosts.startswith("|1|"):
            return _hash_matches(self.hosts, host)
        patterns = self.hosts.lower().split(",")
        if any(pattern.startswith("!") and _glob(pattern[1:], host) for pattern in patterns):
            return False
        return any(_glob(pattern, host) for pattern in patterns)


def _glob(pattern: str, host: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(expression, host) is not None


def _hash_matches(hashed: str, host: str) -> bool:
    """HMAC-SHA1 of the name with a salt as its key: C{|1|salt|hash}."""
    try:
        salt, digest = (base64.b64decode(word, validate=True) for word in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, host.encode(), "sha1"), digest)


def _entry(number: int, line: str) -> _Entry | None:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        return _Entry(number, marker, words[0], PublicKey.from_line(f"{words[1]} {words[2]}"))
    except InvalidValue:
        return None


def written(host: str, port: int) -> str:
    """How the file names a server: C{host}, or C{[host]:port} for another port than 22."""
    host = host.lower()
    return host if port == SSH_PORT else f"[{host}]:{port}"


@frozen
class KnownHosts:
    """
    Trusts a server's key at first use, and from then on that key only.

    Lines of the file that cannot be understood are left alone.
    """

    path: Path
    log = Logger()

    def _entries(self) -> Iterator[_Entry]:
        try:
            with self.path.open("rb") as file:
                text = file.read(LARGEST_FILE).decode("utf-8", "replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateDirectoryError(f"cannot read {self.path}: {error.strerror}") from None
        for number, line in enumerate(text.split("\n"), 1):
            entry = _entry(number, line)
            if entry is not None:
                yield entry

    def pinned(self, host: str, port: int) -> tuple[PublicKey, ...]:
        """
        The keys by which this server is known.

        @raise StateDirectoryError: the file cannot be read.
        """
        name = written(host, port)
        return tuple(entry.key for entry in self._entries() if not entry.marker and entry.names(name))

    def check(self, host: str, port: int, key: PublicKey) -> None:
        """
        Accept C{key}, which a server has proved to hold, or not. An unknown
        server's key is added to the file.

        @raise ServerKeyChanged: the server is known by other keys, or this one is revoked.
        @raise StateDirectoryError: the file cannot be read or written.
        """
        name = written(host, port)
        entries = [entry for entry in self._entries() if entry.names(name)]
        what = f"the host key of {name}"
        for entry in entries:
            if entry.marker == _REVOKED and entry.key == key:
                cure = f"It is revoked by line {entry.line} of {self.path}: do not connect."
                raise ServerKeyChanged(what, "revoked", str(key), cure)
        pins = [entry for entry in entries if not entry.marker]
        if any(entry.key == key for entry in pins):
            return
        if pins:
            # Prefer to name the line of the same kind, which is the one that the new key would replace.
            pin = next((entry for entry in pins if entry.key.algorithm == key.algorithm), pins[0])
            cure = f"If that is as it should be, remove line {pin.line} of {self.path}."
            raise ServerKeyChanged(what, str(pin.key), str(key), cure)
        self._add(name, key)

    def _add(self, name: str, key: PublicKey) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(size - 1)
                torn = size and file.read(1) != b"\n"
                file.write((b"\n" if torn else b"") + f"{name} {key.line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            if made:
                sync_directory(self.path.parent)
        except OSError as error:
            raise StateDirectoryError(f"cannot write {self.path}: {error.strerror}") from None
        self.log.info("{name} is from now on known by its key {key}", name=name, key=key)
