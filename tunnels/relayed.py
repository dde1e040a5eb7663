"""The device end of a C{tls} tunnel: through the server's door, then TLS with the other end on the same socket."""

from __future__ import annotations

from collections.abc import Awaitable

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed

from rdvtwisted.values import Role
from tunnels.carrier import Carrier, connect
from tunnels.conversation import Socket
from tunnels.credentials import PeerKey, door_context, fast_aes, packet_context
from tunnels.door import enter
from tunnels.meeting import meet
from tunnels.stream import StreamTunnel


class RelayedTunnel(StreamTunnel):
    """A tunnel whose TLS goes from end to end."""

    _carrier: Carrier | None = None

    async def connect(self) -> tuple[Socket, SSL.Connection]:
        """Pass the door and shake hands; see L{StreamTunnel}."""
        site, parameters = self._site, self._parameters
        door = door_context(site.identity, site.authority)
        server = site.role is Role.ONSITE
        key = PeerKey(self._peer, parameters.peer_key)
        packets = packet_context(site.identity, key, server, fast_aes())

        self._carrier = carrier = await connect(site.reactor, site.door, site.door_address)
        await enter(site.reactor, carrier, door, parameters.ticket)
        connection = await meet(site.reactor, carrier.socket, packets, key, server)
        # The handshake is over, and was that of the expected key.
        self.describe(connection.get_group_name() or "", connection.get_cipher_name() or "", parameters.peer_key)
        return carrier.socket, connection

    def hang_up(self, orderly: bool) -> Awaitable[None]:
        """Close the socket; see L{StreamTunnel}."""
        carrier, self._carrier = self._carrier, None
        gone: Deferred[None] = succeed(None) if carrier is None else carrier.release(orderly)
        return gone
