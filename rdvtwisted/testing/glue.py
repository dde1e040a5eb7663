"""Session namespaces in memory, and the contract of whatever makes such."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import InvalidValue, NetworkError, RDVError
from rdvtwisted.glue import MASTER, ONSITE, GlueSpec
from rdvtwisted.interfaces import IGlue, IPacketDevice
from rdvtwisted.scope import Scope
from rdvtwisted.testing.packets import ALL_OFFLOADS, LONGEST_PACKET, MemoryPacketDevice
from rdvtwisted.values import Lease, Mode, Offloads

Pair = tuple[MemoryPacketDevice, MemoryPacketDevice]

#: A session of each mode.
ROUTED = GlueSpec("s1", Mode.L3, Lease(IPv4Network("192.168.128.0/30")), Lease(IPv4Network("192.168.128.4/30")))
BRIDGED = GlueSpec("s2", Mode.L2, mtu=1500)

if TYPE_CHECKING:
    _Case = TestCase
else:
    _Case = object


@implementer(IGlue)
class MemoryGlue:
    """Remembers what it was asked for; its namespaces are pairs of packet devices in memory, not joined."""

    def __init__(self, limit: int = 256) -> None:
        """
        @param limit: sessions at a time.
        """
        self._limit = limit
        self._over = False
        self.ended: Deferred[None] = Deferred()
        #: The sessions that are open now: what was asked for, and their devices.
        self.specs: dict[str, GlueSpec] = {}
        self.devices: dict[str, Pair] = {}
        #: With which error the next L{open} is answered.
        self.refusal: RDVError | None = None

    def open(self, spec: GlueSpec) -> Deferred[Pair]:
        refusal, self.refusal = self.refusal, None
        if self._over:
            refusal = NetworkError("the process that makes network namespaces has ended")
        elif spec.session in self.specs:
            refusal = NetworkError(f"the session {spec.session} is open already")
        elif len(self.specs) >= self._limit:
            refusal = NetworkError(f"there are {self._limit} sessions already")
        if refusal is not None:
            return fail(refusal)
        offloads = ALL_OFFLOADS if spec.headers else Offloads()
        pair = MemoryPacketDevice(ONSITE, offloads), MemoryPacketDevice(MASTER, offloads)
        self.specs[spec.session], self.devices[spec.session] = spec, pair
        return succeed(pair)

    def confine(self, session: str, scope: Scope) -> Deferred[None]:
        refusal, self.refusal = self.refusal, None
        if session not in self.specs:
            refusal = NetworkError(f"there is no session {session} to be confined")
        elif refusal is None:
            try:
                self.specs[session] = evolve(self.specs[session], scope=scope)
            except InvalidValue as error:
                refusal = NetworkError(str(error))
        return succeed(None) if refusal is None else fail(refusal)

    def close(self, session: str) -> Deferred[None]:
        self.specs.pop(session, None)
        for device in self.devices.pop(session, ()):
            device.vanish()
        return succeed(None)

    def die(self) -> None:
        """The process ends by itself: no session can be opened any more."""
        self._over = True
        self.ended.callback(None)


class GlueContract(_Case):
    """What every L{IGlue} keeps; a test case inherits from this and trial's C{TestCase}."""

    #: How many sessions L{glue}'s may have at a time.
    limit = 3

    def glue(self) -> Any:
        """
        Under test.

        @return: an L{IGlue} for up to L{limit} sessions.
        """
        raise NotImplementedError

    async def opened(self, glue: Any, spec: GlueSpec) -> tuple[Any, Any]:
        """A session's two devices, closed when the test is over."""
        pair: tuple[Any, Any] = await glue.open(spec)
        for device in pair:
            self.addCleanup(device.close)
        return pair

    def test_provides(self) -> None:
        """It is a glue."""
        self.assertTrue(verifyObject(IGlue, self.glue()))

    async def test_devices(self) -> None:
        """A session has two packet devices, named for the devices that their tunnels lead to, each its own."""
        glue = self.glue()
        for spec in (ROUTED, BRIDGED):
            pair = await self.opened(glue, spec)
            for device in pair:
                self.assertTrue(verifyObject(IPacketDevice, device))
                self.assertEqual(device.read_into(bytearray(LONGEST_PACKET)), 0)
            self.assertEqual([device.name for device in pair], ["onsite", "master"])
            self.assertNotEqual(pair[0].fileno(), pair[1].fileno())

    async def test_offloads(self) -> None:
        """Packets with headers may be large ones; bare ones may not."""
        glue = self.glue()
        bare = await self.opened(glue, ROUTED)
        full = await self.opened(glue, evolve(ROUTED, session="full", headers=True))
        self.assertEqual([device.supported() for device in bare], [Offloads()] * 2)
        for device in full:
            self.assertTrue(device.supported().tso4)
            device.set_offloads(device.supported())

    async def test_closed(self) -> None:
        """When a session is closed its devices are gone, though they are open; and it can be opened anew."""
        glue = self.glue()
        for spec in (ROUTED, BRIDGED):
            pair = await self.opened(glue, spec)
            self.assertIsNone(await glue.close(spec.session))
            for device in pair:
                self.assertRaises(OSError, device.read_into, bytearray(LONGEST_PACKET))
                self.assertRaises(OSError, device.write, bytes(60))
            fresh = await self.opened(glue, spec)
            self.assertEqual(fresh[0].read_into(bytearray(LONGEST_PACKET)), 0)

    async def test_confined(self) -> None:
        """Where the packets of a routed session may go can be changed at any time, also back to everywhere."""
        glue = self.glue()
        await self.opened(glue, evolve(ROUTED, scope=Scope.parse("192.168.1.10:tcp/80")))
        for scope in ("192.168.1.0/24 10.0.0.1:icmp", "", "*"):
            self.assertIsNone(await glue.confine(ROUTED.session, Scope.parse(scope)))

    async def test_not_confined(self) -> None:
        """Neither a bridged session nor one that is not open can be confined."""
        glue = self.glue()
        await self.opened(glue, BRIDGED)
        for session in (BRIDGED.session, "never"):
            await self.refused(glue.confine(session, Scope.parse("192.168.1.10")))

    async def test_close_nothing(self) -> None:
        """To close a session that is not open is no error."""
        self.assertIsNone(await self.glue().close("never"))

    async def test_twice(self) -> None:
        """A session that is open cannot be opened again, and goes on."""
        glue = self.glue()
        pair = await self.opened(glue, ROUTED)
        await self.refused(glue.open(ROUTED))
        self.assertEqual(pair[0].read_into(bytearray(LONGEST_PACKET)), 0)

    async def test_limit(self) -> None:
        """There are no more sessions than the limit; one that is closed makes room."""
        glue = self.glue()
        for number in range(self.limit):
            await self.opened(glue, evolve(ROUTED, session=f"s{number}"))
        await self.refused(glue.open(evolve(ROUTED, session="more")))
        await glue.close("s0")
        await self.opened(glue, evolve(ROUTED, session="more"))

    async def refused(self, answer: Deferred[Any]) -> None:
        """Wait for a refusal of one line."""
        error = await self.assertFailure(answer, NetworkError)
        self.assertNotIn("\n", str(error))
        self.assertTrue(str(error))
