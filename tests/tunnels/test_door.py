"""The way in at the server's door, and everything that can go wrong there."""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.task import deferLater
from zope.interface import implementer

from rdvtwisted.errors import InvalidValue, ProtocolError, TicketRefused, TunnelFailed, TunnelSilent
from rdvtwisted.values import Role
from tests.tunnels.door import Authority
from tests.tunnels.session import SessionCase, descriptors


@implementer(IStreamClientEndpoint)
class Nowhere:
    """An endpoint that neither connects nor fails."""

    def __init__(self) -> None:
        self.cancelled = False

    def connect(self, protocolFactory: object) -> Deferred[object]:
        """Wait for ever."""

        def cancel(waiting: Deferred[object]) -> None:
            self.cancelled = True

        return Deferred(cancel)


class EntranceTests(SessionCase):
    """A device at the server's TLS door."""

    async def test_ticket(self) -> None:
        """The device shows its key and its ticket, and then says nothing until the server has ended its TLS."""
        self.door.joins = False
        await self.started(self.site(Role.MASTER))
        await self.door.when("entered")
        (visit,) = self.door.visits
        self.assertEqual(visit.line, b"RDV-TUNNEL/1 ticket-1\n")
        self.assertEqual(visit.key, self.identities[Role.MASTER].public)
        await self.until(lambda: visit.inner)
        self.assertEqual(visit.inner[:1], b"\x16")  # a TLS handshake record again
        self.assertEqual(self.door.impatient, [])

    async def test_other_authority(self) -> None:
        """A server whose certificate another authority has signed never sees the ticket."""
        lone = await self.started(self.site(Role.MASTER, authority=Authority().der))
        await self.assert_refused(lone.carried, TunnelFailed, "is not the server that this device knows")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        self.assertEqual(self.door.visits[0].line, b"")

    async def test_bad_authority(self) -> None:
        """An authority that is no certificate is refused before anything is sent."""
        lone = await self.started(self.site(Role.MASTER, authority=b"0123"))
        await self.assert_refused(lone.carried, InvalidValue, "certificate authority")
        await self.assert_refused(lone.tunnel.closed, InvalidValue)
        self.assertEqual(self.door.visits, [])

    async def test_other_protocol(self) -> None:
        """A TLS server that does not know tunnel streams does not get the ticket either."""
        for alpn in (b"http/1.1", SSL.NO_OVERLAPPING_PROTOCOLS):
            self.door.alpn = alpn
            lone = await self.started(self.site(Role.MASTER))
            await self.assert_refused(lone.carried, TunnelFailed, "the server")
            await self.assert_refused(lone.tunnel.closed, TunnelFailed)
            self.assertEqual(self.door.visits[-1].line, b"")

    async def test_refused_ticket(self) -> None:
        """The server's reason is told to the user, but cannot play tricks on a terminal."""
        self.door.answer = b"ERR used \x1b[2Jalready\n"
        lone = await self.started(self.site(Role.MASTER))
        await self.assert_refused(lone.carried, TicketRefused, "used ?[2Jalready")
        await self.assert_refused(lone.tunnel.closed, TicketRefused)

    async def test_odd_answers(self) -> None:
        """An answer that is neither OK nor ERR, too long, or followed by more, ends the tunnel."""
        for answer in (b"HTTP/1.1 400 Bad Request\n", b"x" * 300, b"OK\nand more", b"OK\nOK\n"):
            self.door.answer = answer
            lone = await self.started(self.site(Role.MASTER))
            await self.assert_refused(lone.carried, ProtocolError)
            await self.assert_refused(lone.tunnel.closed, ProtocolError)

    async def test_talkative(self) -> None:
        """A server that goes on speaking inside its TLS, after its OK, ends the tunnel."""
        self.door.afterthought = b"by the way"
        lone = await self.started(self.site(Role.MASTER))
        await self.assert_refused(lone.carried, ProtocolError, "went on speaking after its OK")
        await self.assert_refused(lone.tunnel.closed, ProtocolError)

    async def test_unreachable(self) -> None:
        """A port at which nobody listens is an error at once."""
        port = reactor.listenTCP(0, self.door, interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        await maybeDeferred(port.stopListening)
        site = self.site(Role.MASTER)
        site.door = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        lone = await self.started(site)
        await self.assert_refused(lone.carried, TunnelFailed, "cannot be reached")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)

    async def test_broken_off(self) -> None:
        """A server that hangs up in the middle is named as the culprit."""
        for stage, words in (("arrived", "not the server"), ("presented", "broke off at its TLS door")):
            self.door.mute, self.door.answer = stage == "arrived", None
            lone = await self.started(self.site(Role.MASTER))
            await self.door.when(stage)
            self.door.cut()
            await self.assert_refused(lone.carried, TunnelFailed, words)
            await self.assert_refused(lone.tunnel.closed, TunnelFailed)


