"""What a device stands on: the address that its connection comes from, the interface that it gives access through."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rdvtwisted.errors import ConnectionLost, RDVError
from rdvtwisted.interfaces import INetwork
from rdvtwisted.plan import Site
from rdvtwisted.services.link import Link
from rdvtwisted.services.waiting import first

#: Seconds for which something may be missing: a lease that is renewed, an adapter whose plug is pressed home.
GRACE_SECONDS = 1.5
#: Seconds of a wait that pass in any case, whatever changes meanwhile.
LEAST_SECONDS = 0.5

_log = Logger()


class Changes:
    """Remembers that something of the network has changed since the last look."""

    def __init__(self, network: INetwork, everything: bool = False) -> None:
        """
        @param everything: as of L{INetwork.watch}.
        """
        self._waiting: Deferred[None] | None = None
        self._changed = False
        self.stop: Callable[[], None] = network.watch(self._note, everything)

    def _note(self) -> None:
        self._changed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def forget(self) -> None:
        """What has changed so far is known."""
        self._changed = False

    def another(self) -> Deferred[None]:
        """
        @return: a Deferred that fires when there is something that L{forget} was not called for; one at a time.
        """
        waiting: Deferred[None] = Deferred(self._given_up)
        if self._changed:
            waiting.callback(None)
        else:
            self._waiting = waiting
        return waiting

    def _given_up(self, _: object) -> None:
        self._waiting = None


async def lost(network: INetwork, clock: IReactorTime, missing: Callable[[Site], str | None]) -> str:
    """
    Wait until something that a device stands on is gone, and has stayed away for L{GRACE_SECONDS}.

    @param missing: says in a sentence what is missing, if anything.
    @return: that sentence. Cancelling ends the watching.
    """
    changes = Changes(network)
    try:
        while True:
            changes.forget()
            if missing(await network.site()):
                await deferLater(clock, GRACE_SECONDS)
                changes.forget()
                what = missing(await network.site())
                if what:
                    return what
            await changes.another()
    finally:
        changes.stop()


def address_gone(host: str) -> Callable[[Site], str | None]:
    """For L{lost}: this machine's address C{host} (text, perhaps with a zone), from which a connection comes."""
    ours = _address(host)

    def missing(site: Site) -> str | None:
        own = {address.ip for port in site.ports for address in port.addresses}
        own |= {each.address.ip for each in site.attachments}
        return None if ours in own else f"this machine does not have the address {host} any more"

    return missing


def extremity_gone(name: str, address: bool) -> Callable[[Site], str | None]:
    """
    For L{lost}: the interface that a device gives access through, and its link.

    Whether the link is there does not count for an interface that is also the
    way to the server: a session outlives it if a cable is pulled for a moment.

    @param address: it must have one.
    """

    def missing(site: Site) -> str | None:
        port = site.port(name)
        if port is None:
            return f"the interface {name} is gone"
        if not port.carrier and name != site.interface:
            return f"the interface {name} has no link"
        if address and site.attachment(name) is None:
            return f"the interface {name} has no address any more"
        return None

    return missing


def stand_by(link: Link, network: INetwork, clock: IReactorTime) -> None:
    """
    Give a link up when the address is gone that it comes from: nothing would arrive there any more.

    One to this machine itself, such as to a stunnel in front, does not come from an address that could go.
    """
    host = link.local_host
    if host is None or _is_loopback(host):
        return
    watching: Deferred[Any] = Deferred.fromCoroutine(lost(network, clock, address_gone(host)))

    def gone(what: str) -> None:
        link.give_up(ConnectionLost(what))

    def failed(failure: Any) -> None:
        if failure.check(CancelledError) is None:
            _log.warn("The address of this machine is not watched: {error}", error=failure.getErrorMessage())

    watching.addCallback(gone).addErrback(failed)
    link.gone().addBoth(lambda _: watching.cancel())


def _address(host: str) -> IPv4Address | IPv6Address:
    """The address without its zone."""
    return ip_address(host.partition("%")[0])


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


async def rest(network: INetwork, clock: IReactorTime, seconds: float) -> None:
    """Wait so long, or until something of the network has changed: a cable may be plugged in again."""
    until = clock.seconds() + seconds
    await deferLater(clock, min(seconds, LEAST_SECONDS))
    left = until - clock.seconds()
    if left <= 0:
        return
    try:
        changes = Changes(network)
    except RDVError as error:
        _log.debug("Changes of the network are not watched: {error}", error=str(error))
        await deferLater(clock, left)
        return
    try:
        await first([changes.another(), deferLater(clock, left)])
    finally:
        changes.stop()
