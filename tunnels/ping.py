"""Whether an IPv4 address answers: ICMP echo (RFC 792), without a program."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.errors import TunnelFailed

#: How many times an address is asked, and seconds from one to the next, as long as nothing comes back.
ATTEMPTS = 10
INTERVAL = 1.0

_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_HEADER = struct.Struct("!BBHHH")
#: Random bytes by which answers to others are told from ours.
_TOKEN = 16


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - (total + (total >> 16) & 0xFFFF)


def open_socket() -> socket.socket | None:
    """
    A non-blocking socket for echo requests: one for everybody, where the administrator has allowed that
    (C{net.ipv4.ping_group_range}), or a raw one, with CAP_NET_RAW.

    @return: L{None} if this process may have neither.
    """
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            made = socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        except PermissionError:
            continue
        made.setblocking(False)
        return made
    return None


@implementer(IReadDescriptor)
class Ping:
    """Asks an address until it answers."""

    def __init__(self, reactor: Any, address: str, sock: socket.socket) -> None:
        self._reactor = reactor
        self._address = address
        self._socket = sock
        self._token = os.urandom(_TOKEN)
        self._asked: list[float] = []
        self._next: IDelayedCall | None = None
        self.answered: Deferred[float] = Deferred(lambda _: self._stop())
        reactor.addReader(self)
        self._ask()

    def _ask(self) -> None:
        if len(self._asked) == ATTEMPTS:
            self._stop()
            seconds = ATTEMPTS * INTERVAL
            self.answered.errback(TunnelFailed(f"{self._address} does not answer through the tunnel ({seconds:.0f} s)"))
            return
        number = len(self._asked)
        self._asked.append(self._reactor.seconds())
        head = _HEADER.pack(_ECHO_REQUEST, 0, 0, os.getpid() & 0xFFFF, number)
        sum_ = checksum(head + self._token)
        head = _HEADER.pack(_ECHO_REQUEST, 0, sum_, os.getpid() & 0xFFFF, number)
        try:
            self._socket.sendto(head + self._token, (self._address, 0))
        except OSError:
            pass  # unreachable now is not unreachable in a second
        self._next = self._reactor.callLater(INTERVAL, self._ask)

    def doRead(self) -> None:
        """Some answer came, to whomsoever."""
        try:
            data = self._socket.recv(4096)
        except OSError:
            return
        if self._socket.type == socket.SOCK_RAW and data:
            data = data[(data[0] & 0x0F) * 4 :]
        if len(data) != _HEADER.size + _TOKEN or not data.endswith(self._token):
            return
        kind, _, _, _, number = _HEADER.unpack_from(data)
        if kind == _ECHO_REPLY and number < len(self._asked):
            self._stop()
            self.answered.callback(self._reactor.seconds() - self._asked[number])

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self._stop()

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "ping"

    def _stop(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._reactor.removeReader(self)
        self._socket.close()


def reach(reactor: Any, address: str, interface: str) -> Deferred[float | None]:
    """
    Ask an address until it answers.

    @param reactor: IReactorFDSet and IReactorTime.
    @param interface: by which the address is asked, whatever routes there are.
    @return: a Deferred of the seconds that an answer took, of L{None} if this
        process may not ask; fails with L{TunnelFailed}. May be cancelled.
    @raise TunnelFailed: there is no such interface.
    """
    sock = open_socket()
    if sock is None:
        return succeed(None)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except PermissionError:  # before Linux 5.7 it takes CAP_NET_RAW
        sock.close()
        return succeed(None)
    except OSError as error:
        sock.close()
        raise TunnelFailed(f"nothing can be asked by {interface}: {error.strerror}") from None
    answered: Deferred[Any] = Ping(reactor, address, sock).answered
    return answered
