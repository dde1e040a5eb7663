"""Where tunnel streams show their ticket; C{docs/tunnel-stream.md} has the protocol."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.front.encryption import client_key, tls_failure
from rdvtwisted.adapters.front.entrance import Passage, flush
from rdvtwisted.adapters.front.inside import Inside
from rdvtwisted.adapters.front.stream import InsideStream, TunnelStream
from rdvtwisted.errors import ProtocolError, TicketRefused
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat

#: Bytes of a ticket line, its end included.
LINE_LIMIT = 256
#: Bytes of a reason in an answer.
REASON_LIMIT = 200
#: More bytes than a close_notify alert has, encrypted.
CLOSE_NOTIFY_LIMIT = 1024

#: The first word of a ticket line, which is the protocol's version.
GREETING = "RDV-TUNNEL/1"


@implementer(IPullProducer)
class Turnstile(Protocol):
    """
    A tunnel stream from its TLS handshake until it carries.

    A stream that stays inside TLS carries from its answer on. To any other it
    says goodbye as a producer: the reactor asks it once for the last bytes
    of the outer TLS, and once more when the kernel has taken them all. From
    then on the socket belongs to the stream, and nothing of TLS is left.
    """

    transport: Connection

    _log = Logger()

    def __init__(self, passage: Passage, office: ITicketOffice, inside: Inside) -> None:
        """
        @param inside: where streams stay that stay inside TLS.
        """
        self._visit = passage.visit
        self._records = passage.records
        self._connection: SSL.Connection | None = passage.connection
        self._office = office
        self._inside = inside
        self._line = bytearray()
        self._seat: ITunnelSeat | None = None
        self._goodbye = b""

    def connectionMade(self) -> None:
        """The ticket may have come in already, behind the handshake."""
        self._expect("no ticket")
        self._read()

    def dataReceived(self, data: bytes) -> None:
        """A ticket, then the end of the outer TLS; nothing else."""
        if self._connection is None:
            self._refuse("bytes before the server's close_notify")
        else:
            self._records.feed(data)
            self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone before it carried anything."""
        self._connection = None
        self._visit.refuse("closed before its tunnel began")

    def resumeProducing(self) -> None:
        """Say goodbye; when called again, step aside."""
        if self._goodbye:
            goodbye, self._goodbye = self._goodbye, b""
            self.transport.write(goodbye)
        else:
            self.transport.unregisterProducer()
            self._let_through()

    def stopProducing(self) -> None:
        """The connection is lost, as L{connectionLost} will say."""

    def _expect(self, late: str) -> None:
        limit = self._visit.visits.limits.ticket
        self._visit.within(limit, lambda: self._refuse(f"{late} within {limit:g} s"))

    def _read(self) -> None:
        try:
            for record in self._records:
                if self._connection is None:
                    return
                self._connection.bio_write(record)
                self._decrypt(self._connection)
        except ProtocolError as error:
            self._refuse(str(error))

    def _decrypt(self, connection: SSL.Connection) -> None:
        """Take what one record held."""
        try:
            text = connection.recv(LINE_LIMIT + 1)
        except SSL.WantReadError:
            flush(connection, self.transport)
        except SSL.ZeroReturnError:
            self._say_goodbye(connection)
        except SSL.Error as error:
            raise tls_failure(error) from None
        else:
            self._take(connection, text)

    def _take(self, connection: SSL.Connection, text: bytes) -> None:
        """Some of the ticket line."""
        if self._seat is not None:
            raise ProtocolError("bytes behind the ticket")
        self._line += text
        line, end, rest = self._line.partition(b"\n")
        if len(line) + len(end) > LINE_LIMIT:
            raise ProtocolError("the ticket line is too long")
        if end:
            self._redeem(connection, line.decode("ascii", "replace"), bytes(rest))

    def _redeem(self, connection: SSL.Connection, line: str, rest: bytes) -> None:
        greeting, _, ticket = line.partition(" ")
        if greeting != GREETING or not ticket:
            raise ProtocolError(f"a tunnel begins with: {GREETING} <ticket>")
        key = client_key(connection)
        try:
            seat: ITunnelSeat = self._office.redeem(ticket, key)
        except TicketRefused as error:
            raise ProtocolError(f"{error} (key {key.fingerprint})") from None
        if seat.inside:
            self._stay(connection, seat, rest)
            return
        if rest:
            raise ProtocolError("bytes behind the ticket")
        self._seat = seat
        self._expect("no end of the outer TLS")
        self._answer(connection, "OK")

    def _stay(self, connection: SSL.Connection, seat: ITunnelSeat, early: bytes) -> None:
        self._visit.end()
        self._connection = None
        self._answer(connection, "OK")
        early += connection.recv(connection.pending()) if connection.pending() else b""
        stream = InsideStream(self._visit.address, early)
        self._inside.connect(self.transport, connection, stream, self._records.rest())
        seat.occupy(stream)

    def _answer(self, connection: SSL.Connection, line: str) -> None:
        connection.send(line.encode("ascii", "replace") + b"\n")
        flush(connection, self.transport)

    def _say_goodbye(self, connection: SSL.Connection) -> None:
        """The device has ended the outer TLS; so do we, and nothing else comes before it has learnt that."""
        if self._seat is None:
            raise ProtocolError("closed before its ticket")
        if self._records.rest():
            raise ProtocolError("bytes behind the close_notify")
        connection.shutdown()
        self._goodbye = connection.bio_read(CLOSE_NOTIFY_LIMIT)
        self._connection = None
        self.transport.registerProducer(self, False)

    def _let_through(self) -> None:
        self._visit.end()
        stream = TunnelStream(self._visit.address)
        self.transport.protocol = stream
        stream.makeConnection(self.transport)
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.occupy(stream)

    def _refuse(self, reason: str) -> None:
        """Say why, as long as that can be said: before the answer C{OK}."""
        self._visit.refuse(reason)
        connection, self._connection = self._connection, None
        if connection is None or self._seat is not None:
            self.transport.abortConnection()
            return
        try:
            self._answer(connection, f"ERR {reason[:REASON_LIMIT]}")
            connection.shutdown()
        except SSL.Error:
            self._log.debug("{address} has broken the outer TLS", address=self._visit.address)
        flush(connection, self.transport)
        self.transport.loseConnection()
