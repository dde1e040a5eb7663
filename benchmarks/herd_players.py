"""
Many onsite devices in one process: the real service and the real SSH client, each from an address of its own.

Prints C{try} for each try to connect, C{failed} and a reason for each that fails. A line on its standard input makes
all devices do what they do a minute after they have come; its end ends them.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from rdvtwisted.adapters.backends import discover
from rdvtwisted.adapters.pins import KnownPeers
from rdvtwisted.adapters.ssh.client import Target, connect
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.settings import ClientSettings
from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.plan import Attachment, Site
from rdvtwisted.services.console import Console
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.link import Link
from rdvtwisted.services.onsite import OnsiteService
from rdvtwisted.services.pace import Pace
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.testing.network import MemoryNetwork
from rdvtwisted.testing.programs import MemoryPrograms
from rdvtwisted.values import Role

#: Bytes of a private key in the file of keys.
KEY_BYTES = 32

_LAN = IPv4Interface("192.168.7.9/24")
_SITE = Site(interface="eth0", lan=_LAN, hostname="cellar", uplink="lan", attachments=(Attachment("eth0", _LAN),))


def name(number: int) -> str:
    """The account of a device."""
    return f"herd{number}"


def address(number: int) -> str:
    """Where it comes from."""
    return f"127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}"


class _Headlong(Pace):
    """Of devices that do as if they were alone."""

    def next(self, *_: Any, **__: Any) -> float:
        """The wait of a single device."""
        self.spread = 0.0
        return super().next()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _nobody(_: str) -> None:
    """Nobody reads what the devices say."""


def _connecting(
    reactor: Any, port: int, folder: Path, number: int, key: Any, links: dict[int, Link]
) -> Callable[[], Awaitable[Link]]:
    """What connects one device, as C{open_link} does, from its own address, and puts its link among the others."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, bindAddress=(address(number), 0))
    target = Target("127.0.0.1", port, name(number), key, KnownHosts(folder / "known_hosts"))

    async def open_link() -> Link:
        _say("try")
        try:
            ssh = await connect(endpoint, target, reactor, ClientSettings.noticing(60.0))
            link = Link(Dialogue(name(number), Role.ONSITE), reactor, ssh)
            try:
                await link.open()
            except BaseException:
                await link.close()
                raise
        except Exception as error:
            _say(f"failed {error}")
            raise
        links[number] = link
        return link

    return open_link


def onsite(
    reactor: Any, port: int, folder: Path, number: int, seed: bytes, pace: Pace, links: dict[int, Link]
) -> OnsiteService:
    """A device, not started, whose link will be found in C{links}."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    settings = DeviceSettings(
        role=Role.ONSITE,
        account=name(number),
        host="127.0.0.1",
        port=port,
        tls=False,
        state=folder,
        identity=folder / "identity",
        known_hosts=folder / "known_hosts",
        known_peers=folder / "known_peers",
        authority=folder / "server-ca.pem",
    )
    equipment = Equipment(
        settings=settings,
        reactor=reactor,
        network=MemoryNetwork(_SITE),
        identity=None,
        peers=KnownPeers(folder / "known_peers"),
        authority=Authority(folder / "server-ca.pem"),
        backends={backend.name: backend for backend in discover().backends},
        programs=MemoryPrograms(),
    )
    return OnsiteService(
        equipment=equipment,
        console=Console(_nobody, _nobody, None),
        pace=pace,
        connect=_connecting(reactor, port, folder, number, key, links),
    )


class _Order(Protocol):
    """The standard input."""

    def __init__(self, reactor: Any, links: dict[int, Link]) -> None:
        self._reactor = reactor
        self._links = links

    def dataReceived(self, data: bytes) -> None:
        """Have every wait for a master answered now, as it would be after a minute."""
        for link in self._links.values():
            if link.error is None and link._shell is not None:
                link._shell.write(link._dialogue.interrupt())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody measures any more."""
        self._reactor.stop()


def play(port: int, folder: Path, first: int, count: int, *, spread: bool) -> None:
    """
    Be so many devices.

    @param folder: has their keys, one after the other, in the file C{keys}.
    @param first: the number of the first one.
    @param spread: whether they listen to what the server says of spreading.
    """
    from twisted.internet import reactor

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    kind = Pace if spread else _Headlong
    links: dict[int, Link] = {}
    keys = (folder / "keys").read_bytes()
    for number in range(first, first + count):
        seed = keys[number * KEY_BYTES : (number + 1) * KEY_BYTES]
        onsite(reactor, port, folder, number, seed, kind(random.random), links).startService()
    StandardIO(_Order(reactor, links))
    reactor.run()
