"""A machine's network configuration in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from rdvtwisted.errors import NetworkError, RDVError
from rdvtwisted.interfaces import INetwork
from rdvtwisted.plan import Plan, Site, TunTap
from rdvtwisted.testing.packets import MemoryPacketDevice
from rdvtwisted.values import Mode

T = TypeVar("T")


@implementer(INetwork)
class MemoryNetwork:
    """Remembers what it was asked for, in order, and has packet devices in memory."""

    def __init__(self, site: Site | None = None) -> None:
        """
        @param site: what this machine is attached to.
        """
        self._site = site or Site()
        #: The plans that are applied now, by their owners.
        self.applied: dict[str, Plan] = {}
        #: The interfaces that were made for other programs and are there now: their modes by their names.
        self.interfaces: dict[str, Mode] = {}
        self._interfaces_of: dict[str, str] = {}
        #: The packet devices made so far, by their names, and the modes they were made with.
        self.devices: dict[str, MemoryPacketDevice] = {}
        self.modes: dict[str, Mode] = {}
        #: What somebody else has taken away, by the owner whose it was.
        self.missing: dict[str, list[str]] = {}
        #: Who is told of changes.
        self.watchers: list[Callable[[], None]] = []
        #: With which error the next call is answered.
        self.refusal: RDVError | None = None

    def _answer(self, work: Callable[[], T]) -> Deferred[T]:
        def answer() -> T:
            refusal, self.refusal = self.refusal, None
            if refusal is not None:
                raise refusal
            return work()

        return execute(answer)

    def apply(self, plan: Plan) -> Deferred[None]:
        def apply() -> None:
            if plan.owner in self.applied:
                raise NetworkError(f"a plan of {plan.owner} is applied already")
            self.applied[plan.owner] = plan

        return self._answer(apply)

    def amend(self, plan: Plan) -> Deferred[None]:
        def amend() -> None:
            applied = self.applied.get(plan.owner)
            if applied is None or [*map(str, applied.steps)] != [*map(str, plan.steps)]:
                raise NetworkError(f"what is configured for {plan.owner} is not what is to be amended")
            self.applied[plan.owner] = plan

        return self._answer(amend)

    def restore(self, owner: str) -> Deferred[list[str]]:
        return self._answer(lambda: self.missing.pop(owner, []))

    def undo(self, owner: str) -> Deferred[None]:
        return self._answer(lambda: self._undo(owner)).addCallback(lambda _: None)

    def _undo(self, owner: str) -> list[str]:
        plan = self.applied.pop(owner, None)
        found = [] if plan is None else [str(step) for step in plan.steps]
        name = self._interfaces_of.pop(owner, None)
        if name is not None:
            found.append(str(TunTap(name, self.interfaces.pop(name))))
        return found

    def sweep(self, owner: str) -> Deferred[list[str]]:
        def sweep() -> list[str]:
            names = sorted({*self.applied, *self._interfaces_of})
            ours = [name for name in names if name == owner or name.startswith(f"{owner}.")]
            return [line for name in ours for line in self._undo(name)]

        return self._answer(sweep)

    def site(self) -> Deferred[Site]:
        return self._answer(lambda: self._site)

    def watch(self, changed: Callable[[], None], everything: bool = False) -> Callable[[], None]:
        self.watchers.append(changed)

        def stop() -> None:
            if changed in self.watchers:
                self.watchers.remove(changed)

        return stop

    def move(self, site: Site) -> None:
        """From now on, this machine is attached to other things; those who watch are told."""
        self._site = site
        self.change()

    def take_away(self, owner: str, *lines: str) -> None:
        """Somebody else undoes what was configured; those who watch are told."""
        self.missing.setdefault(owner, []).extend(lines)
        self.change()

    def change(self) -> None:
        """Those who watch are told that something has changed."""
        for changed in list(self.watchers):
            changed()

    def make_interface(self, owner: str, name: str, mode: Mode) -> Deferred[None]:
        def make() -> None:
            self._undo(owner)
            if name in self.interfaces:
                raise NetworkError(f"the interface {name} exists already")
            self.interfaces[name] = mode
            self._interfaces_of[owner] = name

        return self._answer(make)

    def packet_device(self, name: str, mode: Mode) -> Deferred[MemoryPacketDevice]:
        def make() -> MemoryPacketDevice:
            if name in self.devices and not self.devices[name].closed:
                raise NetworkError(f"the interface {name} exists already")
            self.devices[name] = MemoryPacketDevice(name)
            self.modes[name] = mode
            return self.devices[name]

        return self._answer(make)
