"""Typing at a terminal, and feeding a stream."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.shell.lines import LINE_LIMIT, Entry, PlainLines, TerminalLines, common_prefix
from rdvtwisted.shell.printout import Printout

WORDS = ["get_mode", "get_role", "help", "hello_there"]


class TerminalTests(SynchronousTestCase):
    """A terminal echoes what is typed and lets one correct it."""

    def setUp(self) -> None:
        self.printout = Printout("p$ ", terminal=True)
        self.lines = TerminalLines(self.printout, lambda line: [w for w in WORDS if w.startswith(line)])

    def typed(self, keys: str) -> list[str | Entry]:
        return [entry for key in keys if (entry := self.lines.press(key)) is not None]

    def echoed(self) -> bytes:
        return b"".join(text for _, text in self.printout.take())

    def test_enter(self) -> None:
        """CR, LF and CR LF are one Enter each."""
        self.assertEqual(self.typed("a\rb\nc\r\nd\r\r\n\n"), ["a", "b", "c", "d", "", ""])
        self.assertEqual(self.echoed(), b"a\r\nb\r\nc\r\nd\r\n\r\n\r\n")

    def test_enter_in_two_pieces(self) -> None:
        """CR and LF belong together whatever comes between them but a key."""
        self.assertEqual(self.typed("\r"), [""])
        self.assertEqual(self.typed("\n"), [])
        self.typed("\r")
        self.lines.interrupted()
        self.assertEqual(self.typed("\n"), [""])

    def test_erase(self) -> None:
        """Backspace, in both its codes, takes the last letter away, also one of several bytes; then nothing."""
        self.assertEqual(self.typed("aé\x7f\x7f\x08\x7fb\x08\r"), [""])
        self.assertEqual(self.echoed(), "aé".encode() + b"\b \b\b \bb\b \b\r\n")

    def test_kill(self) -> None:
        """Ctrl-U takes the line away."""
        self.assertEqual(self.typed("abc\x15x\r"), ["x"])
        self.assertEqual(self.echoed(), b"abc\b \b\b \b\b \bx\r\n")

    def test_interrupt(self) -> None:
        """Ctrl-C gives the line up."""
        self.assertEqual(self.typed("abc\x03x\r"), [Entry.ABANDONED, "x"])
        self.assertEqual(self.echoed(), b"abc^C\r\nx\r\n")

    def test_end(self) -> None:
        """Ctrl-D is the end on an empty line, and nothing on another."""
        self.assertEqual(self.typed("a\x04\x7f\x04"), [Entry.END])
        self.assertEqual(self.lines.finish(), Entry.END)

    def test_unfinished(self) -> None:
        """A terminal that goes away did not press Enter."""
        self.typed("exit")
        self.assertEqual(self.lines.finish(), Entry.END)

    def test_control_characters(self) -> None:
        """What would steer the terminal is shown as a question mark."""
        self.assertEqual(self.typed("\x1b[A\x00\x9b\r"), ["\x1b[A\x00\x9b"])
        self.assertEqual(self.echoed(), b"?[A??\r\n")

    def test_too_long(self) -> None:
        """A line that is too long is forgotten up to Enter; the next is as good as ever."""
        self.assertEqual(self.typed("x" * (LINE_LIMIT + 5) + "\x7f\ry\r"), [Entry.TOO_LONG, "y"])
        self.assertEqual(self.echoed(), b"x" * LINE_LIMIT + b"\r\ny\r\n")
        self.assertEqual(self.typed("x" * LINE_LIMIT + "\r"), ["x" * LINE_LIMIT])
        self.assertEqual(self.typed("x" * (LINE_LIMIT + 5) + "\x15\r"), [""])

    def test_complete(self) -> None:
        """Tab adds what all possible commands have in common, and a space when there is but one."""
        self.assertEqual(self.typed("g\tr\t\r"), ["get_role "])
        self.assertEqual(self.echoed(), b"get_role \r\n")
        self.assertEqual(self.typed("x\t\t\r"), ["x"])
        self.assertEqual(self.echoed(), b"x\r\n")

    def test_list(self) -> None:
        """A second Tab lists the possible commands, then shows the line again."""
        self.typed("get_\t")
        self.assertEqual(self.echoed(), b"get_")
        self.typed("\t")
        self.assertEqual(self.echoed(), b"\r\nget_mode  get_role\r\np$ get_")
        self.assertEqual(self.typed("mode\r"), ["get_mode"])


class PlainTests(SynchronousTestCase):
    """A stream has lines and nothing else."""

    def typed(self, lines: PlainLines, keys: str) -> list[str | Entry]:
        return [entry for key in keys if (entry := lines.press(key)) is not None]

    def test_lines(self) -> None:
        """Lines end with LF; a CR before it is left to the grammar, which takes it for a blank."""
        self.assertEqual(self.typed(PlainLines(), "a\nb\r\n\n"), ["a", "b\r", ""])

    def test_last_line(self) -> None:
        """The last line needs no line end."""
        lines = PlainLines()
        self.typed(lines, "a\nexit")
        self.assertEqual([lines.finish(), lines.finish()], ["exit", Entry.END])

    def test_interrupt(self) -> None:
        """Ctrl-C gives the line up; without one it is not heard."""
        self.assertEqual(self.typed(PlainLines(), "\x03abc\x03x\n\x03"), [Entry.ABANDONED, "x"])

    def test_too_long(self) -> None:
        """A line that is too long is forgotten up to its end."""
        lines = PlainLines()
        self.assertEqual(self.typed(lines, "x" * 10000 + "\ny\n"), [Entry.TOO_LONG, "y"])
        self.assertEqual(self.typed(lines, "x" * LINE_LIMIT + "\n"), ["x" * LINE_LIMIT])
        self.typed(lines, "x" * (LINE_LIMIT + 1))
        self.assertEqual([lines.finish(), lines.finish()], [Entry.TOO_LONG, Entry.END])


class PrefixTests(SynchronousTestCase):
    """What words have in common."""

    def test_common_prefix(self) -> None:
        """It is the longest text that all begin with."""
        for words, prefix in [
            ([], ""),
            (["ab"], "ab"),
            (["abc", "abd"], "ab"),
            (["ab", "abc"], "ab"),
            (["a", "b"], ""),
        ]:
            self.assertEqual(common_prefix(words), prefix)
