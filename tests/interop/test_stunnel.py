"""The C{stunnel} backend with a stock stunnel4: its contract, what it carries, and who is refused on its way."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.programs import Program
from rdvtwisted.errors import RDVError, TicketRefused, TunnelFailed
from rdvtwisted.interfaces import ITunnelBackend
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.testing.server_tunnels import (
    MemoryServerSite,
    ServerEnd,
    ServerTunnelContract,
    WatchedReactor,
    terms,
)
from rdvtwisted.testing.tunnels import PLAIN, SEGMENTED, TunnelBackendContract, TunnelEnds, identity, packet
from rdvtwisted.tickets import TicketOffice
from rdvtwisted.values import Mode
from tests.interop.stunnel import DEVICE, Chair, StunnelCase, reactor
from tests.tunnels.session import descriptors
from tunnels.stunnel import StunnelBackend


class ContractTests(TunnelBackendContract, StunnelCase):
    """The C{stunnel} backend keeps the contract of tunnel backends."""

    timeout = 60

    def build_backend(self) -> ITunnelBackend:
        return cast(ITunnelBackend, StunnelBackend())

    def build_ends(self, mode: Mode) -> TunnelEnds:
        return self.pair(mode)[0]


class ServerContractTests(ServerTunnelContract, StunnelCase):
    """The server's end of a C{stunnel} tunnel keeps the contract of such ends."""

    timeout = 60

    def build_end(self, mode: Mode) -> ServerEnd:
        watched, stranger = WatchedReactor(reactor), identity("stranger")
        end = ServerEnd(
            cast(ITunnelBackend, StunnelBackend()).server_end(terms(mode, DEVICE), MemoryServerSite(watched)),
            watched,
            device=lambda: self.device(mode, end.occupy, self.identity),
            stranger=lambda: self.device(mode, end.occupy, stranger),
        )
        return end


