"""The boundary of a session: what may be done in it by the server's leave, and by this device's own rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted import localaccess
from rdvtwisted.access import SessionGrant
from rdvtwisted.adapters import rootfile
from rdvtwisted.errors import ConfigError
from rdvtwisted.localaccess import LARGEST_FILE, LocalRules
from rdvtwisted.plan import Plan
from rdvtwisted.requests import GetSessionGrant
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.services.link import Link
from rdvtwisted.services.pace import LINES, Turns
from rdvtwisted.values import TunnelParameters

#: Characters of the list of destinations that people are shown.
LONGEST_TEXT = 1000
#: Where an onsite's own rules are looked for; there need be none.
USUAL_FILE = Path("/etc/rdvtwisted/access.toml")


@define
class LocalAccess:
    """
    This device's own rules: those of a file, as it is at any moment, within a scope.

    @ivar file: C{None} for none.
    @ivar required: without the file nothing is allowed; otherwise it limits nothing.
    @ivar scope: that of the command line.
    """

    file: Path | None = None
    required: bool = False
    scope: Scope = ALL
    _seen: tuple[int, ...] | None = field(default=None, init=False, eq=False)
    _rules: LocalRules = field(factory=LocalRules, init=False, eq=False)

    def rules(self) -> LocalRules:
        """
        The rules now.

        @raise ConfigError: the file cannot be used, so that nothing is allowed.
        """
        if self.file is None:
            return LocalRules(self.scope)
        try:
            found = rootfile.require(self.file)
            seen = found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size
            if seen != self._seen:
                # What cannot be used is looked at again.
                self._seen = None
                self._rules = localaccess.parse(rootfile.read(self.file, LARGEST_FILE)).within(self.scope)
                self._seen = seen
        except FileNotFoundError:
            self._seen = None
            if self.required:
                raise ConfigError("access", f"there is no file {self.file}") from None
            return LocalRules(self.scope)
        except ConfigError as error:
            raise ConfigError(f"access.{error.key}", f"{error.problem} (in {self.file})") from None
        return self._rules


@define(eq=False)
class Boundary:
    """
    What may be done in one session, as of the last time that somebody asked.

    @ivar local: this device's own rules.
    @ivar parameters: those of the session.
    @ivar link: on which the server is asked.
    @ivar plan_for: makes the plan of a scope.
    @ivar number: of the server's grant; C{None} of a server that gives none.
    @ivar scope: where packets may go.
    @ivar ends_at: when the session must be over, by C{clock}; C{None} if it need not be.
    """

    _log = Logger()

    local: LocalAccess
    parameters: TunnelParameters
    link: Link
    clock: IReactorTime
    plan_for: Callable[[Scope], Plan]
    number: int | None = field(default=None, init=False)
    scope: Scope = field(default=ALL, init=False)
    ends_at: float | None = field(default=None, init=False)
    _granted: Scope = field(default=ALL, init=False)
    #: The server decides how often it changes.
    _lines: Turns = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = Turns(self.clock, *LINES)

    async def learn(self) -> None:
        """
        Ask the server, and look at the rules here.

        @raise AccessDenied: there can be no such session.
        @raise RDVError: the server does not say, or the rules here cannot be used.
        """
        if not self.link.old:
            grant: SessionGrant = await self.link.ask(GetSessionGrant())
            self.number, self._granted = grant.revision, grant.scope
            self.ends_at = None if grant.seconds is None else self.clock.seconds() + grant.seconds
        self.scope = self.local.rules().limit(self.parameters, self._granted)

    async def renew(self, number: int) -> bool:
        """
        Do so again, if something is different.

        @param number: that of the server's grant now.
        @return: whether the scope is another one.
        @raise RDVError: as L{learn} does.
        """
        former = self.scope
        if self.number not in (None, number):
            await self.learn()
        else:
            self.scope = self.local.rules().limit(self.parameters, self._granted)
        if self.scope == former:
            return False
        if self._lines.may():
            self._log.info("Where packets may go has changed: {places}", places=self.places)
        return True

    @property
    def places(self) -> str:
        """Where packets may go, for people."""
        text = str(self.scope)
        return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} and more"

    @property
    def plan(self) -> Plan:
        """The plan of the scope."""
        return self.plan_for(self.scope)
