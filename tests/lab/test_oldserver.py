"""New devices at an old server, among themselves and with old devices."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import namespaces
from tests.lab.deployment import END_SECONDS, MASTER, Deployment, onsite_id
from tests.lab.oldserver import RACES, OldServer
from tests.lab.oldworld import END_SECONDS as SCRIPT_SECONDS
from tests.lab.oldworld import OldDevice
from tests.lab.private import built_for
from tests.lab.processes import LabError, LabProcess, eventually, tail
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles
from tests.lab.website import PAGE

ONSITE = onsite_id()
OLD_ONSITE, OLD_MASTER = "rpi1300", "rpi1301"
#: What OpenSSH 6.5 has in common with that of today, but for elliptic curves of Bernstein's in the key exchange.
AGED = """\
KexAlgorithms ecdh-sha2-nistp256,diffie-hellman-group14-sha1
Ciphers aes128-ctr,3des-cbc
MACs hmac-sha2-256,hmac-sha1
HostKeyAlgorithms ssh-ed25519
PubkeyAcceptedAlgorithms ssh-ed25519,ssh-rsa
"""
#: Seconds until an onsite waits again after a session: two of them it stays away.
BACK_SECONDS = 10.0


class OldServerTests(SynchronousTestCase):
    """A lab whose server is an old one."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    def setUp(self) -> None:
        """New devices with their keys, and old ones, all of which the server knows."""
        self.lab = built_for(self)
        self.lab.services()
        self.web = self.lab.addresses["web"]
        self.deployment = Deployment(self.lab)
        self.old_onsite = OldDevice(self.lab, OLD_ONSITE, "onsite", "onsite")
        self.old_master = OldDevice(self.lab, OLD_MASTER, "master", "master")
        self.server = OldServer(self.lab)
        for id, key in self.deployment.make_keys().items():
            if id in (ONSITE, MASTER):
                self.server.add(id, "master" if id == MASTER else "onsite", key)
        for device in (self.old_onsite, self.old_master):
            self.server.add(device.id, device.role, device.key)
        self.server.start()
        self.before = {host: self.lab.snapshot(host) for host in ("server", "onsite", "master")}

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Show the logs if anything goes wrong."""
        try:
            yield
        except BaseException:
            for host, log in self.deployment.logs():
                sys.stderr.write(f"\n{self.id()}: {host}:\n{tail(log, 60)}\n")
            assert self.server.process is not None
            sys.stderr.write(f"\n{self.id()}: server:\n{tail(self.server.process.log, 60)}\n")
            raise

    def reaches(self) -> bool:
        """Whether the PC reaches the customer's web server."""
        return self.lab.pings("pc", self.web)

    def begin(self, attempt: Callable[[int], None]) -> int:
        """
        Have a session that a stock vtund at either end, neither of which is ours, may lose to a race.

        @param attempt: is called with its number, the first being 1, until it raises nothing.
        @return: how many it took.
        """
        for number in range(1, RACES):
            try:
                attempt(number)
                return number
            except LabError:
                assert self.server.process is not None
                if "Input/output error" not in self.server.process.output():
                    raise
        attempt(RACES)
        return RACES

    def open_to_old(self, number: int) -> None:
        """The new master has a session with the old onsite."""
        if number > 1:
            self.deployment.end_session()
            self.old_onsite.stop()
            eventually(lambda: not self.server.status()["bindings"], END_SECONDS, "the server to forget them")
        self.old_onsite.start()
        self.old_onsite.wait_online()
        eventually(lambda: self.registered(OLD_ONSITE), END_SECONDS, "the old onsite to be registered")
        self.deployment.start_command("--onsite", OLD_ONSITE, "--extremity", "eth1")
        self.deployment.wait_session()
        self.old_onsite.wait_record("up")

    def use(self) -> None:
        """The PC uses the customer's LAN, and seems to be the onsite there."""
        eventually(self.reaches, END_SECONDS, "the web server to answer the PC")
        self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/").encode(), PAGE)
        self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/client").strip(), self.lab.addresses["onsite"])

    def registered(self, id: str) -> bool:
        """Whether the server has a device."""
        return id in self.server.status()["bindings"]

    def start_onsite(self) -> LabProcess:
        """The new onsite waits for a master."""
        process = self.deployment.start_onsite()
        eventually(lambda: self.registered(ONSITE), END_SECONDS, "the onsite to be registered")
        return process

    def wait_back(self, process: LabProcess, sessions: int) -> None:
        """After so many sessions, the new onsite waits for a master again."""
        self.wait_records(process, "online", sessions + 1)
        eventually(lambda: self.registered(ONSITE), END_SECONDS, "the onsite to be registered")

    def wait_records(self, process: LabProcess, event: str, count: int) -> list[dict[str, object]]:
        """So many records of an event of the new onsite's."""
        found: list[dict[str, object]] = []

        def enough() -> bool:
            found[:] = [record for record in self.deployment.records(ONSITE) if record["event"] == event]
            return len(found) >= count or process.poll() is not None

        eventually(enough, BACK_SECONDS, f"{count} records {event!r} of the onsite")
        self.assertEqual(len(found), count)
        return found

    def vtunds(self, *hosts: str) -> list[str]:
        """The vtund processes on these hosts."""
        inodes = {number for number, host in namespaces.inodes(self.lab.prefix).items() if host in hosts}
        return [each.command for each in self.lab.members() if each.namespace in inodes and "vtund" in each.command]

    def wait_no_vtund(self, host: str) -> None:
        """On this host, vtund has ended."""
        eventually(lambda: not self.vtunds(host), END_SECONDS, f"vtund to end on {host}")

    def require_nothing_left(self, *hosts: str) -> None:
        """Of sessions nothing is left on these hosts."""
        found: list[str] = []

        def none() -> bool:
            changes = [
                f"{host}: {line}" for host in hosts for line in self.before[host].changes(self.lab.snapshot(host))
            ]
            # An old server leaves the empty tables of iptables.
            found[:] = [line for line in changes if "nft" not in line or not line.startswith("server")]
            found.extend(self.vtunds(*hosts))
            return not found

        try:
            eventually(none, END_SECONDS, "everything to be as before")
        except LabError as error:
            raise LabError("\n".join((str(error), *found))) from None

    def test_sessions(self) -> None:
        """
        New devices have two sessions one after the other: the PC reaches the customer's web server, the operator is
        told that the server can read it, and after each nothing is left.
        """
        with self.telling():
            onsite = self.start_onsite()
            self.assertFalse(self.reaches())
            for number in (1, 2):
                self.deployment.start_command("--onsite", ONSITE, "--extremity", "eth1")
                record = self.deployment.wait_session()
                self.assertEqual((record["backend"], record["join"], record["peer"]), ("vtun", "glue", ONSITE))
                up = self.wait_records(onsite, "up", number)[-1]
                self.assertEqual((up["backend"], up["join"], up["peer"]), ("vtun", "glue", ""))
                self.use()
                self.assertEqual(self.deployment.end_session(), 0)
                ended = self.wait_records(onsite, "ended", number)[-1]
                self.assertEqual(ended["reason"], "tunnel-lost")
                self.wait_back(onsite, number)
                self.assertFalse(self.reaches())
                self.require_nothing_left("onsite", "master")
            assert self.deployment.master is not None
            words = self.deployment.master.output()
            self.assertIn("Remote onsite has it LAN interface configured with IP address 192.168.1.10/24\n", words)
            self.assertIn("Joined by the server, which can read this session; the tunnel to it is by vtun\n", words)

    def test_stunnel(self) -> None:
        """Where nothing but TCP port 443 is open, C{-T} leads through the old server's stunnel."""
        for router in ("site-router", "support-router"):
            self.lab.allow_only(router, 443)
        self.deployment.door = "tls"
        with self.telling():
            self.start_onsite()
            self.deployment.start_master()
            self.deployment.wait_session()
            self.use()
            self.assertEqual(self.deployment.end_session(), 0)
            self.require_nothing_left("onsite", "master")

    def test_aged(self) -> None:
        """A server whose OpenSSH knows no more than that of 2014 (6.5) did is old enough company."""
        self.server.stop()
        with (self.server.directory / "sshd_config").open("a") as config:
            config.write(AGED)
        self.server.start()
        with self.telling():
            self.start_onsite()
            self.deployment.start_master()
            self.deployment.wait_session()
            self.use()
            self.assertEqual(self.deployment.end_session(), 0)

    def test_old_onsite(self) -> None:
        """A new master reaches what an old onsite makes accessible."""
        with self.telling():
            self.begin(self.open_to_old)
            self.use()
            self.assertEqual(self.deployment.end_session(), 0)
            self.assertEqual(self.old_onsite.wait_record("ended", SCRIPT_SECONDS)["reason"], "vtun")
            self.require_nothing_left("master")

    def test_old_master(self) -> None:
        """An old master reaches what a new onsite makes accessible; and the onsite waits for the next one."""
        with self.telling():
            onsite = self.start_onsite()

            def attempt(number: int) -> None:
                if number > 1:
                    self.old_master.stop()
                    self.wait_back(onsite, number - 1)
                self.old_master.connect(ONSITE)
                self.old_master.wait_record("up")
                self.wait_records(onsite, "up", number)

            taken = self.begin(attempt)
            self.use()
            self.assertEqual(self.old_master.interrupt(), 0)
            self.wait_back(onsite, taken)
            self.require_nothing_left("onsite")

    def test_killed(self) -> None:
        """A device that is killed in a session takes its vtund with it; what else it leaves goes at its next start."""
        with self.telling():
            onsite = self.start_onsite()
            for host in ("master", "onsite"):
                self.deployment.start_master()
                self.deployment.wait_session()
                self.use()
                self.assertEqual(len(self.vtunds("master")), 1)
                process = self.deployment.master if host == "master" else onsite
                assert process is not None and self.deployment.master is not None
                process.send(signal.SIGKILL)
                process.wait(END_SECONDS)
                self.wait_no_vtund(host)
                if host == "master":
                    self.wait_back(onsite, 1)
                else:
                    self.assertEqual(self.deployment.master.wait(END_SECONDS), 4)
                    self.require_nothing_left("master")
            self.start_onsite()
            self.require_nothing_left("onsite")

    def test_bridged(self) -> None:
        """An old server tells no onsite that a master wants mode L2: the onsite says so in a line, and comes back."""
        with self.telling():
            onsite = self.start_onsite()
            self.deployment.start_command("--onsite", ONSITE, "--extremity", "eth1", "--tunnel-mode", "L2")
            self.wait_records(onsite, "ended", 1)
            self.assertIn("the server's tunnel is one of mode L2, though it said L3", onsite.output())
            assert self.deployment.master is not None
            self.assertEqual(self.deployment.master.wait(SCRIPT_SECONDS), 4)
            self.wait_back(onsite, 1)
            self.require_nothing_left("onsite", "master")

    def test_server_gone(self) -> None:
        """When the server goes in a session, nothing is left on the devices, and the onsite is here when it is back."""
        with self.telling():
            onsite = self.start_onsite()
            self.deployment.start_master()
            self.deployment.wait_session()
            self.server.stop()
            assert self.deployment.master is not None
            self.assertIn(self.deployment.master.wait(END_SECONDS), (3, 4))
            self.require_nothing_left("onsite", "master")
            self.server.start()
            self.wait_back(onsite, 1)

    def test_end_to_end(self) -> None:
        """Who wants to be read by nobody has no session here, and is told why."""
        with self.telling():
            self.start_onsite()
            process = self.deployment.start_command("--onsite", ONSITE, "--extremity", "eth1", "--end-to-end")
            self.assertEqual(process.wait(END_SECONDS), 4)
            self.assertIn("old one, which can read every session: --end-to-end refuses that", process.output())
            self.assertEqual(self.server.status()["sessions"], [])
