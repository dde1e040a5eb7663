"""Moments as people give them on a command line."""

from __future__ import annotations

import re
from datetime import datetime

from rdvtwisted.errors import InvalidValue

_FROM_NOW = re.compile(r"\+([0-9]{1,6})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM = "use +30m, +8h, +3d, +2w, a date such as 2030-07-01, or with a time such as 2030-07-01T18:00 or ...T18:00Z"


def moment_to_come(text: str, now: float) -> float:
    """
    The moment that C{text} names: so long from C{now}, or a date, with a time
    or for its beginning, in this machine's time zone unless it says another.

    @param now: seconds since the epoch.
    @return: seconds since the epoch.
    @raise InvalidValue: it names none, or one that is past.
    """
    span = _FROM_NOW.fullmatch(text)
    if span is not None:
        moment = now + int(span[1]) * _SECONDS[span[2]]
    else:
        try:
            # Python 3.10 does not read the Z.
            moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()
        except (ValueError, OverflowError):
            raise InvalidValue("end", text, _FORM) from None
    if moment <= now:
        raise InvalidValue("end", text, "it is past")
    return moment
