"""Hostnames on their way to the server."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.shell.quoting import HOSTNAME_BYTES, hostname, quote, unquote

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)


class QuotingTests(SynchronousTestCase):
    """The quotes that old devices use and old servers understand."""

    def test_quote(self) -> None:
        """A hostname is escaped as Python 2 did it."""
        for name, quoted in [
            (b"shopbox", "'shopbox'"),
            (b"shop's box", r"'shop\'s box'"),
            (b'a"b', "'a\"b'"),
            (b"a\\b\n\r\t", r"'a\\b\n\r\t'"),
            (b"\x00\x1f\x7f\xc3\xa9", r"'\x00\x1f\x7f\xc3\xa9'"),
            (b"", "''"),
        ]:
            self.assertEqual(quote(name), quoted)

    def test_unquote(self) -> None:
        """A name in quotes is decoded with the escapes of C; any other is taken literally."""
        for argument, name in [
            ("shop box", b"shop box"),
            ("'", b"'"),
            ("", b""),
            ("''", b""),
            ("'a", b"'a"),
            ("a'", b"a'"),
            ("  'a b'  ", b"a b"),
            (r"shop\x41", rb"shop\x41"),
            (r"'\x41\101\7\400\0018'", b"AA\x07\x00\x018"),
            (r"'\a\b\f\n\r\t\v\\\'\"'", b"\a\b\f\n\r\t\v\\'\""),
            (r"'\q\z'", rb"\q\z"),
            ("'a'b'", b"a'b"),
            ("'é'", "é".encode()),
            ("é", "é".encode()),
        ]:
            self.assertEqual(unquote(argument), name, argument)

    def test_broken_quotes(self) -> None:
        """An escape that is cut off is refused."""
        for argument in [r"'\x4'", r"'\x'", r"'abc\'", r"'\xg0'", r"'\\\'"]:
            with self.assertRaises(ValueError, msg=argument):
                unquote(argument)

    @given(st.binary(max_size=300))
    @PROPERTY
    def test_round_trip(self, name: bytes) -> None:
        """Whatever bytes a hostname has, quoting makes printable ASCII of it, and unquoting the same bytes."""
        quoted = quote(name)
        self.assertTrue(quoted.isascii() and quoted.isprintable())
        self.assertEqual(unquote(quoted), name)

    @given(st.text(max_size=50))
    @PROPERTY
    def test_any_argument(self, argument: str) -> None:
        """Whatever the argument is, it is decoded or refused."""
        try:
            unquote(argument)
        except ValueError:
            self.assertIn("\\", argument)

    @given(st.binary(max_size=600))
    @PROPERTY
    def test_kept(self, name: bytes) -> None:
        """What is kept of a hostname is short and has no control characters."""
        kept = hostname(name)
        self.assertLessEqual(len(kept.encode()), HOSTNAME_BYTES)
        self.assertTrue(kept.isprintable())
        if name.isascii() and name.decode().isprintable() and len(name) <= HOSTNAME_BYTES:
            self.assertEqual(kept, name.decode())

    def test_cut_between_letters(self) -> None:
        """A name that is too long is cut between two letters, not inside one."""
        self.assertEqual(hostname("é".encode() * 200), "é" * 127)
