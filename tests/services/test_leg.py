"""A leg: whichever of tunnel, network, server, time limit or operator ends it, all of it is taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.errors import (
    AccessDenied,
    ConfigError,
    ConnectionLost,
    NetworkError,
    NoSession,
    PartnerGone,
    PeerKeyChanged,
    RDVError,
    TicketRefused,
    TunnelFailed,
)
from rdvtwisted.interfaces import IDeviceTunnel
from rdvtwisted.plan import Plan
from rdvtwisted.requests import GetSession, WaitForSessionChange
from rdvtwisted.services.boundary import Boundary
from rdvtwisted.services.guard import REST_SECONDS
from rdvtwisted.services.leg import VERDICT_SECONDS, WATCH_SECONDS, Ending, Leg
from rdvtwisted.services.link import Link
from rdvtwisted.values import EndReason, SessionState, SessionView, TunnelReport

REPORT = TunnelReport("twin", "group", "cipher")


@implementer(IDeviceTunnel)
class _Tunnel:
    """A tunnel whose every step the test decides."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.attached: Deferred[str] = Deferred()
        self.carrying: Deferred[TunnelReport] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def attach(self) -> Deferred[str]:
        self.events.append("attach")
        return self.attached

    def carry(self) -> Deferred[TunnelReport]:
        self.events.append("carry")
        return self.carrying

    def report(self) -> TunnelReport:
        return REPORT

    def close(self) -> Deferred[None]:
        self.events.append("close")
        return succeed(None)


