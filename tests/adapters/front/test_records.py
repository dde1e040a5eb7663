"""TLS records are cut where they end, whatever the pieces they come in."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.front.records import LARGEST_FRAGMENT, Records
from rdvtwisted.errors import ProtocolError

_records = st.builds(
    lambda kind, body: bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body,
    st.sampled_from([20, 21, 22, 23]),
    st.binary(max_size=40),
)


class RecordsTests(SynchronousTestCase):
    """Cutting."""

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(_records, max_size=5), st.integers(1, 7), st.binary(max_size=4))
    def test_pieces(self, sent: list[bytes], size: int, tail: bytes) -> None:
        """Records come out as they were sent, and what follows them stays."""
        records, found = Records(), []
        stream = b"".join(sent)
        for start in range(0, len(stream), size):
            records.feed(stream[start : start + size])
            found += list(records)
        self.assertEqual(found, sent)
        records.feed(tail)
        self.assertEqual(records.rest(), tail)
        self.assertEqual(records.rest(), b"")

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.binary(max_size=64))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are cut, awaited or refused; nothing is lost or made up."""
        records, found = Records(), []
        records.feed(data)
        try:
            found += list(records)
        except ProtocolError:
            pass
        self.assertEqual(b"".join(found) + records.rest(), data)

    def test_refused(self) -> None:
        """HTTP, SSH, another protocol version and a record that is too long are refused at once."""
        long = bytes([22, 3, 1]) + (LARGEST_FRAGMENT + 1).to_bytes(2, "big")
        for text in (b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x02", b"\x80", long):
            records = Records()
            records.feed(text)
            self.assertRaises(ProtocolError, list, records)

    def test_longest(self) -> None:
        """The longest record that TLS knows is let through."""
        record = bytes([23, 3, 3]) + LARGEST_FRAGMENT.to_bytes(2, "big") + bytes(LARGEST_FRAGMENT)
        records = Records()
        records.feed(record)
        self.assertEqual(list(records), [record])
