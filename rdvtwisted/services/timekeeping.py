"""Time that nobody can set: what timers and limits go by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def uptime() -> float:
    """Seconds since this machine has booted, those included for which it slept (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def steady(reactor: Any, wall: Callable[[], float] = time.time, running: Callable[[], float] = uptime) -> Any:
    """
    Let a reactor's clock run on whatever becomes of the wall clock.

    A reactor goes by the wall clock, which on a machine without a battery is
    wrong by months until the network has told it the time: a step forward has
    every limit passed at once, and a step back has every timer wait for as
    long. The reactor still tells seconds since the epoch, as the wall clock
    had them when this was called; steps of that clock since are not in them.

    @param wall: tells seconds since the epoch.
    @param running: tells seconds since some moment, and never steps.
    @return: the reactor. Once is enough; more often is the same.
    """
    if "seconds" not in vars(reactor):
        begun = wall() - running()
        reactor.seconds = lambda: begun + running()
    return reactor
