"""Logging in at a device (RFC 4252): with the one key that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)

from rdvtwisted.adapters.ssh.algorithms import LEGACY_SIGNATURE, SIGNATURES
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key, sign
from rdvtwisted.adapters.ssh.wire import boolean, string
from rdvtwisted.errors import ProtocolError

if TYPE_CHECKING:
    from rdvtwisted.adapters.ssh.client import ClientTransport


def signature_algorithm(kind: str, accepted: frozenset[str]) -> str:
    """
    The algorithm to sign with.

    @param kind: the key's.
    @param accepted: what the server says it accepts (RFC 8308, section 3.1);
        empty if it says nothing, as servers do that know no RSA with SHA-2.
    """
    candidates = SIGNATURES[kind]
    if kind == LEGACY_SIGNATURE:
        candidates = (*candidates, LEGACY_SIGNATURE)
        if not accepted:
            return LEGACY_SIGNATURE
    return next((name for name in candidates if name in accepted), candidates[0])


class Login(SSHService):
    """Signs at once, without first asking whether the key will do: there is no other."""

    name = b"ssh-userauth"
    transport: ClientTransport

    def __init__(self, account: str, key: PrivateKey) -> None:
        self._account = account
        self._key = key

    def serviceStarted(self) -> None:
        """The server takes requests."""
        public = public_key(self._key)
        algorithm = signature_algorithm(public.algorithm, self.transport.accepted_signatures)
        request = b"".join(
            (
                *map(string, (self._account.encode(), b"ssh-connection", b"publickey")),
                boolean(True),
                *map(string, (algorithm.encode(), public.blob)),
            )
        )
        signed = string(self.transport.sessionID or b"") + bytes((MSG_USERAUTH_REQUEST,)) + request
        self.transport.send(MSG_USERAUTH_REQUEST, request, string(sign(self._key, algorithm, signed)))

    def serviceStopped(self) -> None:
        """We are in, or the connection is gone."""

    def unblocked(self) -> None:
        """Nothing here waits for the transport."""

    def packetReceived(self, number: int, body: memoryview) -> None:
        """A message for this service."""
        if number == MSG_USERAUTH_SUCCESS:
            self.transport.let_in()
        elif number == MSG_USERAUTH_FAILURE:
            self.transport.turned_down()
        elif number != MSG_USERAUTH_BANNER:
            raise ProtocolError(f"it sent message {number} while we log in")
