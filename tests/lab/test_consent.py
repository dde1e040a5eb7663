"""The site's say in a session between real devices: its consent, its end, and its hooks."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.lab.deployment import END_SECONDS, MASTER, PROGRAMS, SESSION_SECONDS, START_SECONDS, onsite_id
from tests.lab.processes import LabProcess, eventually
from tests.lab.scene import BACK_SECONDS
from tests.lab.traffic import TrafficTestCase

ONSITE = onsite_id()


class SiteCase(TrafficTestCase):
    """An onsite that is started with options of its own."""

    def setUp(self) -> None:
        """The usual onsite has stopped; it is back when the test is over."""
        super().setUp()
        self.state = self.deployment.state(ONSITE)
        self.deployment.onsites[1].stop()
        self.addCleanup(self._usual)

    def _usual(self) -> None:
        self.deployment.onsites[1].stop()
        self.deployment.start_onsite()

    def begin(self, *options: str) -> None:
        """Start the onsite, and wait until it is free."""
        known = len(self.deployment.records(ONSITE))
        process = self.deployment.twistd(
            "onsite", "onsite-dev", *self.deployment.options(ONSITE), "--interface", "eth0", *options
        )
        self.deployment.onsites[1] = process
        self.deployment.wait_record(process, ONSITE, "online", START_SECONDS, after=known)
        eventually(self.scene.free, BACK_SECONDS, "the onsite to be free")

    def site(self, *arguments: str) -> str:
        """What the site's command prints."""
        command = [str(PROGRAMS / "rdv-onsite"), "--state-dir", str(self.state), *arguments]
        done = self.lab.run("onsite", command, timeout=START_SECONDS)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def status(self) -> Any:
        """How things are at the site."""
        return json.loads(self.site("status", "--json"))

    def ask(self, *options: str) -> LabProcess:
        """Have the master want a session, and wait until it and the site know that consent is waited for."""
        known = len(self.deployment.records(ONSITE))
        master = self.open(*options)
        self.deployment.wait_record(self.deployment.onsites[1], ONSITE, "consent", SESSION_SECONDS, after=known)
        self.eventually(lambda: "Waiting for consent at the site" in master.output(), END_SECONDS, "the line")
        return master

    def assert_untouched(self) -> None:
        """Nothing is reachable, and no interface, route or rule is there that belongs to a session."""
        self.assertFalse(self.reaches())
        self.assertEqual(self.scene.left(), [])

    def assert_failed(self, master: LabProcess, line: str) -> None:
        """The master's command has ended with status 4, and this line."""
        self.assertEqual(master.wait(END_SECONDS), 4, master.output())
        self.assertIn(line, master.output())
        self.assert_untouched()


class ConsentTests(SiteCase):
    """Somebody at the site must agree."""

    def test_granted_and_ended(self) -> None:
        """
        Before somebody agrees nothing is configured anywhere; then there is a session; when the site ends it, both
        devices are clean within 5 s, and the master's command has not failed.
        """
        self.begin("--consent", "ask")
        self.assertEqual(self.status()["state"], "idle")
        master = self.ask()
        self.assert_untouched()
        [session] = self.scene.sessions()
        self.assertEqual(session["state"], "pending")
        status = self.status()
        self.assertEqual((status["state"], status["master"]), ("waiting", MASTER))
        self.assertEqual(self.site("grant"), f"Granted to {MASTER} (L3)\n")
        self.deployment.wait_session()
        self.assertTrue(self.reaches())
        self.assertIn("This session ends at", master.output())
        self.assertEqual(self.status()["state"], "session")
        self.site("end")
        self.assertEqual(master.wait(END_SECONDS), 0)
        self.scene.require_clean()
        self.require_over("consent-withdrawn")
        self.assertEqual(self.status()["state"], "idle")

    def test_refused_and_forgotten(self) -> None:
        """Who is refused, or not answered, is told so."""
        self.begin("--consent-time", "6", "--consent", "ask")
        master = self.ask()
        self.site("refuse")
        self.assert_failed(master, "the site has refused its consent")
        eventually(self.scene.free, BACK_SECONDS, "the onsite to be free")
        self.assert_failed(self._waited(self.ask()), "nobody at the site has agreed in time")
        self.assertEqual(self.ended(ONSITE)["reason"], "consent-timeout")

    def _waited(self, master: LabProcess) -> LabProcess:
        self.assertEqual(master.wait(6 + END_SECONDS), 4)
        return master

    def test_window(self) -> None:
        """Within a window nobody is asked; its end is the session's, which the master is told."""
        self.begin("--consent", "ask")
        self.site("grant", "--for", "12s")
        master = self.open()
        self.deployment.wait_session()
        self.assertTrue(self.reaches())
        self.assertEqual(master.wait(12 + END_SECONDS), 0)
        self.scene.require_clean()
        self.require_over("time-limit")
        self.assertIn("This session ends at", master.output())
        self.assert_untouched()

    def test_file(self) -> None:
        """A session is there as long as the consent file is."""
        file = self.state / "consent"
        self.begin("--consent-file", str(file))
        self.addCleanup(file.unlink, missing_ok=True)
        master = self.ask()
        self.assert_untouched()
        file.touch(0o600)
        self.deployment.wait_session()
        self.assertTrue(self.reaches())
        file.unlink()
        self.assertEqual(master.wait(1 + END_SECONDS), 0)
        self.require_over("consent-withdrawn")

    def test_program(self) -> None:
        """A program answers for the site, such as one that waits for a button; one that says no refuses."""
        button = self.state / "button"
        program = self.state / "ask"
        program.write_text(
            f'#!/bin/sh\nuntil [ -e {button} ]; do sleep 0.1; done\ntest "$(cat {button})" = $RDV_MASTER\n'
        )
        program.chmod(0o755)
        self.addCleanup(program.unlink)
        self.addCleanup(button.unlink, missing_ok=True)
        self.begin("--consent-program", str(program))
        master = self.ask()
        self.assert_untouched()
        button.write_text(f"{MASTER}\n")
        self.deployment.wait_session()
        self.assertEqual(self.status()["basis"], "program")
        self.assertTrue(self.reaches())
        self.assertEqual(self.deployment.end_session(), 0)
        button.write_text("nobody\n")
        eventually(self.scene.free, BACK_SECONDS, "the onsite to be free")
        master = self.open()
        self.assertEqual(master.wait(SESSION_SECONDS), 4)
        self.assertIn("the site has refused its consent", master.output())

    def test_gone(self) -> None:
        """A master that gives up while it waits is asked about no longer."""
        self.begin("--consent", "ask")
        self.ask()
        self.assertEqual(self.deployment.end_session(), 0)
        self.eventually(lambda: self.status()["state"] == "idle", END_SECONDS, "the site to be left alone")
        self.assert_untouched()


