"""What happens on the server is in its audit trail: who, from where, how long, how much; and a flood is a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.chronicle import (
    _RECORDED,
    INTERVAL_SECONDS,
    MOVES,
    SESSIONS,
    STRANGERS,
    STRANGERS_PER_ADDRESS,
    Chronicle,
)
from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    Event,
    SessionEnded,
    SessionOpened,
    SessionRefused,
    SessionUp,
)
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.testing.audit import MemoryTrail
from rdvtwisted.values import EndReason, Mode, Role, SessionState, SessionView
from rdvtwisted.verification import verify

NOW = 1_704_067_200.0
ARRIVED = DeviceArrived("rpi1101", Role.MASTER, "192.0.2.9:4712", "tls", "SHA256:abc")
PENDING = SessionView(SessionState.PENDING, "s1", "rpi1101", "rpi1100", Mode.L3, "tls", "relay", NOW)


class ChronicleTests(SynchronousTestCase):
    """Events, and the trail that they leave."""

    def setUp(self) -> None:
        """A chronicle on an empty trail."""
        self.trail = MemoryTrail()
        self.clock = Clock()
        self.clock.rightNow = NOW
        #: How far the wall clock was set ahead.
        self.ahead = 0.0
        self.chronicle = Chronicle(self.trail, self.clock, self.wall)

    def wall(self) -> float:
        """The wall clock."""
        return self.clock.seconds() + self.ahead

    def facts(self) -> list[dict[str, Any]]:
        """What was recorded."""
        return [{key: value for key, value in deed.facts().items() if key != "time"} for deed in self.trail.deeds]

    def test_provides(self) -> None:
        """It takes events."""
        verifyObject(IEventSink, self.chronicle)

    def test_every_event(self) -> None:
        """There is no kind of event that leaves no trail."""
        self.assertEqual(set(_RECORDED), set(get_args(Event)))

    def test_session(self) -> None:
        """A session's trail says who came from where with which key, to whom, how long, how much, and why it ended."""
        up = evolve(PENDING, state=SessionState.UP, up_at=NOW + 3)
        self.chronicle.emit(ARRIVED)
        self.chronicle.emit(SessionOpened(PENDING))
        self.clock.advance(3)
        self.chronicle.emit(SessionUp(up))
        self.clock.advance(60.5)
        self.chronicle.emit(SessionEnded(evolve(up, to_onsite=10, to_master=20), EndReason.MASTER_LEFT))
        self.chronicle.emit(DeviceLeft("rpi1101", Role.MASTER, "the connection was lost"))
        whence = {"address": "192.0.2.9:4712", "door": "tls", "fingerprint": "SHA256:abc"}
        session = {
            "device": "rpi1100",
            "master": "rpi1101",
            "session": "s1",
            "mode": "L3",
            "backend": "tls",
            "join": "relay",
        }
        self.assertEqual(
            self.facts(),
            [
                {"action": "device-arrived", "actor": "device:rpi1101", "device": "rpi1101", **whence},
                {"action": "session-opened", "actor": "device:rpi1101", **session, **whence},
                {"action": "session-up", "actor": "server", "duration_ms": 3000, **session},
                {
                    "action": "session-ended",
                    "actor": "server",
                    "duration_ms": 60_500,
                    "bytes_to_onsite": 10,
                    "bytes_to_master": 20,
                    "reason": "master-left",
                    **session,
                },
                {
                    "action": "device-left",
                    "actor": "device:rpi1101",
                    "device": "rpi1101",
                    "reason": "the connection was lost",
                    **whence,
                },
            ],
        )
        self.assertEqual([deed.time - NOW for deed in self.trail.deeds], [0, 0, 3, 63.5, 63.5])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_up(self) -> None:
        """A session that never was up has lasted no time."""
        self.chronicle.emit(SessionOpened(PENDING))
        self.chronicle.emit(SessionEnded(PENDING, EndReason.BUILD_TIMEOUT))
        ended = self.facts()[-1]
        self.assertEqual((ended["duration_ms"], ended["bytes_to_onsite"], ended["reason"]), (0, 0, "build-timeout"))

    def test_refused(self) -> None:
        """Who was refused is in it: from where, at which door, with which account, why."""
        self.chronicle.emit(EntryRefused("ssh", "192.0.2.1:4711", "root", "unknown account"))
        self.assertEqual(
            self.facts(),
            [
                {
                    "action": "refused",
                    "actor": "stranger:root",
                    "address": "192.0.2.1:4711",
                    "door": "ssh",
                    "reason": "unknown account",
                }
            ],
        )

    def test_session_refused(self) -> None:
        """A master that is refused an onsite is in it, with the reason; one that insists is counted."""
        refused = SessionRefused("rpi1101", "rpi1100", "198.51.100.6:4712", "OnsiteDeviceIsNotRegistered: not online")
        self.chronicle.emit(refused)
        (facts,) = self.facts()
        self.assertEqual((facts["action"], facts["actor"]), ("session-refused", "device:rpi1101"))
        self.assertEqual((facts["device"], facts["master"]), ("rpi1100", "rpi1101"))
        self.assertEqual((facts["address"], facts["reason"]), (refused.address, refused.reason))
        own, more = self.sum_up(lambda _: refused, 1000)
        self.assertEqual(
            (len(own) + 1, more[0]["count"], more[0]["master"]), (SESSIONS + 1, 1001 - SESSIONS, "rpi1101")
        )

    def sum_up(self, flood: Callable[[int], Event], count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What C{count} events in one interval leave: entries of their own, and entries that count."""
        for number in range(count):
            self.chronicle.emit(flood(number))
        self.clock.advance(INTERVAL_SECONDS)
        facts = self.facts()
        return [each for each in facts if each["action"] != "more"], [
            each for each in facts if each["action"] == "more"
        ]

    def test_flood_from_everywhere(self) -> None:
        """Strangers from everywhere get some entries a minute, and their number."""
        own, more = self.sum_up(lambda n: EntryRefused("ssh", f"[2001:db8:{n:x}::1]:4711", "root", "no"), 5000)
        self.assertEqual(len(own), STRANGERS)
        self.assertEqual(
            more,
            [
                {
                    "action": "more",
                    "actor": "server",
                    "door": "ssh",
                    "count": 5000 - STRANGERS,
                    "duration_ms": 60_000,
                    "reason": "refused",
                }
            ],
        )
        self.chronicle.emit(ARRIVED)
        self.assertEqual(self.facts()[-1]["action"], "device-arrived")

    def test_flood_from_one(self) -> None:
        """A stranger who tries again and again does not keep others out of the trail."""
        own, more = self.sum_up(lambda n: EntryRefused("ssh", f"192.0.2.1:{n}", "root", "no"), 1000)
        self.assertEqual((len(own), more[0]["count"]), (STRANGERS_PER_ADDRESS, 1000 - STRANGERS_PER_ADDRESS))

    def test_others_in_a_flood(self) -> None:
        """In the same minute a stranger from elsewhere has an entry, and so has one at the other door."""
        for number in range(1000):
            self.chronicle.emit(EntryRefused("ssh", f"192.0.2.1:{number}", "root", "no"))
        self.chronicle.emit(EntryRefused("ssh", "198.51.100.1:1", "root", "no"))
        self.chronicle.emit(EntryRefused("tls", "192.0.2.1:1", "root", "no"))
        self.assertEqual([each["address"] for each in self.facts()[-2:]], ["198.51.100.1:1", "192.0.2.1:1"])

    def test_next_minute(self) -> None:
        """The next minute begins anew, also when the clock was set back."""
        for seconds in (INTERVAL_SECONDS, -3600.0):
            self.sum_up(lambda n: EntryRefused("ssh", "192.0.2.1:1", "root", "no"), 10)
            before = len(self.trail.deeds)
            self.clock.rightNow += seconds
            self.chronicle.emit(EntryRefused("ssh", "192.0.2.1:1", "root", "no"))
            self.assertEqual(len(self.trail.deeds), before + 1)

    def test_restless_device(self) -> None:
        """A device that comes and goes all the time is counted; from another address it has an entry of its own."""
        own, more = self.sum_up(lambda n: ARRIVED, 1000)
        self.assertEqual(len(own), MOVES)
        self.assertEqual((more[0]["count"], more[0]["device"], more[0]["reason"]), (980, "rpi1101", "device-arrived"))

    def test_stolen_key(self) -> None:
        """Who comes with a device's key from elsewhere does not hide behind the device's own coming and going."""
        for _ in range(1000):
            self.chronicle.emit(ARRIVED)
        self.chronicle.emit(evolve(ARRIVED, address="198.51.100.1:1"))
        self.assertEqual(self.facts()[-1]["address"], "198.51.100.1:1")

    def test_many_sessions(self) -> None:
        """Of very many sessions of two devices in a minute the trail has number and bytes; with others, each."""
        for number in range(100):
            view = evolve(PENDING, id=f"s{number}", to_onsite=5, to_master=7)
            self.chronicle.emit(SessionOpened(view))
            self.chronicle.emit(SessionEnded(view, EndReason.OPERATOR))
        self.chronicle.emit(SessionOpened(evolve(PENDING, id="other", onsite="rpi1102")))
        self.assertEqual(self.facts()[-1]["session"], "other")
        self.chronicle.stop()
        counted = 100 - SESSIONS
        more = {each["reason"]: each for each in self.facts() if each["action"] == "more"}
        pair = {"action": "more", "actor": "server", "device": "rpi1100", "master": "rpi1101", "duration_ms": 0}
        self.assertEqual(
            more,
            {
                "session-opened": {**pair, "count": counted, "reason": "session-opened"},
                "session-ended": {
                    **pair,
                    "count": counted,
                    "reason": "session-ended",
                    "bytes_to_onsite": counted * 5,
                    "bytes_to_master": counted * 7,
                },
            },
        )

    def test_recorded_to_its_end(self) -> None:
        """A session whose beginning is in the trail has its end there, whatever comes between."""
        self.chronicle.emit(SessionOpened(PENDING))
        for number in range(100):
            self.chronicle.emit(SessionOpened(evolve(PENDING, id=f"more{number}")))
        self.chronicle.emit(SessionEnded(PENDING, EndReason.OPERATOR))
        self.assertEqual((self.facts()[-1]["action"], self.facts()[-1]["session"]), ("session-ended", "s1"))
        self.chronicle.stop()

    def test_wall_clock_set(self) -> None:
        """When somebody sets the wall clock, entries have the new time, and what lasts has lasted as long as it did."""
        up = evolve(PENDING, state=SessionState.UP, up_at=NOW)
        self.chronicle.emit(SessionOpened(PENDING))
        for _ in range(STRANGERS_PER_ADDRESS + 1):
            self.chronicle.emit(EntryRefused("ssh", "192.0.2.1:1", "root", "no"))
        self.ahead = 86_400.0
        self.clock.advance(INTERVAL_SECONDS)
        self.chronicle.emit(SessionEnded(up, EndReason.OPERATOR))
        more, ended = self.trail.deeds[-2:]
        self.assertEqual((more.time, ended.time), (NOW + 86_460, NOW + 86_460))
        self.assertEqual((more.duration, ended.duration), (60.0, 60.0))

    def test_stop(self) -> None:
        """When the server stops, what was counted is recorded, once."""
        for _ in range(STRANGERS_PER_ADDRESS + 1):
            self.chronicle.emit(EntryRefused("ssh", "192.0.2.1:1", "root", "no"))
        self.chronicle.stop()
        self.chronicle.stop()
        self.assertEqual([each.get("count") for each in self.facts()], [None] * STRANGERS_PER_ADDRESS + [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(
        st.lists(
            st.builds(EntryRefused, st.sampled_from(["ssh", "tls"]), st.text(), st.text(), st.text())
            | st.builds(DeviceArrived, st.text(), st.sampled_from(Role), st.text(), st.text(), st.text())
            | st.builds(DeviceLeft, st.text(), st.sampled_from(Role), st.text())
            | st.builds(SessionOpened, st.just(PENDING))
            | st.builds(SessionEnded, st.just(PENDING), st.sampled_from(EndReason)),
            max_size=40,
        )
    )
    def test_any_events(self, events: list[Event]) -> None:
        """Whatever happens, and whatever peers say, the trail is whole."""
        chronicle = Chronicle(self.trail, self.clock, self.wall)
        for event in events:
            chronicle.emit(event)
        chronicle.stop()
        self.assertIsNone(verify(self.trail.lines()).broken)
