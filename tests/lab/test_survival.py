"""
What is left when something breaks: nothing, and the next session works.

Whatever moment a program is killed at, the same must hold. The moments here
are some that differ; which one exactly is met depends on the machine, and
what is asserted does not.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.lab.deployment import END_SECONDS, MASTER, SESSION_SECONDS, START_SECONDS, onsite_id
from tests.lab.faults_judge import descendants, table
from tests.lab.processes import LabProcess
from tests.lab.scene import BACK_SECONDS, SceneTestCase
from tests.lab.size import Size

ONSITE = onsite_id()

SILENCE_SECONDS = 15.0
"""In a session, how long a half-open connection may go unnoticed (design promise)."""

BUILDING = (0.0, 0.01, 0.02, 0.04, 0.07, 0.1)
"""Seconds after a session has been opened, in which both devices build their tunnels."""

FIRST_FILES = 10
"""About how many files a server makes in its state directory at its first start."""

NOTICED = SILENCE_SECONDS + END_SECONDS
"""How long after the last packet nothing of the session may be left any more."""

LOST = "tunnel-lost"
"""The reason that the server gives when a device's tunnel has broken before its connection: either may come first."""

SESSIONS = int(os.environ.get("RDV_LAB_SESSIONS", "10"))
"""How many sessions are had in a row."""

GROWTH_BYTES = 5_000_000 + 25_000 * SESSIONS
"""How much more memory a process may have after them: the allocator's slack, and less than one packet a session."""

WARMING = 3
"""Sessions after which a process has imported and cached what it ever will."""


class SurvivalTestCase(SceneTestCase):
    """Breaks things."""

    def setUp(self) -> None:
        super().setUp()
        self.times: dict[str, float] = {}

    @property
    def onsite(self) -> LabProcess:
        """The onsite device's process."""
        return self.deployment.onsites[1]

    @property
    def server(self) -> LabProcess:
        """The server's process."""
        assert self.deployment.server is not None
        return self.deployment.server

    def opening(self, delay: float) -> LabProcess:
        """A master whose session was opened so many seconds ago."""
        process = self.open()
        self.eventually(self.scene.sessions, SESSION_SECONDS, "a session opened")
        time.sleep(delay)
        return process

    @contextmanager
    def traffic(self) -> Iterator[LabProcess]:
        """A session that is up, while the PC talks with the customer's LAN; yields the master."""
        process = self.open()
        self.deployment.wait_session()
        pinging = self.lab.start("pc", ["ping", "-i", "0.01", "-s", "1400", self.web])
        try:
            pinging.wait_output("bytes from")
            yield process
        finally:
            pinging.stop(signal.SIGINT)

    def kill(self, *processes: LabProcess) -> None:
        """End programs so that they can do nothing about it."""
        for process in processes:
            process.send(signal.SIGKILL)
        for process in processes:
            self.assertEqual(process.wait(END_SECONDS), -signal.SIGKILL)

    def kill_with_keeper(self, process: LabProcess) -> None:
        """End a program, and before that whoever would clean up after it."""
        keepers = [each.pid for each in descendants(table(), process.pid) if "services.sweeping" in each.command]
        self.assertEqual(len(keepers), 1)
        os.kill(keepers[0], signal.SIGKILL)
        self.kill(process)

    def require_free(self, what: str, within: float = BACK_SECONDS) -> None:
        """The onsite device is listed, without a session, in the time that it may take from now; that is noted."""
        began = time.monotonic()
        self.eventually(self.scene.free, within, f"{ONSITE} to be free after {what}; other times: {self.times}")
        self.times[what] = round(time.monotonic() - began, 2)

    def require_failed(self, process: LabProcess, *statuses: int, within: float = END_SECONDS) -> None:
        """A master has ended by itself, has said so in its exit status, and has left nothing."""
        self.assertIn(process.wait(within), statuses, process.output())
        self.scene.require_clean("master")

    def require_session(self) -> None:
        """A new session works, and nothing is left after it."""
        with self.session():
            self.assertTrue(self.reaches())
        self.scene.require_rest()


