"""The site's say, in a device's service: nothing is asked of the server, and nothing configured, before it agrees."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel
from twisted.trial.unittest import SkipTest, TestCase

import rdvtwisted
from rdvtwisted.adapters.consent import SOCKET, perform
from rdvtwisted.adapters.control_server import ControlService
from rdvtwisted.adapters.hooks import Hooks
from rdvtwisted.consent import Consent, Visit
from rdvtwisted.errors import RequestRefused
from rdvtwisted.requests import (
    Connect,
    EndSession,
    GetRemoteSite,
    GetSession,
    GetTunnelParameters,
    ListOnsite,
    Publish,
    WaitForMaster,
    WaitForSessionChange,
)
from rdvtwisted.services import rdv_onsite
from rdvtwisted.values import EndReason, Mode, SessionState, SessionView
from tests.services.test_master import ONSITE, REMOTE, MasterCase, presence
from tests.services.test_onsite import PROFILE, OnsiteCase

PENDING = SessionView(state=SessionState.PENDING, id="s1", master="rpi2200", waiting="consent")


class ConsentTests(OnsiteCase):
    """An onsite whose site is asked for ten seconds."""

    def setUp(self) -> None:
        """It is online."""
        super().setUp()
        self.consent = Consent(self.clock, required=True, seconds=10.0, window=100.0)
        self.service.consent = self.consent
        self.start()
        self.here.answers[GetSession] = PENDING

    def want(self) -> None:
        """A master wants a session."""
        self.begin_session()
        self.assertEqual(self.asked(GetTunnelParameters), [])
        self.assertEqual((self.backend.tunnels, self.network.applied), ([], {}))

    def test_published(self) -> None:
        """The server learns that somebody is asked, and for how long."""
        self.assertEqual(self.asked(Publish)[-1], Publish(evolve(PROFILE, consent_seconds=10.0)))

    def test_granted(self) -> None:
        """Once somebody agrees the session is built as any other; its end is the consent's."""
        self.want()
        self.assertEqual(self.consent.status()["master"], "rpi2200")
        self.assertEqual(self.records("master"), [("online", None), ("consent", "rpi2200")])
        self.consent.grant()
        self.pump()
        self.bring_up()
        self.assertEqual(self.consent.status()["basis"], "command")
        self.assertTrue(any(line.startswith("This session ends at") for line in self.said))
        self.assertEqual(len(self.network.applied), 1)
        self.consent.end()
        self.pump()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.CONSENT_WITHDRAWN, "s1")])
        self.assertEqual(self.network.applied, {})
        self.assertEqual(self.records("reason")[-2:], [("ended", "consent-withdrawn"), ("online", None)])
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_denied(self) -> None:
        """A no, or nobody's word, is told to the server, and the device is free for others."""
        self.want()
        self.consent.refuse()
        self.pump()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.CONSENT_REFUSED, "s1")])
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))
        self.want()
        self.pass_time(10.0)
        self.assertEqual(self.asked(EndSession)[1:], [EndSession(EndReason.CONSENT_TIMEOUT, "s1")])
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_master_leaves(self) -> None:
        """A session that is over is asked about no longer."""
        self.want()
        self.assertIsInstance(self.requests[-1], WaitForSessionChange)
        self.here.answer(SessionView(reason=EndReason.MASTER_LEFT))
        self.assertEqual(self.consent.status()["state"], "idle")
        self.assertEqual(self.records("reason")[-1], ("online", None))
        self.assertEqual(self.records("reason")[-2], ("ended", "master-left"))

    def test_given_another(self) -> None:
        """The site has agreed to one session, and the server has another one: nothing is built, and that one ends."""
        for change in ({"session": "s2"}, {"peer": "rpi2201"}, {"mode": Mode.L2}):
            self.here.answers[GetTunnelParameters] = evolve(self.parameters(), **change)
            self.want()
            self.consent.grant()
            self.pump()
            self.assertEqual((self.backend.tunnels, self.network.applied), ([], {}))
            ended = EndSession(EndReason.CONSENT_REFUSED, change.get("session", "s1"))
            self.assertEqual(self.asked(EndSession)[-1], ended)
            self.assertEqual(self.consent.status()["state"], "idle")
            # The test's look at what was asked so far begins anew.
            self.here.asked[:-1] = []
        self.assertEqual(
            self.logged(LogLevel.warn)[-1],
            "this site has agreed to a session with rpi2200 (L3), session s1, and the server has one with"
            " rpi2200 (L2), session s1",
        )

    def test_another_takes_its_place(self) -> None:
        """While the site is asked the first session ends and another comes: the site is asked anew, about that one."""
        self.want()
        self.here.answers[GetSession] = other = evolve(PENDING, id="s2", master="eve")
        self.here.answer(other)
        self.assertEqual(self.consent.status()["state"], "idle")
        self.assertRaises(RequestRefused, self.consent.grant, session="s1")
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.MASTER_LEFT, "s1")])
        self.begin_session()
        self.assertEqual(self.consent.status()["session"], "s2")
        self.assertRaises(RequestRefused, self.consent.grant, session="s1")
        self.assertEqual(self.asked(GetTunnelParameters), [])

    def test_nameless(self) -> None:
        """To what has no name nobody can agree, not even by a window; nothing is built, and no other session ended."""
        self.consent.grant(60.0)
        for view in (SessionView(), evolve(PENDING, id="")):
            self.here.answers[GetSession] = view
            self.want()
        self.assertEqual(self.asked(EndSession), [])
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_refused_too_late(self) -> None:
        """A refusal is of the session that was asked about, and not of one that a master has by then."""
        self.want()
        self.consent.refuse()
        self.pump()
        self.assertEqual([each.session for each in self.asked(EndSession)], ["s1"])

    def test_stopped(self) -> None:
        """A device that is stopped while somebody is asked leaves nothing."""
        self.want()
        self.stop()
        self.assertEqual(self.consent.status()["state"], "idle")

    def test_window(self) -> None:
        """Within a window nobody is asked, and the session ends with it."""
        self.consent.grant(7.0)
        self.begin_session()
        self.bring_up()
        self.pass_time(7.0)
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.TIME_LIMIT, "s1")])
        self.assertEqual(self.network.applied, {})


