"""Which sessions a server that ended without notice has left without an end, and the end that they get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.audit import Deed, Entry, Mark
from rdvtwisted.openings import Opening, Remains, remains

NOW = 1_704_067_200.0
ONE = Opening("s1", "rpi1101", "rpi1100", "L3", "tls", "relay", NOW)


def trail(*deeds: Deed) -> list[bytes]:
    """The lines of a trail, the newest first."""
    lines: list[bytes] = []
    mark: Mark | None = None
    for deed in deeds:
        entry = Entry.after(mark, deed.facts())
        lines.insert(0, entry.line[:-1])
        mark = entry.mark
    return lines


def happened(action: str, seconds: float, session: str = "", actor: str = "server") -> Deed:
    """An entry at so many seconds after L{NOW}; on a session like L{ONE}, if one is named."""
    deed = Deed(action, actor, NOW + seconds)
    if session:
        deed = evolve(deed, session=session, device="rpi1100", master="rpi1101", mode="L3", backend="tls", join="relay")
    return deed


STARTED = happened("server-started", -10)


class RemainsTests(SynchronousTestCase):
    """The end of a trail."""

    def test_nothing(self) -> None:
        """No trail, no sessions."""
        self.assertEqual(remains([], []), Remains((), None))

    def test_killed(self) -> None:
        """A session without an end is found, with when it was up, and when its server was there for the last time."""
        lines = trail(
            STARTED,
            happened("session-opened", 0, "s1"),
            happened("session-opened", 1, "s2"),
            happened("session-up", 3, "s1"),
            happened("session-ended", 4, "s2"),
            happened("session-opened", 5, "s3"),
            happened("refused", 60, actor="stranger:root"),
            happened("device-added", 900, actor="admin:root (uid 0)"),
        )
        expected = (evolve(ONE, up=NOW + 3), evolve(ONE, session="s3", opened=NOW + 5))
        self.assertEqual(remains(lines, []), Remains(expected, NOW + 60))

    def test_orderly(self) -> None:
        """Before the stop or the start of a server there is nothing to find, and no more is read than that."""

        def endless(bound: str) -> Iterator[bytes]:
            yield from trail(happened(bound, 10))
            raise AssertionError("it reads on")

        for bound in ("server-stopped", "server-started"):
            self.assertEqual(remains(endless(bound), [ONE]), Remains((), NOW + 10))

    def test_long_ago(self) -> None:
        """One whose opening is too far back to be read counts if it was noted down, and if it has not ended since."""
        noted = [ONE, evolve(ONE, session="s2", opened=NOW - 5), evolve(ONE, session="s3")]
        lines = trail(happened("session-up", 50, "s1"), happened("session-ended", 60, "s3"))
        found = remains(lines, noted)
        self.assertEqual(found, Remains((noted[1], evolve(ONE, up=NOW + 50)), NOW + 60))

    def test_noted_in_vain(self) -> None:
        """One that was noted down does not count if the trail, which is there as far back as needed, has it not."""
        self.assertEqual(remains(trail(STARTED, happened("refused", 5)), [ONE]).openings, ())

    def test_twice(self) -> None:
        """What the next server has closed stays closed when that one is killed, too."""
        lines = trail(STARTED, happened("session-opened", 0, "s1"), ONE.end(NOW + 9, None), happened("refused", 10))
        self.assertEqual(remains(lines, [ONE]).openings, ())

    @given(st.lists(st.binary(max_size=80) | st.builds(lambda rest: b'{"action":"se' + rest, st.binary())))
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_noise(self, noise: list[bytes]) -> None:
        """Lines that are no entries are passed over."""
        lines = [*noise, *trail(STARTED, happened("session-opened", 0, "s1"))]
        self.assertEqual(remains(lines, []), Remains((ONE,), NOW))

    def test_wrong_time(self) -> None:
        """So is an entry whose time is none."""
        odd = Entry.after(None, {**happened("session-opened", 0, "s2").facts(), "time": "yesterday"}).line
        self.assertEqual(remains([odd, *trail(happened("session-opened", 0, "s1"))], []), Remains((ONE,), NOW))


class OpeningTests(SynchronousTestCase):
    """One session."""

    def test_end(self) -> None:
        """Its end says that the server ended without notice, and what is known: of traffic nothing."""
        facts = evolve(ONE, up=NOW + 3).end(NOW + 900, NOW + 63.5).facts()
        self.assertEqual(
            facts,
            {
                "action": "session-ended",
                "actor": "server",
                "time": "2024-01-01T00:15:00.000Z",
                "device": "rpi1100",
                "master": "rpi1101",
                "session": "s1",
                "mode": "L3",
                "backend": "tls",
                "join": "relay",
                "duration_ms": 60_500,
                "reason": "server-lost",
                "detail": "its server ended without notice; opened at 2024-01-01T00:00:00.000Z, up since"
                " 2024-01-01T00:00:03.000Z, the last sign of its server was at 2024-01-01T00:01:03.500Z",
            },
        )

    def test_unknown(self) -> None:
        """How long it was up is left out if that is not known; it is nothing if it never was."""
        self.assertNotIn("duration_ms", evolve(ONE, up=NOW).end(NOW, None).facts())
        self.assertEqual(evolve(ONE, up=NOW + 10).end(NOW, NOW).facts()["duration_ms"], 0)
        self.assertEqual(ONE.end(NOW, NOW + 60).facts()["duration_ms"], 0)

    def test_document(self) -> None:
        """What is noted down is understood later."""
        self.assertEqual(Opening.understood(ONE.document()), ONE)

    @given(
        st.none() | st.integers() | st.dictionaries(st.sampled_from(["session", "opened", "up"]), st.none() | st.text())
    )
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_damaged(self, damage: Any) -> None:
        """What is something else is not."""
        self.assertIsNone(Opening.understood(damage))
        if isinstance(damage, dict) and damage.keys() & {"opened", "up"}:
            self.assertIsNone(Opening.understood({**ONE.document(), **damage}))
        self.assertIsNone(Opening.understood({**ONE.document(), "up": True}))
