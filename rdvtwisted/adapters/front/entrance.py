"""The first thing behind the TLS door: the handshake, and then the way that the client asks for."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from rdvtwisted.adapters.departure import departed
from rdvtwisted.adapters.front.encryption import ServerConnection, asked_for, tls_failure
from rdvtwisted.adapters.front.records import Records
from rdvtwisted.adapters.front.visit import Visit
from rdvtwisted.errors import ProtocolError

#: Bytes taken out of OpenSSL at a time; a handshake's flight fits.
_CHUNK = 2**15


def flush(connection: SSL.Connection, transport: ITCPTransport) -> None:
    """Send what TLS has to say."""
    while True:
        try:
            transport.write(connection.bio_read(_CHUNK))
        except SSL.WantReadError:
            return


class Entrance(Protocol):
    """
    A new connection until its TLS handshake is done.

    Then it is gone: C{through} connects another protocol to the transport in
    its place, so that nobody stands between the two for the rest of the
    connection's life.
    """

    transport: ITCPTransport

    def __init__(
        self, visit: Visit, connection: ServerConnection, through: Callable[[ITCPTransport, Passage], None]
    ) -> None:
        self._visit = visit
        self._connection = connection
        self._through = through
        self._records = Records()
        self._begun = False

    def connectionMade(self) -> None:
        """The client speaks first, and soon."""
        self._visit.abort = self.transport.abortConnection
        limit = self._visit.visits.limits.handshake
        self._visit.within(limit, lambda: self._refuse(f"no TLS handshake within {limit:g} s"))

    def dataReceived(self, data: bytes) -> None:
        """Go on with the handshake, no further than its end; begin it only with somebody who is still there."""
        # Later, what has come in says why they have gone, and costs nothing.
        if not self._begun and departed(self.transport):
            self.transport.abortConnection()
            return
        self._records.feed(data)
        try:
            for record in self._records:
                if self._shake(record):
                    passage = Passage(self._visit, self._connection, self._records, asked_for(self._connection))
                    self._through(self.transport, passage)
                    return
        except ProtocolError as error:
            self._refuse(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone before the handshake was done: health checks do that, so nobody is told."""
        self._visit.end()

    def _shake(self, record: bytes) -> bool:
        """Whether this record completes the handshake."""
        connection = self._connection
        connection.bio_write(record)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._advance()
            return False
        except SSL.Error as error:
            raise tls_failure(error) from None
        finally:
            # Also when it failed: the client is to learn why, from the alert.
            flush(connection, self.transport)
        self._visit.advance()
        return True

    def _advance(self) -> None:
        """A record has come that makes sense; many small ones make no more."""
        if not self._begun:
            self._begun = True
            self._visit.advance()

    def _refuse(self, reason: str) -> None:
        self._visit.refuse(reason)
        self.transport.loseConnection()


@frozen
class Passage:
    """What an entrance passes on."""

    visit: Visit
    connection: ServerConnection
    #: What has come in behind the handshake.
    records: Records
    #: What the client asks for: an ALPN name, or empty.
    protocol: bytes
