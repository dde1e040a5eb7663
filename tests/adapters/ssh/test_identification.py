"""Who speaks SSH is let in further, who does not is told from it at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.ssh.identification import LONGEST, LONGEST_PREAMBLE, take
from rdvtwisted.errors import ProtocolError


class IdentificationTests(SynchronousTestCase):
    """L{take}."""

    def test_line(self) -> None:
        """The line is taken out with its end, be that CR LF or LF; what follows stays."""
        for end in (b"\r\n", b"\n"):
            inbox = bytearray(b"SSH-2.0-OpenSSH_9.2 Debian" + end + b"\x00\x01")
            self.assertEqual(take(inbox, False), b"SSH-2.0-OpenSSH_9.2 Debian")
            self.assertEqual(inbox, b"\x00\x01")

    def test_incomplete(self) -> None:
        """A line whose end has not come is waited for."""
        self.assertIsNone(take(bytearray(b"SSH-2.0-Open"), False))

    def test_preamble(self) -> None:
        """A server may say other lines first, a client may not."""
        said = b"Welcome\r\nto this server\r\nSSH-2.0-x\r\n"
        self.assertEqual(take(bytearray(said), True), b"SSH-2.0-x")
        self.assertRaises(ProtocolError, take, bytearray(said), False)

    def test_other_protocols(self) -> None:
        """Browsers, old versions and noise without end are refused."""
        for said in (
            b"GET / HTTP/1.1\r\n",
            b"SSH-1.5-x\r\n",
            b"SSH-2.0\r\n",
            b"\x16\x03\x01" * LONGEST,
            b"SSH-2.0-" + b"x" * LONGEST + b"\r\n",
        ):
            self.assertRaises(ProtocolError, take, bytearray(said), False)
        self.assertRaises(ProtocolError, take, bytearray(b"hello\r\n" * LONGEST_PREAMBLE), True)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=400), st.booleans())
    def test_garbage(self, data: bytes, from_server: bool) -> None:
        """Whatever comes, there is a line, an error, or the wish for more."""
        try:
            line = take(bytearray(data), from_server)
        except ProtocolError:
            return
        if line is not None:
            self.assertTrue(line.startswith(b"SSH-"))
