"""Over how many seconds a server's devices come back: what it says of that, and what they make of it."""

from __future__ import annotations

import re

#: Devices that are to come back in a second: each takes some two milliseconds of the server, more on a small machine,
#: and one that has just started has other things to do.
DEVICES_PER_SECOND = 100
#: Seconds over which they spread at most.
LONGEST_SPREAD = 60

_SPREAD = re.compile(r"\bcome back (?:at once\b|within ([0-9]{1,4}) s\b)")


def return_time(devices: int) -> int:
    """
    The seconds over which they are to spread; none for a few.

    @param devices: how many will come back.
    """
    return min(LONGEST_SPREAD, devices // DEVICES_PER_SECOND)


def stopping(devices: int) -> str:
    """
    The server's goodbye.

    @param devices: how many will come back.
    """
    seconds = return_time(devices)
    return "the server is stopping: come back " + (f"within {seconds} s" if seconds else "at once")


def spread(text: str) -> float | None:
    """
    Over how many seconds devices are to spread that have read C{text} as the reason for the end of a connection;
    C{None} if it does not say.
    """
    found = _SPREAD.search(text)
    return None if found is None else bounded(float(found[1] or 0))


def bounded(seconds: float) -> float:
    """As many seconds as a device spreads that is told to spread over C{seconds}: no server keeps it away for long."""
    return min(seconds, float(LONGEST_SPREAD))
