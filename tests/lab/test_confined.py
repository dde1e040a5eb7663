"""Server and devices as their systemd units let them run: whatever a session needs, they can do; and nothing else."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.lab.confined import HOME, UNITS, USERS, ConfinedDeployment, allowed, capabilities, writable
from tests.lab.deployment import SESSION_SECONDS
from tests.lab.lab import Lab
from tests.lab.private import clear_abandoned
from tests.lab.processes import eventually
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles
from tests.lab.seccomp import LIBRARY
from tests.unitfile import service

_PREFIX = "rdvc"

#: Bits of capabilities (linux/capability.h).
NET_BIND_SERVICE = 1 << 10
NET_ADMIN = 1 << 12


class ConfinedTests(SynchronousTestCase):
    """A lab with one customer."""

    def setUp(self) -> None:
        """Build it."""
        if obstacle := obstacles({**PROGRAMS, **OLD_PROGRAMS, "systemd-analyze": "systemd", "setpriv": "util-linux"}):
            raise SkipTest(obstacle)
        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            raise SkipTest(f"not installed: {LIBRARY}") from None
        clear_abandoned(_PREFIX)
        self.lab = Lab(f"{_PREFIX}{os.getpid()}")
        self.addCleanup(self.lab.down)
        self.lab.up()
        self.lab.services()
        self.deployment = ConfinedDeployment(self.lab)
        self.deployment.start_server()
        self.deployment.register(self.deployment.make_keys())
        self.deployment.rdvctl("access", "allow", "*", "*")

    def test_sessions(self) -> None:
        """Sessions by each tunnel, in both modes, work within the units' limits, and each process keeps to its own."""
        deployment = self.deployment
        before = {host: self.lab.snapshot(host) for host in ("server", "onsite", "master")}
        deployment.start_onsite()
        assert deployment.server is not None
        server, onsite = deployment.server.pid, deployment.onsites[1].pid
        for backend, mode in (("tls", "L3"), ("vtun", "L3"), ("stunnel", "L3"), ("tls", "L2"), ("vtun", "L2")):
            master = deployment.start_master(mode, backend)
            self.assertEqual(deployment.wait_session()["backend"], backend)
            if mode == "L3":
                eventually(
                    lambda: self.lab.pings("pc", self.lab.addresses["web"]), SESSION_SECONDS, "the PC to reach the LAN"
                )
            self.hold(server, "rdv-server", 0, NET_BIND_SERVICE)
            self.hold(onsite, "rdv-device", NET_ADMIN, NET_ADMIN)
            self.hold(master.pid, "rdv-device", NET_ADMIN, NET_ADMIN)
            self.assertEqual(deployment.end_session(), 0)
        for pid in (server, onsite):
            self.assertEqual(writable(pid, "/", "/etc", "/usr", "/run", "/tmp", HOME), ["/tmp", HOME])
        self.assertIn("The audit trail is whole", deployment.rdvctl("audit", "verify"))
        deployment.onsites[1].stop()
        for host, snapshot in before.items():
            eventually(lambda: self.lab.snapshot(host) == snapshot, 5.0, f"{host} to be as before")  # noqa: B023

    def hold(self, pid: int, user: str, effective: int, bounding: int) -> None:
        """A process is this user's, and has these capabilities and no others."""
        found = capabilities(pid)
        self.assertEqual(found["Uid"], USERS[user])
        self.assertEqual((found["CapEff"], found["CapPrm"]), (effective, effective))
        self.assertEqual((found["CapBnd"], found["NoNewPrivs"]), (bounding, 1))
        self.assertIn("Seccomp:\t2", Path(f"/proc/{pid}/status").read_text())

    def test_killed(self) -> None:
        """A device that was killed in a session is cleaned up after by its next start, without root either."""
        deployment = self.deployment
        before = self.lab.snapshot("onsite")
        onsite = deployment.start_onsite()
        deployment.start_master()
        deployment.wait_session()
        onsite.stop(signal.SIGKILL)
        deployment.start_onsite()
        eventually(lambda: self.lab.snapshot("onsite") == before, SESSION_SECONDS, "the onsite to be as before")


class FilterTests(SynchronousTestCase):
    """The list of system calls."""

    def test_allowed(self) -> None:
        """What is in a group is known; what is taken away is gone; and what is given back is there."""
        if obstacle := obstacles({"systemd-analyze": "systemd"}):
            raise SkipTest(obstacle)
        for name in UNITS.values():
            calls = allowed(service(name))
            self.assertLessEqual({"read", "sendmsg", "setns", "execve", "capset"}, calls)
            self.assertEqual({"mount", "bpf", "ptrace", "init_module", "setuid", "chroot", "add_key"} & calls, set())
