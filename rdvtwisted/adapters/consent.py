"""How a site says that it agrees to a session: a file, a program, and a socket for the command C{rdv-onsite}."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.adapters import rootfile
from rdvtwisted.adapters.control import ServerRefused
from rdvtwisted.adapters.hooks import run
from rdvtwisted.consent import Consent, Visit
from rdvtwisted.errors import ConfigError
from rdvtwisted.interfaces import IPrograms

#: Name of the socket in a device's state directory.
SOCKET = "control"


@define(eq=False)
class ConsentFile:
    """
    A file that stands for the site's consent as long as it is there, counted from the time when it was last changed.

    It must belong to root or to the device's user; one that somebody else can write, or remove, means nothing.

    @ivar window: seconds for which it holds.
    @ivar now: the wall clock, seconds since the epoch, by which files have their times.
    """

    _log = Logger()

    path: Path
    window: float
    now: Callable[[], float]
    _trouble: str = field(default="", init=False)

    def left(self) -> float | None:
        """Seconds for which it still holds; 0 if it is too old, C{None} if it is not there."""
        try:
            found = rootfile.require(self.path, {0, os.geteuid()})
        except FileNotFoundError:
            self._trouble = ""
            return None
        except ConfigError as error:
            if error.problem != self._trouble:
                self._trouble = error.problem
                self._log.error("The consent file is no consent: {problem}", problem=error.problem)
            return None
        # A time to come, as after a change of the clock, gives no more than the window.
        return min(self.window, max(0.0, found.st_mtime + self.window - self.now()))


@define(eq=False)
class ConsentProgram:
    """
    A program of root's that is asked, such as one that waits for a button: its exit status 0 means yes.

    @ivar device: the device's id.
    @ivar seconds: that it has, after which it is killed.
    """

    programs: IPrograms
    clock: IReactorTime
    path: Path
    device: str
    seconds: float

    def ask(self, visit: Visit) -> Deferred[bool]:
        """Ask it; what it is told is in its environment."""
        return Deferred.fromCoroutine(self._ask(visit))

    async def _ask(self, visit: Visit) -> bool:
        environment = {
            "RDV_DEVICE": self.device,
            "RDV_SESSION": visit.session,
            "RDV_MASTER": visit.master,
            "RDV_MODE": visit.mode.value,
            "RDV_SECONDS": f"{self.seconds:g}",
        }
        try:
            return await run(self.programs, self.clock, self.path, environment, self.seconds) == 0
        except FileNotFoundError:
            raise ConfigError("consent-program", f"there is no file {self.path}") from None


def _grant(consent: Consent, request: Mapping[str, object]) -> object:
    seconds = request.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float))):
        raise ServerRefused("seconds is a number")
    session = request.get("session")
    if session is not None and not isinstance(session, str):
        raise ServerRefused("session is the id of one")
    return consent.grant(None if seconds is None else float(seconds), session)


#: All that can be asked of a device, and how each is answered.
VERBS: Mapping[str, Callable[[Consent, Mapping[str, object]], object]] = {
    "grant": _grant,
    "refuse": lambda consent, _: consent.refuse(),
    "end": lambda consent, _: consent.end(),
    "status": lambda consent, _: consent.status(),
}

_log = Logger()


def perform(consent: Consent, line: bytes, actor: str) -> object:
    """
    What a device answers to the request in C{line}, made as L{rdvtwisted.adapters.control} says.

    @param actor: who makes it, for the log.
    @raise RDVError: it is no request, or cannot be done now.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ServerRefused("the request is not JSON") from None
    verb = request.get("verb") if isinstance(request, dict) else None
    if not isinstance(verb, str) or verb not in VERBS:
        raise ServerRefused(f"there is no such verb: use {', '.join(VERBS)}")
    answer = VERBS[verb](consent, request)
    if verb != "status":
        _log.info("{actor}: {answer}", actor=actor, answer=answer)
    return answer
