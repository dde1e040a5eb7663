"""Public keys as an administrator brings them: pasted, in files, or on standard input."""

from __future__ import annotations

from typing import TextIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from rdvtwisted.errors import InvalidValue
from rdvtwisted.services import namedfile
from rdvtwisted.values import PublicKey

#: What a device may log in with.
ALGORITHMS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
#: Bits below which an RSA key can be had by others (NIST SP 800-131A).
LEAST_RSA_BITS = 2048
#: Bytes of a file of public keys.
LARGEST_FILE = 65536


def public_key(line: str) -> PublicKey:
    """
    The key in a line such as C{ssh-keygen} and C{authorized_keys} have it.

    @raise InvalidValue: it is none, is damaged, or cannot be used.
    """
    if "PRIVATE KEY" in line:
        raise InvalidValue("public key", "", "this is a private key; it stays on its device. Give the .pub file")
    key = PublicKey.from_line(line)
    if key.algorithm not in ALGORITHMS:
        raise InvalidValue("public key", key.algorithm, f"use one of {', '.join(ALGORITHMS)}")
    try:
        loaded = load_ssh_public_key(key.line.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidValue("public key", line, "it is damaged; copy it again, all of it") from None
    if isinstance(loaded, RSAPublicKey) and loaded.key_size < LEAST_RSA_BITS:
        raise InvalidValue(
            "public key",
            key.fingerprint,
            f"an RSA key needs {LEAST_RSA_BITS} bits; make one with ssh-keygen -t ed25519",
        )
    return key


def keys_of_file(path: str, stdin: TextIO) -> list[PublicKey]:
    """
    The keys in a file, one a line, without empty lines and comments; C{-} is standard input.

    @raise InvalidValue: it cannot be read, has none, or has a line that is none.
    """
    try:
        if path == "-":
            text = stdin.read(LARGEST_FILE)
        else:
            with namedfile.opened(path) as file:
                text = file.read(LARGEST_FILE).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidValue("key file", path, "it is not text") from None
    except OSError as error:
        raise InvalidValue("key file", path, (error.strerror or str(error)).lower()) from None
    lines = [line.strip() for line in text.splitlines()]
    keys = [public_key(line) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidValue("key file", path, "there is no key in it")
    return keys
