"""The way on inside TLS, for a connection whose handshake is done already."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer


def connect(transport: ITCPTransport, protocol: Protocol) -> None:
    """Let C{protocol} have the transport from now on, in place of the protocol that had it."""
    transport.protocol = protocol  # type: ignore[attr-defined]  # every TCP transport of Twisted has it
    protocol.makeConnection(transport)


@implementer(IOpenSSLServerConnectionCreator)
class Inside:
    """
    Twisted's own TLS transport, with its backpressure, put on a connection that is there.

    @ivar factory: of these transports.
    """

    def __init__(
        self,
        server: IProtocolFactory,
        clock: IReactorTime,
        kind: type[TLSMemoryBIOProtocol] = BufferingTLSTransport,
    ) -> None:
        """
        @param server: whose protocols are inside.
        @param kind: of transport: the default one gathers what is written in one turn of the reactor.
        """
        self._connections: dict[TLSMemoryBIOProtocol, SSL.Connection] = {}
        self.factory = TLSMemoryBIOFactory(self, False, server, clock)
        self.factory.protocol = kind

    def connect(self, transport: ITCPTransport, connection: SSL.Connection, protocol: IProtocol, rest: bytes) -> None:
        """
        Let C{protocol} speak inside TLS.

        @param rest: what has come in and C{connection} does not have yet.
        """
        tls = self.factory.protocol(self.factory, protocol)
        self._connections[tls] = connection
        connect(transport, tls)
        if rest:
            tls.dataReceived(rest)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The connection on which the handshake took place."""
        return self._connections.pop(tlsProtocol)
