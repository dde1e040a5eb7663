"""Putting a device together: everything that can be refused is refused at once, in one line."""

from __future__ import annotations

import io
import os
import sys
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters.backends import Discovery
from rdvtwisted.errors import ConfigError, InvalidValue, MissingPrivilege, MissingProgram, RDVError, StateDirectoryError
from rdvtwisted.services import assembly
from rdvtwisted.services.assembly import inform, load_identity, make_master, make_onsite
from rdvtwisted.services.device import ConsentSettings, DeviceSettings, HookSettings
from rdvtwisted.services.master import MasterService, MasterSettings
from rdvtwisted.services.onsite import OnsiteService
from rdvtwisted.values import Missing, Role
from tests.services.neighbours import Backend

LACK = Missing("/dev/net/tun", "load the kernel module tun")


class AssemblyCase(SynchronousTestCase):
    """A machine that has all that a device needs."""

    def setUp(self) -> None:
        """A device without a key yet."""
        self.folder = Path(self.mktemp())
        self.settings = DeviceSettings(
            role=Role.ONSITE,
            account="rpi1100",
            host="rdv.example.org",
            port=22,
            tls=False,
            state=self.folder,
            identity=self.folder / "identity",
            known_hosts=self.folder / "known_hosts",
            known_peers=self.folder / "known_peers",
            authority=self.folder / "server-ca.pem",
        )
        self.reactor = MemoryReactorClock()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.patch(assembly, "require_net_admin", lambda: None)
        self.patch(assembly, "PROGRAMS", self.folder.with_name("programs"))
        self.find(Backend())

    def find(self, *backends: Backend, problems: tuple[str, ...] = ()) -> None:
        """These tunnel backends are installed."""
        self.patch(assembly, "discover", lambda: Discovery(backends, problems))

    def said(self) -> list[str]:
        """Lines on the terminal."""
        return self.out.getvalue().splitlines()


class IdentityTests(AssemblyCase):
    """The device's key."""

    def announcement(self, line: str, fingerprint: str) -> list[str]:
        """What the operator learns of it."""
        return [
            f"The key of this device: {line} rpi1100",
            f"Its fingerprint: {fingerprint}",
            f"Register it on the server with: rdvctl device add rpi1100 --role onsite --key '{line}'",
        ]

    def test_made(self) -> None:
        """The first start makes it, and tells its public half, once; that is also in a file for everybody."""
        who = load_identity(self.settings)
        self.assertEqual(self.said(), self.announcement(who.public.line, who.public.fingerprint))
        self.assertEqual((self.folder / "identity").stat().st_mode & 0o777, 0o600)
        public = self.folder / "identity.pub"
        self.assertEqual(public.read_text(), f"{who.public.line} rpi1100\n")
        self.assertEqual(load_identity(self.settings).public, who.public)
        self.assertEqual(len(self.said()), 3)

    def test_asked_for(self) -> None:
        """--make-key makes it if there is none, and tells it in any case."""
        for _ in range(2):
            self.assertEqual(inform(self.settings), 0)
        self.assertEqual(self.said()[:3], self.said()[3:])

    def test_unwritable(self) -> None:
        """A place where it cannot be kept is one clear line."""
        self.folder.mkdir()
        (self.folder / "identity.pub").mkdir()
        self.assertRaises(StateDirectoryError, load_identity, self.settings)
        (self.folder / "file").write_text("")
        settings = evolve(self.settings, identity=self.folder / "file" / "identity")
        self.assertRaises(StateDirectoryError, load_identity, settings)


class BackendsTests(AssemblyCase):
    """--help-backends."""

    def test_list(self) -> None:
        """Each with its modes, what it is for and what is missing; and what should be there and is not."""
        self.find(Backend(), Backend("other", lacking=[LACK]), problems=("vtun is missing: is it installed?",))
        self.assertEqual(inform(None), 0)
        self.assertEqual(
            self.said(),
            [
                "vtun is missing: is it installed?",
                "twin       L3      relay        For tests.",
                "other      L3      relay        For tests.",
                "           missing: /dev/net/tun; load the kernel module tun",
            ],
        )
        self.assertFalse(self.folder.exists())


