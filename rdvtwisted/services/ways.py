"""How devices connect: an onsite by the way that its ladder says, a master by the first that works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.errors import ConnectionLost, FellSilent, RDVError
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.equipment import Equipment
from rdvtwisted.services.footing import stand_by
from rdvtwisted.services.ladder import Ladder
from rdvtwisted.services.link import Link, open_link
from rdvtwisted.services.suspicion import Suspicion

#: What makes a connection by the settings of one way.
Connect = Callable[[DeviceSettings], Awaitable[Link]]


def connect_with(equipment: Equipment) -> Connect:
    """
    What connects a device with this equipment, and gives a connection up whose address is gone. How each connection
    ends, or comes to nothing, is told to the equipment's suspicion.
    """
    suspicion = equipment.suspicion

    async def connect(way: DeviceSettings) -> Link:
        authority = _authority(equipment, way)
        try:
            link = await open_link(way, equipment.identity, authority, equipment.reactor, suspicion.holds)
        except RDVError as error:
            suspicion.heed(error)
            raise
        link.gone().addCallback(suspicion.heed)
        stand_by(link, equipment.network, equipment.reactor)
        return link

    return connect


def aloud(connect: Connect, say: Callable[[str], None]) -> Connect:
    """What connects, and tells of each way when it tries it for the first time."""
    told: set[str] = set()

    async def connect_aloud(way: DeviceSettings) -> Link:
        if way.place not in told:
            told.add(way.place)
            say(f"Connecting by {way.place}")
        return await connect(way)

    return connect_aloud


def by_ladder(connect: Connect, ladder: Ladder) -> Callable[[], Awaitable[Link]]:
    """For a device that is patient: each time one try, by the way that it is the turn of."""
    return lambda: connect(ladder.way)


def by_first(connect: Connect, ways: tuple[DeviceSettings, ...], suspicion: Suspicion) -> Callable[[], Awaitable[Link]]:
    """
    For an operator who waits: all ways in their order until one works; else the error is that of the first.

    @param suspicion: a way that has raised it is tried once more at once: if it is right, that works.
    """

    async def connect_again(way: DeviceSettings) -> Link:
        unsuspecting = not suspicion.holds
        try:
            return await connect(way)
        except FellSilent:
            if unsuspecting and suspicion.holds:
                return await connect(way)
            raise

    async def connect_somehow() -> Link:
        failure: RDVError | None = None
        for way in ways:
            try:
                return await connect_again(way)
            except ConnectionLost as error:
                failure = failure or error
        assert failure is not None
        raise failure

    return connect_somehow


def _authority(equipment: Equipment, way: DeviceSettings) -> Authority:
    """
    The authority by which a way's server is known.

    Who was to come by SSH learns it inside SSH. If the other door is tried
    before that, what it shows is not taken for the server's own for longer
    than that connection: somebody may stand in front of it here.
    """
    if way.authority == equipment.settings.authority:
        equipment.authority.read()
        if equipment.settings.tls or not way.tls or equipment.authority.der is not None:
            return equipment.authority
        return Authority(None)
    return Authority(way.authority)
