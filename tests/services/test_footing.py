"""A device notices what it stands on no more."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ConnectionLost, NetworkError, RDVError
from rdvtwisted.plan import Attachment, Port, Site
from rdvtwisted.services.footing import (
    GRACE_SECONDS,
    LEAST_SECONDS,
    address_gone,
    extremity_gone,
    lost,
    rest,
    stand_by,
)
from rdvtwisted.testing.network import MemoryNetwork

UPLINK, INSIDE = IPv4Interface("192.168.1.10/24"), IPv4Interface("192.168.38.225/29")
PORTS = (Port("eth0", addresses=(UPLINK,)), Port("eth1", addresses=(INSIDE,)))
SITE = Site("eth0", UPLINK, attachments=(Attachment("eth0", UPLINK), Attachment("eth1", INSIDE)), ports=PORTS)


def without_address() -> Site:
    """That machine with another address towards the server."""
    moved = IPv4Interface("192.168.1.77/24")
    return evolve(
        SITE,
        lan=moved,
        attachments=(Attachment("eth0", moved), SITE.attachments[1]),
        ports=(Port("eth0", addresses=(moved,)), PORTS[1]),
    )


def unplugged(number: int) -> Site:
    """That machine with a cable pulled."""
    ports = tuple(evolve(port, carrier=index != number) for index, port in enumerate(PORTS))
    return evolve(SITE, ports=ports)


class _Link:
    """A connection from an address of this machine."""

    def __init__(self, host: str | None) -> None:
        self.local_host = host
        self.errors: list[RDVError] = []
        self.waiting: list[Deferred[RDVError]] = []

    def give_up(self, error: RDVError) -> None:
        self.errors.append(error)
        self.end(error)

    def gone(self) -> Deferred[RDVError]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def end(self, error: RDVError) -> None:
        """The connection is over."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(error)


class FootingCase(SynchronousTestCase):
    """A machine whose network the test changes."""

    def setUp(self) -> None:
        self.clock, self.network = Clock(), MemoryNetwork(SITE)

    def assert_idle(self) -> None:
        """Nobody watches or waits any more."""
        self.assertEqual((self.network.watchers, self.clock.getDelayedCalls()), ([], []))


class LostTests(FootingCase):
    """Something is gone."""

    def wait(self, missing: Callable[[Site], str | None]) -> Deferred[str]:
        """Wait for it to be gone."""
        waiting = Deferred.fromCoroutine(lost(self.network, self.clock, missing))
        self.addCleanup(waiting.addErrback, lambda _: None)
        self.addCleanup(waiting.cancel)
        return waiting

    def test_address(self) -> None:
        """An address that has gone, and stays away, is told in a sentence."""
        waiting = self.wait(address_gone("192.168.1.10"))
        self.network.move(evolve(SITE, hostname="another"))
        self.network.move(without_address())
        self.assertNoResult(waiting)
        self.clock.advance(GRACE_SECONDS)
        self.assertEqual(self.successResultOf(waiting), "this machine does not have the address 192.168.1.10 any more")
        self.assert_idle()

    def test_back_in_time(self) -> None:
        """What is back in time was not gone; later it may be."""
        waiting = self.wait(address_gone("192.168.1.10"))
        for _ in range(2):
            self.network.move(without_address())
            self.clock.advance(GRACE_SECONDS / 2)
            self.network.move(SITE)
            self.clock.advance(GRACE_SECONDS / 2)
            self.assertNoResult(waiting)
        self.network.move(without_address())
        self.clock.advance(GRACE_SECONDS)
        self.successResultOf(waiting)

    def test_gone_before(self) -> None:
        """What was gone before anybody watched is gone, too."""
        self.network.move(without_address())
        waiting = self.wait(address_gone("192.168.1.10"))
        self.clock.advance(GRACE_SECONDS)
        self.successResultOf(waiting)

    def test_extremity(self) -> None:
        """An extremity is lost with its interface, with its link, and with its address if it needs one."""
        bare = evolve(SITE, attachments=SITE.attachments[:1])
        removed = evolve(SITE, ports=PORTS[:1], attachments=SITE.attachments[:1])
        for site, address, text in (
            (removed, False, "the interface eth1 is gone"),
            (unplugged(1), False, "the interface eth1 has no link"),
            (bare, True, "the interface eth1 has no address any more"),
            (bare, False, None),
            (SITE, True, None),
        ):
            self.assertEqual(extremity_gone("eth1", address)(site), text)

    def test_own_way(self) -> None:
        """The link of an interface that is also the way to the server may be away for a while."""
        self.assertIsNone(extremity_gone("eth0", True)(unplugged(0)))

    def test_cancelled(self) -> None:
        """Who does not want to know any more leaves nobody watching."""
        for site in (SITE, without_address()):
            self.network.move(site)
            waiting = Deferred.fromCoroutine(lost(self.network, self.clock, address_gone("192.168.1.10")))
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assert_idle()


