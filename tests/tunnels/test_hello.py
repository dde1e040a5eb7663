"""What two ends say first."""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import Mode, Offloads
from tunnels.hello import Hello, disagreement
from tunnels.packets import LONGEST_HELLO

bounded = settings(derandomize=True, max_examples=150, deadline=None)

HELLO = Hello("rpi1", Mode.L2, 1500, Offloads(checksum=True, tso4=True), "0.1.0")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


class HelloTests(SynchronousTestCase):
    """The hello on the wire."""

    def test_round_trip(self) -> None:
        """What one end says the other understands."""
        for offloads in (Offloads(), Offloads(True, True, True, True), Offloads(checksum=True, uso=True)):
            hello = evolve(HELLO, offloads=offloads)
            self.assertEqual(Hello.decode(hello.encode()[4:]), hello)

    def test_later_version(self) -> None:
        """Members and offloads of a later version are left aside."""
        said = json.loads(HELLO.encode()[4:]) | {"colour": "blue"}
        said["offloads"].append("teleport")
        self.assertEqual(Hello.decode(json.dumps(said).encode()), HELLO)

    def test_other_protocol(self) -> None:
        """Of another protocol only the number is read, whatever else its hello holds."""
        self.assertEqual(Hello.decode(b'{"protocol": 7, "mode": 3}').protocol, 7)

    def test_no_checksum(self) -> None:
        """Large packets without checksums are none: the kernel knows no such thing."""
        said = json.loads(HELLO.encode()[4:]) | {"offloads": ["tso4", "tso6", "uso"]}
        self.assertEqual(Hello.decode(json.dumps(said).encode()).offloads, Offloads())

    @bounded
    @given(st.dictionaries(st.sampled_from(["protocol", "device", "mode", "mtu", "offloads", "version"]), json_values))
    def test_any_object(self, said: dict[str, object]) -> None:
        """Any JSON object is a hello whose text can be shown, or a protocol error."""
        for protocol in (1, said.get("protocol")):
            try:
                hello = Hello.decode(json.dumps(said | {"protocol": protocol}).encode())
            except ProtocolError:
                continue
            self.assertTrue((hello.device + hello.version).isprintable())

    @bounded
    @given(st.binary(max_size=200))
    def test_any_bytes(self, said: bytes) -> None:
        """Any other bytes are a protocol error."""
        with self.assertRaises(ProtocolError):
            Hello.decode(b"\xff" + said)

    def test_deep(self) -> None:
        """JSON nested as deep as a frame allows is a protocol error like any other."""
        with self.assertRaises(ProtocolError):
            Hello.decode(b"[" * LONGEST_HELLO)


class DisagreementTests(SynchronousTestCase):
    """Whether two ends can carry packets together."""

    def test_agree(self) -> None:
        """Another MTU, other offloads or another release are no reason to part."""
        peer = evolve(HELLO, device="rpi2", mtu=1400, offloads=Offloads(), version="7")
        self.assertIsNone(disagreement(HELLO, peer, "rpi2"))

    def test_differ(self) -> None:
        """Protocol, mode and name have to fit; the first that does not is named."""
        peer = evolve(HELLO, device="rpi3", mode=Mode.L3, protocol=2)
        words = []
        for change in ({}, {"protocol": 1}, {"protocol": 1, "mode": Mode.L2}):
            found = disagreement(HELLO, evolve(peer, **change), "rpi2")
            assert found is not None
            words.append(found[0])
        self.assertEqual(words, ["protocol-1-only", "mode-is-L2", "unexpected-device"])
