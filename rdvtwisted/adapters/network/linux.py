"""The network configuration of a Linux machine, as a service to the reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from twisted.internet.defer import Deferred
from zope.interface import implementer

from rdvtwisted.adapters.network import site, transaction
from rdvtwisted.adapters.network.firewall import Firewall
from rdvtwisted.adapters.network.journal import Journal
from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.netlink import Routing
from rdvtwisted.adapters.network.sysctl import Sysctls
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.adapters.network.watching import Watching
from rdvtwisted.adapters.network.wiring import Wiring
from rdvtwisted.adapters.network.worker import Worker
from rdvtwisted.interfaces import INetwork
from rdvtwisted.plan import Plan, Site, TunTap
from rdvtwisted.values import Mode

T = TypeVar("T")


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

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        kernel: Callable[[], AbstractContextManager[Kernel]] = linux,
    ) -> None:
        """
        @param reactor: IReactorFromThreads and IReactorCore.
        @param directory: where the journals are; made if need be. Under C{/run}
            if possible: a journal is of no use after a reboot.
        """
        self._reactor = reactor
        self._worker = Worker(reactor)
        self._journal = Journal(directory)
        self._kernel = kernel

    def apply(self, plan: Plan) -> Deferred[None]:
        return self._run(transaction.apply, self._journal, plan)

    def amend(self, plan: Plan) -> Deferred[None]:
        return self._run(transaction.amend, self._journal, plan)

    def undo(self, owner: str) -> Deferred[None]:
        return self._run(transaction.undo, self._journal, owner).addCallback(lambda _: None)

    def sweep(self, owner: str) -> Deferred[list[str]]:
        return self._run(transaction.sweep, self._journal, owner)

    def site(self) -> Deferred[Site]:
        return self._run(site.site)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        return Watching(self._reactor, changed).stop

    def make_interface(self, owner: str, name: str, mode: Mode) -> Deferred[None]:
        return self.apply(Plan(owner, (TunTap(name, mode),)))

    def packet_device(self, name: str, mode: Mode) -> Deferred[PacketDevice]:
        return self._worker.run(PacketDevice, name, mode)

    def close(self) -> None:
        """End the thread and give the owners free, with whatever is still applied. Idempotent."""
        self._worker.stop()
        self._journal.close()

    def _run(self, call: Callable[..., T], *arguments: object) -> Deferred[T]:
        def work() -> T:
            with self._kernel() as kernel:
                return call(kernel, *arguments)

        return self._worker.run(work)