class KilledTests(SurvivalTestCase):
    """Programs that end without a chance to clean up."""

    def test_master_at_its_start(self) -> None:
        """A master killed before it has a session leaves nothing."""
        self.kill(self.open())
        process = self.open()
        process.wait_output("starting up")
        self.kill(process)
        self.require_session()

    def test_master_while_building(self) -> None:
        """
        However far a master has come with its session when it is killed: the onsite is free again, server and
        onsite keep nothing, and the master's next start takes away what was left there.
        """
        for delay in BUILDING:
            process = self.opening(delay)
            self.kill(process)
            self.require_free(f"{delay:g} s")
            self.scene.require_clean("server", "onsite")
        self.require_session()

    def test_master_with_traffic(self) -> None:
        """
        When it is killed in a session that is in use, the onsite knows why its session ended, and the master keeps
        nothing either: it is cleaned up after.
        """
        with self.traffic() as process:
            self.kill(process)
            self.assertIn(self.ended(ONSITE)["reason"], ("master-left", LOST))
            self.scene.require_clean()
        self.require_free("a session")
        self.require_session()

    def test_master_and_its_keeper(self) -> None:
        """When nobody is there to clean up after a master that is killed, its next start does."""
        with self.traffic() as process:
            self.kill_with_keeper(process)
        self.require_free("a session")
        self.scene.require_clean("server", "onsite")
        self.assertNotEqual(self.scene.left("master"), [], "nothing was left behind: this proves nothing")
        with self.session():
            assert self.deployment.master is not None
            self.assertIn("Removed what an earlier run left behind", self.deployment.master.output())
            self.assertTrue(self.reaches())

    def test_onsite_at_its_start(self) -> None:
        """An onsite killed before it is online leaves nothing that keeps it from coming back."""
        for words in ("", "starting up", "Online"):
            self.onsite.stop()
            known = self.deployment.begin_onsite()
            known.wait_output(words, START_SECONDS)
            self.kill(known)
        self.deployment.start_onsite()
        self.require_free("its start")
        self.require_session()

    def test_onsite_while_building(self) -> None:
        """
        However far an onsite has come with a session when it is killed: the master ends with a reason and leaves
        nothing, and the onsite's next start takes away what was left there.
        """
        for delay in BUILDING:
            process = self.opening(delay)
            self.kill(self.onsite)
            self.require_failed(process, 3, 4)
            self.deployment.start_onsite()
            self.require_free(f"{delay:g} s")
            self.scene.require_clean()
        self.require_session()

    def test_onsite_with_traffic(self) -> None:
        """
        When it is killed in a session that is in use, the master knows why its session ended, and nothing is left at
        the onsite, which has not been started again.
        """
        with self.traffic() as process:
            self.kill(self.onsite)
            self.require_failed(process, 3, 4)
        self.assertIn(self.ended(MASTER)["reason"], ("onsite-left", LOST))
        self.scene.require_clean()
        self.deployment.start_onsite()
        self.require_free("a session")
        self.require_session()

    def test_onsite_and_its_keeper(self) -> None:
        """When nobody is there to clean up after an onsite that is killed, its next start does."""
        with self.traffic() as process:
            self.kill_with_keeper(self.onsite)
            self.require_failed(process, 3, 4)
        self.assertNotEqual(self.scene.left("onsite"), [], "nothing was left behind: this proves nothing")
        self.deployment.start_onsite()
        self.require_free("a session")
        self.scene.require_clean()
        self.require_session()

    def test_server_at_its_start(self) -> None:
        """A server killed before its doors are open, or just after, leaves nothing that keeps it from coming back."""
        for words in ("", "starting up", "RDV server"):
            self.server.stop()
            process = self.deployment.begin_server()
            process.wait_output(words, START_SECONDS)
            self.kill(process)
        self.deployment.start_server()
        self.require_free("its start")
        self.require_session()

    def test_server_at_its_first_start(self) -> None:
        """A server killed while it makes its keys, certificates and inventory makes the rest at its next start."""
        state = self.lab.directory / "new-server"
        state.mkdir(mode=0o700)
        doors = {"--ssh-port": 2222, "--tls-port": 4443}
        command = ["rdv-server", "--state-dir", str(state)]
        command += [word for option, port in doors.items() for word in (option, str(port))]

        def has_files(number: int) -> bool:
            return len(list(state.iterdir())) >= number

        for files in range(1, FIRST_FILES):
            process = self.deployment.twistd("server", *command)
            self.eventually(partial(has_files, files), START_SECONDS, f"{files} files in {state}")
            self.kill(process)
        process = self.deployment.twistd("server", *command)
        self.addCleanup(process.stop)
        process.wait_listening(*doors.values(), timeout=START_SECONDS)

    def test_server_while_building(self) -> None:
        """
        However far a session has come when the server is killed: the devices leave nothing, and when the server
        is back, the onsite is, too, by itself.
        """
        for delay in BUILDING[::2]:
            process = self.opening(delay)
            self.kill(self.server)
            self.require_failed(process, 3, 4)
            self.scene.require_clean()
            self.deployment.start_server()
            self.require_free(f"{delay:g} s")
        self.require_session()

    def test_server_with_traffic(self) -> None:
        """The same when it is killed in a session that is in use, and stays away for a while."""
        with self.traffic() as process:
            self.kill(self.server)
            self.require_failed(process, 3, 4)
        self.scene.require_clean()
        time.sleep(3.0)  # the onsite's tries become rarer meanwhile
        self.deployment.start_server()
        self.require_free("a session")
        self.require_session()

    def test_both_devices(self) -> None:
        """Both devices are killed at once; the server keeps nothing of their session, and both can have another."""
        with self.traffic() as process:
            self.kill(process, self.onsite)
        self.eventually(lambda: not self.scene.sessions(), END_SECONDS, "the session to be gone from the server")
        self.assertEqual(self.scene.online(), {})
        self.scene.require_clean("server")
        self.deployment.start_onsite()
        self.require_free("a session")
        self.require_session()