class MasterTests(MasterCase):
    """A master, and a site that is asked."""

    def setUp(self) -> None:
        """It has not answered yet."""
        super().setUp()
        self.here.answers |= {GetRemoteSite: evolve(REMOTE, consent_seconds=10.0), GetSession: PENDING}

    def test_agrees(self) -> None:
        """The operator is told that the site is asked; the tunnel is built when it has agreed."""
        self.start(onsite=ONSITE)
        line = f"Waiting for consent at the site of {ONSITE}, 10 s at most"
        self.assertEqual(self.said[-1], line)
        self.here.answer(PENDING)
        self.assertEqual((self.said.count(line), self.asked(GetTunnelParameters)), (1, []))
        self.here.answer(SessionView(state=SessionState.BUILDING, id="s1"))
        self.assertIn("The site has agreed", self.said)
        self.assertEqual(len(self.asked(GetTunnelParameters)), 1)
        self.interrupt()
        self.assert_finished(0)

    def test_denied(self) -> None:
        """If it does not the command fails, with the reason; nothing was built."""
        for reason, line in (
            (EndReason.CONSENT_REFUSED, "the site has refused its consent"),
            (EndReason.CONSENT_TIMEOUT, "nobody at the site has agreed in time"),
        ):
            self.here = self.server()
            self.here.answers |= {
                ListOnsite: (presence(ONSITE),),
                Connect: None,
                GetRemoteSite: evolve(REMOTE, consent_seconds=10.0),
                GetSession: PENDING,
            }
            self.finished = 0
            self.complaints.clear()
            self.start(onsite=ONSITE)
            self.here.answer(SessionView(reason=reason))
            self.assert_finished(4, f"{line}: {ONSITE}")
            self.assertEqual(self.backend.tunnels, [])

    def test_interrupted(self) -> None:
        """The operator need not wait."""
        self.start(onsite=ONSITE)
        self.interrupt()
        self.assert_finished(0)

    def test_withdrawn(self) -> None:
        """That a site ends a session is no failure of the master's."""
        self.here.answers[GetSession] = SessionView(state=SessionState.BUILDING, id="s1")
        self.start(onsite=ONSITE)
        self.assertNotIn("The site has agreed", self.said[:-1])
        self.bring_up()
        self.end_session(EndReason.CONSENT_WITHDRAWN)
        self.assertTrue(self.said[-2].startswith("Session ended (consent-withdrawn)"))
        self.assert_finished(0)


