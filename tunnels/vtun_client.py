"""
The configuration of a stock vtund 3.0.3 or 3.0.4 that is the client of one session, as text.

Refuses whatever vtund would not read, or would read as something else. Its
lexical rules, found out by feeding vtund 3.0.4: words have letters, digits
and some marks, and are neither a number nor one of its own; one string a line,
of 254 bytes at most with its quotes; an inner block ends with C{};}, an outer
one with C{}}. Strings are split at blanks into arguments of a program, in
which C{%%} stands for the interface, C{\\} takes the next character for what it
is, and single quotes hold an argument together.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Sequence

from attrs import field, frozen

from rdvtwisted.errors import InvalidValue
from tunnels.vtun_handshake import LONGEST_SESSION

#: TCP port of a device's local forward to the server, on which its client connects.
PORT = 5000
#: Seconds that the client waits for each message of the server; its own default is 300.
TIMEOUT = 20

#: Bytes of the longest string with its quotes.
LONGEST_STRING = 254
#: Arguments of a program that vtund has room for; it does not check.
MOST_ARGUMENTS = 48
#: Characters of a network interface's name (IFNAMSIZ - 1, linux/if.h).
LONGEST_INTERFACE = 15

#: Characters of a new secret: 62 to the power of 22 is above 2 to the power of 130.
SECRET_LENGTH = 23

#: Words of vtund's own where a session's name stands.
KEYWORDS = frozenset(
    "options default up down port srcaddr addr iface bindaddr persist multi timeout passwd password program speed"
    " compress encrypt type proto nat_hack delay_udp device ppp ifconfig ifcfg firewall route ip keepalive stat"
    " syslog".split()
)
#: Words of vtund's own where a value stands.
VALUES = frozenset(
    "yes no allow deny enable disable tty pipe ether tun tcp udp client server lzo zlib wait killold inetd stand"
    " keep oldblowfish128ecb".split()
) | {
    f"{cipher}{bits}{mode}"
    for cipher in ("blowfish", "aes")
    for bits in (128, 256)
    for mode in ("ecb", "cbc", "cfb", "ofb")
}

#: Programs that an options block knows by these words, where Debian has them.
PROGRAMS = {"ifconfig": "/sbin/ifconfig", "route": "/sbin/route", "ip": "/sbin/ip"}

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]+")
_SECRET = re.compile(r"[A-Za-z0-9_+=!$%&*^@~.-]+")
_PATH = re.compile(r"(?:/[A-Za-z0-9_.-]+)+")
_SUBSTITUTE = r"%[%dAPaph]"
_ARGUMENTS = re.compile(rf"(?:[^%'\\]|{_SUBSTITUTE}|\\.|'(?:[^%'\\]|{_SUBSTITUTE}|\\.)*')*")


def new_secret(choose: Callable[[Sequence[str]], str] = secrets.choice) -> str:
    """
    A secret of at least 128 random bits that vtund and the old devices take:
    letters and digits only, a letter first, longer than any word of vtund's own.

    @param choose: one of these, each as likely, that nobody can guess.
    """
    others = (choose(string.ascii_letters + string.digits) for _ in range(SECRET_LENGTH - 1))
    return choose(string.ascii_letters) + "".join(others)


def check_secret(text: str) -> str:
    """
    C{text}, if vtund reads it as a secret.

    @raise InvalidValue: otherwise; does not repeat it.
    """
    if not _SECRET.fullmatch(text) or text.isdigit() or text in VALUES:
        cure = "use letters, digits and -_+=!$%&*^@~. only, not digits alone, and no word that vtund knows"
        raise InvalidValue("vtun secret", "", cure)
    return text


@frozen
class Command:
    """
    A program that vtund runs when the tunnel is up, or down again.

    @ivar program: one of L{PROGRAMS}, for which vtund waits, or an absolute path.
    @ivar arguments: its arguments, as vtund splits them.
    @ivar wait: wait for a program that is given by its path.
    """

    program: str
    arguments: str
    wait: bool = False

    def __attrs_post_init__(self) -> None:
        if self.program not in PROGRAMS and not _PATH.fullmatch(self.program):
            raise InvalidValue("program", self.program, "use an absolute path of letters, digits and _ . -")
        text = self.arguments
        if not all(" " <= letter <= "~" for letter in text) or '"' in text:
            raise InvalidValue("arguments", text, "use printable ASCII without double quotes")
        if len(text) > LONGEST_STRING - 2:
            raise InvalidValue("arguments", text, f"vtund takes {LONGEST_STRING - 2} characters at most")
        if not _ARGUMENTS.fullmatch(text):
            raise InvalidValue("arguments", text, r"close each quote, follow \ by a character and % by one of %dAPaph")
        if text.count(" ") >= MOST_ARGUMENTS:
            raise InvalidValue("arguments", text, f"use less than {MOST_ARGUMENTS} blanks")

    @property
    def line(self) -> str:
        """The command as an up or down block has it."""
        if self.program in PROGRAMS:
            return f'{self.program} "{self.arguments}";'
        return f'program {self.program} "{self.arguments}"{" wait" if self.wait else ""};'


@frozen
class VtunClient:
    """
    What a stock vtund needs to know to be the client of one session; all else
    the server dictates.

    @ivar interface: the name of its network interface; C{None} lets the kernel choose.
    @ivar up: run one after the other once the tunnel is open; the first should
        bring the interface up, and be one that is waited for.
    """

    session: str
    secret: str = field(repr=False)
    up: tuple[Command, ...] = ()
    down: tuple[Command, ...] = ()
    interface: str | None = None
    port: int = PORT
    timeout: int = TIMEOUT

    def __attrs_post_init__(self) -> None:
        name = self.session
        if not _NAME.fullmatch(name) or len(name) > LONGEST_SESSION or name in KEYWORDS:
            cure = f"use 1 to {LONGEST_SESSION} letters, digits, _ and -, and no word that vtund knows"
            raise InvalidValue("vtun session", name, cure)
        check_secret(self.secret)
        if self.interface is not None:
            self._check_interface(self.interface)
        if not 0 < self.port < 65536:
            raise InvalidValue("port", str(self.port), "use 1 to 65535")
        if not 0 < self.timeout <= 3600:
            raise InvalidValue("timeout", str(self.timeout), "use 1 to 3600 seconds")

    def _check_interface(self, name: str) -> None:
        bad = not _INTERFACE.fullmatch(name) or len(name) > LONGEST_INTERFACE or name in (".", "..")
        if bad or name.isdigit() or name in VALUES:
            cure = f"use 1 to {LONGEST_INTERFACE} letters, digits and _ . -, and no word that vtund knows"
            raise InvalidValue("interface", name, cure)

    @property
    def text(self) -> str:
        """The file; it holds the secret, so only root may read it."""
        lines = ["options {", f"    port {self.port};", f"    timeout {self.timeout};"]
        lines += [f"    {word} {path};" for word, path in PROGRAMS.items()]
        lines += ["}", f"{self.session} {{", f"    passwd {self.secret};", "    persist no;"]
        if self.interface is not None:
            lines.append(f"    device {self.interface};")
        for block, commands in (("up", self.up), ("down", self.down)):
            if commands:
                lines += [f"    {block} {{", *(f"        {command.line}" for command in commands), "    };"]
        return "\n".join([*lines, "}", ""])

    def arguments(self, file: str, server: str = "127.0.0.1") -> list[str]:
        """What vtund is called with to stay in the foreground and connect to C{server}, an address or name."""
        return ["-n", "-f", file, self.session, server]
