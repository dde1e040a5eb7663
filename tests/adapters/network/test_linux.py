"""The network as the reactor sees it, over a kernel in memory."""

from __future__ import annotations

import errno
import threading
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from rdvtwisted import routed
from rdvtwisted.adapters.network.firewall import Firewall
from rdvtwisted.adapters.network.kernel import IFirewall, IRouting, ISysctls, IWiring
from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.adapters.network.netlink import Routing
from rdvtwisted.adapters.network.sysctl import Sysctls
from rdvtwisted.adapters.network.wiring import Wiring
from rdvtwisted.adapters.network.worker import Worker
from rdvtwisted.errors import InvalidValue, MissingProgram, NetworkError
from rdvtwisted.interfaces import INetwork
from rdvtwisted.plan import FirewallTable, Plan, Site, Sysctl
from rdvtwisted.scope import Scope
from rdvtwisted.values import Mode
from tests.adapters.network.memory import MemoryKernel, device

OWNER = "rpi1100"
ADDRESS = IPv4Interface("192.168.128.1/30")
PLAN = routed.onsite(OWNER, "rdv-t", "eth0", ADDRESS, 1400, Site())


class LinuxNetworkTests(TestCase):
    """Plans come back as Deferreds; the work is done in a thread of its own."""

    def setUp(self) -> None:
        self.kernel = device()
        self.directory = Path(self.mktemp())
        self.network = self.opened(self.kernel)

    def opened(self, kernel: MemoryKernel) -> LinuxNetwork:
        """A network over a kernel."""
        network = LinuxNetwork(reactor, self.directory, kernel)
        self.addCleanup(network.close)
        return network

    def test_provides(self) -> None:
        """It is a network."""
        self.assertTrue(verifyObject(INetwork, self.network))

    async def test_there_and_back(self) -> None:
        """After applying and undoing, everything is as before, and a sweep finds nothing."""
        before = self.kernel.snapshot()
        await self.network.apply(PLAN)
        self.assertNotEqual(self.kernel.state, before)
        await self.network.undo(OWNER)
        self.assertEqual(self.kernel.state, before)
        self.assertEqual(await self.network.sweep(OWNER), [])

    async def test_amend(self) -> None:
        """The rules of a plan that is applied can be changed."""
        await self.network.apply(PLAN)
        limited = routed.onsite(OWNER, "rdv-t", "eth0", ADDRESS, 1400, Site(), Scope.parse("192.168.1.10"))
        await self.network.amend(limited)
        [table] = [step for step in limited.steps if isinstance(step, FirewallTable)]
        self.assertEqual(self.kernel.state.tables["inet", table.name], table.rules)

    async def test_no_descriptor(self) -> None:
        """When this process cannot open anything any more, to ask the kernel by, that is one line."""

        def kernel() -> MemoryKernel:
            raise OSError(errno.EMFILE, "Too many open files")

        network = self.opened(kernel)  # type: ignore[arg-type]
        askings: list[Deferred[Any]] = [network.sweep(OWNER), network.apply(PLAN), network.site()]
        for asking in askings:
            error = await self.assertFailure(asking, NetworkError)
            self.assertEqual(str(error), "the kernel cannot be asked: Too many open files")

    async def test_sweep_in_the_same_process(self) -> None:
        """What could not be undone at first is so by a later sweep; then nobody watches over it any more."""
        kept: list[str] = []

        class Keeping:
            def __init__(self, directory: Path, owner: str) -> None:
                kept.append(owner)

            def dismiss(self) -> None:
                kept.pop()

        network = LinuxNetwork(reactor, self.directory, self.kernel, keeper=Keeping)  # type: ignore[arg-type]
        self.addCleanup(network.close)
        await network.apply(PLAN)
        self.assertEqual(kept, [OWNER])
        self.assertTrue(await network.sweep(OWNER))
        self.assertEqual(kept, [])

    async def test_sweep(self) -> None:
        """What an earlier process left is undone and named."""
        before = self.kernel.snapshot()
        await self.network.apply(PLAN)
        self.network.close()
        lines = await self.opened(self.kernel).sweep(OWNER)
        self.assertEqual(lines[0], str(PLAN.steps[-1]))
        self.assertEqual(self.kernel.state, before)

    async def test_interface(self) -> None:
        """An interface for another program goes when its owner's work is undone; one that is taken is refused."""
        before = self.kernel.snapshot()
        for mode in Mode:
            await self.network.make_interface(f"{OWNER}.tunnel", "rdv-1", mode)
            self.assertIn("rdv-1", self.kernel.state.links)
            await self.network.undo(f"{OWNER}.tunnel")
            self.assertEqual(self.kernel.state, before)
        await self.assertFailure(self.network.make_interface(f"{OWNER}.tunnel", "eth0", Mode.L3), NetworkError)
        self.assertEqual(self.kernel.state, before)

    async def test_sweep_all(self) -> None:
        """A sweep finds what was left under names that begin with the owner's and a dot, and nobody else's."""
        before = self.kernel.snapshot()
        await self.network.make_interface(f"{OWNER}.tunnel", "rdv-1", Mode.L3)
        await self.network.make_interface(f"{OWNER}0", "rdv-2", Mode.L3)
        await self.network.apply(PLAN)
        self.network.close()
        network = self.opened(self.kernel)
        lines = await network.sweep(OWNER)
        self.assertEqual((lines[0], lines[-1]), (str(PLAN.steps[-1]), "interface rdv-1 (TUN)"))
        self.assertEqual(self.kernel.state.links.keys() - before.links.keys(), {"rdv-2"})
        self.assertEqual(await network.sweep(f"{OWNER}0"), ["interface rdv-2 (TUN)"])
        self.assertEqual(self.kernel.state, before)

    async def test_sweep_goes_on(self) -> None:
        """What another process is at work for stops a sweep from nothing else, and is told."""
        await self.network.make_interface(f"{OWNER}.b", "rdv-2", Mode.L3)
        self.network.close()
        other = self.opened(self.kernel)
        await other.make_interface(f"{OWNER}.a", "rdv-1", Mode.L3)
        await self.assertFailure(self.opened(self.kernel).sweep(OWNER), NetworkError)
        self.assertEqual(self.kernel.state.links.keys() & {"rdv-1", "rdv-2"}, {"rdv-1"})

    async def test_second_network(self) -> None:
        """A second process for the same owner is refused."""
        await self.network.sweep(OWNER)
        await self.assertFailure(self.opened(self.kernel).apply(PLAN), NetworkError)

    async def test_error(self) -> None:
        """An error comes out of the Deferred."""
        missing = Plan(OWNER, (Sysctl("net/ipv4/conf/eth7/forwarding", "1"),))
        await self.assertFailure(self.network.apply(missing), NetworkError)
        await self.assertFailure(self.network.undo("../x"), InvalidValue)

    async def test_in_order(self) -> None:
        """Calls are carried out in the order in which they are made, without waiting for each other's Deferred."""
        before = self.kernel.snapshot()
        await gatherResults([self.network.apply(PLAN), self.network.undo(OWNER), self.network.apply(PLAN)])
        await self.network.undo(OWNER)
        self.assertEqual(self.kernel.state, before)

    async def test_site(self) -> None:
        """The machine's attachments are told."""
        self.assertEqual((await self.network.site()).lan, IPv4Interface("192.168.1.50/24"))

    async def test_packet_device_name(self) -> None:
        """A device with an impossible name is refused."""
        await self.assertFailure(self.network.packet_device("a/b", Mode.L3), InvalidValue)

    def test_close(self) -> None:
        """Closing twice, or before any call, is no error."""
        self.network.close()
        self.network.close()


