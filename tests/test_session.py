"""A session's life: every legal way through its machine, and that no other exists."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.access import Grant
from rdvtwisted.carriers import Carrier, Choice
from rdvtwisted.errors import RequestRefused
from rdvtwisted.interfaces import ITunnelSeat
from rdvtwisted.junction import RelayJunction
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.session import (
    INQUEST_SECONDS,
    MOVE_SECONDS,
    MOVES_IN_A_ROW,
    IJunction,
    IJunctionListener,
    ISessionWorld,
    Session,
    Terms,
)
from rdvtwisted.testing.streams import MemoryRelay, MemoryStream
from rdvtwisted.values import EndReason, Lease, Mode, Role, SessionState

TLS = Carrier("tls", frozenset(Mode), 1500, True)
LEASE = Lease(IPv4Network("192.168.128.0/30"))
TERMS = Terms("s1", "rpi1101", "rpi1100", Choice("relay", Mode.L3, TLS, TLS), (LEASE,))
BUILD_SECONDS = 60.0


@implementer(ISessionWorld)
class _World:
    """Records in one list what the session tells and asks."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.relay = MemoryRelay()

    def junction(self, session: Session) -> IJunction:
        return RelayJunction(self.relay, session)

    def changed(self, session: Session) -> None:
        self.events.append(session.state.value)

    def regranted(self, session: Session) -> None:
        self.events.append(f"grant {session.grant_number}")

    def gone(self, session: Session) -> None:
        self.events.append("gone")


