"""Where the two ends of a tunnel meet: their own TLS handshake; through a relay, if both are devices."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL

from rdvtwisted.errors import PartnerGone, TunnelFailed
from tunnels.conversation import Conversation, Socket, explain, within
from tunnels.credentials import PACKET_PROTOCOL, PeerKey

#: Seconds until the other end must have come: a device may still be asking for its tunnel.
PARTNER_LIMIT = 45.0
#: Seconds for the handshake, from its first byte.
HANDSHAKE_LIMIT = 15.0


async def meet(reactor: Any, socket: Socket, context: SSL.Context, key: PeerKey, server: bool) -> SSL.Connection:
    """
    Shake hands with the other end.

    @param context: as L{tunnels.credentials.packet_context} makes it with C{key}.
    @param server: this end is the TLS server.
    @return: the connection, on that socket.
    @raise PeerKeyChanged: the other end has another key than it should.
    @raise TunnelFailed: it did not come.
    @raise rdvtwisted.errors.PartnerGone: it broke off, for example because it refuses this end's key.
    """
    connection = SSL.Connection(context, cast(Any, socket))
    if server:
        connection.set_accept_state()
    else:
        connection.set_connect_state()
    meeting = Conversation(reactor, socket, connection)
    shaken = meeting.attempt(connection.do_handshake)
    try:
        if not shaken.called:
            await within(reactor, PARTNER_LIMIT, meeting.heard(), f"{key.peer} did not come to the tunnel")
        await within(reactor, HANDSHAKE_LIMIT, shaken, f"{key.peer} did not finish the TLS handshake")
    except SSL.Error as error:
        raise key.refusal() or PartnerGone(f"{key.peer} broke off the TLS handshake: {explain(error)}") from None
    finally:
        shaken.addErrback(lambda failure: None)
        shaken.cancel()
    if connection.get_alpn_proto_negotiated() != PACKET_PROTOCOL:
        raise TunnelFailed(f"{key.peer} does not know packet tunnels")
    key.check(connection)
    return connection
