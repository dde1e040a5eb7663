"""
What was changed and how to change it back, on disk, for whoever comes after us.

One file an owner, written whole before the first change. The kernel forgets
everything at a reboot, and a network namespace takes its own configuration
with it; so a journal of another boot or namespace describes nothing any more.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from attrs import frozen

from rdvtwisted.adapters.network.steps import Before
from rdvtwisted.adapters.wholefile import write_whole
from rdvtwisted.errors import InvalidValue, NetworkError, StateDirectoryError
from rdvtwisted.plan import Plan, owner_name, step_from_json, step_to_json

_VERSION = 1


class OwnerBusy(NetworkError):
    """Another process is at work for the owner."""


def this_place() -> str:
    """The boot and the network namespace that this process is in, as text to compare."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = os.stat("/proc/self/ns/net")
    return f"{boot} {namespace.st_dev}:{namespace.st_ino}"


@frozen
class Entry:
    """A plan, and what was there before each of its steps."""

    plan: Plan
    before: tuple[Before, ...]


class Journal:
    """
    The journals of a directory, which is made if need be.

    Before an owner's journal is touched, the owner is locked for this process;
    the kernel gives the lock back when the process ends, however it ends.
    """

    def __init__(self, directory: Path, place: str | None = None) -> None:
        self._directory = directory
        self._place = place or this_place()
        self._locks: dict[str, int] = {}

    def lock(self, owner: str) -> None:
        """
        Keep other processes from working for this owner. Idempotent.

        @raise OwnerBusy: another process does.
        @raise StateDirectoryError: the directory cannot be used.
        """
        if owner in self._locks:
            return
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path(owner, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OwnerBusy(f"another process is already at work for {owner}: stop that one first") from None
        self._locks[owner] = descriptor

    def close(self) -> None:
        """Give all locks back."""
        while self._locks:
            os.close(self._locks.popitem()[1])

    def read(self, owner: str) -> Entry | None:
        """
        What was written last and is not removed; L{None} if nothing is, or if
        it was of another boot or network namespace.

        @raise StateDirectoryError: it cannot be read, or nothing that we write.
        """
        path = self._path(owner, "json")
        try:
            record = json.loads(path.read_bytes())
            if record["version"] != _VERSION:
                raise InvalidValue("version", str(record["version"]), f"it should be {_VERSION}")
            if record["place"] != self._place:
                return None
            steps = tuple(step_from_json(step) for step, _ in record["steps"])
            return Entry(Plan(owner, steps), tuple(before for _, before in record["steps"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidValue) as problem:
            raise StateDirectoryError(f"journal {path} cannot be read ({problem}): remove it and reboot") from None

    def write(self, entry: Entry) -> None:
        """
        Replace the journal of the plan's owner; once this returns, it is on disk.

        @raise StateDirectoryError: it cannot be written.
        """
        steps = [[step_to_json(step), before] for step, before in zip(entry.plan.steps, entry.before, strict=True)]
        record = {"version": _VERSION, "place": self._place, "steps": steps}
        path, draft = self._path(entry.plan.owner, "json"), self._path(entry.plan.owner, "draft")
        write_whole(path, json.dumps(record).encode("ascii"), draft=draft)

    def owners(self, owner: str) -> list[str]:
        """
        Those of whom there is a journal whose name begins with this one and a dot.

        @raise StateDirectoryError: the directory cannot be read.
        """
        try:
            names = {path.stem for kind in ("json", "draft") for path in self._directory.glob(f"*.{kind}")}
        except OSError as error:
            raise self._unusable(error) from None
        return sorted(name for name in names if name.startswith(f"{owner}."))

    def remove(self, owner: str) -> None:
        """
        There is nothing to undo any more. Not synced: a journal that comes back
        after a power failure is of another boot.
        """
        try:
            for kind in ("json", "draft"):  # the latter of a process that was killed while it wrote
                self._path(owner, kind).unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def _path(self, owner: str, kind: str) -> Path:
        return self._directory / f"{owner_name(owner)}.{kind}"

    def _unusable(self, error: OSError) -> StateDirectoryError:
        return StateDirectoryError(f"cannot use {self._directory} for the network journal: {error.strerror}")
