"""
TCP connections made with small segments, for paths that swallow large packets without a word (RFC 2923).

The size is set before a socket connects: the SYN then announces it, which
bounds what the other end sends, too, whatever that runs on. Set afterwards it
would bound nothing but what this end sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory
from zope.interface import implementer

#: Bytes of a small segment (RFC 9293, section 3.7.1: without headers, but with TCP's options). With the headers of
#: either IP it fits into 1,280 bytes, the least that IPv6 demands of any link, and thus into what tunnels, DSL and
#: mobile networks leave of 1,500.
SEGMENT_BYTES = 1200


class _Client(tcp.Client):
    """A connection whose socket knows its largest segment before it connects."""

    def createInternetSocket(self) -> socket.socket:
        made: socket.socket = super().createInternetSocket()
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        except OSError:
            made.close()
            raise
        return made


class _Connector(tcp.Connector):
    """Makes such connections."""

    def _makeTransport(self) -> tcp.Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


@implementer(IReactorTime, IReactorPluggableNameResolver)
class SmallSegments:
    """
    What an endpoint by name needs of a reactor, and the reactor's own but for one thing: connections that it makes,
    over either IP, have segments of L{SEGMENT_BYTES} at most, in both directions.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: the real one, which looks after the connections.
        """
        self._reactor = reactor

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """Begin to connect; see L{twisted.internet.interfaces.IReactorTCP.connectTCP}."""
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector

    # IReactorPluggableNameResolver

    @property
    def nameResolver(self) -> IHostnameResolver:
        """The reactor's."""
        resolver: IHostnameResolver = self._reactor.nameResolver
        return resolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Give the reactor another one; the former one."""
        former: IHostnameResolver = self._reactor.installNameResolver(resolver)
        return former

    # IReactorTime

    def seconds(self) -> float:
        """The reactor's time."""
        now: float = self._reactor.seconds()
        return now

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:
        """As the reactor does."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """The reactor's."""
        calls: list[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


def endpoint(reactor: Any, host: str, port: int, small: bool) -> HostnameEndpoint:
    """
    An endpoint by name or address, which tries all that the name has.

    @param small: its connections have segments of L{SEGMENT_BYTES} at most.
    """
    return HostnameEndpoint(SmallSegments(reactor) if small else reactor, host, port)
