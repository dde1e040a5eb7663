"""Private keys in files: in OpenSSH's format, readable by their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from rdvtwisted.adapters.ssh.signatures import PrivateKey
from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import StateDirectoryError

#: Bytes of the largest file that is taken for a key; RSA with 16,384 bits needs 13,000.
LARGEST_FILE = 65_536


def load_or_make(path: Path, make: Callable[[], PrivateKey]) -> PrivateKey:
    """
    The private key in the file at C{path}; if there is none, that of C{make}, which is then kept there.

    @raise StateDirectoryError: the file cannot be used, written, or be read by others.
    """
    if not os.path.lexists(path):
        key = make()
        _store(path, key)
        return key
    return load(path)


def load(path: Path) -> PrivateKey:
    """
    The private key in the file at C{path}: OpenSSH's format or PEM, without passphrase.

    @raise StateDirectoryError: the file cannot be used, or be read by others.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(LARGEST_FILE)
    except OSError as error:
        raise StateDirectoryError(f"cannot read the key {path}: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StateDirectoryError(f"the key {path} is open to others: chmod 600 {path}")
    parse = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    try:
        key = parse(data, password=None)
    except TypeError:
        raise StateDirectoryError(f"the key {path} has a passphrase: remove it with ssh-keygen -p -f {path}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        if "password" in str(error).lower():
            raise StateDirectoryError(
                f"the key {path} has a passphrase: remove it with ssh-keygen -p -f {path}"
            ) from None
        raise StateDirectoryError(f"{path} holds no private key that can be used") from None
    if not isinstance(key, (Ed25519PrivateKey, EllipticCurvePrivateKey, RSAPrivateKey)):
        raise StateDirectoryError(f"{path} holds a kind of key that cannot be used: make an ed25519 key")
    return key


def _store(path: Path, key: PrivateKey) -> None:
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateDirectoryError(f"cannot write {path}: {error.strerror}") from None
    write_whole(path, data)
