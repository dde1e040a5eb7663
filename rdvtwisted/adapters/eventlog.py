"""Events as log lines, one each; but refusals only so many, as anybody can cause them."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, fields
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.events import (
    DeviceArrived,
    DeviceLeft,
    EntryRefused,
    Event,
    SessionEnded,
    SessionOpened,
    SessionRefused,
    SessionUp,
)
from rdvtwisted.interfaces import IEventSink

#: Characters of one text in a log line: what a peer says must not fill the disk.
LONGEST_TEXT = 200

#: Refusals at one door, or of sessions, that get a line of their own in an interval of so many seconds; the others
#: are counted.
MOST_REFUSALS = 20
INTERVAL_SECONDS = 60.0

_FORMATS: dict[type, str] = {
    DeviceArrived: "{device} ({role}) arrived from {address} through {door} with key {fingerprint}",
    DeviceLeft: "{device} ({role}) left: {reason}",
    SessionOpened: "session {session.id} opened: {session.master} selected {session.onsite}, mode {session.mode}",
    SessionRefused: "session refused to {master} from {address}, with {onsite}: {reason}",
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


@define
class _Refusals:
    """Those at one door, in the present interval."""

    since: float
    count: int = 0


@implementer(IEventSink)
class EventLog:
    """
    Writes each event as one line of the log, its fields beside it.

    Of refusals beyond L{MOST_REFUSALS} only the number is written, before the
    first one of a later interval: no flood of strangers fills a disk.
    """

    def __init__(self, log: Logger | None = None, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        @param seconds: the time, by a clock that nobody sets.
        """
        self._log = log or Logger(namespace="rdvtwisted.events")
        self._seconds = seconds
        self._refusals: dict[str, _Refusals] = {}

    def emit(self, event: Event) -> None:
        """Take note of C{event}; see L{IEventSink}."""
        if isinstance(event, (EntryRefused, SessionRefused)) and not self._is_worth(event):
            return
        values = {each.name: _shown(getattr(event, each.name)) for each in fields(type(event))}
        self._log.info(_FORMATS[type(event)], **values)

    def _is_worth(self, event: EntryRefused | SessionRefused) -> bool:
        """Whether a refusal gets a line."""
        now = self._seconds()
        where = event.door if isinstance(event, EntryRefused) else "sessions"
        refusals = self._refusals.setdefault(where, _Refusals(now))
        if now - refusals.since >= INTERVAL_SECONDS:
            more = refusals.count - MOST_REFUSALS
            if more > 0:
                self._log.info("refused at {door}: {more} more", door=where, more=more)
            self._refusals[where] = refusals = _Refusals(now)
        refusals.count += 1
        return refusals.count <= MOST_REFUSALS


def _shown(value: object) -> object:
    """Text in printable characters only, so that a peer's text cannot look like a line of its own."""
    if type(value) is not str:
        return value
    text = value[:LONGEST_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
