"""Somebody cleans up after a device that was killed, and after nobody else."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rdvtwisted.adapters.network.keeper import Keeper
from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.errors import MissingProgram, NetworkError
from rdvtwisted.plan import Plan, Sysctl
from tests.adapters.network.memory import device
from tests.adapters.network.test_linux import OWNER, PLAN


class KeeperTests(SynchronousTestCase):
    """The shell that waits."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def keeper(self) -> Keeper:
        """One with a program that does no more than to print a poem, and ends well."""
        return Keeper("this", self.directory, OWNER)

    def test_dismissed(self) -> None:
        """A keeper that is dismissed ends, and has done nothing; twice is no error."""
        keeper = self.keeper()
        self.assertNotEqual(os.getsid(keeper.pid), os.getsid(0))
        keeper.dismiss()
        keeper.dismiss()
        self.assertEqual(keeper._process.returncode, 0)

    def test_left_alone(self) -> None:
        """One that hears nothing any more starts the program, whatever it was asked to end by before."""
        keeper = self.keeper()
        keeper._process.terminate()
        os.close(keeper._word)
        keeper._word = -1
        self.assertEqual(keeper._process.wait(20), 0)

    def test_ended(self) -> None:
        """That somebody has killed it is no error, nor that there is no shell but one that is told."""
        keeper = self.keeper()
        keeper._process.kill()
        keeper._process.wait(20)
        keeper.dismiss()
        self.patch(os, "environ", {"PATH": str(self.directory)})
        self.assertIn("sh: No such file", str(self.assertRaises(MissingProgram, self.keeper)))


class _Keeper:
    """Takes note of its dismissal."""

    def __init__(self, directory: Path, owner: str) -> None:
        self.directory, self.owner, self.dismissals = directory, owner, 0

    def dismiss(self) -> None:
        self.dismissals += 1


class NetworkTests(TestCase):
    """A network has a keeper as long as something of an owner's is configured."""

    def setUp(self) -> None:
        self.kernel, self.directory = device(), Path(self.mktemp())
        self.keepers: list[_Keeper] = []
        self.network = LinuxNetwork(reactor, self.directory, self.kernel, self.keep)
        self.addCleanup(self.network.close)

    def keep(self, directory: Path, owner: str) -> _Keeper:
        """One more."""
        self.keepers.append(_Keeper(directory, owner))
        return self.keepers[-1]

    def kept(self) -> list[tuple[str, int]]:
        """Who was kept for, and dismissed how often."""
        return [(keeper.owner, keeper.dismissals) for keeper in self.keepers]

    async def test_kept(self) -> None:
        """From the first step to the last one undone, with as many keepers as owners."""
        await self.network.sweep(OWNER)
        self.assertEqual(self.kept(), [])
        await self.network.apply(PLAN)
        await self.network.apply(PLAN)
        await self.network.apply(Plan("other", ()))
        self.assertEqual((self.kept(), self.keepers[0].directory), ([(OWNER, 0), ("other", 0)], self.directory))
        await self.network.undo(OWNER)
        await self.network.undo(OWNER)
        self.assertEqual(self.kept(), [(OWNER, 1), ("other", 0)])
        self.network.close()
        self.assertEqual(self.kept(), [(OWNER, 1), ("other", 1)])

    async def test_refused(self) -> None:
        """A plan that cannot be applied needs none any more."""
        missing = Plan(OWNER, (Sysctl("net/ipv4/conf/eth7/forwarding", "1"),))
        await self.assertFailure(self.network.apply(missing), NetworkError)
        self.assertEqual(self.kept(), [(OWNER, 1)])

    async def test_without(self) -> None:
        """Where there is no shell for it, the session is had all the same."""

        def keep(directory: Path, owner: str) -> _Keeper:
            raise MissingProgram("nobody would clean up after this process: sh: No such file or directory")

        network = LinuxNetwork(reactor, Path(self.mktemp()), self.kernel, keep)
        self.addCleanup(network.close)
        await network.apply(PLAN)
        await network.undo(OWNER)
        self.assertEqual(self.kept(), [])
