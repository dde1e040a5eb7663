"""An administrator of one server: terminal, settings, inventory, and the control socket of a server that runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from attrs import define, field, frozen

from rdvtwisted.adapters.control_client import ControlClient, ServerNotRunning
from rdvtwisted.adapters.store.inventory import SqlInventory, open_inventory
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import RDVError


class UsageError(RDVError):
    """The command line makes no sense."""

    exit_status = 2


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

    @classmethod
    def here(cls) -> Terminal:
        """That of this process."""
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ, time.time, os.geteuid() == 0)


@frozen
class Answer:
    """What a command has to say: to programs, and to people."""

    document: object
    text: str
    exit_status: int = 0


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
        return ControlClient(self.settings.control.socket).ask(verb, **arguments)

    def ask_if_running(self, verb: str) -> Any:
        """The running server's answer, or C{None} if there is no server running."""
        try:
            return self.ask(verb)
        except ServerNotRunning:
            return None

    @contextmanager
    def inventory(self, *, create: bool = False) -> Iterator[SqlInventory]:
        """
        The inventory; what is damaged in it is noted.

        @raise StateDirectoryError: it cannot be used, or is missing.
        """
        inventory = open_inventory(self.settings, create=create)
        try:
            self.notes += inventory.problems
            yield inventory
        finally:
            inventory.close()

    def announce(self) -> dict[str, object]:
        """
        Tell the running server that the inventory has changed.

        @return: C{running}, and how many devices it has C{dropped}.
        @raise RDVError: the change is stored, but the server did not take note of it.
        """
        try:
            dropped = self.ask_if_running("refresh")
        except RDVError as error:
            raise RDVError(f"it is stored, but the running server took no note of it: {error}") from None
        return {"running": dropped is not None, "dropped": dropped or 0}