class PatienceTests(SessionCase):
    """No stage waits for ever, and each can be closed."""

    async def assert_patience(self, seconds: float, ready: Callable[[], Deferred[None]] | None) -> None:
        """An end that got so far gives up after so many seconds and not before; another one can be closed there."""
        await deferLater(reactor, 0)  # type: ignore[arg-type]  # the reactor opens descriptors of its own at its start
        before = descriptors()
        lone = await self.started(self.site(Role.MASTER))
        if ready is not None:
            await ready()
            await self.until(
                lambda: (
                    # What it takes to connect has the same limit as what comes first after it.
                    getattr(lone.tunnel, "_carrier", None) is not None
                    and any(c.getTime() == self.clock.seconds() + seconds for c in self.reactor.getDelayedCalls())
                )
            )
        self.clock.advance(seconds - 0.1)
        self.assertNoResult(lone.carried)
        self.clock.advance(0.2)
        await self.assert_refused(lone.carried, TunnelSilent, f"within {seconds:.0f} s")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        self.assertEqual(self.pending(), [])

        lone = await self.started(self.site(Role.MASTER))
        if ready is not None:
            await ready()
        await lone.tunnel.close()
        await self.assert_refused(lone.carried, TunnelFailed, "closed before it was built")
        self.assertIsNone(await lone.tunnel.closed)
        self.assertEqual(self.pending(), [])
        for visit in self.door.visits:
            if visit.transport is not None:
                await visit.gone
        self.assertEqual(descriptors() - before, set())

    def pending(self) -> list[IDelayedCall]:
        """What waits for time."""
        return self.reactor.getDelayedCalls()

    async def test_connecting(self) -> None:
        """The TCP connection must be there within 10 s."""
        nowhere = Nowhere()
        site = self.site(Role.MASTER)
        site.door = nowhere
        lone = await self.started(site)
        self.clock.advance(9.9)
        self.assertNoResult(lone.carried)
        self.clock.advance(0.2)
        error = await self.assert_refused(lone.carried, TunnelFailed, "did not answer within 10 s")
        self.assertIs(type(error), TunnelFailed, "nothing was there that could have fallen silent")
        await self.assert_refused(lone.tunnel.closed, TunnelFailed)
        self.assertTrue(nowhere.cancelled)
        self.assertEqual(self.pending(), [])

    async def test_handshake(self) -> None:
        """The door must finish its TLS handshake within 10 s."""
        self.door.mute = True
        await self.assert_patience(10, lambda: self.door.when("arrived"))

    async def test_answer(self) -> None:
        """The door must answer the ticket within 10 s."""
        self.door.answer = None
        await self.assert_patience(10, lambda: self.door.when("presented"))

    async def test_partner(self) -> None:
        """The other device must have come within 45 s."""
        self.door.joins = False
        await self.assert_patience(45, lambda: self.door.when("entered"))

    async def test_partner_silent(self) -> None:
        """Once the other device has begun, its handshake must be over within 15 s."""
        self.door.joins = False

        async def begin() -> None:
            await self.door.when("entered")
            visit = self.door.visits[-1]
            await self.until(lambda: visit.inner)
            assert visit.transport is not None
            visit.transport.write(b"\x16")

        await self.assert_patience(15, lambda: Deferred.fromCoroutine(begin()))
