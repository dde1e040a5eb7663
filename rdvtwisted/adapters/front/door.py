"""
The TLS door: one port for everything, told apart by ALPN.

C{rdv-tunnel/1} is a tunnel stream; C{ssh}, and a client that names nothing,
is SSH inside TLS; C{h2} and C{http/1.1} go to the web server, if there is one.
A client that cannot do ALPN asks for a tunnel by the server's name, C{rdv-tunnel}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOProtocol

from rdvtwisted.adapters.front.encryption import SSH, TUNNEL, WEB, Credentials, ServerConnection, door_context
from rdvtwisted.adapters.front.entrance import Entrance, Passage
from rdvtwisted.adapters.front.inside import Inside, connect
from rdvtwisted.adapters.front.turnstile import Turnstile
from rdvtwisted.adapters.front.visit import Limits, Refused, Visit, Visits
from rdvtwisted.interfaces import ITicketOffice
from rdvtwisted.vestibule import Regulars

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
        regulars: Regulars | None = None,
    ) -> None:
        """
        @param ssh: makes the SSH server's protocols.
        @param refused: is told of everybody who is refused here.
        @param web: makes the web server's protocols.
        @param tls12: whether TLS 1.2 is good enough for SSH and the web.
        @param regulars: where devices were let in before.
        """
        self.visits = Visits(clock, limits or Limits(), refused, regulars)
        self._clock = clock
        self._office = office
        self._tls12 = tls12
        self._credentials = credentials
        # Tunnels gather what they write themselves.
        self._streams = Inside(Factory(), clock, TLSMemoryBIOProtocol)
        self._servers = [_Server(each, clock) for each in (ssh, web) if each is not None]
        self._ways: dict[bytes, _Way] = {TUNNEL: self._tunnel, SSH: self._servers[0], b"": self._servers[0]}
        if web is not None:
            self._ways |= dict.fromkeys(WEB, self._servers[1])
        self.show(credentials)

    def show(self, credentials: Credentials) -> None:
        """Show these to everybody who comes from now on."""
        self._credentials = credentials
        self._context = door_context(credentials, self._tls12, web=WEB[0] in self._ways)

    def accept_tls12(self, accept: bool) -> None:
        """Say whether TLS 1.2 is good enough for the SSH and the web of everybody who comes from now on."""
        if accept != self._tls12:
            self._tls12 = accept
            self.show(self._credentials)

    def startFactory(self) -> None:
        """The port is open."""
        for server in self._servers:
            server.inside.factory.doStart()

    def stopFactory(self) -> None:
        """The port is closed."""
        for server in self._servers:
            server.inside.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Let somebody in as far as the TLS handshake; L{None} if there are too many."""
        visit = self.visits.begin(addr)
        if visit is None:
            return None
        return Entrance(visit, ServerConnection(self._context, self._clock.seconds), self._let_through)

    def _let_through(self, transport: ITCPTransport, passage: Passage) -> None:
        passage.connection.on_excess = partial(_cut, transport, passage.visit)
        self._ways[passage.protocol](transport, passage)

    def _tunnel(self, transport: ITCPTransport, passage: Passage) -> None:
        connect(transport, Turnstile(passage, self._office, self._streams))


def _cut(transport: ITCPTransport, visit: Visit) -> None:
    """A client, let through or not yet, negotiates without end."""
    visit.blame("it asked for new TLS keys too often")
    transport.abortConnection()


class _Server:
    """The way to a server inside TLS."""

    def __init__(self, server: IProtocolFactory, clock: IReactorTime) -> None:
        self._server = server
        self.inside = Inside(server, clock)

    def __call__(self, transport: ITCPTransport, passage: Passage) -> None:
        """Let somebody through whose TLS handshake is done."""
        passage.visit.end()
        protocol = self._server.buildProtocol(transport.getPeer())
        if protocol is None:
            transport.loseConnection()
        else:
            self.inside.connect(transport, passage.connection, protocol, passage.records.rest())
