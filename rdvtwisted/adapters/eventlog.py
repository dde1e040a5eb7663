"""Events as log lines, one each; but only so many of one device or door, as whoever is there can cause them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import fields, frozen
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
from rdvtwisted.ration import Ration

#: Characters of one text in a log line: what a peer says must not fill the disk.
LONGEST_TEXT = 200

#: Lines in a minute: on refusals at one door, or of sessions to one master; on one device that comes and goes; and on
#: sessions of one master. What is beyond is counted.
MOST_REFUSALS = 20
MOST_MOVES = 20
MOST_SESSION_LINES = 30

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
#: For an L{EntryRefused} of who has named no account.
_NAMELESS = "refused at {door}: {address}: {reason}"


@frozen
class _Topic:
    """Of what there are so many lines for each subject."""

    lines: int
    #: The line on C{more} of them, for C{subject}.
    more: str


_AT_DOORS = _Topic(MOST_REFUSALS, "refused at {subject}: {more} more")
_DENIALS = _Topic(MOST_REFUSALS, "sessions refused to {subject}: {more} more")
_MOVES = _Topic(MOST_MOVES, "{subject} arrived or left {more} more times")
_SESSIONS = _Topic(MOST_SESSION_LINES, "sessions of {subject} were opened, came up or ended {more} more times")

#: For each kind of event what bounds its lines, and whose they are.
_BOUNDS: dict[type, tuple[_Topic, Callable[[Any], str]]] = {
    DeviceArrived: (_MOVES, lambda event: event.device),
    DeviceLeft: (_MOVES, lambda event: event.device),
    SessionOpened: (_SESSIONS, lambda event: event.session.master),
    SessionRefused: (_DENIALS, lambda event: event.master),
    SessionUp: (_SESSIONS, lambda event: event.session.master),
    SessionEnded: (_SESSIONS, lambda event: event.session.master),
    EntryRefused: (_AT_DOORS, lambda event: event.door),
}


@implementer(IEventSink)
class EventLog:
    """
    Writes each event as one line of the log, its fields beside it.

    Of those beyond what one subject has in a minute only the number is written,
    before its first one of a later minute: no flood fills a disk. The audit
    trail tells of them, too, as L{rdvtwisted.chronicle} has it.
    """

    def __init__(self, log: Logger | None = None, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        @param seconds: the time, by a clock that nobody sets.
        """
        self._log = log or Logger(namespace="rdvtwisted.events")
        topics = {topic for topic, _ in _BOUNDS.values()}
        self._rations = {topic: Ration(seconds, topic.lines) for topic in topics}

    def emit(self, event: Event) -> None:
        """Take note of C{event}; see L{IEventSink}."""
        topic, whose = _BOUNDS[type(event)]
        subject = whose(event)
        line, untold = self._rations[topic].take(subject)
        if untold:
            self._log.info(topic.more, subject=_shown(subject), more=untold)
        if not line:
            return
        values = {each.name: _shown(getattr(event, each.name)) for each in fields(type(event))}
        nameless = isinstance(event, EntryRefused) and not event.account
        self._log.info(_NAMELESS if nameless else _FORMATS[type(event)], **values)


def _shown(value: object) -> object:
    """Text in printable characters only, so that a peer's text cannot look like a line of its own."""
    if type(value) is not str:
        return value
    text = value[:LONGEST_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
