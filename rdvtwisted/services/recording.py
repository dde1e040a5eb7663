"""What a server tells of what happens on it: a log for those who look now, an audit trail for those who ask later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from attrs import define, field

import rdvtwisted
from rdvtwisted.adapters.eventlog import EventLog
from rdvtwisted.adapters.sinks import Sinks
from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.audittrail import AuditTrail
from rdvtwisted.chronicle import Chronicle
from rdvtwisted.services.reckoning import FILE_NAME, Reckoning


@define(eq=False)
class Recording:
    """
    The log and the audit trail of one server.

    @ivar sink: where its events go.
    """

    trail: AuditTrail
    chronicle: Chronicle
    reckoning: Reckoning
    sink: Sinks = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sink = Sinks((EventLog(), self.chronicle))

    @classmethod
    def within(cls, state_directory: str, reactor: Any) -> Recording:
        """The recording of a server in its state directory; nothing is opened before there is something to write."""
        files = AuditFiles.within(state_directory)
        trail = AuditTrail(files, reactor, reactor.callInThread, time.time)
        chronicle = Chronicle(trail, reactor, time.time)
        path = Path(state_directory, FILE_NAME)
        return cls(trail, chronicle, Reckoning(path, trail, files.lines_back, chronicle.open, reactor, time.time))

    def start(self) -> None:
        """The server has started; first it closes what the one before it has left open."""
        self.reckoning.settle()
        self.trail.start(f"rdvtwisted {rdvtwisted.__version__}")
        self.reckoning.start()

    def stop(self) -> None:
        """The server has stopped: nothing comes any more."""
        self.chronicle.stop()
        self.reckoning.stop()
        self.trail.stop()
