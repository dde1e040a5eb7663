"""
A tunnel stream's way in at the server's TLS door.

The device is TLS client, shows its certificate, and says C{RDV-TUNNEL/1
ticket}; the server answers C{OK} or C{ERR reason}, each a line. After OK both
end this TLS connection with close_notify. The TCP connection then belongs to
the two devices, who say nothing before they have got the server's close_notify.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred

from rdvtwisted.errors import ProtocolError, TicketRefused, TunnelFailed
from tunnels.carrier import Carrier
from tunnels.conversation import Conversation, explain, within
from tunnels.credentials import DOOR_PROTOCOL
from tunnels.packets import printable

#: Seconds for the TLS handshake with the door, and for the answer to the ticket.
HANDSHAKE_LIMIT = 10.0
TICKET_LIMIT = 10.0
#: Bytes of the longest answer to a ticket, and letters of it that are shown.
LONGEST_ANSWER = 256
SHOWN_REASON = 120


async def enter(reactor: Any, carrier: Carrier, context: SSL.Context, ticket: str) -> None:
    """
    Pass the door: when this returns, the carrier's next byte is the other device's.

    @param context: as L{tunnels.credentials.door_context} makes it.
    @raise TicketRefused: the server said so.
    @raise TunnelFailed: the server is not who it should be, or went away.
    @raise ProtocolError: the server said something else.
    """
    connection = SSL.Connection(context, carrier.socket)
    connection.set_connect_state()
    door = Conversation(reactor, carrier.socket, connection)
    try:
        shaken = door.attempt(connection.do_handshake)
        await within(reactor, HANDSHAKE_LIMIT, shaken, "the server's TLS door did not finish its handshake")
        if connection.get_alpn_proto_negotiated() != DOOR_PROTOCOL:
            raise TunnelFailed("what answers at the server's TLS door does not know tunnel streams")
    except SSL.Error as error:
        raise TunnelFailed(f"the TLS door is not the server that this device knows: {explain(error)}") from None
    try:
        await present(reactor, door, ticket)
        await within(reactor, TICKET_LIMIT, _leave(door), "the server did not end the TLS connection of its door")
    except SSL.Error as error:
        raise TunnelFailed(f"the server broke off at its TLS door: {explain(error)}") from None


def present(reactor: Any, door: Conversation, ticket: str) -> Deferred[None]:
    """
    Show the ticket.

    @return: a Deferred that fires with L{None} when it is good; fails with L{TicketRefused}, L{TunnelFailed},
        L{ProtocolError} or C{SSL.Error}.
    """

    async def show() -> None:
        connection = door.connection
        line = b"RDV-TUNNEL/1 " + ticket.encode("ascii") + b"\n"
        await door.attempt(lambda: connection.send(line))
        answer = b""
        while not answer.endswith(b"\n"):
            answer += await door.attempt(lambda: connection.recv(LONGEST_ANSWER))
            if len(answer) > LONGEST_ANSWER or b"\n" in answer[:-1]:
                raise ProtocolError("the server's answer to the ticket is not one short line")
        word, _, reason = answer.rstrip(b"\r\n").partition(b" ")
        if word == b"ERR":
            raise TicketRefused(f"the server refused the tunnel: {printable(reason, SHOWN_REASON)}")
        if word != b"OK":
            raise ProtocolError(f"the server answered the ticket with {printable(answer, SHOWN_REASON)!r}")

    return within(reactor, TICKET_LIMIT, Deferred.fromCoroutine(show()), "the server did not answer the ticket")


def _leave(door: Conversation) -> Deferred[None]:
    async def leave() -> None:
        connection = door.connection
        await door.attempt(connection.shutdown)
        try:
            await door.attempt(lambda: connection.recv(LONGEST_ANSWER))
        except SSL.ZeroReturnError:
            return
        raise ProtocolError("the server went on speaking after its OK")

    return Deferred.fromCoroutine(leave())
