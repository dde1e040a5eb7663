"""Connections that get as far as the key exchange: some wait for the server's part of it, others have closed before."""

from __future__ import annotations

import os
import socket

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.herd_players import address

#: Numbers of messages (RFC 4253 and 5656).
_KEXINIT, _ECDH_INIT, _ECDH_REPLY = 20, 30, 31
#: Seconds that the server has for its part.
_PATIENCE = 20.0

#: One algorithm of each kind, in the order of a KEXINIT.
_NAMES = (
    b"curve25519-sha256",
    b"ssh-ed25519",
    *(b"aes128-gcm@openssh.com",) * 2,
    *(b"hmac-sha2-256",) * 2,
    *(b"none",) * 2,
    *(b"",) * 2,
)


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def _packet(payload: bytes) -> bytes:
    padding = 16 - (len(payload) + 5) % 8
    return (1 + len(payload) + padding).to_bytes(4, "big") + bytes((padding,)) + payload + bytes(padding)


def _words() -> bytes:
    """All that a client says in the clear, without having heard anything."""
    offer = bytes((_KEXINIT,)) + os.urandom(16) + b"".join(map(_string, _NAMES)) + bytes(5)
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    return b"SSH-2.0-Stranger\r\n" + _packet(offer) + _packet(bytes((_ECDH_INIT,)) + _string(public))


def _replied(heard: bytes) -> bool:
    """Whether the server's part of the exchange is in what it has said."""
    at = heard.find(b"\n") + 1
    while at and len(heard) >= at + 6:
        if heard[at + 5] == _ECDH_REPLY:
            return True
        at += 4 + int.from_bytes(heard[at : at + 4], "big")
    return False


def come(port: int, first: int, count: int, *, stay: bool) -> None:
    """
    So many come one after the other, each from another address.

    @param first: the number of the first address.
    @param stay: wait for the server's part of the exchange; else close at once.
    """
    for number in range(first, first + count):
        with socket.socket() as stranger:
            stranger.settimeout(_PATIENCE)
            stranger.bind((address(number), 0))
            stranger.connect(("127.0.0.1", port))
            stranger.sendall(_words())
            heard = b""
            while stay and not _replied(heard):
                piece = stranger.recv(1 << 16)
                if not piece:
                    raise ConnectionError(f"the server has closed: {heard[-200:]!r}")
                heard += piece
