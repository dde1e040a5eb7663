"""One event, several sinks."""

from __future__ import annotations

from attrs import frozen
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.events import Event
from rdvtwisted.interfaces import IEventSink


@implementer(IEventSink)
@frozen
class Sinks:
    """Gives each event to all of its sinks, whatever becomes of one of them."""

    _log = Logger()

    sinks: tuple[IEventSink, ...]

    def emit(self, event: Event) -> None:
        """Take note of C{event}; see L{IEventSink}."""
        for sink in self.sinks:
            try:
                sink.emit(event)
            except Exception:  # noqa: BLE001 - a sink that fails must not end a session
                self._log.failure("An event was not noted")
