"""Programs of this machine's administrator, run at a moment of a session and told about it by their environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rdvtwisted.adapters import rootfile
from rdvtwisted.errors import ConfigError, HookFailed, MissingProgram
from rdvtwisted.interfaces import IProgram, IPrograms

#: Where a device's hooks are looked for; there need be none.
USUAL_DIRECTORY = Path("/etc/rdvtwisted/hooks")
#: Seconds that a hook may take, unless a setting says otherwise: a session must be built in time.
HOOK_SECONDS = 10.0
#: Seconds that C{pre-down} may take at most: until it has ended, the tunnel is still there.
PRE_DOWN_SECONDS = 3.0
#: All that there can be: before and after a session's tunnel and configuration are made, and taken away.
HOOKS = ("pre-up", "post-up", "pre-down", "post-down")

_log = Logger()


async def run(
    programs: IPrograms, clock: IReactorTime, path: Path, environment: Mapping[str, str], seconds: float
) -> int:
    """
    Run a program that is root's and nobody else's to write, in all directories on its way.

    What it says goes to the log. Cancelled, or when its time is over, it is ended.

    @return: its exit status.
    @raise FileNotFoundError: there is none.
    @raise HookFailed: it may be somebody else's work, cannot be started, takes too long, or is ended by a signal.
    """
    try:
        rootfile.require(path)
        program: IProgram = programs.start([str(path)], {}, environment=dict(environment))
    except ConfigError as error:
        raise HookFailed(f"{path} is not run: {error.problem}") from None
    except MissingProgram as error:
        raise HookFailed(f"{path} cannot be run, is it executable? {error}") from None
    over: Deferred[str] = Deferred()

    def tell(manner: str) -> str:
        if not over.called:
            over.callback(manner)
        return manner

    program.ended.addCallback(tell)
    over.addTimeout(seconds, clock)
    try:
        manner = await over
    except defer.TimeoutError:
        await program.end()
        raise HookFailed(f"{path} was killed: it had not ended after {seconds:g} s") from None
    except CancelledError:
        await program.end()
        raise
    finally:
        for line in program.output():
            _log.info("{path}: {line}", path=str(path), line=line)
    if program.status is None:
        raise HookFailed(f"{path} failed: {manner}")
    status: int = program.status
    return status


@define(eq=False)
class Hooks:
    """
    The hooks of one device: programs named C{pre-up}, C{post-up}, C{pre-down} and C{post-down} in a directory.

    They run one after the other, never two at a time.

    @ivar directory: absolute; it need not be there.
    @ivar seconds: that each may take.
    """

    programs: IPrograms
    clock: IReactorTime
    directory: Path = USUAL_DIRECTORY
    seconds: float = HOOK_SECONDS
    _turn: defer.DeferredLock = field(factory=defer.DeferredLock, init=False)

    def problems(self) -> list[str]:
        """What is there and would not be run now, and why: a line each."""
        found = []
        for name in HOOKS:
            try:
                rootfile.require(self.directory / name)
            except FileNotFoundError:
                continue
            except ConfigError as error:
                found.append(f"{self.directory / name} will not be run: {error.problem}")
        return found

    async def require(self, name: str, environment: Mapping[str, str]) -> None:
        """
        Run a hook, if it is there.

        @raise HookFailed: it is not to be trusted, or does not end with status 0.
        """
        await self._turn.acquire()
        try:
            limit = min(self.seconds, PRE_DOWN_SECONDS) if name == "pre-down" else self.seconds
            status = await run(
                self.programs, self.clock, self.directory / name, {**environment, "RDV_HOOK": name}, limit
            )
        except FileNotFoundError:
            return
        finally:
            self._turn.release()
        if status != 0:
            raise HookFailed(f"{self.directory / name} failed with status {status}")

    async def notify(self, name: str, environment: Mapping[str, str]) -> None:
        """Run a hook, if it is there; what goes wrong is logged, and changes nothing."""
        try:
            await self.require(name, environment)
        except HookFailed as error:
            _log.error("{error}", error=str(error))
