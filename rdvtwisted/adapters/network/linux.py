"""The network configuration of a Linux machine, as a service to the reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted.adapters.network import site, transaction
from rdvtwisted.adapters.network.firewall import Firewall
from rdvtwisted.adapters.network.journal import Journal, OwnerBusy
from rdvtwisted.adapters.network.keeper import Keeper
from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.netlink import Routing
from rdvtwisted.adapters.network.sysctl import Sysctls
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.adapters.network.watching import Watching, watch_everything
from rdvtwisted.adapters.network.wiring import Wiring
from rdvtwisted.adapters.network.worker import Worker
from rdvtwisted.errors import NetworkError, RDVError
from rdvtwisted.interfaces import INetwork
from rdvtwisted.plan import Plan, Site, TunTap
from rdvtwisted.values import Mode

T = TypeVar("T")

#: Seconds for which somebody else may be at work for an owner who is to be swept, and looks in that time.
BUSY_SECONDS = 2.0
BUSY_LOOKS = 10


@contextmanager
def linux() -> Iterator[Kernel]:
    """The kernel of the network namespace that this process is in, for the calling thread."""
    netlink = IPRoute()
    try:
        yield Kernel(Routing(netlink), Wiring(netlink), Sysctls(), Firewall())
    finally:
        netlink.close()


@implementer(INetwork)
class LinuxNetwork:
    """
    Applies and undoes plans, in one thread of its own.

    While it works for an owner, from the first call that names it until the
    end of the process or L{close}, no other process can work for it.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        kernel: Callable[[], AbstractContextManager[Kernel]] = linux,
        keeper: Callable[[Path, str], Keeper] | None = None,
    ) -> None:
        """
        @param reactor: IReactorFromThreads, IReactorCore, IReactorTime and IReactorFDSet.
        @param directory: where the journals are; made if need be. Under C{/run}
            if possible: a journal is of no use after a reboot.
        @param keeper: makes what undoes everything should this process be killed; C{None}: only its next start does.
        """
        self._reactor = reactor
        self._worker = Worker(reactor)
        self._journal = Journal(directory)
        self._kernel = kernel
        self._directory = directory
        self._keep = keeper
        self._keepers: dict[str, Keeper] = {}
        #: What is in the firewall tables of each owner, as far as somebody has looked.
        self._listings: dict[str, dict[str, str]] = {}

    def apply(self, plan: Plan) -> Deferred[None]:
        return self._run(self._apply, plan)

    def amend(self, plan: Plan) -> Deferred[None]:
        return self._run(self._amend, plan)

    def restore(self, owner: str) -> Deferred[list[str]]:
        return self._run(self._restore, owner)

    def undo(self, owner: str) -> Deferred[None]:
        return self._run(self._undo, owner)

    def sweep(self, owner: str) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self._sweep(owner))

    def site(self) -> Deferred[Site]:
        return self._run(site.site)

    def watch(self, changed: Callable[[], None], everything: bool = False) -> Callable[[], None]:
        return watch_everything(self._reactor, changed) if everything else Watching(self._reactor, changed).stop

    def make_interface(self, owner: str, name: str, mode: Mode) -> Deferred[None]:
        return self.apply(Plan(owner, (TunTap(name, mode),)))

    def packet_device(self, name: str, mode: Mode) -> Deferred[PacketDevice]:
        return self._worker.run(PacketDevice, name, mode)

    def close(self) -> None:
        """End the thread and give the owners free, with whatever is still applied. Idempotent."""
        self._worker.stop()
        self._journal.close()
        while self._keepers:
            self._keepers.popitem()[1].dismiss()

    def _apply(self, kernel: Kernel, plan: Plan) -> None:
        if self._keep is not None and plan.owner not in self._keepers:
            try:
                self._keepers[plan.owner] = self._keep(self._directory, plan.owner)
            except RDVError as error:
                self._log.warn("{error}", error=str(error))
        self._listings.pop(plan.owner, None)
        try:
            transaction.apply(kernel, self._journal, plan)
        except RDVError:
            if self._journal.read(plan.owner) is None:
                self._dismiss(plan.owner)
            raise

    def _amend(self, kernel: Kernel, plan: Plan) -> None:
        self._listings.pop(plan.owner, None)
        transaction.amend(kernel, self._journal, plan)

    def _restore(self, kernel: Kernel, owner: str) -> list[str]:
        return transaction.restore(kernel, self._journal, owner, self._listings.setdefault(owner, {}))

    def _undo(self, kernel: Kernel, owner: str) -> None:
        self._listings.pop(owner, None)
        transaction.undo(kernel, self._journal, owner)
        self._dismiss(owner)

    def _dismiss(self, owner: str) -> None:
        keeper = self._keepers.pop(owner, None)
        if keeper is not None:
            keeper.dismiss()

    async def _sweep(self, owner: str) -> list[str]:
        for _ in range(BUSY_LOOKS - 1):
            try:
                return await self._run(self._swept, owner)
            except OwnerBusy:  # perhaps only because an earlier process's keeper is just sweeping
                await deferLater(self._reactor, BUSY_SECONDS / BUSY_LOOKS)
        return await self._run(self._swept, owner)

    def _swept(self, kernel: Kernel, owner: str) -> list[str]:
        lines = transaction.sweep(kernel, self._journal, owner)
        self._dismiss(owner)
        return lines

    def _run(self, call: Callable[..., T], *arguments: object) -> Deferred[T]:
        def work() -> T:
            try:
                with self._kernel() as kernel:
                    return call(kernel, *arguments)
            except OSError as error:  # such as EMFILE: this process has too many files open for another question
                raise NetworkError(f"the kernel cannot be asked: {error.strerror}") from None

        return self._worker.run(work)
