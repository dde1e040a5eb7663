"""How lines become commands."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.shell.grammar import CommandLine, parse_line, words


class GrammarTests(SynchronousTestCase):
    """The grammar of the original shell."""

    def test_command_and_argument(self) -> None:
        """The command is the longest prefix of identifier characters, the rest its argument, inner blanks kept."""
        for line, name, argument in [
            ("get_role", "get_role", ""),
            ("  get_role \t", "get_role", ""),
            ("get_role;abc", "get_role", ";abc"),
            ("echo  a  b ", "echo", "a  b"),
            ("Get_Role2 x", "Get_Role2", "x"),
            ("help get_role", "help", "get_role"),
            ("?", "help", ""),
            ("? get_role", "help", "get_role"),
            ("!ls", "", "!ls"),
            ("é", "", "é"),
            ("get_roleé", "get_role", "é"),
        ]:
            self.assertEqual(parse_line(line), CommandLine(line.strip(), name, argument), line)

    def test_blank(self) -> None:
        """A line of blanks is no command."""
        for line in ["", " ", "\t \r\x0b\x0c"]:
            self.assertIsNone(parse_line(line))

    def test_other_white_space(self) -> None:
        """Only ASCII blanks separate; a no-break space or a unit separator is part of what it stands in."""
        self.assertEqual(parse_line("echo \u00a0x\x1f"), CommandLine("echo \u00a0x\x1f", "echo", "\u00a0x\x1f"))
        self.assertEqual(words(" a\u00a0b \t c "), ["a\u00a0b", "c"])
        self.assertEqual(words(""), [])