class SessionTests(SynchronousTestCase):
    """One session among recording neighbours."""

    def setUp(self) -> None:
        """A session that has just been selected."""
        self.clock = Clock()
        self.world = _World()
        self.session = Session(TERMS, self.world, self.clock, BUILD_SECONDS)
        self.session.begin()
        self.onsite, self.master = MemoryStream("onsite"), MemoryStream("master")

    def bring_up(self) -> None:
        """Both devices build their tunnels."""
        self.session.ask(Role.ONSITE)
        self.session.ask(Role.MASTER)
        self.session.seats[Role.ONSITE].occupy(self.onsite)
        self.session.seats[Role.MASTER].occupy(self.master)

    def test_provides(self) -> None:
        """World and seats are what they say."""
        verifyObject(ISessionWorld, self.world)
        verifyObject(ITunnelSeat, self.session.seats[Role.ONSITE])
        verifyObject(IJunctionListener, self.session)
        verifyObject(IJunction, self.session.junction)

    def test_up_and_ended(self) -> None:
        """The main story: built, joined, ended by the operator, everything given back."""
        self.clock.advance(1)
        self.bring_up()
        self.assertEqual(self.world.events, ["building", "up"])
        self.assertEqual(self.session.view().up_at, 1.0)
        self.session.end(EndReason.OPERATOR)
        self.assertEqual(self.world.events, ["building", "up", "none", "gone"])
        self.assertEqual(self.session.view().reason, EndReason.OPERATOR)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_regranted(self) -> None:
        """The world is told when something else may be done, and only then."""
        web = Scope.parse("192.168.1.10:tcp/80")
        self.assertEqual((self.session.grant, self.session.view().grant), (Grant(ALL), 1))
        for grant in (Grant(web), Grant(web, None, 5.0), Grant(web, 9.0, 5.0), Grant(web, 9.0, 9.0)):
            self.session.regrant(grant)
            self.assertEqual(self.session.grant, grant)
        self.assertEqual(self.world.events, ["grant 2", "grant 3"])
        self.assertEqual(self.session.view().grant, 3)

    def test_closing(self) -> None:
        """A session whose join takes its time to end is closing until then, and gone after."""
        self.world.relay.lingering = True
        self.bring_up()
        self.session.end(EndReason.OPERATOR)
        self.assertEqual(self.world.events[2:], ["closing"])
        self.world.relay.end(0)
        self.assertEqual(self.world.events[2:], ["closing", "none", "gone"])

    def test_order_of_streams_is_free(self) -> None:
        """Either device may be first."""
        self.session.ask(Role.MASTER)
        self.session.seats[Role.MASTER].occupy(self.master)
        self.assertIs(self.session.state, SessionState.BUILDING)
        self.session.seats[Role.ONSITE].occupy(self.onsite)
        self.assertIs(self.session.state, SessionState.UP)

    def test_tunnel_lost(self) -> None:
        """When the join ends by itself the session is over, with that as its reason."""
        self.bring_up()
        self.world.relay.end(0)
        self.clock.advance(INQUEST_SECONDS)
        self.assertEqual(self.world.events[2:], ["none", "gone"])
        self.assertIs(self.session.reason, EndReason.TUNNEL_LOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_device_lost(self) -> None:
        """When a device is gone, which is seen by its tunnel first, it is that which the session has ended for."""
        self.bring_up()
        self.world.relay.end(0)
        self.assertEqual(self.world.events[2:], [])
        self.clock.advance(INQUEST_SECONDS / 2)
        self.session.end(EndReason.ONSITE_LEFT)
        self.session.end(EndReason.OPERATOR)
        self.assertEqual(self.world.events[2:][-2:], ["none", "gone"])
        self.assertIs(self.session.reason, EndReason.ONSITE_LEFT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_builds(self) -> None:
        """A session that is not up within its time ends by itself."""
        self.clock.advance(BUILD_SECONDS)
        self.assertEqual(self.world.events, ["none", "gone"])
        self.assertIs(self.session.reason, EndReason.BUILD_TIMEOUT)

    def test_one_builds(self) -> None:
        """The time limit counts from the selection, and the stream that came is closed."""
        self.clock.advance(BUILD_SECONDS - 1)
        self.session.ask(Role.MASTER)
        self.session.seats[Role.ONSITE].occupy(self.onsite)
        self.clock.advance(1)
        self.assertIs(self.session.reason, EndReason.BUILD_TIMEOUT)
        self.assertTrue(self.onsite.aborted)

    def test_up_has_no_limit(self) -> None:
        """A session that is up stays up."""
        self.bring_up()
        self.clock.advance(BUILD_SECONDS * 1000)
        self.assertIs(self.session.state, SessionState.UP)

    def test_waits_for_consent(self) -> None:
        """
        A site that is asked has its time on top of that for building; a master that builds does not end it, and the
        onsite does by asking for its tunnel, from when on there is the usual time.
        """
        session = Session(TERMS, self.world, self.clock, BUILD_SECONDS, consent_seconds=100.0)
        self.assertEqual(session.view().waiting, "consent")
        session.ask(Role.MASTER)
        self.clock.advance(BUILD_SECONDS + 99)
        self.assertEqual((session.state, session.view().waiting), (SessionState.BUILDING, "consent"))
        session.ask(Role.ONSITE)
        self.assertEqual(session.view().waiting, "")
        self.clock.advance(BUILD_SECONDS - 1)
        self.assertIs(session.state, SessionState.BUILDING)
        self.clock.advance(1)
        self.assertIs(session.reason, EndReason.BUILD_TIMEOUT)

    def test_no_consent(self) -> None:
        """A site that never says a word, not even no, does not keep a session for ever."""
        session = Session(TERMS, self.world, self.clock, BUILD_SECONDS, consent_seconds=100.0)
        self.clock.advance(BUILD_SECONDS + 100)
        self.assertIs(session.reason, EndReason.CONSENT_TIMEOUT)
        self.assertEqual(session.view().waiting, "")

    def test_limits(self) -> None:
        """Each device may say when the session will be over, and say it anew; the earlier counts, and is kept here."""
        self.bring_up()
        self.assertIsNone(self.session.left())
        self.session.limit(Role.ONSITE, 50.0)
        self.session.limit(Role.MASTER, 20.0)
        self.assertEqual(self.session.left(), 20.0)
        self.session.limit(Role.MASTER, 90.0)
        self.assertEqual((self.session.left(), self.session.grant_number), (50.0, 4))
        self.assertEqual([event for event in self.world.events if event.startswith("grant")][-1], "grant 4")
        self.clock.advance(49)
        self.assertIs(self.session.state, SessionState.UP)
        self.clock.advance(1)
        self.assertIs(self.session.reason, EndReason.TIME_LIMIT)
        self.session.limit(Role.MASTER, 5.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def told(self) -> int:
        """How often the world was told that something else may be done, since the last time."""
        told = sum(event.startswith("grant") for event in self.world.events)
        self.world.events.clear()
        return told

    def test_limits_that_hardly_move(self) -> None:
        """A device that says what is known, give or take less than a second, has nobody told, unless it creeps away."""
        self.bring_up()
        self.session.limit(Role.MASTER, 3600.0)
        self.assertEqual(self.told(), 1)
        for second in range(100):
            self.clock.advance(1)
            self.session.limit(Role.MASTER, 3600.0 - second - 0.5)
        self.assertEqual(self.told(), 0)
        for step in range(1, 101):
            self.session.limit(Role.MASTER, 3500.0 + step / 100)
        self.assertEqual(self.told(), 1)

    def test_limits_without_end(self) -> None:
        """A master that moves the end again and again has its onsite told seldom, and at last what holds."""
        self.bring_up()
        for number in range(3200):
            self.session.limit(Role.MASTER, 3600.0 + number % 7 * 10)
            self.clock.advance(1 / 32)
        self.assertLessEqual(self.told(), MOVES_IN_A_ROW + 100 / MOVE_SECONDS)
        self.session.limit(Role.MASTER, 1000.0)
        self.clock.advance(MOVE_SECONDS)
        self.assertEqual(self.told(), 1)
        self.assertEqual(self.session.left(), 1000.0 - MOVE_SECONDS)
        self.clock.advance(100)
        self.assertEqual(self.told(), 0)
        for number in range(MOVES_IN_A_ROW + 1):
            self.session.limit(Role.MASTER, 100.0 + number * 10)
        self.assertEqual(self.told(), MOVES_IN_A_ROW)
        self.session.end(EndReason.OPERATOR)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limit_is_forgotten(self) -> None:
        """A session that ends before its limit leaves nothing that waits."""
        self.bring_up()
        self.session.limit(Role.MASTER, 20.0)
        self.session.end(EndReason.OPERATOR)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_second_stream_for_a_seat(self) -> None:
        """A second stream for a taken seat is closed and disturbs nobody."""
        self.session.ask(Role.MASTER)
        self.session.seats[Role.ONSITE].occupy(self.onsite)
        second = MemoryStream("again")
        self.session.seats[Role.ONSITE].occupy(second)
        self.assertTrue(second.aborted)
        self.assertFalse(self.onsite.aborted)

    def test_stream_that_nobody_asked_for(self) -> None:
        """A stream before any parameters were asked for, or after the end, is closed."""
        self.session.seats[Role.ONSITE].occupy(self.onsite)
        self.session.end(EndReason.OPERATOR)
        self.session.seats[Role.MASTER].occupy(self.master)
        self.assertTrue(self.onsite.aborted and self.master.aborted)

    def test_too_late_to_build(self) -> None:
        """A device that asks for a tunnel of a joined or ended session is refused with the state."""
        self.bring_up()
        self.assertIn("SessionIsUp", str(self.assertRaises(RequestRefused, self.session.ask, Role.MASTER)))
        self.session.end(EndReason.OPERATOR)
        self.assertIn("SessionIsNone", str(self.assertRaises(RequestRefused, self.session.ask, Role.MASTER)))

    def test_first_reason_counts(self) -> None:
        """Why a session ended is what ended it, not what followed."""
        self.bring_up()
        self.session.end(EndReason.TIME_LIMIT)
        self.session.end(EndReason.MASTER_LEFT)
        self.assertIs(self.session.reason, EndReason.TIME_LIMIT)
        self.assertEqual(self.world.events.count("gone"), 1)

    def test_traffic_is_remembered(self) -> None:
        """What was carried is still known after the end."""
        self.bring_up()
        self.world.relay.joins[0].carried = (5, 7)
        self.assertEqual((self.session.view().to_onsite, self.session.view().to_master), (5, 7))
        self.session.end(EndReason.OPERATOR)
        self.assertEqual((self.session.view().to_onsite, self.session.view().to_master), (5, 7))

    @given(st.lists(st.integers(0, 6), max_size=12))
    @settings(derandomize=True, max_examples=200, deadline=None)
    def test_whatever_happens(self, steps: list[int]) -> None:
        """In any order of events the session ends at most once, and once it ended it holds no stream and no timer."""
        clock, world = Clock(), _World()
        session = Session(TERMS, world, clock, BUILD_SECONDS)
        session.begin()
        streams = []

        def occupy(role: Role) -> None:
            streams.append(MemoryStream(role.value))
            session.seats[role].occupy(streams[-1])

        def ask() -> None:
            try:
                session.ask(Role.ONSITE)
            except RequestRefused:
                pass

        def part() -> None:
            for index in range(len(world.relay.joins)):
                world.relay.end(index)

        actions = [
            ask,
            lambda: occupy(Role.ONSITE),
            lambda: occupy(Role.MASTER),
            lambda: session.end(EndReason.OPERATOR),
            lambda: clock.advance(1),
            lambda: clock.advance(BUILD_SECONDS),
            part,
        ]
        for step in steps:
            actions[step]()
        session.end(EndReason.SERVER_STOPPED)
        self.assertEqual(world.events.count("gone"), 1)
        self.assertIs(session.state, SessionState.NONE)
        self.assertEqual([stream.address for stream in streams if not stream.aborted], [])
        self.assertEqual(clock.getDelayedCalls(), [])
