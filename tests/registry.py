"""A registry with devices, for tests of what they can ask of it."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rdvtwisted import requests
from rdvtwisted.access import Effect, Policy, Rule
from rdvtwisted.carriers import Carrier
from rdvtwisted.device import Desk
from rdvtwisted.ends import Ends
from rdvtwisted.errors import RDVError
from rdvtwisted.events import Event
from rdvtwisted.interfaces import IEventSink, ILine
from rdvtwisted.leases import LeasePool
from rdvtwisted.registry import Registry
from rdvtwisted.requests import Readiness
from rdvtwisted.testing.inventory import MemoryInventory
from rdvtwisted.testing.streams import MemoryRelay, MemoryStream
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import Device, Mode, Profile, PublicKey, Role

POOL = IPv4Network("192.168.128.0/17")


def key(name: str) -> PublicKey:
    """A key that is told apart by its name."""
    return PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + name.encode())


#: The server's own, for tunnels that end there.
SERVER_KEY = key("server")


@implementer(ILine)
class _Line:
    """A connection that remembers why it was closed."""

    door = "ssh"

    def __init__(self, address: str) -> None:
        self.address = address
        self.closed: str | None = None
        self.probes = 0

    def probe(self) -> None:
        self.probes += 1

    def disconnect(self, reason: str) -> None:
        self.closed = reason


@implementer(IEventSink)
class _Events:
    def __init__(self) -> None:
        self.all: list[Event] = []

    def emit(self, event: Event) -> None:
        self.all.append(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.all]


#: Every master may use every onsite.
EVERYTHING = Policy().with_rule(Rule(Effect.ALLOW, "*", "*"))


class RegistryCase(SynchronousTestCase):
    """A server's memory with two onsites and two masters in its inventory."""

    def setUp(self) -> None:
        """Nobody is here yet."""
        self.build()

    def build(self) -> None:
        """A fresh registry."""
        self.clock = Clock()
        self.relay = MemoryRelay()
        self.events = _Events()
        numbers = itertools.count(1)
        self.tickets = TicketOffice(self.clock, lambda n: next(numbers).to_bytes(n, "big"))
        self.leases = LeasePool(POOL)
        self.inventory = MemoryInventory(
            [Device(id, Role.ONSITE, (key(id),)) for id in ("on1", "on2")]
            + [Device(id, Role.MASTER, (key(id),)) for id in ("ma1", "ma2")]
        )
        self.inventory.replace_policy(EVERYTHING)
        self.registry = Registry(
            inventory=self.inventory,
            clock=self.clock,
            relay=self.relay,
            tickets=self.tickets,
            leases=self.leases,
            ends=Ends(self.leases, self.carriers(), SERVER_KEY, lambda n: next(numbers).to_bytes(n, "big")),
            events=self.events,
            random=lambda n: next(numbers).to_bytes(n, "big"),
            authority=b"DER",
            door_port=4430,
        )

    def carriers(self) -> dict[str, Carrier]:
        """The backends that the server knows, by name."""
        return {
            carrier.name: carrier
            for carrier in (
                Carrier("tls", frozenset(Mode), 1500, True),
                Carrier("routed", frozenset([Mode.L3]), 1450, True),
                Carrier("ended", frozenset(Mode), 1450, False),
            )
        }

    def arrive(self, id: str, *, lan: str | None = "10.1.1.5/24", **profile: Any) -> Desk:
        """A device connects and publishes itself."""
        device = self.registry.admit(id, key(id))
        assert device is not None
        desk = self.registry.arrive(device, key(id), _Line(f"198.51.100.1:{id}"))
        profile.setdefault("backends", ("tls",))
        self.ask(desk, requests.Publish(Profile(lan=None if lan is None else IPv4Interface(lan), **profile)))
        return desk

    def ask(self, desk: Desk, request: requests.Request) -> Any:
        """The immediate answer to a request."""
        return self.successResultOf(desk.perform(request))

    def refused(self, desk: Desk, request: requests.Request, error: type[RDVError]) -> str:
        """The text of an immediate refusal."""
        return str(self.failureResultOf(desk.perform(request), error).value)

    def wait(self, desk: Desk, seconds: float = 60.0) -> Deferred[Readiness]:
        """An onsite waits for a master."""
        return desk.perform(requests.WaitForMaster(seconds))

    def pair(self) -> tuple[Desk, Desk]:
        """A master that has selected an onsite."""
        onsite, master = self.arrive("on1", lan="192.168.1.50/24"), self.arrive("ma1")
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        return onsite, master

    def bring_up(self, onsite: Desk, master: Desk) -> None:
        """Both build their tunnels."""
        for desk in (onsite, master):
            parameters = self.ask(desk, requests.GetTunnelParameters())
            self.tickets.redeem(parameters.ticket, desk.key).occupy(MemoryStream(desk.device.id))

    def assert_nothing_held(self) -> None:
        """No session, lease, ticket or timer is left."""
        self.assertEqual(self.registry.views(), [])
        self.assertEqual((self.leases.held, self.tickets.outstanding), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
