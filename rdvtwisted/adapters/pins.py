"""Files that remember who somebody is: a name and a key, pinned at first use or given beforehand."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field

from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import InvalidValue, PeerKeyChanged, StateDirectoryError
from rdvtwisted.values import PublicKey, device_id

#: A file of pins larger than this is not ours.
MAX_FILE_BYTES = 1 << 20


@define
class KnownPeers:
    """
    The keys of the devices that this device has been in sessions with: one
    line each, C{id algorithm base64}. Lines may be written by hand before the
    first session; C{#} starts a comment line.

    @ivar path: the file; it need not exist.
    @ivar strict: an unknown peer is refused instead of being pinned.
    """

    path: Path
    strict: bool = False
    _text: str = field(default="", init=False, repr=False)
    _keys: dict[str, PublicKey] = field(factory=dict, init=False)

    def read(self) -> None:
        """
        Read the file anew.

        @raise StateDirectoryError: it cannot be read.
        @raise InvalidValue: a line is not a pin; it is named.
        """
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            text = ""
        except OSError as error:
            raise StateDirectoryError(f"cannot read {self.path}: {error.strerror}") from None
        if len(text) > MAX_FILE_BYTES:
            raise StateDirectoryError(f"{self.path} has more than {MAX_FILE_BYTES} bytes: it is no file of known peers")
        self._text = text
        self._keys = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, key = line.strip().partition(" ")
            try:
                self._keys[device_id(name)] = PublicKey.from_line(key)
            except InvalidValue as error:
                raise InvalidValue(f"line {number} of {self.path}", line, error.cure) from None

    def check(self, peer: str, key: PublicKey) -> bool:
        """
        Whether C{key} may be taken for the key of C{peer}.

        @return: True if it is pinned, False if this is its first use.
        @raise PeerKeyChanged: another key is pinned, or none and the file is strict.
        """
        self.read()
        pinned = self._keys.get(peer)
        if pinned == key:
            return True
        if pinned is not None:
            cure = f"If it was changed on purpose, remove the line of {peer} from {self.path}"
            raise PeerKeyChanged(peer, pinned.fingerprint, key.fingerprint, cure)
        if self.strict:
            cure = f"Add the line '{peer} {key.line}' to {self.path} if that is its key"
            raise PeerKeyChanged(peer, "nothing", key.fingerprint, cure)
        return False

    def pin(self, peer: str, key: PublicKey) -> None:
        """
        Remember C{key} as the key of C{peer}, in a line of its own; what stands in the file stays.

        @raise PeerKeyChanged: somebody has pinned another key meanwhile.
        @raise StateDirectoryError: the file cannot be written.
        """
        if self.check(peer, key):
            return
        text = self._text
        if text and not text.endswith("\n"):
            text += "\n"
        write_whole(self.path, f"{text}{peer} {key.line}\n".encode())
        self._keys[peer] = key