class LimitTests(SiteCase):
    """Every session has an end."""

    def test_onsite_limit(self) -> None:
        """The onsite's own limit is told to server and master, which keep to it even if the onsite falls silent."""
        self.begin("--session-time", "6")
        master = self.open()
        self.deployment.wait_session()
        self.eventually(lambda: "This session ends at" in master.output(), END_SECONDS, "the line")
        onsite = self.deployment.onsites[1]
        onsite.send(signal.SIGSTOP)
        try:
            self.assertEqual(master.wait(6 + END_SECONDS), 0)
            self.assertEqual(self.scene.sessions(), [])
            self.assertEqual(self.scene.left("master", "server"), [])
        finally:
            onsite.send(signal.SIGCONT)
        self.require_over("time-limit")


class HookTests(SiteCase):
    """Programs of the administrator's."""

    def hook(self, name: str, text: str) -> None:
        """Write a hook."""
        hooks = self.state / "hooks"
        hooks.mkdir(exist_ok=True)
        (hooks / name).write_text(f"#!/bin/sh\n{text}\n")
        (hooks / name).chmod(0o755)
        self.addCleanup((hooks / name).unlink, missing_ok=True)

    def test_hooks(self) -> None:
        """They are run in their order, and told about the session; a C{pre-up} that fails refuses it."""
        told = self.state / "told"
        link = "$(ip link show $RDV_INTERFACE >/dev/null 2>&1 && echo there || echo absent)"
        for name in ("pre-up", "post-up", "post-down"):
            self.hook(name, f'echo "$RDV_HOOK $RDV_PEER $RDV_REASON {link}" >> {told}')
        # By then the other end may have taken leave, and the interface with it.
        self.hook("pre-down", f'echo "$RDV_HOOK $RDV_PEER $RDV_REASON" >> {told}')
        self.begin("--hooks", str(self.state / "hooks"))
        with self.session():
            self.assertTrue(self.reaches())
            self.eventually(lambda: "post-up" in told.read_text(), END_SECONDS, "the hook of the session that is up")
        self.eventually(lambda: "post-down" in told.read_text(), END_SECONDS, "the last hook")
        self.assertEqual(
            told.read_text().splitlines(),
            [
                f"pre-up {MASTER}  absent",
                f"post-up {MASTER}  there",
                f"pre-down {MASTER} operator",
                f"post-down {MASTER} operator absent",
            ],
        )
        self.hook("pre-up", "echo not on Sundays; exit 3")
        master = self.open()
        self.assertEqual(master.wait(SESSION_SECONDS), 4, master.output())
        self.assertIn("hook-refused", master.output())
        log = self.deployment.onsites[1].output()
        self.assertIn("hooks/pre-up failed with status 3", log)
        self.assertIn("hooks/pre-up: not on Sundays", log)
        self.assert_untouched()
