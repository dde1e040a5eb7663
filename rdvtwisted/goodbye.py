"""What a server that stops says to its devices, and what they make of it: not all are to come back at once."""

from __future__ import annotations

import re

#: Devices that are to come back in a second: a handshake takes four milliseconds of the server, and as long as a
#: server has just started it has other things to do.
DEVICES_PER_SECOND = 100
#: Seconds over which they spread at most.
LONGEST_SPREAD = 60

_SPREAD = re.compile(r"\bcome back within ([0-9]{1,4}) s\b")


def stopping(devices: int) -> str:
    """
    The server's goodbye.

    @param devices: how many will come back.
    """
    seconds = min(LONGEST_SPREAD, -(-devices // DEVICES_PER_SECOND))
    return f"the server is stopping: come back within {seconds} s"


def spread(text: str) -> float:
    """Over how many seconds devices are to spread that have read C{text} as the reason for the end of a connection."""
    found = _SPREAD.search(text)
    return 0.0 if found is None else float(min(LONGEST_SPREAD, int(found[1])))
