"""How often a server, whatever it says, can make an onsite do something, and have it tell of that."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.services.console import Console
from rdvtwisted.services.pace import Turns

#: How many rounds may follow each other at once, and the seconds after which there is one more; and so for those in
#: which no session was up.
ROUNDS = (30, 1.0)
IDLE_ROUNDS = (10, 5.0)


@define(eq=False)
class Rounds:
    """
    The rounds of an onsite: each is a wait for a master, and what becomes of it.

    A master that selects the device finds it at once, as long as that does not
    come to nothing again and again; then the device takes its time, and tells
    no more of it.
    """

    _log = Logger()

    clock: IReactorTime
    console: Console
    _all: Turns = field(init=False)
    _idle: Turns = field(init=False)
    #: When the next one may begin, if a session was up in this one, and in any case.
    _next_at: float = field(default=0.0, init=False)
    _idle_until: float = field(default=0.0, init=False)
    _quiet: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._all = Turns(self.clock, *ROUNDS)
        self._idle = Turns(self.clock, *IDLE_ROUNDS)

    @property
    def quiet(self) -> bool:
        """There were too many: no line is told of this one, unless a session is up in it."""
        return self._quiet

    def begin(self) -> None:
        """The server has answered a wait."""
        now = self.clock.seconds()
        self._next_at = now + self._all.take()
        self._idle_until = max(self._next_at, now + self._idle.take())
        former, self._quiet = self._quiet, self._idle_until > now
        if self._quiet and not former:
            self._log.warn(
                "The server is too quick with what comes to nothing: every {seconds:.0f} s from now on, and not told",
                seconds=self._idle.seconds,
            )

    def up(self) -> None:
        """A session is up."""
        self._quiet = False
        self._idle.give_back()
        self._idle_until = self._next_at

    def left(self) -> float:
        """Seconds until the next one may begin; 0 for at once."""
        return max(0.0, self._idle_until - self.clock.seconds())

    def say(self, line: str) -> None:
        """Tell the operator of this round."""
        if self._quiet:
            self._log.debug("{line}", line=line)
        else:
            self.console.say(line)

    def record(self, event: str, **facts: object) -> None:
        """Keep a record of this round."""
        if not self._quiet:
            self.console.record(event, **facts)