class DeviceTests(AssemblyCase):
    """Both kinds of devices."""

    def onsite(self, **options: Any) -> OnsiteService:
        """An onsite."""
        return make_onsite(
            self.settings,
            **{"interface": None, "session_seconds": None, "report": None, "reactor": self.reactor, **options},
        )

    def master(
        self,
        terminal: bool = True,
        report: Path | None = None,
        hooks: HookSettings = HookSettings(),  # noqa: B008 - it is immutable
        **wishes: Any,
    ) -> MasterService:
        """A master."""
        settings, wanted = evolve(self.settings, role=Role.MASTER), MasterSettings(**wishes)
        return make_master(settings, wanted, report=report, terminal=terminal, hooks=hooks, reactor=self.reactor)

    def assert_refused(self, error: type[RDVError], text: str, make: Any, *args: Any, **keywords: Any) -> None:
        """One clear line."""
        self.assertEqual(str(self.assertRaises(error, make, *args, **keywords)), text)

    def test_onsite(self) -> None:
        """An onsite has what the operator wants and what the machine has."""
        lacking = Backend("other", lacking=[LACK])
        self.find(Backend(), lacking)
        service = self.onsite(interface="eth1", session_seconds=60.0)
        self.assertEqual((service.interface, service.session_seconds), ("eth1", 60.0))
        self.assertEqual(list(service.equipment.backends), ["twin"])
        self.assertEqual(service.equipment.owner, "onsite-rpi1100")
        self.assertFalse(service.running)

    def test_master(self) -> None:
        """So has a master; when it is finished it stops the reactor, once."""
        service = self.master(onsite="rpi2200")
        self.assertEqual(service.settings, MasterSettings(onsite="rpi2200"))
        self.assertEqual(service.equipment.owner, "master-rpi1100")
        self.reactor.running = True
        service.finished()
        self.assertTrue(self.reactor.hasStopped)

    def test_terminal(self) -> None:
        """On a terminal words go to standard output, complaints to standard error; under twistd all go to the log."""
        service = self.master(onsite="rpi2200")
        self.out.truncate(0)
        self.out.seek(0)
        service.console.say("words")
        service.console.complain("trouble")
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("words\n", "rdv-master: trouble\n"))
        service = self.master(terminal=False, onsite="rpi2200")
        service.console.say("words")
        service.console.complain("trouble")
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("words\n", "rdv-master: trouble\n"))

    def test_privilege(self) -> None:
        """Whoever configures the network needs the right to it; a list needs none."""

        def refuse() -> None:
            raise MissingPrivilege("not here")

        self.patch(assembly, "require_net_admin", refuse)
        self.assert_refused(MissingPrivilege, "not here", self.onsite)
        self.assert_refused(MissingPrivilege, "not here", self.master, onsite="rpi2200")
        self.master(list_onsite=True)

    def test_no_backend(self) -> None:
        """Without any tunnel backend there is nothing to begin; what is missing is told. A list needs none."""
        self.find(Backend(lacking=[LACK]), problems=("tls is missing",))
        text = "no tunnel backend can be used here: /dev/net/tun (load the kernel module tun); tls is missing"
        self.assert_refused(MissingProgram, text, self.onsite)
        self.assert_refused(MissingProgram, text, self.master, onsite="rpi2200")
        self.master(list_onsite=True)

    def test_wanted_backend(self) -> None:
        """A backend that the operator names has to be here, and usable."""
        self.find(Backend(), Backend("other", lacking=[LACK]))
        self.assert_refused(
            InvalidValue,
            "invalid tunnel backend 'pigeon': use one of twin, other",
            self.master,
            onsite="rpi2200",
            backends=("pigeon",),
        )
        self.assert_refused(
            MissingProgram,
            "the tunnel backend other cannot be used here: /dev/net/tun (load the kernel module tun)",
            self.master,
            onsite="rpi2200",
            backends=("other",),
        )
        self.master(onsite="rpi2200", backends=("twin",))

    def test_long_path(self) -> None:
        """Where the site's commands could not be taken, for the state directory's length, that option is named."""
        self.settings = evolve(self.settings, state=self.folder.absolute() / ("deep" * 30))
        text = f"setting --state-dir: {self.settings.state}/control is longer than 107 bytes; name a shorter path"
        self.assert_refused(ConfigError, text, self.onsite, consent=ConsentSettings(required=True))

    def test_hooks(self) -> None:
        """A directory of hooks that is named has to be there, before a key is made; what will not be run is told."""
        gone = HookSettings(self.folder.absolute() / "gone", required=True)
        for make in (self.onsite, partial(self.master, onsite="rpi2200")):
            self.assert_refused(
                ConfigError, f"setting --hooks: there is no directory {gone.directory}", make, hooks=gone
            )
        self.assertFalse(self.folder.exists())
        self.onsite(hooks=evolve(gone, required=False))
        if os.geteuid() != 0:
            raise SkipTest("needs root, whose hooks they have to be")
        hooks = Path(mkdtemp())
        self.addCleanup(rmtree, hooks)
        self.master(onsite="rpi2200", hooks=HookSettings(hooks, required=True))
        self.assertEqual(self.err.getvalue(), "")
        (hooks / "pre-up").symlink_to("/nonexistent")
        self.master(onsite="rpi2200", hooks=HookSettings(hooks, required=True))
        words = f"{hooks}/pre-up will not be run: {hooks}/pre-up leads to /nonexistent, which is not there"
        self.assertEqual(self.err.getvalue(), f"rdv-master: {words}\n")

    def test_wrong_backend(self) -> None:
        """To name a backend that does not exist is bad usage: status 2, before the device has made itself a key."""
        self.find(Backend())
        for make in (partial(self.master, onsite="rpi2200"), partial(self.master, list_onsite=True), self.onsite):
            error = self.assertRaises(InvalidValue, make, backends=("twin", "pigeon"))
            self.assertEqual((str(error), error.exit_status), ("invalid tunnel backend 'pigeon': use one of twin", 2))
            self.assertFalse(self.folder.exists())

    def test_wanted_backends(self) -> None:
        """An onsite offers those only that the operator names, in that order; all have to be here and usable."""
        self.find(Backend(), Backend("second"), Backend("other", lacking=[LACK]))
        for backends, offered in ((None, ["twin", "second"]), (("second", "twin"), ["second", "twin"])):
            self.assertEqual(list(self.onsite(backends=backends).equipment.backends), offered)
        text = "the tunnel backend other cannot be used here: /dev/net/tun (load the kernel module tun)"
        self.assert_refused(MissingProgram, text, self.onsite, backends=("twin", "other"))

    def test_end_to_end(self) -> None:
        """Who wants to be read by nobody offers no backend that the server ends, and may not name one."""
        readable = Backend("readable", relay=False)
        self.find(Backend(), readable)
        self.assertEqual(list(self.onsite().equipment.backends), ["twin", "readable"])
        self.settings = evolve(self.settings, end_to_end=True)
        self.assertEqual(list(self.onsite().equipment.backends), ["twin"])
        refusal = "the server can read what it carries: --end-to-end refuses that"
        text = f"invalid tunnel backend 'readable': {refusal}"
        self.assert_refused(InvalidValue, text, self.onsite, backends=("readable",))
        self.assert_refused(InvalidValue, text, self.master, onsite="rpi2200", backends=("readable",))
        self.find(readable)
        text = "no tunnel backend can be used here: --end-to-end refuses those that the server can read"
        self.assert_refused(MissingProgram, text, self.onsite)

    def test_programs(self) -> None:
        """What programs of a killed device have left is removed before anything else is begun."""
        left = self.folder.with_name("programs") / "program-left"
        left.mkdir(parents=True)
        self.onsite()
        self.assertFalse(left.exists())

    def test_report(self) -> None:
        """A report that cannot be written is refused."""
        report = self.folder / "gone" / "report"
        text = f"cannot write the report {report}: No such file or directory"
        self.assert_refused(StateDirectoryError, text, self.onsite, report=report)
        self.assert_refused(StateDirectoryError, text, self.master, report=report, onsite="rpi2200")

    def test_damaged_files(self) -> None:
        """Files that are damaged are refused, each by its name."""
        self.folder.mkdir()
        for name, error in (
            ("identity", StateDirectoryError),
            ("known_peers", InvalidValue),
            ("server-ca.pem", StateDirectoryError),
        ):
            path = self.folder / name
            path.write_text("damaged")
            path.chmod(0o600)
            self.assertIn(str(path), str(self.assertRaises(error, self.onsite)))
            path.unlink()