class _Network:
    """A network that takes its time."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.applied: Deferred[None] = Deferred()
        self.refusal: RDVError | None = None
        self.changed: Callable[[], None] = lambda: None

    def apply(self, plan: Plan) -> Deferred[None]:
        self.events.append("apply")
        return self.applied

    def amend(self, plan: Plan) -> Deferred[None]:
        self.events.append(f"amend {plan.owner}")
        return succeed(None)

    def restore(self, owner: str) -> Deferred[list[str]]:
        if self.refusal is not None:
            return fail(self.refusal)
        return succeed([])

    def watch(self, changed: Callable[[], None], everything: bool = False) -> Callable[[], None]:
        self.changed = changed
        return lambda: None

    def undo(self, owner: str) -> Deferred[None]:
        self.events.append(f"undo {owner}")
        return succeed(None)


class _Link:
    """A link on which the test answers."""

    old = False

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.questions: list[tuple[Any, Deferred[Any]]] = []

    def ask(self, asked: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.questions.append((asked, answer))
        return answer

    async def end_session(self, reason: EndReason, session: str = "") -> None:
        self.events.append(f"tell {reason}")


class LegTests(SynchronousTestCase):
    """One leg among neighbours that do what the test says."""

    def setUp(self) -> None:
        """A leg that has begun."""
        self.clock = Clock()
        self.begin(None)

    def begin(self, seconds: float | None, boundary: Boundary | None = None, glued: bool = False) -> None:
        """Run a leg."""
        self.events: list[str] = []
        self.tunnel = _Tunnel(self.events)
        self.network = _Network(self.events)
        self.link = _Link(self.events)
        self.leg = Leg(
            session="s1",
            tunnel=cast(Any, self.tunnel),
            network=cast(Any, self.network),
            plan=Plan("owner", ()),
            link=cast(Link, self.link),
            clock=self.clock,
            boundary=boundary,
            glued=glued,
        )
        self.ending: Deferred[Ending] = Deferred.fromCoroutine(self.leg.run(seconds, self.note))
        self.addCleanup(self.ending.cancel)

    def note(self, report: TunnelReport) -> None:
        """The leg is up."""
        self.events.append("up")

    def bring_up(self) -> None:
        """Everything works."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.callback(None)
        self.tunnel.carrying.callback(REPORT)

    def answer(self, state: SessionState, reason: EndReason | None = None, grant: int = 1) -> None:
        """The server answers the last question."""
        self.link.questions[-1][1].callback(SessionView(state=state, reason=reason, grant=grant))

    def assert_ended(self, reason: EndReason, error: type[RDVError] | None = None) -> None:
        """The leg ended with this, and taking it away leaves nothing."""
        ending = self.successResultOf(self.ending)
        self.assertEqual((ending.reason, type(ending.error)), (reason, error or type(None)))
        self.successResultOf(Deferred.fromCoroutine(self.leg.dismantle(ending.reason)))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_provides(self) -> None:
        """The twin is a tunnel."""
        verifyObject(IDeviceTunnel, self.tunnel)

    def test_order(self) -> None:
        """First the interface, then the network, then the tunnel: who hears from it, reaches what is behind it."""
        self.assertEqual(self.events, ["attach"])
        self.tunnel.attached.callback("rdv0")
        self.assertEqual(self.events, ["attach", "apply"])
        self.network.applied.callback(None)
        self.assertEqual(self.events, ["attach", "apply", "carry"])
        self.tunnel.carrying.callback(REPORT)
        self.assertEqual(self.events[-1], "up")
        self.assertNoResult(self.ending)

    def test_glued(self) -> None:
        """
        A session that the server joins is up when both devices' tunnels are there, which the server alone can
        tell; the time limit counts from then.
        """
        self.ending.cancel()
        self.begin(60.0, glued=True)
        self.bring_up()
        self.answer(SessionState.BUILDING)
        self.clock.advance(100)
        self.assertNotIn("up", self.events)
        self.answer(SessionState.UP)
        self.assertEqual(self.events[-1], "up")
        self.clock.advance(59.9)
        self.assertNoResult(self.ending)
        self.clock.advance(0.1)
        self.assert_ended(EndReason.TIME_LIMIT)

    def test_glued_last(self) -> None:
        """Where the other device's tunnel was there first, the session is up with this one's."""
        self.ending.cancel()
        self.begin(None, glued=True)
        self.answer(SessionState.UP)
        self.assertNotIn("up", self.events)
        self.bring_up()
        self.assertEqual(self.events[-1], "up")

    def test_glued_alone(self) -> None:
        """A session whose other device never comes was never up."""
        self.ending.cancel()
        self.begin(None, glued=True)
        self.bring_up()
        self.answer(SessionState.NONE, EndReason.BUILD_TIMEOUT)
        self.assert_ended(EndReason.BUILD_TIMEOUT)
        self.assertNotIn("up", self.events)

    def test_glued_operator(self) -> None:
        """Nor one that is given up meanwhile."""
        self.ending.cancel()
        self.begin(None, glued=True)
        self.bring_up()
        self.ending.cancel()
        self.assert_ended(EndReason.OPERATOR)
        self.assertNotIn("up", self.events)

    def test_operator(self) -> None:
        """Cancelling is the operator's end; the server is told before anything is taken away."""
        self.bring_up()
        self.ending.cancel()
        self.assert_ended(EndReason.OPERATOR)
        self.assertEqual(self.events[-3:], ["tell operator", "close", "undo owner"])

    def test_operator_while_building(self) -> None:
        """The operator may end it at any stage."""
        self.ending.cancel()
        self.assert_ended(EndReason.OPERATOR)
        self.assertEqual(self.events, ["attach", "tell operator", "close"])

    def test_time_limit(self) -> None:
        """The time limit counts from when packets flow."""
        self.ending.cancel()
        self.begin(60.0)
        self.clock.advance(100)
        self.bring_up()
        self.clock.advance(59.9)
        self.assertNoResult(self.ending)
        self.clock.advance(0.1)
        self.assert_ended(EndReason.TIME_LIMIT)

    def test_server_ends(self) -> None:
        """What the server says of the end is its reason."""
        self.bring_up()
        self.answer(SessionState.UP)
        self.assertIs(self.link.questions[-1][0].state, SessionState.UP)
        self.answer(SessionState.NONE, EndReason.ADMINISTRATOR)
        self.assert_ended(EndReason.ADMINISTRATOR)

    def test_busy_server(self) -> None:
        """A server that answers at once that nothing has changed is asked some times, and then once a second."""
        self.bring_up()
        for _ in range(60):
            for _ in range(100):
                if self.link.questions[-1][1].called:
                    break
                self.answer(SessionState.UP)
            self.clock.advance(1.0)
        self.assertTrue(60 <= len(self.link.questions) <= 75, len(self.link.questions))
        self.ending.cancel()
        self.assert_ended(EndReason.OPERATOR)

    def test_server_gone(self) -> None:
        """Losing the server ends the session, with the loss as the error."""
        self.bring_up()
        self.link.questions[-1][1].errback(ConnectionLost("the server has not answered for 15 s"))
        self.assert_ended(EndReason.TUNNEL_LOST, ConnectionLost)

    def test_tunnel_breaks_for_a_reason(self) -> None:
        """A tunnel that ends because the other side ended the session has that side's reason, and is no error."""
        self.bring_up()
        self.tunnel.closed.callback(None)
        self.assertNoResult(self.ending)
        self.answer(SessionState.NONE, EndReason.MASTER_LEFT)
        self.assert_ended(EndReason.MASTER_LEFT)

    def test_tunnel_breaks(self) -> None:
        """A tunnel that breaks while the server knows nothing of it is lost, with its error."""
        self.bring_up()
        self.tunnel.closed.errback(TunnelFailed("nothing was heard for 15 s"))
        self.clock.advance(VERDICT_SECONDS)
        self.assert_ended(EndReason.TUNNEL_LOST, TunnelFailed)

    def test_server_lost_with_the_tunnel(self) -> None:
        """Where the connection to the server is lost with the tunnel, that is what the operator reads."""
        self.bring_up()
        self.tunnel.closed.errback(TunnelFailed("it broke"))
        self.link.questions[-1][1].errback(ConnectionLost("the server went away"))
        self.assert_ended(EndReason.TUNNEL_LOST, ConnectionLost)

    def test_tunnel_cannot_be_built(self) -> None:
        """A tunnel that fails while it is built tells why, to the server too."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.callback(None)
        self.tunnel.carrying.errback(TunnelFailed("no answer"))
        self.assert_ended(EndReason.TUNNEL_FAILED, TunnelFailed)
        self.assertEqual(self.events[-3:], ["tell tunnel-failed", "close", "undo owner"])

    def test_too_late_for_the_ticket(self) -> None:
        """A ticket is refused when the session is over already; then the reason of that is what the operator reads."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.callback(None)
        self.tunnel.carrying.errback(TicketRefused("the ticket is unknown"))
        self.assertNoResult(self.ending)
        self.answer(SessionState.NONE, EndReason.ONSITE_LEFT)
        self.assert_ended(EndReason.ONSITE_LEFT)

    def test_partner_gone(self) -> None:
        """When the other device breaks off, the operator reads why, as the server knows or else as it was seen."""
        for answered in (True, False):
            self.begin(None)
            self.tunnel.attached.callback("rdv0")
            self.network.applied.callback(None)
            self.tunnel.carrying.errback(PartnerGone("rpi1100 broke off"))
            self.assertNoResult(self.ending)
            if answered:
                self.answer(SessionState.NONE, EndReason.HOOK_REFUSED)
                self.assert_ended(EndReason.HOOK_REFUSED)
            else:
                self.clock.advance(VERDICT_SECONDS)
                self.assert_ended(EndReason.TUNNEL_FAILED, PartnerGone)

    def test_ticket_refused(self) -> None:
        """A ticket that is refused though the session is not over is the error."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.callback(None)
        self.tunnel.carrying.errback(TicketRefused("the ticket is unknown"))
        self.clock.advance(VERDICT_SECONDS)
        self.assert_ended(EndReason.TUNNEL_FAILED, TicketRefused)

    def test_wrong_peer(self) -> None:
        """A peer with another key is a reason of its own."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.callback(None)
        self.tunnel.carrying.errback(PeerKeyChanged("rpi1100", "a", "b", "cure"))
        self.assert_ended(EndReason.PEER_KEY_REFUSED, PeerKeyChanged)

    def test_network_refuses(self) -> None:
        """A network that cannot be configured ends the leg before its tunnel connects."""
        self.tunnel.attached.callback("rdv0")
        self.network.applied.errback(NetworkError("no"))
        self.assert_ended(EndReason.TUNNEL_FAILED, NetworkError)

    def test_network_broken_by_others(self) -> None:
        """When others change the network in use, and it can't be put back, the leg ends."""
        self.bring_up()
        self.clock.advance(REST_SECONDS)
        self.network.changed()
        self.assertNoResult(self.ending)
        self.clock.advance(REST_SECONDS)
        self.network.refusal = NetworkError("no such device")
        self.network.changed()
        self.clock.advance(REST_SECONDS)
        self.assert_ended(EndReason.TUNNEL_FAILED, NetworkError)

    def test_no_interface(self) -> None:
        """Without an interface nothing is configured, and nothing undone."""
        self.tunnel.attached.errback(NetworkError("no /dev/net/tun"))
        self.assert_ended(EndReason.TUNNEL_FAILED, NetworkError)
        self.assertEqual(self.events, ["attach", "tell tunnel-failed", "close"])

    def test_fault(self) -> None:
        """A fault of the program is not taken for a failure of the tunnel: it is the caller's to see."""
        self.tunnel.attached.errback(ZeroDivisionError())
        self.failureResultOf(self.ending, ZeroDivisionError)