class HookTests(OnsiteCase):
    """An onsite with hooks."""

    def setUp(self) -> None:
        """Each is there; C{pre-up} runs as soon as a master wants a session."""
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("needs root, to have files of root's")
        self.hooks = Path(mkdtemp())
        self.addCleanup(rmtree, self.hooks)
        for name in ("pre-up", "post-up", "pre-down", "post-down"):
            (self.hooks / name).write_text("#!/bin/sh\n")
            (self.hooks / name).chmod(0o755)
            self.equipment.programs.installed[name] = str(self.hooks / name)
        self.equipment.hooks = Hooks(self.equipment.programs, self.clock, self.hooks, 10.0)
        self.start()
        self.begin_session()

    @property
    def ran(self) -> list[str]:
        """The hooks that were run."""
        return [program.environment["RDV_HOOK"] for program in self.equipment.programs.started]

    def done(self, manner: str = "ended with status 0") -> None:
        """The last hook ends."""
        self.equipment.programs.started[-1].exit(manner)
        self.pump()

    def test_order(self) -> None:
        """Nothing is configured before C{pre-up} has ended well; the others follow, each in its time."""
        self.assertEqual((self.ran, self.network.applied), (["pre-up"], {}))
        self.done()
        self.assertEqual(len(self.network.applied), 1)
        self.bring_up()
        self.assertEqual(self.ran[1:], ["post-up"])
        self.done("ended with status 1")
        self.end_session(EndReason.OPERATOR)
        self.assertEqual(self.ran[2:], ["pre-down"])
        self.assertEqual(len(self.network.applied), 1)
        self.done()
        self.assertEqual((self.ran[3:], self.network.applied), (["post-down"], {}))
        environment = self.equipment.programs.started[-1].environment
        self.assertEqual((environment["RDV_REASON"], environment["RDV_PEER"]), ("operator", "rpi2200"))
        self.done()
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_slow(self) -> None:
        """A C{post-up} that takes its time does not hold up the end of the session."""
        self.done()
        self.bring_up()
        self.end_session(EndReason.OPERATOR)
        self.assertEqual(self.ran, ["pre-up", "post-up", "pre-down"])
        self.assertTrue(self.equipment.programs.started[1].asked)
        self.done()
        self.done()
        self.assertEqual(self.network.applied, {})

    def test_refuses(self) -> None:
        """A C{pre-up} that fails, or hangs, refuses the session with one line; no other hook is run."""
        self.done("ended with status 3")
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.HOOK_REFUSED, "s1")])
        self.begin_session()
        self.pass_time(10.0)
        self.assertEqual(self.asked(EndSession)[1:], [EndSession(EndReason.HOOK_REFUSED, "s1")])
        self.assertEqual((self.ran, self.network.applied), (["pre-up", "pre-up"], {}))
        self.assertTrue(self.equipment.programs.started[-1].asked)


