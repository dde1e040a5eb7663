"""
The TLS door: one port for everything, told apart by ALPN.

C{rdv-tunnel/1} is a tunnel stream; C{ssh}, and a client that names nothing,
is SSH inside TLS; C{h2} and C{http/1.1} go to the web server, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from rdvtwisted.adapters.front.encryption import SSH, TUNNEL, WEB, Credentials, ServerConnection, door_context
from rdvtwisted.adapters.front.entrance import Entrance, Passage
from rdvtwisted.adapters.front.turnstile import Turnstile
from rdvtwisted.adapters.front.visit import Limits, Refused, Visits
from rdvtwisted.interfaces import ITicketOffice

_Way = Callable[[ITCPTransport, Passage], None]


class Door(Factory):
    """
    The factory for the server's TLS port.

    @ivar visits: who is at the door now.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        credentials: Credentials,
        office: ITicketOffice,
        ssh: IProtocolFactory,
        refused: Refused,
        web: IProtocolFactory | None = None,
        tls12: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """
        @param ssh: makes the SSH server's protocols.
        @param refused: is told of everybody who is refused here.
        @param web: makes the web server's protocols.
        @param tls12: whether TLS 1.2 is good enough for SSH and the web.
        """
        self.visits = Visits(clock, limits or Limits(), refused)
        self._office = office
        self._tls12 = tls12
        self._inside = [Inside(ssh, clock)] if web is None else [Inside(ssh, clock), Inside(web, clock)]
        self._ways: dict[bytes, _Way] = {TUNNEL: self._tunnel, SSH: self._inside[0], b"": self._inside[0]}
        if web is not None:
            self._ways |= dict.fromkeys(WEB, self._inside[1])
        self.show(credentials)

    def show(self, credentials: Credentials) -> None:
        """Show these to everybody who comes from now on."""
        self._context = door_context(credentials, self._tls12, web=WEB[0] in self._ways)

    def startFactory(self) -> None:
        """The port is open."""
        for inside in self._inside:
            inside.factory.doStart()

    def stopFactory(self) -> None:
        """The port is closed."""
        for inside in self._inside:
            inside.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Let somebody in as far as the TLS handshake; L{None} if there are too many."""
        visit = self.visits.begin(addr)
        if visit is None:
            return None
        return Entrance(visit, ServerConnection(self._context), self._let_through)

    def _let_through(self, transport: ITCPTransport, passage: Passage) -> None:
        self._ways[passage.protocol](transport, passage)

    def _tunnel(self, transport: ITCPTransport, passage: Passage) -> None:
        connect(transport, Turnstile(passage, self._office))


@implementer(IOpenSSLServerConnectionCreator)
class Inside:
    """The way to a server inside TLS, by Twisted's own TLS transport with its backpressure."""

    def __init__(self, server: IProtocolFactory, clock: IReactorTime) -> None:
        self._server = server
        self._connections: dict[TLSMemoryBIOProtocol, SSL.Connection] = {}
        self.factory = TLSMemoryBIOFactory(self, False, server, clock)

    def __call__(self, transport: ITCPTransport, passage: Passage) -> None:
        """Let somebody through whose TLS handshake is done."""
        passage.visit.end()
        server = self._server.buildProtocol(transport.getPeer())
        if server is None:
            transport.loseConnection()
            return
        tls = self.factory.protocol(self.factory, server)
        self._connections[tls] = passage.connection
        connect(transport, tls)
        rest = passage.records.rest()
        if rest:
            tls.dataReceived(rest)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """The connection on which the handshake took place."""
        return self._connections.pop(tlsProtocol)


def connect(transport: ITCPTransport, protocol: Protocol) -> None:
    """Let C{protocol} have the transport from now on, in place of the protocol that had it."""
    transport.protocol = protocol  # type: ignore[attr-defined]  # every TCP transport of Twisted has it
    protocol.makeConnection(transport)
