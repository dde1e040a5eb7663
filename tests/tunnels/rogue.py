"""A device that knows the keys and the way in, but then says what it likes."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from rdvtwisted.testing.tunnels import MemoryTunnelSite
from rdvtwisted.values import Mode, Offloads, PublicKey, Role
from tunnels.carrier import Carrier, connect
from tunnels.conversation import Conversation
from tunnels.credentials import PeerKey, door_context, packet_context
from tunnels.door import enter
from tunnels.hello import Hello
from tunnels.meeting import meet

#: A hello that the master of a test accepts from its onsite.
HELLO = Hello("rpi-onsite", Mode.L3, 1500, Offloads(checksum=True), "9.9")


class Rogue:
    """One end of a tunnel in the hands of a test. Made by L{Rogue.come}."""

    def __init__(self, carrier: Carrier, connection: SSL.Connection, conversation: Conversation) -> None:
        self.carrier = carrier
        self.connection = connection
        self._conversation = conversation

    @classmethod
    async def come(cls, reactor: Any, site: MemoryTunnelSite, peer: PublicKey) -> Rogue:
        """Come to the meeting place of C{site}'s door, and shake hands."""
        carrier = await connect(reactor, site.door, site.door_address)
        await enter(reactor, carrier, door_context(site.identity, site.authority), "ticket-2")
        server = site.role is Role.ONSITE
        key = PeerKey("the tested end", peer)
        connection = await meet(reactor, carrier.socket, packet_context(site.identity, key, server, True), key, server)
        return cls(carrier, connection, Conversation(reactor, carrier.socket, connection))

    def say(self, data: bytes) -> None:
        """Send these bytes, which must fit into the socket."""
        self.connection.send(data)

    async def pour(self, data: bytes) -> None:
        """Send these bytes, whenever there is room."""
        await self._conversation.attempt(lambda: self.connection.send(data))

    async def hear(self) -> bytes:
        """What comes next; nothing once the other end has said close_notify or hung up."""
        try:
            return await self._conversation.attempt(lambda: self.connection.recv(65536))
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return b""

    async def hear_all(self) -> bytes:
        """All that comes until the other end leaves."""
        heard = b""
        while piece := await self.hear():
            heard += piece
        return heard

    async def leave(self) -> None:
        """Hang up without a word."""
        await self.carrier.release(orderly=False)
