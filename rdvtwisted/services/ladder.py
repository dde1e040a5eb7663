"""What a device does that fails again and again: the other door, another server, and in the end a new process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.services.device import DeviceSettings

#: How often in a row the same stage must fail, and for how many seconds, before another way is tried: a server that
#: is restarted is back sooner.
TRIES = 2
SWITCH_SECONDS = 10.0
#: Seconds for which nothing may have worked before the process is replaced, whatever it is that fails.
RESTART_SECONDS = 1800.0

#: Stages of a device's work, as far as they fail by themselves.
MACHINE, CONNECTION, SERVICE = "this machine's network", "the connection", "the server's service"
#: The server has answered that it does not know this device, or as one of another role: so will its other door.
ACCOUNT = "the login"


@define
class Ladder:
    """
    The ways to a device's servers, and which of them is to be used now.

    A way that has worked is left for the first one again when it fails later:
    the operator's choice comes first.

    @ivar ways: the device's settings, one for each server and door, the preferred one first.
    @ivar restart: replaces this process; C{None} if that is not wanted.
    """

    _log = Logger()

    ways: Sequence[DeviceSettings]
    _clock: IReactorTime
    restart: Callable[[], None] | None = None
    _index: int = field(default=0, init=False)
    _stage: str = field(default="", init=False)
    _failures: int = field(default=0, init=False)
    _since: float | None = field(default=None, init=False)
    _switched_at: float = field(default=0.0, init=False)
    _worked: bool = field(default=False, init=False)

    @property
    def way(self) -> DeviceSettings:
        """The way to use now."""
        return self.ways[self._index]

    def worked(self) -> None:
        """The server has done what it is for."""
        self._worked = True
        self._since = None
        self._failures = 0

    def failed(self, stage: str) -> None:
        """A stage has failed: L{MACHINE}, L{CONNECTION}, L{SERVICE} or L{ACCOUNT}."""
        now = self._clock.seconds()
        if self._since is None:
            self._since = self._switched_at = now
        if self._worked:
            self._worked = False
            self._use(0)
        self._failures = self._failures + 1 if stage == self._stage else 1
        self._stage = stage
        if self.restart is not None and now - self._since >= RESTART_SECONDS:
            self._log.error(
                "Nothing has worked for {minutes} minutes, last of all {stage}: this program starts itself anew",
                minutes=int(RESTART_SECONDS // 60),
                stage=stage,
            )
            self._since = now
            self.restart()
        elif stage is not MACHINE and self._failures >= TRIES and now - self._switched_at >= SWITCH_SECONDS:
            self._switch(stage)

    def _switch(self, stage: str) -> None:
        """Use the next way; without another one, that is a new connection, as ever."""
        self._failures, self._switched_at = 0, self._clock.seconds()
        before, door = self.way.place, self.way.tls
        count = len(self.ways)
        others = [(self._index + step) % count for step in range(1, count)]
        if stage is ACCOUNT:
            others = [each for each in others if self.ways[each].tls == door]
        if others:
            self._use(others[0])
            self._log.warn(
                "{stage} fails again and again by {before}: from now on by {now}",
                stage=stage.capitalize(),
                before=before,
                now=self.way.place,
            )

    def _use(self, index: int) -> None:
        self._index = index
