"""A ticket opens one seat, once, in time, to the device that it was issued to."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import TicketRefused
from rdvtwisted.interfaces import ITicketOffice, ITunnelSeat, ITunnelStream
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import PublicKey

OWNER = PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519owner")
THIEF = PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519thief")


@implementer(ITunnelSeat)
class _Seat:
    inside = False

    def occupy(self, stream: ITunnelStream) -> None:
        raise AssertionError("nobody sits down in these tests")


class TicketTests(SynchronousTestCase):
    """What becomes of a ticket."""

    def setUp(self) -> None:
        """An office with a clock and countable randomness."""
        self.clock = Clock()
        self.numbers = iter(range(100))
        self.office = TicketOffice(self.clock, lambda n: bytes([next(self.numbers)]) * n, lifetime=60.0)
        self.seat = _Seat()

    def refuse(self, ticket: str, key: PublicKey = OWNER) -> str:
        """The reason for which C{ticket} is refused."""
        return str(self.assertRaises(TicketRefused, self.office.redeem, ticket, key))

    def test_provides(self) -> None:
        """The office is what the TLS door asks."""
        verifyObject(ITicketOffice, self.office)

    def test_opens_its_seat(self) -> None:
        """The owner gets the seat."""
        ticket = self.office.issue(self.seat, OWNER)
        self.assertIs(self.office.redeem(ticket, OWNER), self.seat)
        self.assertEqual(self.office.outstanding, 0)

    def test_second_use(self) -> None:
        """A used ticket is refused."""
        ticket = self.office.issue(self.seat, OWNER)
        self.office.redeem(ticket, OWNER)
        self.assertIn("used already", self.refuse(ticket))

    def test_stolen(self) -> None:
        """A ticket in another device's hands is refused, and still good for its owner."""
        ticket = self.office.issue(self.seat, OWNER)
        self.assertIn("another device", self.refuse(ticket, THIEF))
        self.assertIs(self.office.redeem(ticket, OWNER), self.seat)

    def test_late(self) -> None:
        """A ticket that is older than its lifetime is refused."""
        ticket = self.office.issue(self.seat, OWNER)
        self.clock.advance(60.5)
        self.assertIn("too old", self.refuse(ticket))

    def test_unknown(self) -> None:
        """A made-up ticket is refused."""
        self.assertIn("unknown", self.refuse("x" * 43))

    def test_newer_voids_older(self) -> None:
        """Asking again voids the first ticket: there is one a seat."""
        older, newer = self.office.issue(self.seat, OWNER), self.office.issue(self.seat, OWNER)
        self.assertIn("unknown", self.refuse(older))
        self.assertIs(self.office.redeem(newer, OWNER), self.seat)

    def test_old_ones_are_forgotten(self) -> None:
        """Tickets that nobody redeems do not pile up."""
        for _ in range(20):
            self.office.issue(_Seat(), OWNER)
            self.clock.advance(61.0)
        self.assertEqual(self.office.outstanding, 1)

    def test_not_shown(self) -> None:
        """The office's representation, as a log may show it, holds no ticket."""
        ticket = self.office.issue(self.seat, OWNER)
        self.assertNotIn(ticket, repr(self.office))
