"""The command's end of the control socket, for programs without a reactor."""

from __future__ import annotations

import json
import socket
from typing import Any

from rdvtwisted.adapters.control import SECONDS, ServerRefused
from rdvtwisted.errors import ConnectionLost, ProtocolError, RDVError, StateDirectoryError

#: Bytes of a reply: tens of thousands of devices at some 500 bytes each.
MAX_REPLY = 64 << 20


class ServerNotRunning(RDVError):
    """Nobody answers at the control socket."""

    def __init__(self, path: str) -> None:
        super().__init__(f"the server is not running (nobody answers at {path})")


class ControlClient:
    """Asks the running server, and waits for the answer; for programs without a reactor."""

    def __init__(self, path: str, seconds: float = SECONDS) -> None:
        self._path = path
        self._seconds = seconds

    def ask(self, verb: str, **arguments: object) -> Any:
        """
        The server's answer.

        @raise ServerNotRunning: nobody answers at the socket.
        @raise ServerRefused: the server said no, and why.
        @raise ConnectionLost: it did not answer in time.
        @raise ProtocolError: what it answered is no reply.
        @raise StateDirectoryError: the socket may not be used.
        """
        line = self._exchange(json.dumps({"verb": verb, **arguments}).encode("ascii") + b"\n")
        try:
            reply = json.loads(line)
            ok = reply["ok"]
            answer = reply["result" if ok else "error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ProtocolError(f"what answers at {self._path} is no rdv-server, or has just stopped") from None
        if not ok:
            raise ServerRefused(str(answer))
        return answer

    def _exchange(self, request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._seconds)
            try:
                connection.connect(self._path)
                connection.sendall(request)
                with connection.makefile("rb") as stream:
                    return stream.readline(MAX_REPLY)
            except (FileNotFoundError, ConnectionRefusedError):
                raise ServerNotRunning(self._path) from None
            except TimeoutError:
                raise ConnectionLost(f"the server did not answer within {self._seconds:g} s") from None
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                cure = ": run as its owner or as root" if isinstance(error, PermissionError) else ""
                raise StateDirectoryError(f"cannot use the control socket {self._path}: {reason}{cure}") from None