class _Boundary:
    """Says what the test says."""

    def __init__(self, number: int | None = 1) -> None:
        self.number = number
        self.ends_at: float | None = None
        self.plan = Plan("narrower", ())
        self.renewed: list[int] = []
        self.answer: bool | Exception = False

    async def renew(self, number: int) -> bool:
        self.renewed.append(number)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class BoundaryTests(LegTests):
    """A leg that has to keep within a boundary; as long as that does not change it is as any other."""

    def begin(self, seconds: float | None, boundary: Boundary | None = None, glued: bool = False) -> None:
        """Run a leg within a boundary."""
        self.boundary = _Boundary()
        super().begin(seconds, cast(Boundary, self.boundary), glued)

    def question(self) -> Any:
        """What the server is asked now."""
        return self.link.questions[-1][0]

    def test_asks(self) -> None:
        """It asks for changes of the session and of what may be done, and looks at its own rules between."""
        self.assertEqual(self.question(), WaitForSessionChange(SessionState.BUILDING, WATCH_SECONDS, 1))
        self.bring_up()
        self.answer(SessionState.UP)
        self.assertEqual(self.question(), WaitForSessionChange(SessionState.UP, WATCH_SECONDS, 1))
        self.answer(SessionState.UP, grant=2)
        self.assertEqual(self.boundary.renewed, [1, 2])
        self.assertNotIn("amend narrower", self.events)
        self.assertNoResult(self.ending)

    def test_amends(self) -> None:
        """What is different is so at once in the kernel, too, and is what is undone in the end."""
        self.bring_up()
        self.boundary.answer = True
        self.answer(SessionState.UP, grant=2)
        self.assertEqual(self.events[-1], "amend narrower")
        self.ending.cancel()
        self.assert_ended(EndReason.OPERATOR)
        self.assertEqual(self.events[-1], "undo narrower")

    def test_changed_while_building(self) -> None:
        """What changes before the network is configured is configured so from the beginning."""
        self.boundary.answer = True
        self.answer(SessionState.BUILDING, grant=2)
        self.assertEqual(self.events, ["attach"])
        self.bring_up()
        self.assertIs(self.leg.plan, self.boundary.plan)
        self.assertNotIn("amend narrower", self.events)

    def test_denied(self) -> None:
        """What may not be any more ends, for this reason."""
        self.bring_up()
        self.boundary.answer = AccessDenied("no more")
        self.answer(SessionState.UP)
        self.assert_ended(EndReason.ACCESS_DENIED, AccessDenied)

    def test_rules_broken(self) -> None:
        """Rules that cannot be used allow nothing."""
        self.bring_up()
        self.boundary.answer = ConfigError("access.allow", "nonsense")
        self.answer(SessionState.UP)
        self.assert_ended(EndReason.ACCESS_DENIED, ConfigError)

    def test_kernel_refuses(self) -> None:
        """If the kernel does not take a change the session ends."""
        self.bring_up()
        self.boundary.answer = NetworkError("busy")
        self.answer(SessionState.UP)
        self.assert_ended(EndReason.TUNNEL_FAILED, NetworkError)

    def test_server_gone_between(self) -> None:
        """Losing the server while asking is the loss of the server."""
        self.bring_up()
        self.boundary.answer = ConnectionLost("cut")
        self.answer(SessionState.UP)
        self.assert_ended(EndReason.TUNNEL_LOST, ConnectionLost)

    def test_over_between(self) -> None:
        """If the session ends between two questions the server says why."""
        self.bring_up()
        self.boundary.answer = NoSession()
        self.answer(SessionState.UP)
        self.assertEqual(self.question(), GetSession())
        self.answer(SessionState.NONE, EndReason.ACCESS_REVOKED)
        self.assert_ended(EndReason.ACCESS_REVOKED)

    def test_hard_end(self) -> None:
        """The session ends when it must, however long the operator wants it; that can change while it lasts."""
        self.ending.cancel()
        self.begin(60.0)
        self.boundary.ends_at = 50.0
        self.clock.advance(20)
        self.bring_up()
        self.clock.advance(20)
        self.boundary.ends_at = 70.0
        self.answer(SessionState.UP)
        self.clock.advance(29.9)
        self.assertNoResult(self.ending)
        self.clock.advance(0.1)
        self.assert_ended(EndReason.TIME_LIMIT)

    def test_hard_end_is_past(self) -> None:
        """A session that must be over when it is up ends at once; without an end it goes on."""
        self.boundary.ends_at = 5.0
        self.clock.advance(6)
        self.bring_up()
        self.clock.advance(0)
        self.assert_ended(EndReason.TIME_LIMIT)

    def test_hard_end_is_lifted(self) -> None:
        """An end that is taken back is none."""
        self.boundary.ends_at = 5.0
        self.bring_up()
        self.boundary.ends_at = None
        self.answer(SessionState.UP)
        self.clock.advance(100)
        self.assertNoResult(self.ending)