class WorkerTests(TestCase):
    """One thread, not the reactor's, until it is stopped."""

    async def test_no_thread(self) -> None:
        """When this machine has no room for a thread that is one line, and a moment later it works."""
        worker = Worker(reactor)
        self.addCleanup(worker.stop)

        def refuse(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(threading.Thread, "start", refuse)
        error = await self.assertFailure(worker.run(len, "four"), NetworkError)
        self.assertEqual(str(error), "the network cannot be looked at: can't start new thread")
        patch.restore()
        self.assertEqual(await worker.run(len, "four"), 4)

    async def test_one_thread(self) -> None:
        """All calls run in one thread, which is not the reactor's; stopped, it ends, and a later call has a new one."""
        worker = Worker(reactor)
        self.addCleanup(worker.stop)
        calls: list[Deferred[threading.Thread]] = [worker.run(threading.current_thread) for _ in range(4)]
        threads = set(await gatherResults(calls))
        self.assertEqual(len(threads), 1)
        self.assertNotIn(threading.current_thread(), threads)
        worker.stop()
        self.assertFalse(threads.pop().is_alive())
        self.assertEqual(await worker.run(lambda number: number + 1, 1), 2)


class PartTests(SynchronousTestCase):
    """The parts of the real kernel."""

    def test_provide(self) -> None:
        """They are what the steps ask for; and so is the kernel in memory."""
        netlink = IPRoute()
        self.addCleanup(netlink.close)
        memory = device()
        for routing in (Routing(netlink), memory):
            self.assertTrue(verifyObject(IRouting, routing))
        for wiring in (Wiring(netlink), memory):
            self.assertTrue(verifyObject(IWiring, wiring))
        for sysctls in (Sysctls(), memory):
            self.assertTrue(verifyObject(ISysctls, sysctls))
        for firewall in (Firewall(), memory):
            self.assertTrue(verifyObject(IFirewall, firewall))

    def test_sysctls(self) -> None:
        """Settings are files; dots in interface names are dots; a missing one is told from an empty one."""
        root = Path(self.mktemp())
        sysctls = Sysctls(root)
        path = root / "net/ipv4/conf/eth0.7"
        path.mkdir(parents=True)
        (path / "forwarding").write_text("0\n")
        self.assertEqual(sysctls.read("net/ipv4/conf/eth0.7/forwarding"), "0")
        sysctls.write("net/ipv4/conf/eth0.7/forwarding", "1")
        self.assertEqual((path / "forwarding").read_text(), "1\n")
        self.assertIsNone(sysctls.read("net/ipv4/conf/eth0/forwarding"))
        self.assertRaises(FileNotFoundError, sysctls.write, "net/ipv4/conf/eth0/forwarding", "1")

    def test_no_nft(self) -> None:
        """Without nft, the error says what to install."""
        firewall = Firewall("/nonexistent/nft")
        for call in (firewall.replace, firewall.remove):
            error = self.assertRaises(MissingProgram, call, FirewallTable("inet", "rdv_1", ""))
            self.assertIn("install the package nftables", str(error))
