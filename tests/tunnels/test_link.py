"""Two tunnels that carry: what passes, what the relay sees, and how they end."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from rdvtwisted.errors import ProtocolError, TunnelFailed, TunnelSilent
from rdvtwisted.testing.packets import ALL_OFFLOADS
from rdvtwisted.testing.tunnels import SEGMENTED, packet
from rdvtwisted.values import Mode, Offloads, Role
from tests.tunnels.frames import frames
from tests.tunnels.rogue import HELLO, Rogue
from tests.tunnels.session import Lone, SessionCase, descriptors
from tunnels.packets import ANSWER, GOODBYE, HEARTBEAT, OPTIONAL, PACKET, frame


class CarryTests(SessionCase):
    """Two devices that carry packets."""

    async def test_secrecy(self) -> None:
        """The relay sees nothing but TLS records, and no byte sequence of a packet."""
        ends = self.ends()
        await ends.carry()
        secret = packet(Mode.L3, b"the customer's secret " * 50)
        ends.near_site.packets.inject(secret)
        ends.far_site.packets.inject(secret)
        await ends.far_site.packets.when_written(1)
        await ends.near_site.packets.when_written(1)
        for visit in self.door.visits:
            seen = bytes(visit.inner)
            self.assertGreater(len(seen), len(secret))
            for start in range(len(secret) - 12):
                if secret[start : start + 12] != bytes(12):
                    self.assertNotIn(secret[start : start + 12], seen)
            while seen:
                kind, version, length = struct.unpack("!BHH", seen[:5])
                self.assertIn(kind, (20, 22, 23))
                self.assertIn(version, (0x301, 0x303))
                seen = seen[5 + length :]

    async def test_tampering(self) -> None:
        """One changed bit on the way ends the tunnel; no changed packet comes out."""
        ends = self.ends()
        await ends.carry()
        self.door.passes = lambda data: data[:-1] + bytes([data[-1] ^ 1])
        ends.near_site.packets.inject(packet(Mode.L3, b"precious"))
        await self.assert_refused(ends.far.closed, TunnelFailed, "bad record mac")
        self.assertEqual(ends.far_site.packets.written, [])

    async def test_replayed(self) -> None:
        """What comes a second time ends the tunnel; its packet comes out once."""
        ends = self.ends()
        await ends.carry()
        self.door.passes = lambda data: data + data
        ends.near_site.packets.inject(packet(Mode.L3, b"precious"))
        await self.assert_refused(ends.far.closed, TunnelFailed, "bad record mac")
        self.assertLessEqual(len(ends.far_site.packets.written), 1)

    async def test_reordered(self) -> None:
        """What comes out of its turn ends the tunnel, and nothing of it comes out."""
        ends = self.ends()
        await ends.carry()
        held: list[bytes] = []

        def swap(data: bytes) -> bytes:
            held.append(data)
            return b"" if len(held) == 1 else data + held[0]

        self.door.passes = swap
        ends.near_site.packets.inject(packet(Mode.L3, b"first"))
        while not held:
            await deferLater(reactor, 0)  # type: ignore[arg-type]
        ends.near_site.packets.inject(packet(Mode.L3, b"second"))
        await self.assert_refused(ends.far.closed, TunnelFailed, "bad record mac")
        self.assertEqual(ends.far_site.packets.written, [])

    async def test_cut(self) -> None:
        """A record that lacks its end, and whatever follows it, ends the tunnel."""
        ends = self.ends()
        await ends.carry()
        cut: list[bytes] = []

        def shorten(data: bytes) -> bytes:
            cut.append(data)
            return data[:-1] if len(cut) == 1 else data

        self.door.passes = shorten
        ends.near_site.packets.inject(packet(Mode.L3, b"first"))
        while not cut:
            await deferLater(reactor, 0)  # type: ignore[arg-type]
        ends.near_site.packets.inject(packet(Mode.L3, b"second"))
        await self.assert_refused(ends.far.closed, TunnelFailed, "bad record mac")
        self.assertEqual(ends.far_site.packets.written, [])

    async def test_offloads(self) -> None:
        """Each end reads only such large packets as it knows and the other can write."""
        ends = self.ends()
        await ends.attach()
        weak = Offloads(checksum=True, tso4=True)
        ends.far_site.packets._supported = weak
        near, far = ends.near.carry(), ends.far.carry()
        await near
        await far
        self.assertEqual(ends.near_site.packets.offloads, weak)
        self.assertEqual(ends.far_site.packets.offloads, weak & ALL_OFFLOADS)

    async def test_flood(self) -> None:
        """Thousands of packets of every size arrive whole and in order, at both ends at once."""
        ends = self.ends()
        await ends.carry()
        sizes = [1, 40, 1400, 200, 30_000, 65_507, 16_384, 900]
        sent = [
            packet(Mode.L3, struct.pack("!I", n) * (sizes[n % 8] // 4 + 1), SEGMENTED)[:65_550] for n in range(2000)
        ]
        for source in (ends.near_site, ends.far_site):
            self.feed(source.packets.inject, sent)
        for site in (ends.near_site, ends.far_site):
            self.assertEqual(await site.packets.when_written(len(sent)), sent)

    def feed(self, inject: Callable[[bytes], bool], sent: list[bytes]) -> None:
        """Inject all, whenever there is room."""
        rest = list(reversed(sent))

        def more() -> None:
            while rest and inject(rest[-1]):
                rest.pop()
            if rest:
                reactor.callLater(0, more)  # type: ignore[attr-defined]

        more()

    async def test_slow_peer(self) -> None:
        """While the other end takes nothing, this one stops reading its interface; then everything arrives."""
        ends = self.ends()
        await ends.carry()
        slow = self.door.visits[0]
        assert slow.transport is not None
        slow.transport.pauseProducing()  # type: ignore[attr-defined]
        big = packet(Mode.L3, bytes(60_000), SEGMENTED)
        near = ends.near_site.packets
        taken = quiet = 0
        while quiet < 200:
            quiet = 0 if near.inject(big) else quiet + 1
            taken += not quiet
            await self.turn()
        # What the kernel's socket buffers hold, and no more.
        self.assertLess(taken * len(big), 64 * 2**20)
        self.assertLess(ends.near.report().sent_packets, taken)
        slow.transport.resumeProducing()  # type: ignore[attr-defined]
        self.assertEqual(len(await ends.far_site.packets.when_written(taken)), taken)
        self.assertEqual(set(ends.far_site.packets.written), {big})

    async def test_refused_packet(self) -> None:
        """A packet that the kernel does not take is dropped, and not counted; the next one is carried."""
        ends = self.ends()
        await ends.carry()
        ends.far_site.packets.refuses = 1
        ends.near_site.packets.inject(packet(Mode.L3, b"one"))
        ends.near_site.packets.inject(second := packet(Mode.L3, b"two"))
        self.assertEqual(await ends.far_site.packets.when_written(1), [second])
        ends.far_site.packets.inject(packet(Mode.L3, b"three"))
        await ends.near_site.packets.when_written(1)
        self.assertEqual(ends.far.report().received_packets, 1)

    async def test_interface_deleted(self) -> None:
        """Somebody deletes the interface: both ends are told so."""
        for injected in (False, True):
            ends = self.ends()
            await ends.carry()
            ends.far_site.packets.vanish()
            if injected:
                ends.near_site.packets.inject(packet(Mode.L3, b"x"))
            await self.assert_refused(ends.far.closed, TunnelFailed, "interface is gone")
            await self.assert_refused(ends.near.closed, TunnelFailed, "rpi-onsite left the tunnel: interface-lost")

    async def test_modes(self) -> None:
        """Two ends that disagree on the mode both say so."""
        ends = self.ends(onsite_mode=Mode.L2)
        await ends.attach()
        near, far = ends.near.carry(), ends.far.carry()
        await self.assert_refused(near, TunnelFailed, "L")
        await self.assert_refused(far, TunnelFailed, "L")
        own, other = "an L3 one: choose the same mode on both", "rpi-onsite builds an L2 tunnel, this end"
        await self.assert_refused(ends.near.closed, TunnelFailed, f"{other} {own}")
        await self.assert_refused(ends.far.closed, TunnelFailed, "rpi-master builds an L3 tunnel, this end an L2")

    async def test_nothing_left(self) -> None:
        """After a session both ends hold no descriptor and wait for nothing."""
        await self.turn()
        before = descriptors()
        ends = self.ends()
        await ends.carry()
        await ends.near.close()
        await ends.far.closed
        for visit in self.door.visits:
            await visit.gone
        self.assertEqual(descriptors() - before, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SilenceTests(SessionCase):
    """An end that hears nothing."""

    async def test_heartbeats(self) -> None:
        """Two idle ends keep each other alive."""
        ends = self.ends()
        await ends.carry()
        for _ in range(24):
            self.clock.advance(2.5)
            for _ in range(20):
                await self.turn()
        self.assertFalse(ends.near.closed.called or ends.far.closed.called)

    async def test_silence(self) -> None:
        """An end that hears nothing for 15 s has failed, with one clear line."""
        ends = self.ends()
        await ends.carry()
        for visit in self.door.visits:
            assert visit.transport is not None
            visit.transport.pauseProducing()  # type: ignore[attr-defined]
        self.clock.pump([2.5] * 4)
        self.assertFalse(ends.near.closed.called)
        self.clock.pump([2.5] * 2)
        await self.assert_refused(ends.near.closed, TunnelSilent, "the tunnel to rpi-onsite fell silent")
        await self.assert_refused(ends.far.closed, TunnelSilent, "the tunnel to rpi-master fell silent")
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class RogueTests(SessionCase):
    """A master whose onsite says what it likes."""

    async def meet(self) -> tuple[Lone, Rogue]:
        """A master, and its onsite in the test's hands; they have shaken hands."""
        lone = await self.started(self.site(Role.MASTER))
        rogue = await Rogue.come(self.reactor, self.site(Role.ONSITE), self.identities[Role.MASTER].public)
        self.addCleanup(lambda: Deferred.fromCoroutine(rogue.leave()))
        return lone, rogue

    async def joined(self) -> tuple[Lone, Rogue]:
        """The same, and packets flow."""
        lone, rogue = await self.meet()
        rogue.say(HELLO.encode())
        heard = b""
        while len(frames(heard)) < 2:
            heard += await rogue.hear()
        (_, _), (_, stamp) = frames(heard)
        rogue.say(frame(ANSWER, stamp))
        await lone.carried
        return lone, rogue

    async def test_first_words(self) -> None:
        """An end says hello with all that the other needs, then a first heartbeat."""
        _, rogue = await self.meet()
        heard = b""
        while len(frames(heard)) < 2:
            heard += await rogue.hear()
        (first, hello), (second, stamp) = frames(heard)
        self.assertEqual((first, second, len(stamp)), (1, HEARTBEAT, 8))
        said = json.loads(hello)
        self.assertEqual(said["offloads"], ["checksum", "tso4", "tso6", "uso"])
        self.assertEqual(
            {key: said[key] for key in ("protocol", "device", "mode", "mtu")},
            {"protocol": 1, "device": "rpi-master", "mode": "L3", "mtu": 1500},
        )

    async def assert_ends(
        self, said: bytes, kind: type[ProtocolError] | type[TunnelFailed], words: str, goodbye: str
    ) -> None:
        """These bytes end the tunnel with this error, and with a goodbye if there is a word for it."""
        lone, rogue = await self.meet()
        rogue.say(said)
        heard = await rogue.hear_all()
        goodbyes = [payload.decode() for number, payload in frames(heard) if number == GOODBYE]
        self.assertEqual(goodbyes, [goodbye])
        await rogue.leave()
        await self.assert_refused(lone.carried, kind, words)
        await self.assert_refused(lone.tunnel.closed, kind, words)

    async def test_garbage(self) -> None:
        """What is no frame ends the tunnel, and the other end learns that it was at fault."""
        hello = HELLO.encode()
        for said, words in (
            (b"GET / HTTP/1.1\r\n\r\n", "unknown type 71"),
            (frame(HEARTBEAT, b"short"), "bad length 5"),
            (frame(PACKET, b""), "bad length 0"),
            (struct.pack("!I", 65_601), "bad length 65601"),
            (frame(1, b"x" * 4097), "bad length 4097"),
            (frame(1, b"not JSON"), "not JSON"),
            (hello + hello, "said hello twice"),
            (frame(PACKET, packet(Mode.L3, b"early")), "before its hello"),
        ):
            await self.assert_ends(said, ProtocolError, words, "protocol-error")

    async def test_disagreement(self) -> None:
        """A later protocol, another mode and a wrong name are told apart, on both sides."""
        for hello, words, goodbye in (
            (evolve(HELLO, protocol=2), "speaks version 2 of the tunnel's protocol", "protocol-1-only"),
            (evolve(HELLO, mode=Mode.L2), "builds an L2 tunnel, this end an L3 one", "mode-is-L3"),
            (evolve(HELLO, device="rpi-other"), "says that it is 'rpi-other', not rpi-onsite", "unexpected-device"),
        ):
            await self.assert_ends(hello.encode(), TunnelFailed, words, goodbye)

    async def test_optional_frames(self) -> None:
        """Frames of a later version that may be skipped are skipped."""
        lone, rogue = await self.joined()
        rogue.say(frame(OPTIONAL | 5, b"news") + frame(PACKET, sent := packet(Mode.L3, b"after it")))
        self.assertEqual(await lone.site.packets.when_written(1), [sent])

    async def test_goodbye(self) -> None:
        """A goodbye of the other end closes this one in order, without an error, and is answered."""
        lone, rogue = await self.joined()
        rogue.say(frame(GOODBYE, b"closed"))
        self.assertEqual(
            [payload for number, payload in frames(await rogue.hear_all()) if number == GOODBYE], [b"closed"]
        )
        await rogue.leave()
        self.assertIsNone(await lone.tunnel.closed)

    async def test_bad_goodbye(self) -> None:
        """A goodbye with another word is that error; what it says cannot play tricks on a terminal."""
        lone, rogue = await self.joined()
        rogue.say(frame(GOODBYE, "no\x1b[2Jfun\xff".encode("latin-1")))
        await rogue.hear_all()
        await rogue.leave()
        await self.assert_refused(lone.tunnel.closed, TunnelFailed, "rpi-onsite left the tunnel: no?[2Jfun")

    async def test_hang_up(self) -> None:
        """An end that hangs up without goodbye has broken the tunnel."""
        lone, rogue = await self.joined()
        await rogue.leave()
        await self.assert_refused(lone.tunnel.closed, TunnelFailed, "the tunnel to rpi-onsite broke")

    async def test_no_hello(self) -> None:
        """An end that never says hello is given up after 15 s."""
        lone, rogue = await self.meet()
        await rogue.hear()
        for _ in range(5):
            rogue.say(frame(ANSWER, bytes(8)))
            self.clock.advance(2.9)
        self.assertNoResult(lone.carried)
        self.clock.advance(0.6)
        await self.assert_refused(lone.carried, TunnelFailed, "did not say hello within 15 s")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)

    async def test_closed_to_the_deaf(self) -> None:
        """Closing takes 1 s at most, even if the other end neither reads nor hangs up."""
        lone, _ = await self.joined()
        closing = lone.tunnel.close()
        self.clock.advance(0.9)
        self.assertNoResult(closing)
        self.clock.advance(0.2)
        await closing
        self.assertIsNone(await lone.tunnel.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    async def test_heartbeat_flood(self) -> None:
        """Heartbeats are answered, the last one if they come too fast, and never pile up."""
        lone, rogue = await self.joined()
        for _ in range(50):
            await rogue.pour(b"".join(frame(HEARTBEAT, struct.pack("!Q", n)) for n in range(1000)))
        stamps: list[bytes] = []
        heard = b""
        while struct.pack("!Q", 999) not in stamps:
            heard += await rogue.hear()
            stamps = [payload for number, payload in frames(heard) if number == ANSWER]
        self.assertLess(len(stamps), 1000)
        self.assertFalse(lone.tunnel.closed.called)
