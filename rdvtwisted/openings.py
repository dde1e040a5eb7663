"""Sessions that are open in the audit trail, and the end that they get when their server ended without notice."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from attrs import asdict, evolve, fields, frozen

from rdvtwisted.audit import Deed, Entry, InvalidEntry, timestamp
from rdvtwisted.values import EndReason, SessionView

#: How the lines begin that matter here, for C{action} is the first member of every entry: most lines do not.
_MATTERS = b'{"action":"se'
#: Entries of a server's life: all sessions before them have their ends.
_BOUNDS = ("server-started", "server-stopped")


@frozen
class Opening:
    """
    A session whose opening is in the trail, and whose end is not.

    @ivar opened: when, in seconds since the epoch.
    @ivar up: when it was up; 0 if it is not.
    """

    session: str
    master: str
    device: str
    mode: str
    backend: str
    join: str
    opened: float
    up: float = 0.0

    @classmethod
    def of(cls, view: SessionView, now: float) -> Opening:
        """That of a session which is opened now."""
        return cls(view.id, view.master, view.onsite, view.mode.value, view.backend, view.join, now)

    @classmethod
    def understood(cls, document: object) -> Opening | None:
        """What L{document} has given; C{None} if it is something else."""
        if not isinstance(document, dict):
            return None
        found: dict[str, Any] = {each.name: document.get(each.name) for each in fields(cls)}
        for name, value in found.items():
            numeric = name in ("opened", "up")
            if isinstance(value, bool) or not isinstance(value, (int, float) if numeric else str):
                return None
        return cls(**found)

    def document(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def end(self, now: float, last_sign: float | None) -> Deed:
        """
        The end that it gets from the next server.

        @param now: when that is.
        @param last_sign: when its own server was alive for the last time, as far as is known.
        """
        words = [f"opened at {timestamp(self.opened)}"]
        if self.up:
            words.append(f"up since {timestamp(self.up)}")
        duration = None if self.up else 0.0
        if last_sign is not None:
            words.append(f"the last sign of its server was at {timestamp(last_sign)}")
            if self.up:
                duration = max(0.0, last_sign - self.up)
        return Deed(
            "session-ended",
            "server",
            now,
            device=self.device,
            master=self.master,
            session=self.session,
            mode=self.mode,
            backend=self.backend,
            join=self.join,
            duration=duration,
            reason=EndReason.SERVER_LOST.value,
            detail=f"its server ended without notice; {', '.join(words)}",
        )


@frozen
class Remains:
    """
    What a server that ended without notice has left.

    @ivar openings: its sessions, the oldest first.
    @ivar last_sign: when it recorded something for the last time; C{None} if that is not known.
    """

    openings: tuple[Opening, ...]
    last_sign: float | None


def remains(lines: Iterable[bytes], remembered: Iterable[Opening]) -> Remains:
    """
    Which sessions have no end in the trail.

    @param lines: of the end of the trail, the newest first; read no further than to the start or stop of a server.
    @param remembered: those that were noted down; they count if the lines do not reach that far back.
    """
    found: dict[str, Opening] = {}
    up: dict[str, float] = {}
    ended: set[str] = set()
    last_sign: float | None = None
    for line in lines:
        if last_sign is not None and not line.startswith(_MATTERS):
            continue
        try:
            facts = Entry.from_line(line).facts
            time = _seconds(str(facts["time"]))
        except (InvalidEntry, ValueError):
            continue
        # An administrator may have come after the server had ended.
        if last_sign is None and not str(facts["actor"]).startswith("admin:"):
            last_sign = time
        action, session = facts["action"], str(facts.get("session", ""))
        if action in _BOUNDS:
            break
        if action == "session-ended":
            ended.add(session)
        elif action == "session-up":
            up[session] = time
        elif action == "session-opened" and session not in ended:
            texts = {name: str(facts.get(name, "")) for name in ("master", "device", "mode", "backend", "join")}
            found[session] = Opening(session, **texts, opened=time, up=up.get(session, 0.0))
    else:
        for opening in remembered:
            if opening.session not in ended and opening.session not in found:
                found[opening.session] = evolve(opening, up=opening.up or up.get(opening.session, 0.0))
    return Remains(tuple(sorted(found.values(), key=lambda each: (each.opened, each.session))), last_sign)


def _seconds(text: str) -> float:
    """What L{timestamp} has made of a time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