class AskedToEndTests(SurvivalTestCase):
    """Programs that are ended with SIGTERM clean up themselves."""

    def test_master(self) -> None:
        """A master that is asked to end ends its session in order; that is no failure."""
        with self.traffic() as process:
            self.assertEqual(process.stop(signal.SIGTERM, END_SECONDS), 0)
            self.scene.require_clean()
        self.require_over("operator")

    def test_onsite(self) -> None:
        """An onsite that is asked to end in a session leaves nothing, and the master ends in order."""
        with self.traffic() as process:
            self.assertEqual(self.onsite.stop(signal.SIGTERM, END_SECONDS), -signal.SIGTERM)
            self.scene.require_clean("onsite")
            self.assertEqual(process.wait(END_SECONDS), 0)
        self.scene.require_clean()
        self.assertEqual((self.ended(MASTER)["reason"], self.ended(ONSITE)["reason"]), ("operator", "operator"))
        self.assertEqual(self.scene.online(), {})
        self.deployment.start_onsite()
        self.require_session()

    def test_server(self) -> None:
        """A server that is asked to end ends its sessions, and both devices know why."""
        with self.traffic() as process:
            self.assertEqual(self.server.stop(signal.SIGTERM, END_SECONDS), -signal.SIGTERM)
            self.require_failed(process, 3)
        self.scene.require_clean()
        self.assertEqual((self.ended(MASTER)["reason"], self.ended(ONSITE)["reason"]), ("server-stopped",) * 2)
        self.deployment.start_server()
        self.require_free("a session")
        self.require_session()

    def test_while_building(self) -> None:
        """A master interrupted while it builds its tunnel ends in order, leaves nothing, and the onsite is free."""
        for delay in BUILDING[::2]:
            process = self.opening(delay)
            self.assertEqual(process.stop(signal.SIGINT, END_SECONDS), 0)
            self.scene.require_clean()
            self.require_free(f"{delay:g} s")


