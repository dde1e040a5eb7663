"""What the shell prints: text that can neither steer a terminal nor be taken for a prompt."""

from __future__ import annotations

from enum import Enum

from attrs import define, field

#: Stands for every character that must not be printed.
SUBSTITUTE = "?"

#: Columns that a table may have; a terminal has 80 and may wrap after the last.
PAGE_WIDTH = 79


class Stream(Enum):
    """The two ways out of a shell; SSH carries the second as extended data (RFC 4254, section 5.2)."""

    STDOUT = "stdout"
    STDERR = "stderr"


def printable(text: str) -> str:
    """
    C{text} with each character that is not printable, line ends and tabs
    among them, replaced: fit to be part of one line.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else SUBSTITUTE for letter in text)


def columns(names: list[str]) -> str:
    """
    C{names}, which are read downwards, in as few rows as fit a page; each row
    ends with a newline. This is what Python's C{cmd.Cmd.columnize} prints.
    """
    for rows in range(1, len(names)):
        table = [names[first : first + rows] for first in range(0, len(names), rows)]
        widths = [max(map(len, column)) for column in table]
        if sum(widths) + 2 * (len(widths) - 1) <= PAGE_WIDTH:
            break
    else:
        return "".join(f"{name}\n" for name in names)
    lines = []
    for row in range(rows):
        cells = [column[row].ljust(width) for column, width in zip(table, widths, strict=True) if row < len(column)]
        lines.append("  ".join(cells) + "\n")
    return "".join(lines)


@define(eq=False)
class Printout:
    """
    What has been printed and not been taken yet.

    Whatever is printed, nothing but printable text, newlines and tabs gets
    out, and the prompt's text only as prompt. With a terminal all is one
    stream and a newline is CR LF, as a pty would make it.

    @ivar prompt: what stands in front of every command.
    @ivar terminal: a pty was asked for.
    @ivar size: characters that wait to be taken.
    """

    prompt: str
    terminal: bool
    size: int = field(default=0, init=False)
    _chunks: list[tuple[Stream, list[str]]] = field(factory=list, init=False)

    def say(self, text: str) -> None:
        """Print the result of a command: lines."""
        self._add(Stream.STDOUT, self._tame(text))

    def complain(self, text: str) -> None:
        """Print error lines."""
        self._add(Stream.STDERR, self._tame(text))

    def echo(self, text: str) -> None:
        """Show on a terminal what was typed there, as it was typed: a device compares it with what it sent."""
        self._add(Stream.STDOUT, printable(text))

    def rub_out(self, letters: int) -> None:
        """Take the last letters of the echo from the terminal's screen."""
        self._add(Stream.STDOUT, "\b \b" * letters)

    def end_line(self) -> None:
        """Answer an Enter on a terminal."""
        self._add(Stream.STDOUT, "\n")

    def invite(self) -> None:
        """Print the prompt."""
        self._add(Stream.STDOUT, self.prompt)

    def take(self) -> list[tuple[Stream, bytes]]:
        """All that was printed since the last time, in order."""
        chunks, self._chunks, self.size = self._chunks, [], 0
        return [(stream, "".join(texts).encode("utf-8")) for stream, texts in chunks]

    def _tame(self, text: str) -> str:
        if not text.replace("\n", "").replace("\t", "").isprintable():
            text = "".join(letter if letter.isprintable() or letter in "\n\t" else SUBSTITUTE for letter in text)
        return text.replace(self.prompt, self.prompt.rstrip() + SUBSTITUTE)

    def _add(self, stream: Stream, text: str) -> None:
        if not text:
            return
        if self.terminal:
            stream = Stream.STDOUT
            text = text.replace("\n", "\r\n")
        if not self._chunks or self._chunks[-1][0] is not stream:
            self._chunks.append((stream, []))
        self._chunks[-1][1].append(text)
        self.size += len(text)
