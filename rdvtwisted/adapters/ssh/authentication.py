"""Logging in at the server (RFC 4252): by public key, and by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.conch.ssh import transport as conch
from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.userauth import (
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)

from rdvtwisted.adapters.ssh.algorithms import LEGACY_SIGNATURE
from rdvtwisted.adapters.ssh.signatures import makes, verify
from rdvtwisted.adapters.ssh.wire import Reader, boolean, string
from rdvtwisted.errors import InvalidValue
from rdvtwisted.values import Device, PublicKey

if TYPE_CHECKING:
    from rdvtwisted.adapters.ssh.server import ServerTransport

_PUBLIC_KEY = b"publickey"
#: Requests that a client may make for each attempt that it has: asking whether a key will do, and using it.
_REQUESTS_PER_ATTEMPT = 2


class Authentication(SSHService):
    """
    Decides whether a connection may in.

    To a client, an unknown account, a disabled one and a key that is not the
    account's are the same. That a key will do is said only of keys that the
    account has.
    """

    name = b"ssh-userauth"
    transport: ServerTransport

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._failed = 0
        self._requests = 0

    def serviceStopped(self) -> None:
        """The client is in, or gone."""

    def unblocked(self) -> None:
        """Nothing here waits for the transport."""

    def packetReceived(self, number: int, body: memoryview) -> None:
        """A message for this service."""
        if number != MSG_USERAUTH_REQUEST:
            self.transport.unimplemented()
            return
        reader = Reader(body)
        account, service, method = reader.text(), reader.string(), reader.string()
        line = self.transport
        if service != b"ssh-connection":
            line.sendDisconnect(conch.DISCONNECT_SERVICE_NOT_AVAILABLE, "there is no such service")
            return
        if line.account not in (None, account):
            line.fail("it changed the account while logging in")
            return
        line.account = account
        self._requests += 1
        if method == _PUBLIC_KEY:
            self._public_key(account, reader)
        elif method == b"none" and self._requests == 1:
            # How clients ask which methods there are.
            self._say_failure()
        else:
            self._refuse("it offered no key")

    def _public_key(self, account: str, reader: Reader) -> None:
        signed, algorithm, blob = reader.boolean(), reader.text(), reader.string()
        line = self.transport
        found = self._find(account, algorithm, blob)
        if isinstance(found, str):
            self._refuse(found)
        elif not signed:
            if self._requests > self._attempts * _REQUESTS_PER_ATTEMPT:
                self._give_up()
            else:
                line.send(MSG_USERAUTH_PK_OK, string(algorithm.encode()), string(blob))
        else:
            device, key = found
            data = b"".join(
                (
                    string(line.sessionID or b""),
                    bytes((MSG_USERAUTH_REQUEST,)),
                    *map(string, (account.encode(), b"ssh-connection", _PUBLIC_KEY)),
                    boolean(True),
                    *map(string, (algorithm.encode(), blob)),
                )
            )
            if verify(key, algorithm, reader.string(), data):
                if line.lodge(device):
                    line.send(MSG_USERAUTH_SUCCESS)
                    line.admitted(device, key)
            else:
                self._refuse("the signature is wrong")

    def _find(self, account: str, algorithm: str, blob: bytes) -> tuple[Device, PublicKey] | str:
        """Whose key this is; or why it does not count, which is not for the client."""
        try:
            key = PublicKey.from_blob(blob)
        except InvalidValue:
            return "it offered something that is no key"
        device: Device | None = self.transport.reception.admit(account, key)
        if device is None:
            return "the account does not have that key"
        if not makes(key, algorithm):
            return f"{algorithm[:32]} is not accepted"
        if algorithm == LEGACY_SIGNATURE and not device.legacy:
            return "it signs by SHA-1, which is accepted of legacy accounts only"
        return device, key

    def _refuse(self, reason: str) -> None:
        self._failed += 1
        self.transport.refusal = reason
        if self._failed >= self._attempts:
            self._give_up()
        else:
            self._say_failure()

    def _give_up(self) -> None:
        self.transport.sendDisconnect(conch.DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE, "too many attempts to log in")

    def _say_failure(self) -> None:
        self.transport.send(MSG_USERAUTH_FAILURE, string(_PUBLIC_KEY), boolean(False))
