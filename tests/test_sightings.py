"""What a server knows of devices that have left."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.events import DeviceLeft, EntryRefused
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.sightings import LONGEST_REASON, SERVER_ENDED, Sighting, Sightings
from rdvtwisted.values import Presence, Profile, PublicKey, Role

KEY = PublicKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32)
HERE = Presence(
    "rpi1",
    Role.ONSITE,
    "198.51.100.6:4711",
    "tls",
    1000.0,
    1050.0,
    Profile(lan=IPv4Interface("192.168.1.10/24"), uplink="3g"),
    KEY,
    round_trip=0.25,
)
THERE = evolve(HERE, id="rpi2", role=Role.MASTER, profile=Profile())


class SightingsTests(SynchronousTestCase):
    """A server where devices come and go."""

    def setUp(self) -> None:
        self.now = 2000.0
        self.present: list[Presence] = []
        self.sightings = self.made()

    def made(self) -> Sightings:
        """Of a server."""
        return Sightings(lambda: self.present, lambda: self.now)

    def leave(self, presence: Presence, reason: str = "goodbye") -> None:
        """A device leaves."""
        self.sightings.emit(DeviceLeft(presence.id, presence.role, reason, presence))

    def test_provides(self) -> None:
        """It takes events."""
        verifyObject(IEventSink, self.sightings)

    def test_here_and_gone(self) -> None:
        """Who is here is told as it is; who has gone, as it was, with the time and the reason."""
        self.present = [THERE]
        self.leave(HERE, "nothing was heard of it for 60 s")
        gone, here = self.sightings.all()
        self.assertEqual(
            gone,
            Sighting(
                "rpi1", "onsite", "198.51.100.6:4711", "tls", 1000.0, 1050.0, "3g", 0.25, 2000.0,
                "nothing was heard of it for 60 s",
            ),
        )  # fmt: skip
        self.assertEqual((here.device, here.lost, here.reason, here.uplink), ("rpi2", None, "", None))

    def test_back(self) -> None:
        """Who is back is here; when it leaves again, it is that which is told."""
        self.leave(HERE, "first")
        self.present = [evolve(HERE, since=3000.0)]
        [back] = self.sightings.all()
        self.assertEqual((back.since, back.lost), (3000.0, None))
        [presence] = self.present
        self.present, self.now = [], 4000.0
        self.leave(presence, "second")
        [gone] = self.sightings.all()
        self.assertEqual((gone.since, gone.lost, gone.reason), (3000.0, 4000.0, "second"))

    def test_bounded(self) -> None:
        """A device may be talked about at no great length; devices that there are no more are forgotten."""
        self.leave(HERE, "x" * 10_000)
        self.leave(THERE)
        self.assertEqual(len(self.sightings.all()[0].reason), LONGEST_REASON)
        self.sightings.keep(["rpi2", "rpi3"])
        self.assertEqual([each.device for each in self.sightings.all()], ["rpi2"])

    def test_others(self) -> None:
        """Other events say nothing of that."""
        self.sightings.emit(EntryRefused("ssh", "x", "rpi1", "no"))
        self.sightings.emit(DeviceLeft("rpi1", Role.ONSITE, "goodbye"))
        self.assertEqual(self.sightings.all(), [])

    def test_recalled(self) -> None:
        """The next server knows all that; who was here when the last one wrote, was here until then at least."""
        self.leave(HERE)
        self.present = [THERE]
        document = json.loads(json.dumps(self.sightings.document()))
        self.present, later = [], self.made()
        later.recall(document, 2500.0)
        gone, left_behind = later.all()
        self.assertEqual(gone, self.sightings.all()[0])
        self.assertEqual((left_behind.device, left_behind.lost, left_behind.reason), ("rpi2", 2500.0, SERVER_ENDED))

    @given(st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["device", "rpi1", 5]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["device", "role", "lost", "x"]), inner),
    ))  # fmt: skip
    @settings(derandomize=True, max_examples=100, deadline=None)
    def test_damaged(self, document: Any) -> None:
        """What cannot be understood is left out, whatever it is, and the rest is not."""
        whole = [*(document if isinstance(document, list) else [document]), self.made_document()]
        later = self.made()
        left_out = later.recall(whole, 1.0)
        self.assertLess(left_out, len(whole))
        self.assertIn("rpi9", [each.device for each in later.all()])

    def made_document(self) -> dict[str, Any]:
        """One that is right."""
        left = Sightings(lambda: [evolve(HERE, id="rpi9")], lambda: 0.0)
        return left.document()[0]
