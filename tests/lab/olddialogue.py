"""
The conversation of an old device script: an OpenSSH client at a terminal of 80 by 24, and what is expected of it.

C{python -m tests.lab.olddialogue} has a conversation by itself: see L{main}.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress

PROMPT_SECONDS = 40.0
"""From the start of ssh to the first prompt."""

ANSWER_SECONDS = 2.0
SELECTION_SECONDS = 4.0
PARAMETERS_SECONDS = 20.0
WAIT_SECONDS = 90.0
ESCAPE_SECONDS = 2.0
HELP_SECONDS = 1.0

LOCAL_PORT = 5000
"""The device's own end of the forward, at which its vtund finds the server's."""

_SEND_DELAY = 0.05
"""Seconds that pexpect lets pass before it sends anything."""

_CLOSE_DELAY = 0.1
"""Seconds that pexpect leaves to a process whose terminal it has closed, before it signals it."""

_UNKNOWN = r"\*\*\* Unknown syntax:"


class OldScriptError(Exception):
    """The script would have ended with this exception."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind


class _Silence(Exception):
    """Nothing that was expected has come in time."""


class _End(Exception):
    """The program has closed the terminal."""


class Terminal:
    """A program under a pty, spoken to as pexpect does. C{transcript} is all that it has written."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.transcript = b""
        self._unread = b""
        self._status: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            try:
                os.execvp(argv[0], argv)
            finally:
                os._exit(127)

    def send(self, text: str, delay: float = _SEND_DELAY) -> None:
        """Type."""
        time.sleep(delay)
        try:
            os.write(self._fd, text.encode("latin-1"))
        except OSError:
            raise _End from None

    def expect(self, patterns: Sequence[str], seconds: float) -> tuple[int, str]:
        """
        Which of these regular expressions comes first, and the text before it.

        @raise _Silence: none of them does in time.
        @raise _End: nor will any.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = [(match.start(), number, match.end()) for number, match in self._matches(patterns)]
            if found:
                start, number, end = min(found)
                before, self._unread = self._unread[:start], self._unread[end:]
                return number, before.decode("latin-1")
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise _Silence
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EIO: nobody has the other side open
                data = b""
            if not data:
                raise _End
            self.transcript += data
            self._unread += data

    def _matches(self, patterns: Sequence[str]) -> list[tuple[int, re.Match[bytes]]]:
        searches = ((number, re.search(pattern.encode(), self._unread)) for number, pattern in enumerate(patterns))
        return [(number, match) for number, match in searches if match is not None]

    def rest(self) -> str:
        """What has been written and not been expected."""
        rest, self._unread = self._unread, b""
        return rest.decode("latin-1")

    def lives(self) -> bool:
        """Whether the program runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is None

    def close(self) -> None:
        """Close the terminal, and see to it that the program ends."""
        os.close(self._fd)
        for number in (None, signal.SIGHUP, signal.SIGCONT, signal.SIGINT, signal.SIGKILL):
            if number is not None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)
            time.sleep(_CLOSE_DELAY)
            if not self.lives():
                return


class Shell:
    """
    The server's shell, logged in to.

    @ivar step: what is being done, in words.
    """

    def __init__(self, id: str, argv: Sequence[str]) -> None:
        self._id = id
        self._prompt = f"{id}[$] "
        self.step = "login"
        self.terminal = Terminal(argv)

    def log_in(self) -> None:
        """Wait for the prompt, and see that another one comes when Enter is pressed."""
        refusals = [f"{self._id}@.*password: ", "Permission denied"]
        number = self._expect([self._prompt, *refusals], PROMPT_SECONDS, "ConnectionError")[0]
        if number:
            raise OldScriptError("PublicKeyNotAccepted", f"public key authentication rejected on account {self._id}")
        self._send("\r")
        self._expect([self._prompt], ANSWER_SECONDS, "ConnectionError")

    def _send(self, text: str) -> None:
        try:
            self.terminal.send(text)
        except _End:
            raise OldScriptError("SSHConnectionLost", "Remote connection closed") from None

    def _expect(self, patterns: Sequence[str], seconds: float, kind: str = "SSHConnectionLost") -> tuple[int, str]:
        try:
            return self.terminal.expect(patterns, seconds)
        except _Silence:
            raise OldScriptError(kind, f"Remote connection is frozen ({seconds:g} s)") from None
        except _End:
            raise OldScriptError(kind, "Remote connection closed") from None

    def run(self, command: str, seconds: float = ANSWER_SECONDS) -> str:
        """What the shell writes between its echo of a command and the next prompt."""
        self.step = command
        self._send(command + "\r")
        number, output = self._expect([_UNKNOWN, self._prompt], seconds)
        if number == 0:
            raise OldScriptError("TundevShellSyntaxError", command)
        if output.startswith(command):
            output = output[len(command) :]
            for ending in ("\r\n", "\n"):
                if output.startswith(ending):
                    output = output[len(ending) :]
                    break
        return output

    def get(self, command: str, seconds: float = ANSWER_SECONDS) -> str:
        """The same, without the last end of line."""
        output = self.run(command, seconds)
        for ending in ("\r\n", "\n"):
            if output.endswith(ending):
                return output[: -len(ending)]
        return output

    def require_role(self, role: str) -> None:
        """See that the server thinks of this device what it is."""
        if self.get("get_role") != role:
            text = f"Tundev shell returns a role that does not match this script ({role})"
            raise OldScriptError("RoleMismatch", text)

    def parameters(self) -> dict[str, str]:
        """What the tunnel's client has to know."""
        pairs = {}
        for line in self.run("get_vtun_parameters", PARAMETERS_SECONDS).splitlines():
            key, colon, value = line.partition(":")
            if not colon:
                raise OldScriptError("ValueError", f"a line without colon: {line!r}")
            pairs[key.strip()] = value.strip()
        if "rdv_server_vtun_tcp_port" not in pairs:
            raise OldScriptError("RDVServerVtunTCPPortIsMandatory")
        return pairs

    def forward(self, port: str) -> None:
        """Have this device's port 5000 lead to a port of the server, by the escape shell of the ssh client."""
        self.run("echo Testing ssh escape shell")
        self._escape()
        self.step = "help in the escape shell"
        self._send("help\r")
        try:
            self.terminal.expect([r"-L\[.*:\].*:.*:.*"], HELP_SECONDS)
        except _Silence:
            raise OldScriptError("NoRemoteSSHForwardingSupported") from None
        except _End:
            raise OldScriptError("SSHConnectionLost", "Remote connection closed") from None
        self.run("echo ...done")
        option = f"-L{LOCAL_PORT}:127.0.0.1:{port}"
        self.run(f'echo Adding ssh redirect escape shell "{option}"')
        self._escape()
        self.step = f"{option} in the escape shell"
        self._send(option + "\r")
        try:
            answers = ["(?i)channel_setup_fwd_listener.*cannot listen", "(?i)forwarding port"]
            if self.terminal.expect(answers, ESCAPE_SECONDS)[0] == 0:
                raise OldScriptError("SSHForwardingFailed")
        except _Silence:
            sys.stderr.write("Could not get confirmation from ssh shell. Assuming everything is OK\n")
        except _End:
            raise OldScriptError("SSHConnectionLost", "Remote connection closed") from None
        self.run("echo ...done")

    def _escape(self) -> None:
        self.step = "~C"
        self._send("~C")
        self._expect(["ssh> "], ESCAPE_SECONDS, "NoSSHEscapeShellAvailable")

    def type(self, command: str) -> str:
        """All that the terminal shows of a command, until the next prompt or the end."""
        try:
            self.terminal.send(command + "\r", delay=0)
            return self.terminal.expect([self._prompt], PARAMETERS_SECONDS)[1]
        except _End:
            return self.terminal.rest()

    def leave(self) -> None:
        """Say goodbye, and do not wait for the answer."""
        self.step = "logout"
        with suppress(OldScriptError):
            self._send("logout\r")
        self.terminal.close()


def main() -> None:
    """
    Log in and run commands, and print what each answers, as a line of JSON.

    Reads JSON: C{argv} of the ssh client, C{id} of the account, C{commands}. A command that ends the shell is the
    last one; it answers what comes until the end.
    """
    task = json.load(sys.stdin)
    shell = Shell(task["id"], task["argv"])
    shell.log_in()
    answers = [shell.type(command) for command in task["commands"]]
    shell.terminal.close()
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
