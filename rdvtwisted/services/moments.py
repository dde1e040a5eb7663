"""Moments as people give them on a command line."""

from __future__ import annotations

import re
from datetime import datetime

from rdvtwisted.errors import InvalidValue

_FROM_NOW = re.compile(r"\+([0-9]{1,6})([mhdw])")
_AGO = re.compile(r"([0-9]{1,6})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DATES = "a date such as 2030-07-01, or with a time such as 2030-07-01T18:00 or ...T18:00Z"
_FORM = f"use +30m, +8h, +3d, +2w, {_DATES}"


def moment_to_come(text: str, now: float) -> float:
    """
    The moment that C{text} names: so long from C{now}, or a date, with a time
    or for its beginning, in this machine's time zone unless it says another.

    @param now: seconds since the epoch.
    @return: seconds since the epoch.
    @raise InvalidValue: it names none, or one that is past.
    """
    span = _FROM_NOW.fullmatch(text)
    moment = _dated("end", text, _FORM) if span is None else now + int(span[1]) * _SECONDS[span[2]]
    if moment <= now:
        raise InvalidValue("end", text, "it is past")
    return moment


def moment_gone(text: str, now: float) -> float:
    """
    The moment that C{text} names: so long before C{now}, such as C{8h}, or a date as in L{moment_to_come}.

    @param now: seconds since the epoch.
    @return: seconds since the epoch.
    @raise InvalidValue: it names none.
    """
    span = _AGO.fullmatch(text)
    if span is not None:
        return now - int(span[1]) * _SECONDS[span[2]]
    return _dated("time", text, f"use 30m, 8h, 3d, 2w for so long ago, {_DATES}")


def _dated(what: str, text: str, form: str) -> float:
    try:
        # Python 3.10 does not read the Z.
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidValue(what, text, form) from None
