"""One-time tickets: the proof that a tunnel stream belongs to a session."""

from __future__ import annotations

import base64
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from rdvtwisted.errors import TicketRefused
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat
from rdvtwisted.values import PublicKey

#: Bytes of randomness in a ticket: beyond guessing, whatever the rate.
TICKET_BYTES = 32


@frozen
class _Entry:
    seat: ITunnelSeat
    key: PublicKey
    deadline: float


@implementer(ITicketOffice)
@define(eq=False)
class TicketOffice:
    """
    Issues tickets and takes them back, each once, within its time, and only
    from the device that it was issued to.

    @ivar clock: tells the time; no calls are scheduled on it.
    @ivar random: C{random(n)} gives C{n} unpredictable bytes.
    @ivar lifetime: seconds for which a ticket is good.
    """

    clock: IReactorTime
    random: Callable[[int], bytes] = field(repr=False)
    lifetime: float = 60.0
    _entries: dict[str, _Entry] = field(factory=dict, init=False, repr=False)

    def issue(self, seat: ITunnelSeat, key: PublicKey) -> str:
        """
        A new ticket for C{seat}, good for the holder of C{key} alone. An older
        one for the same seat is void from now on.
        """
        self.revoke(seat)
        now = self.clock.seconds()
        for ticket in [ticket for ticket, entry in self._entries.items() if entry.deadline < now]:
            del self._entries[ticket]
        ticket = base64.urlsafe_b64encode(self.random(TICKET_BYTES)).decode("ascii").rstrip("=")
        self._entries[ticket] = _Entry(seat, key, now + self.lifetime)
        return ticket

    def redeem(self, ticket: str, key: PublicKey) -> ITunnelSeat:
        """
        Use up C{ticket}. A ticket that somebody else shows is not used up: who
        stole a copy can neither enter nor keep the owner out.
        """
        entry = self._entries.get(ticket)
        if entry is None:
            raise TicketRefused("the ticket is unknown or was used already")
        if entry.key != key:
            raise TicketRefused("the ticket belongs to another device")
        del self._entries[ticket]
        if entry.deadline < self.clock.seconds():
            raise TicketRefused("the ticket is too old")
        return entry.seat

    def revoke(self, seat: ITunnelSeat) -> None:
        """Void the ticket of a seat, if it has one."""
        for ticket in [ticket for ticket, entry in self._entries.items() if entry.seat is seat]:
            del self._entries[ticket]

    @property
    def outstanding(self) -> int:
        """How many tickets have been issued and neither used nor voided."""
        return len(self._entries)
