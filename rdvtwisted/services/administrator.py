"""An administrator of one server: terminal, settings, inventory, and the control socket of a server that runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from attrs import define, field, frozen

from rdvtwisted.adapters.control import require_short
from rdvtwisted.adapters.control_client import ControlClient, ServerNotRunning
from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.inventory import SqlInventory, open_inventory
from rdvtwisted.adapters.users import this_process
from rdvtwisted.audit import Deed
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import InvalidValue, RDVError
from rdvtwisted.services import lastseen
from rdvtwisted.sightings import Sightings

#: Seconds between two looks whether another process has done with the audit trail.
LOCK_PAUSE = 0.01


class UsageError(RDVError):
    """The command line makes no sense."""

    exit_status = 2


@contextmanager
def reading_arguments() -> Iterator[None]:
    """While values of the command line are taken apart: one that is none of its kind makes no sense there."""
    try:
        yield
    except InvalidValue as error:
        raise UsageError(str(error)) from None


@frozen
class Terminal:
    """Where a command was given."""

    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    environment: Mapping[str, str]
    #: Seconds since the epoch.
    clock: Callable[[], float]
    root: bool
    #: Who gave it, as the audit trail names him.
    actor: str = "admin:unknown"

    @classmethod
    def here(cls) -> Terminal:
        """That of this process."""
        actor = this_process(os.environ)
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ, time.time, os.geteuid() == 0, actor)


@frozen
class Answer:
    """
    What a command has to say: to programs, and to people.

    @ivar lines: text for either, in place of the other two; each with its newline.
    """

    document: object
    text: str
    exit_status: int = 0
    lines: Iterable[str] | None = None


@define
class Administrator:
    """Who gives a command, and what the command works with."""

    settings: ServerSettings
    terminal: Terminal
    #: What people should know besides the answer.
    notes: list[str] = field(factory=list)

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.terminal.clock()

    def ask(self, verb: str, **arguments: object) -> Any:
        """
        The running server's answer.

        @raise RDVError: it is not running, or does not do it.
        """
        self._require_socket()
        return ControlClient(self.settings.control.socket).ask(verb, **arguments)

    def ask_if_running(self, verb: str) -> Any:
        """The running server's answer, or C{None} if there is no server running."""
        try:
            return self.ask(verb)
        except ServerNotRunning:
            return None

    def sightings(self) -> list[dict[str, Any]]:
        """When and how each device was here last; if no server is running, as the last one has left it."""
        found: list[dict[str, Any]] | None = self.ask_if_running("sightings")
        if found is not None:
            return found
        self.notes.append("the server is not running: this is what it knew last")
        left = Sightings(tuple, self.terminal.clock)
        problem = lastseen.recall(left, Path(self.settings.state_directory, lastseen.FILE_NAME))
        if problem:
            self.notes.append(f"when devices were seen last is not known, or not of all: {problem}")
        return left.document()

    @contextmanager
    def inventory(self, *, create: bool = False) -> Iterator[SqlInventory]:
        """
        The inventory; what is damaged in it is noted.

        @raise StateDirectoryError: it cannot be used, or is missing.
        @raise ConfigError: no server could run there, nor be told.
        """
        self._require_socket()
        inventory = open_inventory(self.settings, create=create)
        try:
            self.notes += inventory.problems
            yield inventory
        finally:
            inventory.close()

    def _require_socket(self) -> None:
        cure = "name a shorter path, here and for the server: RDV_SERVER_CONTROL_SOCKET, or in the settings file"
        require_short(self.settings.control.socket, "control.socket", cure)

    def trail(self) -> AuditFiles:
        """The server's audit trail."""
        return AuditFiles.within(self.settings.state_directory, partial(time.sleep, LOCK_PAUSE))

    def announce(self, action: str, device: str = "", *, fingerprint: str = "", detail: str = "") -> dict[str, object]:
        """
        Record what was done to the inventory, and tell the running server that it has changed.

        @param action: what was done, as the audit trail says it; to C{device}, if it was done to one.
        @return: C{running}, and how many devices it has C{dropped}.
        @raise RDVError: the change is stored, but the server did not take note of it.
        """
        self._record(Deed(action, self.terminal.actor, self.now, device, fingerprint=fingerprint, detail=detail))
        try:
            dropped = self.ask_if_running("refresh")
        except RDVError as error:
            raise RDVError(f"it is stored, but the running server took no note of it: {error}") from None
        return {"running": dropped is not None, "dropped": dropped or 0}

    def _record(self, deed: Deed) -> None:
        """What is done is done, also when it cannot be recorded; but it is told."""
        trail = self.trail()
        try:
            trail.append(deed)
            trail.sync()
        except (OSError, RDVError) as error:
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
            self.notes.append(f"it is done, but it is not in the audit trail: {reason}")
        finally:
            trail.close()
