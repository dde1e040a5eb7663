"""What a device tells its operator: lines for people, and records for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from rdvtwisted.errors import StateDirectoryError
from rdvtwisted.values import TunnelParameters, TunnelReport


def amount(count: int) -> str:
    """A number of bytes for people: C{17 B}, C{4.2 kB}, C{1.3 MB}, ..."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95:  # from there on one decimal would make it 1000.0
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """A time for people: C{42 s}, C{3 min 5 s}, C{2 h 10 min}."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def flow(report: TunnelReport) -> str:
    """How much a tunnel has carried, and its round trip, in one line for people."""
    trip = "" if report.round_trip is None else f"; round trip {report.round_trip * 1000:.1f} ms"
    return f"sent {amount(report.sent_bytes)}, received {amount(report.received_bytes)}{trip}"


def carriage(parameters: TunnelParameters, report: TunnelReport) -> str:
    """Who can read a session, and what carries it, in one line for people."""
    if parameters.join == "relay" and report.proved == parameters.peer_key:
        return f"End to end by {report.backend}, key exchange {report.key_exchange}, cipher {report.cipher}"
    inner = f", key exchange {report.key_exchange}, cipher {report.cipher}" if report.cipher else ""
    return f"Joined by the server, which can read this session; the tunnel to it is by {report.backend}{inner}"


def established(parameters: TunnelParameters, report: TunnelReport) -> dict[str, object]:
    """The facts of a session that is up, for its record."""
    return {
        "session": parameters.session,
        "peer": parameters.peer,
        "peer_key": parameters.peer_key.fingerprint,
        "backend": parameters.backend,
        "mode": parameters.mode.value,
        "join": parameters.join,
        "address": str(parameters.address),
        "kex": report.key_exchange,
        "cipher": report.cipher,
        "rtt_ms": None if report.round_trip is None else round(report.round_trip * 1000, 3),
    }


def carried(report: TunnelReport) -> dict[str, object]:
    """What a tunnel has carried, for a record."""
    return {
        "sent_bytes": report.sent_bytes,
        "received_bytes": report.received_bytes,
        "sent_packets": report.sent_packets,
        "received_packets": report.received_packets,
    }


@define
class Console:
    """
    Where a device's messages go.

    @ivar say: takes one line for the operator.
    @ivar complain: takes one line that says what is wrong.
    @ivar report: a file to which records are appended, one JSON object a line.
    """

    say: Callable[[str], None]
    complain: Callable[[str], None]
    report: Path | None = None
    _wall_clock: Callable[[], float] = field(default=time.time)

    def check(self) -> None:
        """
        Make sure that the report can be written.

        @raise StateDirectoryError: it cannot.
        """
        if self.report is not None:
            try:
                self.report.open("a").close()
            except OSError as error:
                raise StateDirectoryError(f"cannot write the report {self.report}: {error.strerror}") from None

    def limited(self, seconds: float) -> None:
        """Tell that the session will have ended after so many seconds, and when that is by this machine's clock."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._wall_clock() + seconds))
        self.say(f"This session ends at {moment}, in {duration(seconds)}")
        self.record("limit", seconds=round(seconds, 3))

    def record(self, event: str, **facts: object) -> None:
        """Append one record: C{event}, C{time} in seconds since the epoch, and C{facts}."""
        if self.report is None:
            return
        line = json.dumps({"event": event, "time": round(self._wall_clock(), 3), **facts})
        try:
            with self.report.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            self.complain(f"cannot write the report {self.report}: {error.strerror}")
            self.report = None
