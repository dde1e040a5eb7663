"""Events as log lines, one each."""

from __future__ import annotations

from attrs import fields
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    Event,
    SessionEnded,
    SessionOpened,
    SessionUp,
)
from rdvtwisted.interfaces import IEventSink

#: Characters of one text in a log line: what a peer says must not fill the disk.
LONGEST_TEXT = 200

_FORMATS: dict[type, str] = {
    DeviceArrived: "{device} ({role}) arrived from {address} through {door} with key {fingerprint}",
    DeviceLeft: "{device} ({role}) left: {reason}",
    SessionOpened: "session {session.id} opened: {session.master} selected {session.onsite}, mode {session.mode}",
    SessionUp: (
        "session {session.id} is up: {session.master} to {session.onsite},"
        " mode {session.mode}, tunnel {session.backend}, join {session.join}"
    ),
    SessionEnded: (
        "session {session.id} ended: {session.master} to {session.onsite}, reason {reason},"
        " {session.to_onsite} bytes to the onsite, {session.to_master} to the master"
    ),
    EntryRefused: "refused at {door}: {address}, account {account}: {reason}",
}


@implementer(IEventSink)
class EventLog:
    """Writes each event as one line of the log, its fields beside it."""

    def __init__(self, log: Logger | None = None) -> None:
        self._log = log or Logger(namespace="rdvtwisted.events")

    def emit(self, event: Event) -> None:
        """Take note of C{event}; see L{IEventSink}."""
        values = {each.name: _shown(getattr(event, each.name)) for each in fields(type(event))}
        self._log.info(_FORMATS[type(event)], **values)


def _shown(value: object) -> object:
    """Text in printable characters only, so that a peer's text cannot look like a line of its own."""
    if type(value) is not str:
        return value
    text = value[:LONGEST_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
