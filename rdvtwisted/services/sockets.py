"""Listening sockets, bound while the process may still refuse to start."""

from __future__ import annotations

import errno
import socket
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from rdvtwisted.errors import AddressInUse, ConfigError, MissingPrivilege

#: Connections that the kernel completes while we are busy; many devices come back at the same moment.
BACKLOG = 1024


@frozen
class Bound:
    """
    The sockets of one door, bound and listening, not yet served.

    @ivar port: the TCP port of all of them.
    """

    sockets: tuple[socket.socket, ...]
    port: int

    def serve(self, reactor: Any, factory: IProtocolFactory) -> list[IListeningPort]:
        """Serve them by C{factory} from now on. The ports that this returns own the sockets."""
        ports = []
        for each in self.sockets:
            ports.append(reactor.adoptStreamPort(each.fileno(), each.family, factory))
            each.close()
        return ports

    def close(self) -> None:
        """Give them up unserved."""
        for each in self.sockets:
            each.close()


def bind(address: str, port: int, section: str) -> Bound:
    """
    Listen on a port of one address, or of all addresses, IPv4 and IPv6 apart, if C{address} is empty.

    @param section: of the settings C{address} and C{port}, for errors.
    @raise AddressInUse: somebody else listens there.
    @raise MissingPrivilege: the port is a privileged one.
    @raise ConfigError: this machine has no such address.
    """
    bound: list[socket.socket] = []
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            bound.append(_listen(family, address, port))
        else:
            bound.append(_listen(socket.AF_INET, "", port))
            port = bound[0].getsockname()[1]
            if _has_ipv6():
                bound.append(_listen(socket.AF_INET6, "", port))
    except OSError as error:
        for each in bound:
            each.close()
        where = f"port {port}" + (f" of {address}" if address else "")
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{where} is in use by another program: stop that, or set {section}.port") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise MissingPrivilege(
                f"{where} needs root or CAP_NET_BIND_SERVICE: grant one, or set {section}.port to 1024 or above"
            ) from None
        raise ConfigError(f"{section}.address", f"cannot listen on {where}: {error.strerror}") from None
    return Bound(tuple(bound), bound[0].getsockname()[1])


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6, and an address of it to listen on."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
