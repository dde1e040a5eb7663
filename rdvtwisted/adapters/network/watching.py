"""Hears from the kernel when something of the network changes: a link, an address, what a session has configured."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import NetworkError

#: linux/netlink.h, and the groups of linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR.
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_LINKS = 0x1 | 0x10
#: RTMGRP_TC, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, and RTNLGRP_IPV4_NETCONF for C{/proc/sys/net/ipv4/conf}.
_ROUTING = 0x8 | 0x40 | 0x80 | 1 << 23
#: linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES.
_TABLES = 1 << 6
#: Bytes read at a time; what they say is not looked at.
_READ = 65_536
#: Seconds from the first of several changes until they are told: most come in bunches.
BUNCH_SECONDS = 0.1


@implementer(IReadDescriptor)
class Watching:
    """
    Calls C{changed()} soon after something of this process's network namespace
    has changed, once for changes that come together.

    What has changed is for whoever is told to look up: the kernel drops
    messages when too many come, but not the fact that some came.
    """

    def __init__(
        self, reactor: Any, changed: Callable[[], None], protocol: int = _NETLINK_ROUTE, groups: int = _LINKS
    ) -> None:
        """
        @param reactor: IReactorFDSet and IReactorTime.
        @param groups: of a netlink C{protocol}, as bits; by default those of links and addresses.
        @raise NetworkError: the kernel does not allow it.
        """
        self._reactor = reactor
        self._changed = changed
        self._call: IDelayedCall | None = None
        try:
            self._socket: socket.socket | None = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
            )
            self._socket.bind((0, groups))
        except OSError as error:
            raise NetworkError(f"changes of the network cannot be watched: {error.strerror}") from None
        reactor.addReader(self)

    def stop(self) -> None:
        """Tell of nothing any more. Idempotent."""
        watched, self._socket = self._socket, None
        if watched is not None:
            self._reactor.removeReader(self)
            watched.close()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def fileno(self) -> int:
        """The socket's descriptor, or -1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """A word for the log."""
        return "network"

    def doRead(self) -> None:
        """Something has changed."""
        assert self._socket is not None
        try:
            while self._socket.recv(_READ):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # ENOBUFS: more than there was room for
        if self._call is None:
            self._call = self._reactor.callLater(BUNCH_SECONDS, self._tell)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self.stop()

    def _tell(self) -> None:
        self._call = None
        self._changed()


def watch_everything(reactor: Any, changed: Callable[[], None]) -> Callable[[], None]:
    """
    As L{Watching}, and for routes, rules, settings of interfaces and firewall tables, too.

    @return: what to call to end that.
    @raise NetworkError: the kernel does not allow it; the last of them takes CAP_NET_ADMIN.
    """
    watching = [Watching(reactor, changed, groups=_LINKS | _ROUTING)]
    try:
        watching.append(Watching(reactor, changed, _NETLINK_NETFILTER, _TABLES))
    except NetworkError:
        watching[0].stop()
        raise

    def stop() -> None:
        for each in watching:
            each.stop()

    return stop
