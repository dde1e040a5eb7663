"""What may be printed."""

from __future__ import annotations

import io
from cmd import Cmd

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.shell.printout import PAGE_WIDTH, Printout, Stream, columns, printable

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)


class PrintoutTests(SynchronousTestCase):
    """Output is in order, and harmless."""

    def test_streams(self) -> None:
        """Without a terminal there are two streams, whose order is kept."""
        printout = Printout("p$ ", terminal=False)
        printout.invite()
        printout.say("a\n")
        printout.complain("b\n")
        printout.say("c\n")
        self.assertEqual(printout.size, 9)
        self.assertEqual(
            printout.take(), [(Stream.STDOUT, b"p$ a\n"), (Stream.STDERR, b"b\n"), (Stream.STDOUT, b"c\n")]
        )
        self.assertEqual((printout.take(), printout.size), ([], 0))

    def test_terminal(self) -> None:
        """With a terminal all is one stream, and its lines end with CR LF."""
        printout = Printout("p$ ", terminal=True)
        printout.say("a\n")
        printout.complain("b\nc\n")
        printout.invite()
        self.assertEqual(printout.take(), [(Stream.STDOUT, b"a\r\nb\r\nc\r\np$ ")])

    def test_harmless(self) -> None:
        """Escape sequences, in 7 and in 8 bits, and what turns text around are replaced."""
        printout = Printout("p$ ", terminal=False)
        printout.say("\x1b]0;x\x07\x9b2J\u202eab\u2028\rc\td\ud800\n")
        self.assertEqual(printout.take(), [(Stream.STDOUT, b"?]0;x??2J?ab??c\td?\n")])

    def test_no_false_prompt(self) -> None:
        """The prompt's text never appears but as prompt: devices look for it anywhere."""
        printout = Printout("rpi1$ ", terminal=False)
        printout.say("hostname: rpi1$ rpi1$ x\n")
        printout.complain("Error: rpi1$ x\n")
        self.assertEqual(
            printout.take(), [(Stream.STDOUT, b"hostname: rpi1$?rpi1$?x\n"), (Stream.STDERR, b"Error: rpi1$?x\n")]
        )

    def test_printable(self) -> None:
        """What goes into one line has no line ends and no tabs."""
        self.assertEqual(printable("aé b\n\t\0"), "aé b???")

    @given(st.lists(st.text("abc_", min_size=1, max_size=40), min_size=1, max_size=40))
    @PROPERTY
    def test_columns(self, names: list[str]) -> None:
        """A list of names looks as the original shell printed it."""
        expected = io.StringIO()
        Cmd(stdout=expected).columnize(names, PAGE_WIDTH)
        self.assertEqual(columns(names), expected.getvalue())

    def test_no_columns(self) -> None:
        """No names, no lines."""
        self.assertEqual(columns([]), "")
