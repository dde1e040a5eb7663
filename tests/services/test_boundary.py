"""The boundary of a session, and this device's own rules as they change."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.access import SessionGrant
from rdvtwisted.errors import AccessDenied, ConfigError, NoSession
from rdvtwisted.localaccess import LocalRules
from rdvtwisted.plan import Plan
from rdvtwisted.requests import GetSessionGrant
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.services.boundary import Boundary, LocalAccess
from rdvtwisted.services.link import Link
from tests.test_localaccess import PARAMETERS

WEB = Scope.parse("192.168.1.10:tcp/80")


class LocalAccessTests(SynchronousTestCase):
    """A file that root may change at any time."""

    def setUp(self) -> None:
        """There is no file yet."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, whose file it has to be")
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, folder)
        self.path = folder / "access.toml"
        self.times = 0

    def write(self, text: str) -> None:
        """Put this into the file; some time has passed since the last time."""
        self.times += 1
        self.path.write_text(text)
        os.utime(self.path, (self.times, self.times))

    def test_none(self) -> None:
        """Without a file the command line alone counts."""
        self.assertEqual(LocalAccess().rules(), LocalRules())
        self.assertEqual(LocalAccess(scope=WEB).rules(), LocalRules(WEB))
        self.assertEqual(LocalAccess(self.path, scope=WEB).rules(), LocalRules(WEB))

    def test_required(self) -> None:
        """A file that was named and is not there allows nothing."""
        error = self.assertRaises(ConfigError, LocalAccess(self.path, required=True).rules)
        self.assertEqual(str(error), f"setting access: there is no file {self.path}")

    def test_both(self) -> None:
        """What the file and the command line both allow may be reached."""
        self.write('allow = ["192.168.1.0/24:tcp"]')
        self.assertEqual(
            LocalAccess(self.path, scope=Scope.parse("*:tcp/80")).rules().scope, Scope.parse("192.168.1.0/24:tcp/80")
        )

    def test_changes(self) -> None:
        """A change counts at once; the file is read only when it has changed, or could not be used."""
        access = LocalAccess(self.path)
        self.write('allow = ["10.0.0.1"]')
        self.assertEqual(access.rules().scope, Scope.parse("10.0.0.1"))
        self.assertIs(access.rules(), access.rules())
        self.write('allow = ["10.0.0.2"]')
        self.assertEqual(access.rules().scope, Scope.parse("10.0.0.2"))
        self.write("nonsense")
        for _ in range(2):
            self.assertRaises(ConfigError, access.rules)
        self.write("")
        self.assertEqual(access.rules(), LocalRules())
        self.path.chmod(0o666)
        error = self.assertRaises(ConfigError, access.rules)
        self.assertEqual(
            str(error),
            f"setting access.file: {self.path} can be written by others than root: chmod go-w {self.path}"
            f" (in {self.path})",
        )
        self.path.unlink()
        self.assertEqual(access.rules(), LocalRules())

    def test_replaced(self) -> None:
        """What others can have put in its place permits nothing, and is not waited for; no older answer holds."""
        self.write("allow = []")
        access = LocalAccess(self.path, required=True)
        self.assertEqual(access.rules().scope, Scope.of([]))
        folder = self.path.parent
        folder.chmod(0o777)
        self.assertRaises(ConfigError, access.rules)
        folder.chmod(0o1777)
        (folder / "open.toml").touch()
        self.path.unlink()
        self.path.symlink_to("open.toml")
        os.chown(self.path, 65534, 65534, follow_symlinks=False)
        self.assertRaises(ConfigError, access.rules)
        self.path.unlink()
        folder.chmod(0o700)
        os.mkfifo(self.path)
        error = self.assertRaises(ConfigError, access.rules)
        self.assertEqual(str(error), f"setting access.file: {self.path} is no file (in {self.path})")


class _Link:
    """A server that grants what the test says."""

    old = False

    def __init__(self) -> None:
        self.grant: Any = SessionGrant(1, None, ALL)
        self.asked: list[object] = []

    def ask(self, asked: object) -> Deferred[Any]:
        self.asked.append(asked)
        return fail(self.grant) if isinstance(self.grant, Exception) else succeed(self.grant)


class BoundaryTests(SynchronousTestCase):
    """One session's."""

    def setUp(self) -> None:
        """A session that has been selected."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.link = _Link()
        self.local = LocalAccess()
        self.boundary = Boundary(
            self.local, PARAMETERS, cast(Link, self.link), self.clock, lambda scope: Plan(f"s{len(str(scope))}", ())
        )

    def learn(self) -> None:
        """Ask."""
        self.successResultOf(Deferred.fromCoroutine(self.boundary.learn()))

    def renew(self, number: int) -> bool:
        """Ask again."""
        return self.successResultOf(Deferred.fromCoroutine(self.boundary.renew(number)))

    def test_everything(self) -> None:
        """Without limits there are none."""
        self.learn()
        self.assertEqual(self.link.asked, [GetSessionGrant()])
        self.assertEqual((self.boundary.number, self.boundary.scope, self.boundary.ends_at), (1, ALL, None))
        self.assertEqual(self.boundary.plan, Plan("s1", ()))

    def test_both(self) -> None:
        """What both allow may be done, until the server's end, counted from now."""
        self.local.scope = Scope.parse("*:tcp/80")
        self.link.grant = SessionGrant(3, 60.0, Scope.parse("192.168.1.10"))
        self.learn()
        self.assertEqual((self.boundary.number, self.boundary.scope, self.boundary.ends_at), (3, WEB, 1060.0))

    def test_renewed(self) -> None:
        """The server is asked again when its grant is another one, and not before."""
        self.learn()
        self.assertFalse(self.renew(1))
        self.assertEqual(len(self.link.asked), 1)
        self.link.grant = SessionGrant(2, 5.0, ALL)
        self.assertFalse(self.renew(2))
        self.assertEqual(self.boundary.ends_at, 1005.0)
        self.link.grant = SessionGrant(3, None, WEB)
        self.assertTrue(self.renew(3))
        self.assertEqual((self.boundary.scope, self.boundary.ends_at), (WEB, None))

    def test_changed_here(self) -> None:
        """A change of the rules here counts without a word of the server's, which cannot lift it."""
        self.learn()
        self.local.scope = WEB
        self.assertTrue(self.renew(1))
        self.assertEqual(self.boundary.scope, WEB)
        self.link.grant = SessionGrant(2, None, ALL)
        self.assertFalse(self.renew(2))
        self.assertEqual(self.boundary.scope, WEB)

    def test_denied(self) -> None:
        """What may not be is said to be so, from the beginning or later."""
        self.learn()
        self.local.scope = Scope()
        self.failureResultOf(Deferred.fromCoroutine(self.boundary.renew(1)), AccessDenied)
        self.failureResultOf(Deferred.fromCoroutine(self.boundary.learn()), AccessDenied)

    def test_over(self) -> None:
        """A session that is over has no grant."""
        self.link.grant = NoSession()
        self.failureResultOf(Deferred.fromCoroutine(self.boundary.learn()), NoSession)

    def test_old_server(self) -> None:
        """An old server knows no grants; the rules here hold all the same."""
        self.link.old = True
        self.local.scope = WEB
        self.learn()
        self.assertEqual((self.link.asked, self.boundary.number, self.boundary.scope), ([], None, WEB))