class CarryTests(StunnelCase):
    """What goes through a stock stunnel."""

    async def test_keys(self) -> None:
        """Devices may have Ed25519, ECDSA and RSA keys; the report tells how the stream is encrypted."""
        kinds: list[Callable[[], ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = [
            ed25519.Ed25519PrivateKey.generate,
            lambda: ec.generate_private_key(ec.SECP256R1()),
            lambda: ec.generate_private_key(ec.SECP384R1()),
            lambda: rsa.generate_private_key(65537, 2048),
        ]
        for kind in kinds:
            self.identity = identity(DEVICE, kind())
            ends, _ = self.pair()
            await ends.carry()
            report = ends.near.report()
            self.assertRegex(report.cipher, "^TLS_")
            self.assertNotEqual(report.key_exchange, "")
            await ends.close()

    async def test_flood(self) -> None:
        """Thousands of packets of every size arrive whole and in order, at both ends at once."""
        ends, _ = self.pair()
        await ends.carry()
        sizes = [1, 40, 1400, 200, 30_000, 65_507, 16_384, 900]
        sent = [
            packet(Mode.L3, struct.pack("!I", n) * (sizes[n % 8] // 4 + 1), SEGMENTED)[:65_550] for n in range(1500)
        ]
        for source in (ends.near_site, ends.far_site):
            self.feed(source.packets, sent)
        for site in (ends.near_site, ends.far_site):
            self.assertEqual(await site.packets.when_written(len(sent)), sent)

    def feed(self, device: MemoryPacketDevice, sent: list[bytes]) -> None:
        """Inject all, whenever there is room."""
        rest = list(reversed(sent))

        def more() -> None:
            while rest and device.inject(rest[-1]):
                rest.pop()
            if rest:
                reactor.callLater(0, more)

        more()

    async def test_stopped_reader(self) -> None:
        """While a device's stunnel takes nothing, neither end reads its interface; then everything arrives."""
        ends, _ = self.pair()
        await ends.carry()
        stunnel = self.stunnel(ends)
        os.kill(stunnel, signal.SIGSTOP)
        self.addCleanup(os.kill, stunnel, signal.SIGCONT)
        big = packet(Mode.L3, bytes(60_000), SEGMENTED)
        taken = {}
        for name, site in (("near", ends.near_site), ("far", ends.far_site)):
            count = quiet = 0
            while quiet < 200:
                quiet = 0 if site.packets.inject(big) else quiet + 1
                count += not quiet
                await deferLater(reactor, 0)
            taken[name] = count
        # What the kernel's socket buffers hold, and no more.
        for count in taken.values():
            self.assertLess(count * len(big), 32 * 2**20)
        os.kill(stunnel, signal.SIGCONT)
        self.assertEqual(set(await ends.far_site.packets.when_written(taken["near"])), {big})
        self.assertEqual(set(await ends.near_site.packets.when_written(taken["far"])), {big})

    def stunnel(self, ends: TunnelEnds) -> int:
        """The process number of the device's stunnel."""
        program = ends.near._program  # type: ignore[attr-defined]
        assert isinstance(program, Program) and program.pid is not None
        return program.pid

    async def test_disagreement(self) -> None:
        """Two ends that disagree on the mode both say so."""
        ends, _ = self.pair(Mode.L3, near_mode=Mode.L2)
        await ends.attach()
        carried = ends.near.carry()
        said = await self.assertFailure(carried, TunnelFailed)
        self.assertIn("choose the same mode on both", str(said))
        self.assertIn(DEVICE, str(await self.assertFailure(ends.far.closed, TunnelFailed)))

    async def test_killed(self) -> None:
        """A stunnel that is killed ends the tunnel at both ends, and the device is told what became of it."""
        ends, _ = self.pair()
        await ends.carry()
        os.kill(self.stunnel(ends), signal.SIGKILL)
        error = await self.assertFailure(ends.near.closed, TunnelFailed)
        self.assertEqual(str(error), "the tunnel to the server broke: stunnel4 was ended by SIGKILL")
        await self.assertFailure(ends.far.closed, TunnelFailed)

    async def test_nothing_left(self) -> None:
        """After a session there is no process, no file and no descriptor of it."""
        await deferLater(reactor, 0)
        before = descriptors()
        for _ in range(3):
            ends, _ = self.pair()
            await ends.carry()
            number = self.stunnel(ends)
            self.assertEqual(len(list((self.folder / "programs").iterdir())), 1)
            await ends.close()
            self.assertRaises(ProcessLookupError, os.kill, number, 0)
            self.assertEqual(list((self.folder / "programs").iterdir()), [])
        for _ in range(1000):
            if descriptors() == before:
                break
            await deferLater(reactor, 0)
        self.assertEqual(descriptors(), before)


class RefusalTests(StunnelCase):
    """Who is not let in, and who is not trusted."""

    async def refused(self, pair: tuple[TunnelEnds, Chair], kind: type[RDVError], words: str) -> None:
        """The device is told in one line; nobody sits in its place, and the session is as it was."""
        ends, chair = pair
        await ends.attach()
        error = await self.assertFailure(ends.near.carry(), kind)
        self.assertIn(words, str(error))
        self.assertNotIn("\n", str(error))
        self.assertIs((await self.assertFailure(ends.near.closed, kind)), error)
        self.assertIsNone(chair.stream)
        self.assertFalse(ends.far.closed.called)
        self.assertEqual(list((self.folder / "programs").iterdir()), [])

    def told(self, words: str) -> None:
        """The server has one line about it."""
        self.assertEqual(len(self.refusals), 1, self.refusals)
        self.assertIn(words, self.refusals[0][3])

    async def test_forged(self) -> None:
        """A ticket that nobody gave is refused."""
        await self.refused(self.pair(ticket="forged"), TicketRefused, "the ticket is unknown")
        self.told("the ticket is unknown")

    async def test_stolen(self) -> None:
        """Another device's ticket is refused, and stays good for its owner."""
        thief = identity("thief")
        await self.refused(self.pair(own=thief), TicketRefused, thief.public.fingerprint)
        self.assertIn("ticket0", self.office.tickets)

    async def test_late(self) -> None:
        """A ticket beyond its time is refused."""
        clock = Clock()
        office = TicketOffice(clock, os.urandom, lifetime=60.0)
        ends, chair = self.pair()
        late = office.issue(chair, self.identity.public)
        clock.advance(61)
        self.door._office = office
        await ends.close()
        await self.refused(self.pair(ticket=late), TicketRefused, "the ticket is too old")
        self.told("the ticket is too old")

    async def test_other_authority(self) -> None:
        """A server whose certificate another authority has signed is not spoken to."""
        other = Authority.open(self.folder / "other", ["127.0.0.1"], reactor)
        await self.refused(
            self.pair(authority=other.der),
            TunnelFailed,
            "as stunnel4 says: the server's certificate is refused:",
        )
        self.told("TLS: ")

    async def test_clock(self) -> None:
        """A server whose certificate is over by the device's clock is not spoken to, and why is said."""
        clock = Clock()
        clock.advance(reactor.seconds() - 500 * 86400)
        self.authority = Authority.open(self.folder / "former", ["127.0.0.1"], clock)
        self.door.show(self.authority.credentials())
        await self.refused(self.pair(), TunnelFailed, "has expired (is this device's clock right? Else renew")

    async def test_clock_behind(self) -> None:
        """A device whose clock has lost its memory takes the server's certificate all the same."""
        clock = Clock()
        clock.advance(reactor.seconds() + 300 * 86400)
        self.authority = Authority.open(self.folder / "later", ["127.0.0.1"], clock)
        self.door.show(self.authority.credentials())
        ends, _ = self.pair()
        await ends.carry()
        await ends.close()

    async def test_no_door(self) -> None:
        """A server that cannot be reached is told as such."""
        ends, chair = self.pair()
        ends.near_site.door_address = ("127.0.0.1", 1)
        await self.refused((ends, chair), TunnelFailed, "Connection refused")

    async def test_strange_name(self) -> None:
        """A server's name with a line end in it sets nothing in stunnel's configuration."""
        ends, _ = self.pair()
        ends.near_site.door_address = ("127.0.0.1\nexec = /bin/true", 1)
        await self.refused_unstarted(ends, "invalid server address")

    async def test_not_installed(self) -> None:
        """Without stunnel the device says what to install."""
        ends, _ = self.pair()
        ends.near_site.programs.find = lambda name: None  # type: ignore[method-assign]
        await self.refused_unstarted(ends, "is not installed")

    async def refused_unstarted(self, ends: TunnelEnds, words: str) -> None:
        """The device does not even start a program."""
        await ends.attach()
        error = await self.assertFailure(ends.near.carry(), RDVError)
        self.assertIn(words, str(error))
        await self.assertFailure(ends.near.closed, RDVError)
        self.assertFalse((self.folder / "programs").exists())

    async def test_hello_that_never_comes(self) -> None:
        """A packet before any hello ends the tunnel, and the server's interface gets nothing."""
        ends, _ = self.pair()
        await ends.attach()
        near = ends.near
        opening = near._open  # type: ignore[attr-defined]

        async def rude(device: object) -> None:
            sock, _ = await near.connect()  # type: ignore[attr-defined]
            text = packet(Mode.L3, b"first", PLAIN)
            sock.send(struct.pack("!I", len(text)) + text)
            await Deferred()

        self.assertTrue(callable(opening))
        near._open = rude  # type: ignore[attr-defined]
        carried = near.carry()
        error = await self.assertFailure(ends.far.closed, RDVError)
        self.assertIn("before its hello", str(error))
        self.assertEqual(ends.far_site.packets.written, [])
        await near.close()
        await self.assertFailure(carried, RDVError)
