"""Commands of C{rdvctl} on the audit trail: they read its files, whether or not the server runs."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

from attrs import define, field

from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.audit import Entry, InvalidEntry, Mark, timestamp
from rdvtwisted.errors import InvalidValue, RDVError
from rdvtwisted.services import namedfile
from rdvtwisted.services.administrator import Administrator, Answer, reading_arguments
from rdvtwisted.services.console import amount, duration
from rdvtwisted.services.moments import moment_gone
from rdvtwisted.services.tables import listing, table
from rdvtwisted.verification import Verdict, verify

Facts = Mapping[str, object]


class Unverifiable(RDVError):
    """There is nothing that could be verified: another exit status than that of a trail that is broken."""

    exit_status = 3


_HEADER = ("ENTRY", "TIME", "ACTION", "ACTOR", "DEVICE", "SESSION", "FROM", "WHAT")


def list_(admin: Administrator, arguments: Namespace) -> Answer:
    """The newest entries, or those that are asked for."""
    selection = _Selection.of(admin, arguments)
    found: deque[Facts] = deque(maxlen=arguments.last or None)
    number = 0
    for facts, _ in selection.of_trail(admin.trail()):
        found.append(facts)
        number += 1
    selection.warn(admin)
    text = table(_HEADER, [_row(facts) for facts in found]) if found else "There is no such entry."
    if number > len(found):
        text += f"\n{number - len(found)} older entries are left out; see --last"
    return Answer([dict(facts) for facts in found], text)


def show(admin: Administrator, arguments: Namespace) -> Answer:
    """One entry, all of it."""
    for line in _lines(admin.trail()):
        try:
            entry = Entry.from_line(line)
        except InvalidEntry:
            continue
        if entry.mark.number == arguments.number:
            words = {name.replace("_", " "): value for name, value in entry.facts.items()}
            return Answer(dict(entry.facts), listing({"entry": words.pop("entry"), **words}))
    raise InvalidValue("entry", str(arguments.number), "there is no such entry; see rdvctl audit list")


def verify_(admin: Administrator, arguments: Namespace) -> Answer:
    """Whether the trail, or an exported one, is whole."""
    with reading_arguments():
        after = None if arguments.after is None else Mark.from_text(arguments.after)
        known = None if arguments.head is None else Mark.from_text(arguments.head)
    trail = admin.trail()
    where = arguments.file or str(trail.path)
    lines = _lines(trail) if arguments.file is None else _file_lines(admin, arguments.file)
    try:
        verdict = verify(lines, after, known)
    except RDVError as error:
        raise Unverifiable(str(error)) from None
    document = {
        "whole": verdict.broken is None and verdict.head is not None,
        "entries": verdict.entries,
        "torn": verdict.torn,
        "losses": verdict.losses,
        "head": None if verdict.head is None else str(verdict.head),
        "broken": None
        if verdict.broken is None
        else {"entry": verdict.broken.entry, "line": verdict.broken.line, "problem": verdict.broken.problem},
    }
    if verdict.broken is not None:
        place = f"{where}, line {verdict.broken.line}"
        if arguments.file is None:
            found = trail.place(verdict.broken.line)
            place = f"{found.path}, line {found.line}"
        text = f"The audit trail is broken at entry {verdict.broken.entry} ({place}): {verdict.broken.problem}"
    elif verdict.head is None or not verdict.entries:
        text = f"There is no audit trail in {where}"
        return Answer({**document, "whole": False}, text, exit_status=Unverifiable.exit_status)
    else:
        text = _whole(verdict, verdict.head, known)
    return Answer(document, text, exit_status=0 if document["whole"] else 1)


def export(admin: Administrator, arguments: Namespace) -> Answer:
    """The entries as they are, one JSON object a line."""
    selection = _Selection.of(admin, arguments)
    lines = (line for _, line in selection.of_trail(admin.trail(), whole=not selection.asks))
    if arguments.file in (None, "-"):
        return Answer(None, "", lines=(line.decode("ascii", "backslashreplace") for line in lines))
    number = 0

    def counted() -> Iterator[bytes]:
        nonlocal number
        for line in lines:
            number += 1
            yield line

    # For those whose business the trail is: it has addresses of people in it.
    namedfile.export(arguments.file, counted(), 0o600)
    selection.warn(admin)
    words = "1 line" if number == 1 else f"{number} lines"
    return Answer({"lines": number, "file": arguments.file}, f"{words} written to {arguments.file}.")


def head(admin: Administrator, _: Namespace) -> Answer:
    """The mark of the last entry."""
    trail = admin.trail()
    try:
        mark = trail.head()
    except OSError as error:
        raise _unreadable(trail, error) from None
    if mark is None:
        raise RDVError(f"there is no audit trail in {trail.path}")
    return Answer({"entry": mark.number, "hash": mark.hash, "head": str(mark)}, str(mark))


@define
class _Selection:
    """Which entries are asked for."""

    asks: bool
    since: str
    until: str
    device: str | None
    session: str | None
    action: str | None
    _unread: int = field(default=0, init=False)

    @classmethod
    def of(cls, admin: Administrator, arguments: Namespace) -> _Selection:
        with reading_arguments():
            since, until = (
                None if text is None else timestamp(moment_gone(text, admin.now))
                for text in (arguments.since, arguments.until)
            )
        wanted = (since, until, arguments.device, arguments.session, arguments.action)
        asks = any(each is not None for each in wanted)
        return cls(asks, since or "", until or "~", arguments.device, arguments.session, arguments.action)

    def of_trail(self, trail: AuditFiles, whole: bool = False) -> Iterator[tuple[Facts, bytes]]:
        """The entries that are meant, with their lines; of a C{whole} trail also the lines that are no entries."""
        for line in _lines(trail):
            try:
                facts = Entry.from_line(line).facts
            except InvalidEntry:
                self._unread += 1
                if whole:
                    yield {}, line
                continue
            if self._means(facts):
                yield facts, line if line.endswith(b"\n") else line + b"\n"

    def warn(self, admin: Administrator) -> None:
        """Say that there was something that is no entry."""
        if self._unread:
            admin.notes.append(f"lines that are no entries: {self._unread}; see rdvctl audit verify")

    def _means(self, facts: Facts) -> bool:
        if not self.since <= str(facts["time"]) < self.until:
            return False
        if self.device is not None and self.device not in (
            facts.get("device"),
            facts.get("master"),
            str(facts["actor"]).removeprefix("device:"),
        ):
            return False
        if self.session is not None and self.session != facts.get("session"):
            return False
        return self.action is None or self.action in (facts["action"], facts.get("reason"))


def _lines(trail: AuditFiles) -> Iterator[bytes]:
    try:
        yield from trail.lines()
    except OSError as error:
        raise _unreadable(trail, error) from None


def _file_lines(admin: Administrator, file: str) -> Iterator[bytes]:
    try:
        with ExitStack() as stack:
            lines: Iterable[bytes]
            if file == "-":
                lines = (line.encode("utf-8", "surrogateescape") for line in admin.terminal.stdin)
            else:
                lines = stack.enter_context(namedfile.opened(file))
            yield from lines
    except OSError as error:
        raise RDVError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from None


def _unreadable(trail: AuditFiles, error: OSError) -> RDVError:
    cure = ": run as its owner or as root" if isinstance(error, PermissionError) else ""
    return RDVError(f"cannot read {trail.path}: {(error.strerror or str(error)).lower()}{cure}")


def _whole(verdict: Verdict, mark: Mark, known: Mark | None) -> str:
    first = mark.number - verdict.entries + 1
    torn = f", {verdict.torn} of them behind a torn line" if verdict.torn else ""
    end = "" if known is not None else "; that its end was not cut off is known only with --head"
    if verdict.losses:
        end += (
            f". Its end was cut off under a running server {verdict.losses} times before;"
            " see rdvctl audit list --action end-lost"
        )
    count = "1 entry" if verdict.entries == 1 else f"{verdict.entries} entries"
    return f"The audit trail is whole: {count}, {first} to {mark.number}{torn}; head {mark}{end}"


def _row(facts: Facts) -> tuple[object, ...]:
    time = str(facts["time"])
    return (
        facts["entry"],
        f"{time[:10]} {time[11:19]}",
        facts["action"],
        facts["actor"],
        facts.get("device"),
        facts.get("session"),
        facts.get("address"),
        ", ".join(_what(facts)),
    )


def _what(facts: Facts) -> Iterator[str]:
    """What there is no column for."""
    if "count" in facts:
        yield f"{facts['count']} times"
    for name in ("reason", "detail", "master", "mode", "backend", "join"):
        if name in facts:
            yield f"{name} {facts[name]}" if name == "master" else str(facts[name])
    if "duration_ms" in facts:
        yield duration(int(str(facts["duration_ms"])) / 1000)
    for side in ("onsite", "master"):
        if f"bytes_to_{side}" in facts:
            yield f"{amount(int(str(facts[f'bytes_to_{side}'])))} to the {side}"
