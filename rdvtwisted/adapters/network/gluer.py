"""
The process that makes the network namespaces of sessions: C{python -m rdvtwisted.adapters.network.gluer}.

The server starts it (see L{rdvtwisted.adapters.network.gluer_client}), so that the
process that the Internet talks to needs no capability. Its standard input is
a socket (SOCK_SEQPACKET) to the server: one message is one request or one
answer, a JSON object (see L{rdvtwisted.glue}), and descriptors of packet
devices travel with the answer that they belong to.

It lives in a user namespace of its own where the kernel allows that; there it
holds CAP_NET_ADMIN and CAP_SYS_ADMIN, against what it has made itself only.
Elsewhere it keeps these two of the machine. Its own network namespace is an
empty one. It ends when the socket does, or with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import IPv4Network

from rdvtwisted.adapters.network import privileges
from rdvtwisted.adapters.network.namespaces import CLONE_NEWNET, CLONE_NEWUSER, Namespaces, unshare
from rdvtwisted.adapters.network.privileges import CAP_NET_ADMIN, CAP_SYS_ADMIN
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import MissingPrivilege, RDVError
from rdvtwisted.glue import LONGEST_MESSAGE, Confine, GlueSpec, Open, request_from_bytes
from rdvtwisted.values import Lease, Mode

KEPT = frozenset({CAP_NET_ADMIN, CAP_SYS_ADMIN})
#: What the program C{nft} has.
LENT = frozenset({CAP_NET_ADMIN})

#: Descriptors for other things than sessions.
_SPARE_DESCRIPTORS = 64
#: Characters of the line in which a request is refused.
_LONGEST_LINE = 500

#: A session that is made and removed before anything is asked, to see whether this kernel can.
_REHEARSAL = GlueSpec(
    "rehearsal", Mode.L3, Lease(IPv4Network("192.168.128.0/30")), Lease(IPv4Network("192.168.128.4/30"))
)


class Gluer:
    """Answers over a socket, one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def serve(self, namespaces: Namespaces) -> None:
        """Do what is asked for, until the socket ends."""
        try:
            while message := self._receive():
                self._answer(namespaces, message)
        except ConnectionError:
            return

    def accept(self, descriptors: Sequence[int] = ()) -> None:
        """Say that it is done."""
        socket.send_fds(self._connection, [b'{"done": true}'], descriptors)

    def refuse(self, error: RDVError) -> None:
        """Say in one line why not."""
        line = " ".join(str(error).split())[:_LONGEST_LINE]
        self._connection.send(json.dumps({"error": line, "kind": type(error).__name__}).encode("ascii"))

    def _receive(self) -> bytes:
        # One byte too many shows that there are too many. No room for descriptors: the kernel closes any.
        return self._connection.recvmsg(LONGEST_MESSAGE + 1)[0]

    def _answer(self, namespaces: Namespaces, message: bytes) -> None:
        try:
            request = request_from_bytes(message)
            devices: tuple[PacketDevice, ...] = ()
            if isinstance(request, Open):
                devices = namespaces.open(request.spec)
            elif isinstance(request, Confine):
                namespaces.confine(request.session, request.scope)
            else:
                namespaces.close(request.session)
        except RDVError as error:
            self.refuse(error)
            return
        try:
            self.accept([device.fileno() for device in devices])
        finally:
            for device in devices:
                device.close()


def confine() -> None:
    """
    Enter an empty network namespace, with the capabilities for more of them, and give up all else for good.

    @raise MissingPrivilege: the kernel does not let this process.
    """
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as refusal:
        if not privileges.held().permitted >= KEPT:
            raise MissingPrivilege(
                f"may not make network namespaces, nor a user namespace to do it in ({refusal.strerror}): run as root,"
                " or with the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN, or set the sysctl user.max_user_namespaces"
            ) from None
        unshare(CLONE_NEWNET)
    privileges.restrict(KEPT, LENT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the socket that is the standard input."""
    parser = argparse.ArgumentParser(prog="gluer", description="Makes the network namespaces of sessions.")
    parser.add_argument("--limit", type=int, required=True, help="sessions at a time")
    parser.add_argument("--user", type=int, help="number of the user to run as")
    parser.add_argument("--group", type=int, help="number of the group to run as")
    options = parser.parse_args(arguments)

    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    with socket.socket(fileno=0) as connection:
        gluer = Gluer(connection)
        try:
            _settle(options.limit)
            if options.user is not None:
                privileges.become(options.user, options.group)
            confine()
            privileges.die_with_parent()
            namespaces = Namespaces(options.limit)
            _rehearse(namespaces)
        except RDVError as error:
            gluer.refuse(error)
            return error.exit_status
        gluer.accept()
        gluer.serve(namespaces)
        namespaces.clear()
    return 0


def _settle(limit: int) -> None:
    # The server ends this process, by closing the socket, when it has closed its sessions; a signal that
    # the whole group gets at the same time, such as Ctrl-C, would be too early.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, limit + _SPARE_DESCRIPTORS), hard))


def _rehearse(namespaces: Namespaces) -> None:
    for device in namespaces.open(_REHEARSAL):
        device.close()
    namespaces.close(_REHEARSAL.session)


if __name__ == "__main__":
    sys.exit(main())
