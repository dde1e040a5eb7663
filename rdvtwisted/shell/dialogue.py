"""The device's end of the shell, without I/O: the twin of L{rdvtwisted.shell.shell}."""

from __future__ import annotations

from collections import deque

from attrs import define, field

from rdvtwisted.errors import ConnectionLost, InvalidValue, ProtocolError, RDVError, RequestRefused
from rdvtwisted.shell.lines import INTERRUPT, LINE_LIMIT
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.questions import Asked, Question, question
from rdvtwisted.shell.reply import Reply, refusal
from rdvtwisted.values import Role

#: Bytes of one answer: a table of onsites with ten thousand lines of common length.
OUTPUT_LIMIT = 1 << 20

#: Bytes of error text to one question: a traceback of an old server, many times over.
ERRORS_LIMIT = 1 << 16


def _text(reply: Reply) -> str:
    return reply.output


@define(eq=False)
class _Awaited:
    """
    A question without its whole answer.

    @ivar lines: those of its lines that no prompt has answered yet.
    @ivar outputs: the answers to the others.
    """

    question: Question
    lines: deque[bytes] = field(init=False)
    outputs: list[str] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.lines = deque(line.encode("ascii") for line in self.question.lines)


@define(eq=False)
class Dialogue:
    """
    A device's conversation with the shell of any server, new or old, on a
    channel with or without a terminal.

    Give it what the server sends, and send what L{command} and L{ask} return.
    One question is asked at a time. The first L{Reply} answers none: it is
    the greeting, after which the device may ask.

    @ivar device: the device's id, which the prompt shows.
    """

    device: str
    role: Role
    _output: bytearray = field(factory=bytearray, init=False, repr=False)
    _errors: bytearray = field(factory=bytearray, init=False, repr=False)
    _searched: int = field(default=0, init=False)
    _awaited: _Awaited | None = field(factory=lambda: _Awaited(Question(("",), _text)), init=False)
    _prompt: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._prompt = f"{self.device}$ ".encode()

    @property
    def ready(self) -> bool:
        """Nothing is awaited: the device may ask."""
        return self._awaited is None

    def command(self, line: str) -> bytes:
        """
        Give a command as it stands. The value of its reply is its output.

        @return: what to send.
        @raise InvalidValue: the line cannot be sent without being misunderstood.
        @raise RuntimeError: something is awaited already.
        """
        return self._ask(Question((line,), _text))

    def ask(self, asked: Asked) -> bytes:
        """
        Ask something of which the reply's value is wanted.

        What takes several commands is sent at once: one round trip. An old
        server copes with that as long as it has no terminal.

        @return: what to send.
        @raise InvalidValue: it cannot be said.
        @raise RuntimeError: something is awaited already.
        """
        return self._ask(question(self.role, asked))

    def interrupt(self) -> bytes:
        """
        Have a wait answered now, at a server of this kind, without a terminal:
        Ctrl-C ends the shell of an old one. If the answer crosses it no harm is done.

        @return: what to send.
        """
        return b"" if self._awaited is None else INTERRUPT.encode("ascii")

    def receive(self, data: bytes) -> list[Reply]:
        """
        Bytes from the server's standard output.

        @return: the reply that they complete, if any.
        @raise ProtocolError: there is a prompt too many, or an answer is too long.
        """
        self._output += data
        replies = []
        while (end := self._output.find(self._prompt, self._searched)) >= 0:
            text = bytes(self._output[:end])
            del self._output[: end + len(self._prompt)]
            self._searched = 0
            if self._awaited is None:
                raise ProtocolError("the server answers what it was not asked")
            reply = self._prompted(self._awaited, text)
            if reply is not None:
                replies.append(reply)
        # A prompt may have begun in what is there.
        self._searched = max(0, len(self._output) - len(self._prompt) + 1)
        if self._awaited is None:
            del self._output[: self._searched]
            self._searched = 0
        elif len(self._output) + sum(map(len, self._awaited.outputs)) > OUTPUT_LIMIT:
            raise ProtocolError(f"the server's answer is longer than {OUTPUT_LIMIT} bytes")
        return replies

    def receive_error(self, data: bytes) -> list[Reply]:
        """
        Bytes from the server's standard error. They never complete a reply, a
        prompt does; what comes after the prompt is too late for anybody.

        @raise ProtocolError: it is too much.
        """
        if self._awaited is not None:
            self._errors += data
            if len(self._errors) > ERRORS_LIMIT:
                raise ProtocolError(f"the server's error text is longer than {ERRORS_LIMIT} bytes")
        return []

    def closed(self) -> RDVError:
        """
        The server has closed the shell.

        @return: what that means: a refusal if it gave a reason, else that it is gone.
        """
        errors = _decoded(self._errors)
        reason = refusal(errors) or refusal(_decoded(self._output))
        if reason is None and (lines := [line for line in errors.split("\n") if line.strip()]):
            # An old server's traceback: what is wrong stands in its last line.
            reason = printable(lines[-1])[:300]
        return ConnectionLost("the server has closed the shell") if reason is None else RequestRefused(reason)

    def _ask(self, new: Question) -> bytes:
        if self._awaited is not None:
            raise RuntimeError("one question at a time")
        prompt = self._prompt.decode("ascii")
        for line in new.lines:
            if not (line.isascii() and line.isprintable()) or len(line) > LINE_LIMIT or prompt in line:
                raise InvalidValue("command", line, f"use at most {LINE_LIMIT} printable ASCII characters, no prompt")
        self._output.clear()
        self._errors.clear()
        self._searched = 0
        self._awaited = _Awaited(new)
        return "".join(f"{line}\n" for line in new.lines).encode("ascii")

    def _prompted(self, awaited: _Awaited, text: bytes) -> Reply | None:
        """A prompt has come after C{text}; it answers the next line."""
        line = awaited.lines.popleft()
        if text.startswith(line):
            # The echo; without a terminal there is none.
            text = text[len(line) :]
            text = text.removeprefix(b"\r\n" if text.startswith(b"\r\n") else b"\n")
        if output := _decoded(text):
            awaited.outputs.append(output)
        if awaited.lines:
            return None
        self._awaited = None
        errors, self._errors = _decoded(self._errors), bytearray()
        return Reply("\n".join(awaited.outputs), errors, awaited.question.read)


def _decoded(text: bytes | bytearray) -> str:
    """Text with LF at the ends of its lines, none after the last."""
    return text.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n")