class SilenceTests(SurvivalTestCase):
    """Nobody says that the connection is gone."""

    def require_noticed(self, process: LabProcess) -> None:
        """The master has noticed in time that nothing comes any more, and has left nothing."""
        self.require_failed(process, 3, 4, within=NOTICED)
        self.eventually(lambda: not self.scene.sessions(), END_SECONDS, "the session to be gone from the server")

    def test_short_cut(self) -> None:
        """The session outlives a cable that is pulled and plugged in again after three seconds."""
        with self.session() as record:
            self.lab.cut("onsite")
            try:
                time.sleep(3.0)
                self.assertFalse(self.reaches())
            finally:
                self.lab.mend("onsite")
            began = time.monotonic()
            self.eventually(self.reaches, BACK_SECONDS, "the PC to reach the customer's LAN again")
            self.times["mended"] = time.monotonic() - began
            [session] = self.scene.sessions()
            self.assertEqual((session["id"], session["state"]), (record["session"], "up"))

    def test_short_standstill(self) -> None:
        """The session outlives a server that stands still for three seconds."""
        with self.session():
            self.server.send(signal.SIGSTOP)
            try:
                time.sleep(3.0)
                self.assertFalse(self.reaches())
            finally:
                self.server.send(signal.SIGCONT)
            self.eventually(self.reaches, BACK_SECONDS, "the PC to reach the customer's LAN again")

    def test_long_cut(self) -> None:
        """
        When the customer's cable is pulled, the master notices in time; when it is plugged in again, the onsite is
        back by itself, and has kept nothing.
        """
        with self.traffic() as process:
            self.lab.cut("onsite")
            try:
                self.require_noticed(process)
            finally:
                self.lab.mend("onsite")
        self.require_free("the cable")
        self.scene.require_clean()
        self.require_session()

    def test_forgotten_by_nat(self) -> None:
        """
        When the customer's router forgets all connections, so that nothing passes and nobody is told, both
        devices notice in time, and the onsite is back by itself.
        """
        with self.traffic() as process:
            self.lab.flush_nat("site-router")
            self.require_noticed(process)
        self.ended(ONSITE, within=NOTICED)
        self.require_free("the flush")
        self.scene.require_clean()
        self.require_session()

    def test_onsite_stands_still(self) -> None:
        """When the onsite stands still, the master notices; once it goes on, it is free and has kept nothing."""
        with self.traffic() as process:
            self.onsite.send(signal.SIGSTOP)
            try:
                self.require_noticed(process)
            finally:
                self.onsite.send(signal.SIGCONT)
        self.require_free("it went on")
        self.scene.require_clean()
        self.require_session()


class EnduranceTests(SurvivalTestCase):
    """Session after session."""

    def test_many_sessions(self) -> None:
        """
        Ten sessions in a row (or C{RDV_LAB_SESSIONS}) all work, and server and onsite have no more descriptors
        and threads after them, and hardly more memory.
        """
        for _ in range(WARMING):
            self.one_session()
        processes = (self.server, self.onsite)
        before = [Size.of(process) for process in processes]
        took = sorted(self.one_session() for _ in range(SESSIONS))

        def after() -> list[Size]:
            return [Size.of(process) for process in processes]

        def as_before() -> bool:
            # Not at once: our last question at the control socket has a descriptor until the server looks at it again.
            return all(
                size.descriptors <= former.descriptors and size.threads <= former.threads
                for size, former in zip(after(), before, strict=True)
            )

        figures = f"{SESSIONS} sessions up in {took[len(took) // 2]} s (median), {took[-1]} s (longest); {before}"
        self.eventually(as_before, END_SECONDS, f"{figures}, and so many descriptors and threads again")
        figures = f"{figures}, then {after()}"
        if "RDV_LAB_SESSIONS" in os.environ:
            sys.stdout.write(f"{figures}\n")
        for size, former in zip(after(), before, strict=True):
            self.assertLess(size.memory - former.memory, GROWTH_BYTES, figures)

    def one_session(self) -> float:
        """A session that is used and ended; how many seconds it took from the selection until it was up."""
        with self.session() as record:
            self.assertTrue(self.reaches())
        self.eventually(lambda: set(self.scene.online()) == {ONSITE}, END_SECONDS, "the master to be gone")
        return float(str(record["session_s"]))
