"""What a server tells of what happens on it: a log for those who look now, an audit trail for those who ask later."""

from __future__ import annotations

import time
from typing import Any

from attrs import define, field

import rdvtwisted
from rdvtwisted.adapters.eventlog import EventLog
from rdvtwisted.adapters.sinks import Sinks
from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.adapters.store.audittrail import AuditTrail
from rdvtwisted.chronicle import Chronicle


@define(eq=False)
class Recording:
    """
    The log and the audit trail of one server.

    @ivar sink: where its events go.
    """

    trail: AuditTrail
    chronicle: Chronicle
    sink: Sinks = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sink = Sinks((EventLog(), self.chronicle))

    @classmethod
    def within(cls, state_directory: str, reactor: Any) -> Recording:
        """The recording of a server in its state directory; nothing is opened before there is something to write."""
        trail = AuditTrail(AuditFiles.within(state_directory), reactor, reactor.callInThread, time.time)
        return cls(trail, Chronicle(trail, reactor, time.time))

    def start(self) -> None:
        """The server has started."""
        self.trail.start(f"rdvtwisted {rdvtwisted.__version__}")

    def stop(self) -> None:
        """The server has stopped: nothing comes any more."""
        self.chronicle.stop()
        self.trail.stop()