class CommandTests(TestCase):
    """The command C{rdv-onsite}, against a device's socket."""

    def setUp(self) -> None:
        """A device that listens."""
        clock: Any = reactor
        # Not in trial's directory: a socket's path is short.
        self.state = Path(mkdtemp())
        self.addCleanup(self.state.rmdir)
        self.consent = Consent(clock, required=True)
        self.service = ControlService(clock, clock, str(self.state / SOCKET), partial(perform, self.consent))

    def give(self, *arguments: str) -> tuple[int, str, str]:
        """What a command comes to: its status, output and complaint."""
        out, errors = io.StringIO(), io.StringIO()
        status = rdv_onsite.main(["-s", str(self.state), *arguments], {}, out, errors)
        return status, out.getvalue(), errors.getvalue()

    @inlineCallbacks
    def test_commands(self) -> Any:
        """Each does what it says; what cannot be done is a line and status 1; the socket is the user's alone."""
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.assertEqual((self.state / SOCKET).stat().st_mode & 0o777, 0o600)
        told = yield deferToThread(self.give, "status")
        self.assertEqual(told, (0, "There is no session\nEach session needs consent before it begins\n", ""))
        told = yield deferToThread(self.give, "grant")
        self.assertEqual(told[0], 1)
        self.assertIn("no session waits for consent", told[2])
        told = yield deferToThread(self.give, "grant", "s1")
        self.assertEqual(told, (1, "", "rdv-onsite: error: session 's1' does not wait for consent\n"))
        asked = self.consent.ask(Visit("s1", "rpi2200"))
        told = yield deferToThread(self.give, "grant", "s2")
        complaint = "session 's2' does not wait for consent; there is one with rpi2200 (L3), session s1"
        self.assertEqual(told, (1, "", f"rdv-onsite: error: {complaint}\n"))
        told = yield deferToThread(self.give, "status")
        self.assertIn(": rdv-onsite grant s1, or refuse\n", told[1])
        told = yield deferToThread(self.give, "grant", "s1")
        self.assertEqual(told, (0, "Granted to rpi2200 (L3)\n", ""))
        self.successResultOf(asked).close()
        told = yield deferToThread(self.give, "grant", "--for", "2h")
        self.assertEqual(told, (0, "Granted for 7200 s\n", ""))
        told = yield deferToThread(self.give, "status")
        self.assertIn("\nSessions may begin and last for ", told[1])
        told = yield deferToThread(self.give, "end")
        self.assertEqual(told, (0, "The window is closed\n", ""))

    def test_mistakes(self) -> None:
        """Without a device there is a line; without sense, status 2."""
        status, _, complaint = self.give("status")
        self.assertEqual(status, 1)
        self.assertIn("no onsite device is running", complaint)
        for arguments in ((), ("dance",), ("grant", "--for", "soon"), ("grant", "--for", "0")):
            self.assertEqual(self.give(*arguments)[0], 2)
        line = "rdv-onsite: error: invalid time '31d': use 90s, 30m, 2h, 1d, at most 30d\n"
        self.assertEqual(self.give("grant", "--for", "31d"), (2, "", line))

    def test_version(self) -> None:
        """It tells its version, as the other commands do."""
        self.assertEqual(self.give("--version"), (0, f"rdv-onsite {rdvtwisted.__version__}\n", ""))

    def test_describe(self) -> None:
        """The status is told in a sentence."""
        status = {
            "required": True, "state": "waiting", "master": "rpi2200", "mode": "L3", "session": "s1", "basis": None,
            "answer_within_s": 42.0, "consent_left_s": None, "window_left_s": None, "file_left_s": None,
        }  # fmt: skip
        self.assertIn("rpi2200 (L3) waits for consent, 42 s more", rdv_onsite.describe(status))
        status |= {"state": "session", "basis": "file", "consent_left_s": 90.0, "file_left_s": 90.0}
        self.assertIn("There is a session with rpi2200 (L3); consent: file", rdv_onsite.describe(status))