class StandByTests(FootingCase):
    """A connection is given up when its address is gone."""

    def begin(self, host: str | None = "192.168.1.10") -> Any:
        """A connection from there."""
        link = _Link(host)
        stand_by(link, self.network, self.clock)
        return link

    def test_gone(self) -> None:
        """It fails with a sentence, long before silence would have been noticed."""
        link = self.begin()
        self.network.move(without_address())
        self.clock.advance(GRACE_SECONDS)
        [error] = link.errors
        self.assertIsInstance(error, ConnectionLost)
        self.assertIn("does not have the address 192.168.1.10 any more", str(error))
        self.assert_idle()

    def test_over(self) -> None:
        """When it is over for another reason, nobody watches any more."""
        link = self.begin()
        link.end(ConnectionLost("it broke"))
        self.assertEqual(link.errors, [])
        self.assert_idle()

    def test_own_machine(self) -> None:
        """A connection to this machine itself, as to a stunnel in front, stands on no network's address."""
        for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            link = self.begin(host)
            self.network.move(without_address())
            self.clock.advance(2 * GRACE_SECONDS)
            self.assertEqual(link.errors, [], host)
            link.end(ConnectionLost("it broke"))
            self.assert_idle()

    def test_not_known(self) -> None:
        """Where the address is not known, or cannot be watched, the connection goes on without."""
        self.begin(None)
        self.assert_idle()

        def refuse(changed: object, everything: bool = False) -> Callable[[], None]:
            raise NetworkError("changes of the network cannot be watched")

        self.patch(self.network, "watch", refuse)
        link = self.begin()
        self.assertEqual(link.errors, [])
        link.end(ConnectionLost("it broke"))


class RestTests(FootingCase):
    """A device waits before it tries again."""

    def begin(self, seconds: float) -> Deferred[None]:
        """Wait so long."""
        return Deferred.fromCoroutine(rest(self.network, self.clock, seconds))

    def test_undisturbed(self) -> None:
        """Where nothing changes, it waits for as long as it is told."""
        for seconds in (0.3, 8.0):
            waiting = self.begin(seconds)
            self.clock.advance(min(seconds, LEAST_SECONDS))
            if seconds > LEAST_SECONDS:
                self.assertNoResult(waiting)
                self.clock.advance(seconds - LEAST_SECONDS)
            self.successResultOf(waiting)
            self.assert_idle()

    def test_plugged_in(self) -> None:
        """When something of the network changes, it tries at once; but not more often than twice a second."""
        waiting = self.begin(8.0)
        self.network.move(without_address())
        self.assertNoResult(waiting)
        self.clock.advance(LEAST_SECONDS)
        self.assertNoResult(waiting)
        self.network.move(SITE)
        self.successResultOf(waiting)
        self.assert_idle()

    def test_not_watched(self) -> None:
        """Where changes cannot be watched, it waits for as long as it is told."""

        def refuse(changed: object, everything: bool = False) -> Callable[[], None]:
            raise NetworkError("changes of the network cannot be watched")

        self.patch(self.network, "watch", refuse)
        waiting = self.begin(8.0)
        self.clock.pump([LEAST_SECONDS, 8.0 - LEAST_SECONDS])
        self.successResultOf(waiting)

    def test_cancelled(self) -> None:
        """A device that is to end does not wait."""
        for seconds in (0.0, LEAST_SECONDS):
            waiting = self.begin(8.0)
            self.clock.advance(seconds)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            self.assert_idle()
