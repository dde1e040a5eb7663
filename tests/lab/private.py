"""Labs of one process, which disturb no other's: for tests and benchmarks."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from typing import Protocol

from tests.lab import namespaces, processes
from tests.lab.lab import Lab
from tests.lab.topology import CUSTOMER_LAN

_PRIVATE = "rdvt"
"""What the prefixes of private labs start with, before the process id."""

TESTS = (_PRIVATE, "rdvs", "rdve", "rdvf")
"""The same of all labs that tests build for themselves: private ones, those of scenes, of demos, and of faults."""

_TURN = namespaces.RUN / "rdvlab.turn"
"""Locked by who clears away; it stays."""


def abandoned(start: str) -> list[str]:
    """The prefixes that begin with C{start} of labs whose builder has ended without taking them down."""
    found = []
    for path in namespaces.RUN.glob(f"rdvlab-{start}*/lab.json"):
        try:
            owner = json.loads(path.read_text())["owner"]
        except (ValueError, KeyError, FileNotFoundError):
            continue
        if processes.start_time(owner["pid"]) != owner["start"]:
            found.append(path.parent.name.removeprefix("rdvlab-"))
    return found


def _take_down(prefix: str) -> None:
    Lab(prefix).down()


def clear_abandoned(start: str, clear: Callable[[str], None] = _take_down) -> None:
    """Call C{clear} for each prefix that is L{abandoned}: one process at a time, lest several pull at the same lab."""
    with _TURN.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for prefix in abandoned(start):
            clear(prefix)


def clear_tests() -> None:
    """For who has ended tests from outside: take down the labs of whatever of them runs no more."""
    for each in TESTS:
        clear_abandoned(each)


class _Case(Protocol):
    """What is used of a test case."""

    def addCleanup(self, f: Callable[[], None]) -> None: ...


def built_for(
    case: _Case,
    sites: int = 1,
    lan: IPv4Network | str | Sequence[IPv4Network | str] = CUSTOMER_LAN,
    engineers: int = 1,
) -> Lab:
    """A private lab that is up, and down again when the test case has ended."""
    lab = private_lab(sites, lan, engineers)
    case.addCleanup(lab.down)
    return lab.up()


def private_lab(
    sites: int = 1, lan: IPv4Network | str | Sequence[IPv4Network | str] = CUSTOMER_LAN, engineers: int = 1
) -> Lab:
    """
    A lab, not built yet, that no other process has: for tests and benchmarks.
    Private labs of processes that have died are taken down first.
    """
    clear_abandoned(_PRIVATE)
    return Lab(f"{_PRIVATE}{os.getpid()}", sites, lan, engineers)
