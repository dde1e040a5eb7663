"""What a running server does by itself from time to time."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rdvtwisted.adapters.front.authority import Authority
from rdvtwisted.adapters.front.door import Door
from rdvtwisted.adapters.store.inventory import SqlInventory
from rdvtwisted.errors import RDVError
from rdvtwisted.registry import Registry
from rdvtwisted.services.concessions import Concessions

#: Seconds between two looks whether the TLS door's certificate is due for renewal.
CERTIFICATE_SECONDS = 86_400.0
#: Seconds between two looks whether somebody has changed the inventory: C{rdvctl} says so at once, but it may not
#: reach the server, or may run on another one. If nothing has changed, a look is a question to the database.
INVENTORY_SECONDS = 60.0


@define(eq=False)
class Upkeep:
    """Keeps a server's certificate and its picture of the inventory up to date."""

    _log = Logger()

    clock: IReactorTime
    inventory: SqlInventory
    registry: Registry
    authority: Authority
    door: Door
    concessions: Concessions
    _loops: list[LoopingCall] = field(factory=list, init=False)
    _troubles: dict[str, str] = field(factory=dict, init=False)

    def start(self) -> None:
        """From now on."""
        self._every(CERTIFICATE_SECONDS, "certificate", self._renew)
        self._every(INVENTORY_SECONDS, "inventory", self._refresh)

    def stop(self) -> None:
        """No more."""
        loops, self._loops = self._loops, []
        for loop in loops:
            loop.stop()

    def _renew(self) -> None:
        self.door.show(self.authority.credentials())

    def _refresh(self) -> None:
        if self.inventory.refresh():
            self.concessions.review()
            dropped, ended = self.registry.drop_disentitled(), self.registry.review_access()
            self._log.info(
                "The inventory has changed; devices that are dropped for it: {dropped}; sessions ended: {ended}",
                dropped=dropped,
                ended=ended,
            )

    def _every(self, seconds: float, what: str, look: Callable[[], None]) -> None:
        loop = LoopingCall(self._try, what, look)
        loop.clock = self.clock
        loop.start(seconds, now=False)
        self._loops.append(loop)

    def _try(self, what: str, look: Callable[[], None]) -> None:
        """A failure now says nothing about the next time; it is told when it is another one than the last."""
        trouble = ""
        try:
            look()
        except RDVError as error:
            trouble = str(error)
            if trouble != self._troubles.get(what):
                self._log.error("{trouble}", trouble=trouble)
        except Exception:  # noqa: BLE001 - it must not end the looking
            self._log.failure("The {what} cannot be kept up to date", what=what)
        self._troubles[what] = trouble
