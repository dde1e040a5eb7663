"""How a line becomes a command: the grammar of the original shell."""

from __future__ import annotations

import re
import string

from attrs import frozen

#: What separates words. Python's own idea of white space is wider: it takes in
#: C{U+001C} to C{U+001F} and the spaces of other scripts, which the original left alone.
BLANKS = string.whitespace

_WORD = re.compile(r"[A-Za-z0-9_]*")
_BLANK_RUN = re.compile(f"[{BLANKS}]+")


@frozen
class CommandLine:
    """
    A line taken apart.

    @ivar text: the whole line without outer blanks.
    @ivar name: its longest prefix of letters, digits and C{_}; empty if there is none.
    @ivar argument: the rest without outer blanks, inner ones kept.
    """

    text: str
    name: str
    argument: str


def parse_line(line: str) -> CommandLine | None:
    """The command that C{line} holds, or C{None} if it is blank. C{?x} is short for C{help x}."""
    text = line.strip(BLANKS)
    if not text:
        return None
    if text.startswith("?"):
        return CommandLine(text, "help", text[1:].strip(BLANKS))
    name = text[: _WORD.match(text).end()]  # type: ignore[union-attr]  # it matches anything, if only its empty start
    return CommandLine(text, name, text[len(name) :].strip(BLANKS))


def words(argument: str) -> list[str]:
    """The words of an argument."""
    return [word for word in _BLANK_RUN.split(argument) if word]
