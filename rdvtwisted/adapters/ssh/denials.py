"""What devices that are logged in are refused, as lines of the log: so many for each device, then their number."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.ration import Ration

#: Lines for one device in a minute; what is beyond is counted.
LINES_PER_DEVICE = 5

#: Requests that stock clients make whoever the server is, and do not need: not worth a line. OpenSSH sends variables
#: and says what it will not do; PuTTY measures the line with a request that nobody knows.
_ROUTINE = frozenset(
    [b"env", b"eow@openssh.com", b"no-more-sessions@openssh.com", b"winadj@putty.projects.tartarus.org"]
)
#: Signs of life: OpenSSH's, and those of others, which have other names behind it.
_SIGN_OF_LIFE = b"keepalive@"
#: Characters of a name that are logged.
_LONGEST_NAME = 64


def request(name: bytes) -> str | None:
    """A request of this name, in words; L{None} if no line is to be made of its being refused."""
    if name in _ROUTINE or name.startswith(_SIGN_OF_LIFE):
        return None
    return f"the request {_shown(name)}"


def channel(kind: bytes) -> str:
    """A channel of this kind, in words."""
    return f"a channel of the kind {_shown(kind)}"


def forward(host: str, port: int) -> str:
    """A forward to there, in words."""
    return f"a forward to {_shown(host.encode('utf-8', 'replace'))} port {port}"


def _shown(name: bytes) -> str:
    # No name that is in use needs more than ASCII.
    return ascii(name[:_LONGEST_NAME])[1:]


@define(eq=False)
class Denials:
    """All that is refused at a server; of what has no line the number is told with the device's next one."""

    _log = Logger()

    _clock: IReactorTime
    _ration: Ration = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ration = Ration(self._clock.seconds, LINES_PER_DEVICE)

    def add(self, device: str, what: str, reason: str = "") -> None:
        """
        A device was refused something.

        @param what: that, printable and of bounded length; as is C{reason}, if there is one.
        """
        line, untold = self._ration.take(device)
        if untold:
            self._log.info("{device} was refused {count} more things before", device=device, count=untold)
        if not line:
            return
        colon = ": " if reason else ""
        self._log.info(
            "{device} was refused {what}{colon}{reason}", device=device, what=what, colon=colon, reason=reason
        )
