"""Who is at the TLS door and has not been let through yet."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from rdvtwisted.origin import address_text
from rdvtwisted.vestibule import Regulars, Vestibule

#: C{refused(door, address, account, reason)}: L{rdvtwisted.interfaces.IReception.refused}.
Refused = Callable[[str, str, str, str], None]

DOOR = "tls"


@frozen
class Limits:
    """What the door grants to those who have not shown yet what they are."""

    #: Seconds from the connection to the end of the TLS handshake.
    handshake: float = 10.0
    #: Seconds from there to a tunnel's ticket, and again from the ticket to the end of the outer TLS.
    ticket: float = 10.0
    #: Connections at a time that are not through yet.
    visits: int = 256
    #: The same from one address, behind which there may be a good many devices.
    visits_per_address: int = 32


class Visits:
    """All visits of a door."""

    def __init__(self, clock: IReactorTime, limits: Limits, refused: Refused, regulars: Regulars | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._refused = refused
        self._vestibule = Vestibule(
            limits.visits,
            limits.visits_per_address,
            "too many connections have not shown what they are",
            clock,
            refused,
            regulars or Regulars(),
        )

    def begin(self, address: IAddress | None) -> Visit | None:
        """Take somebody in; L{None} if there are too many from there."""
        visit = Visit(self, self._clock, address_text(address))
        host = str(getattr(address, "host", ""))
        return visit if self._vestibule.enter(visit, DOOR, host, visit.put_out) else None

    def advance(self, visit: Visit) -> None:
        """Somebody has come one stage nearer to being through."""
        self._vestibule.advance(visit)

    def end(self, visit: Visit) -> None:
        """Somebody is through, or gone."""
        self._vestibule.leave(visit)

    def report(self, address: str, reason: str) -> None:
        """Somebody is refused."""
        self._refused(DOOR, address, "", reason)

    def __len__(self) -> int:
        return len(self._vestibule)


@define(eq=False)
class Visit:
    """One connection from its arrival until it is let through, refused or gone."""

    visits: Visits
    _clock: IReactorTime
    #: Host and port, as text.
    address: str
    #: Closes the connection, once there is one.
    abort: Callable[[], None] = lambda: None
    _timer: IDelayedCall | None = None
    _over: bool = False

    def within(self, seconds: float, late: Callable[[], None]) -> None:
        """Call C{late} after so many seconds, unless this is called again or the visit ends before."""
        self._stop_timer()
        self._timer = self._clock.callLater(seconds, self._late, late)

    def advance(self) -> None:
        """One stage nearer to being through: the handshake has begun, or is done."""
        self.visits.advance(self)

    def end(self) -> None:
        """Let through, or gone. Idempotent."""
        self._stop_timer()
        if not self._over:
            self._over = True
            self.visits.end(self)

    def put_out(self) -> None:
        """Others have come, and this one had the most time to show what it is: cut it off."""
        self.end()
        self.abort()

    def refuse(self, reason: str) -> None:
        """End it with a log line; nothing after the end."""
        if not self._over:
            self.end()
            self.visits.report(self.address, reason)

    def blame(self, reason: str) -> None:
        """End it with a log line, also of somebody who was let through before."""
        self.end()
        self.visits.report(self.address, reason)

    def _late(self, late: Callable[[], None]) -> None:
        self._timer = None
        late()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
