"""The same story over every tunnel backend and every pair of them, routed and bridged, and many of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.deployment import END_SECONDS, Deployment, master_id, onsite_id
from tests.lab.private import built_for
from tests.lab.processes import LabError, eventually, tail
from tests.lab.programs import PROGRAMS, obstacles
from tests.lab.scene import BACK_SECONDS
from tests.lab.topology import CUSTOMER_LAN, site_suffix
from tests.lab.traffic import TrafficTestCase

BACKENDS = ("tls", "stunnel", "vtun")

STOCK = ("stunnel4", "vtund")
"""The stock programs that some of them drive."""

MTU = {"tls": 1500, "stunnel": 1500, "vtun": 1450}
"""Bytes of a routed packet."""

HEADERS = 28
"""Bytes of a ping that are not its content."""

GUEST = str(CUSTOMER_LAN[200])
"""The address that the PC takes in the customer's LAN when it is bridged there."""


class MatrixTests(TrafficTestCase):
    """Every cell: onsite's backend, master's backend, mode."""

    skip = obstacles([*PROGRAMS, *STOCK, "ping"])

    @contextmanager
    def offering(self, backend: str) -> Iterator[None]:
        """The onsite has one backend only; afterwards all again."""
        self.deployment.onsites[1].stop()
        self.deployment.start_onsite(backends=backend)
        try:
            yield
        finally:
            self.deployment.onsites[1].stop()
            self.deployment.start_onsite()

    @contextmanager
    def guest(self, mode: str) -> Iterator[None]:
        """In mode L2 the PC has an address of the customer's LAN."""
        words = [f"{GUEST}/{CUSTOMER_LAN.prefixlen}", "dev", "eth0"]
        if mode == "L2":
            self.lab.run("pc", ["ip", "address", "add", *words], check=True)
        try:
            yield
        finally:
            if mode == "L2":
                self.lab.run("pc", ["ip", "address", "del", *words], check=True)

    def story(self, onsite: str, master: str, mode: str) -> None:
        """One cell."""
        cell = f"{onsite}-{master} {mode}"
        with self.guest(mode):
            self.assertFalse(self.reaches(), cell)
            with self.session("--tunnel-mode", mode, "--backend", master) as record:
                [view] = self.scene.sessions()
                self.assertEqual(record["backend"], master, cell)
                self.assertEqual(view["backend"], master if onsite == master else f"{onsite}-{master}")
                self.assertEqual(view["join"], "relay" if (onsite, master) == ("tls", "tls") else "glue", cell)
                self.assertEqual(bool(record["kex"]), master != "vtun", cell)
                # The PC asks anew each second for an address that was silent.
                self.eventually(self.reaches, BACK_SECONDS, f"{cell}: the customer's web server to answer")
                self.assertEqual(self.page("client"), self.lab.addresses["onsite"] if mode == "L3" else GUEST, cell)
                self.assertEqual(self.lab.probe("pc", "udp", self.web, "hello"), "hello", cell)
                self.download(3_000_000)
                self.upload(3_000_000)
                self.full_packets(1500 if mode == "L2" else min(MTU[onsite], MTU[master]), cell)
                self.assertFalse(self.lab.pings("master", self.web), cell)
            self.assertFalse(self.reaches(), cell)
        self.scene.require_rest()

    def full_packets(self, mtu: int, cell: str) -> None:
        """Packets as large as they may be pass, both ways; of larger ones the PC is told."""
        self.assertIn("bytes from", self.ping(self.web, "-M", "do", "-s", str(mtu - HEADERS)), cell)
        if mtu < 1500:
            self.assertIn(f"mtu = {mtu}", self.ping(self.web, "-M", "do", "-s", str(mtu - HEADERS + 1)), cell)
            self.lab.run("pc", ["ip", "route", "flush", "cache"], check=True)
        # A datagram in pieces, each of which has to get through.
        self.assertIn("bytes from", self.ping(self.web, "-M", "dont", "-s", "4000"), cell)

    def test_tls(self) -> None:
        """Both devices have tls: end to end."""
        for mode in ("L3", "L2"):
            self.story("tls", "tls", mode)

    def test_stunnel(self) -> None:
        """The master wants stunnel, which the onsite has, too."""
        for mode in ("L3", "L2"):
            self.story("stunnel", "stunnel", mode)

    def test_vtun(self) -> None:
        """The master wants vtun, which the onsite has, too."""
        for mode in ("L3", "L2"):
            self.story("vtun", "vtun", mode)

    def unlike(self, onsite: str) -> None:
        """Pairs of which the onsite has one backend, and the master each of the others."""
        with self.offering(onsite):
            for master, mode in product(BACKENDS, ("L3", "L2")):
                if master != onsite:
                    self.story(onsite, master, mode)

    def test_onsite_tls(self) -> None:
        """The onsite has tls alone, and the master wants another."""
        self.unlike("tls")

    def test_onsite_stunnel(self) -> None:
        """The onsite has stunnel alone, and the master wants another."""
        self.unlike("stunnel")

    def test_onsite_vtun(self) -> None:
        """The onsite has vtun alone, and the master wants another."""
        self.unlike("vtun")


class CrowdCase(SynchronousTestCase):
    """Several customers with the same LAN, each visited by an engineer, at the same time."""

    skip = obstacles([*PROGRAMS, *STOCK, "ping"])

    sessions: int
    timeout = 300

    def setUp(self) -> None:
        """Everybody is here, and nobody in a session."""
        self.lab = built_for(self, self.sessions, engineers=self.sessions)
        self.lab.services()
        self.deployment = Deployment(self.lab)
        try:
            self.deployment.start_server()
            self.deployment.register(self.deployment.make_keys())
            self.before = self.lab.snapshot("server")
            for number in self.numbers:
                self.deployment.begin_onsite(number)
            for number in self.numbers:
                self.deployment.wait_record(self.deployment.onsites[number], onsite_id(number), "online", 60)
        except LabError:
            self.tell()
            raise

    @property
    def numbers(self) -> range:
        """Of customers, and of engineers."""
        return range(1, self.sessions + 1)

    def tell(self) -> None:
        """Show the end of each log."""
        for host, log in self.deployment.logs():
            print(f"\n{host}:\n{tail(log)}")  # noqa: T201

    def visit(self, mode: str, *backends: str) -> None:
        """
        Every engineer opens a session with the customer of the same number, all at once.

        @param backends: of the masters, in turn.
        """
        for number in self.numbers:
            backend = backends[number % len(backends)]
            self.deployment.start_master(mode, backend, number, engineer=number)
        for number in self.numbers:
            self.deployment.wait_record(self.deployment.masters[number], master_id(number), "up", 90)

    def leave(self) -> None:
        """All sessions end at the same time."""
        for number in self.numbers:
            self.deployment.masters[number].send(2)
        for number in self.numbers:
            self.assertEqual(self.deployment.masters[number].wait(20), 0)
        eventually(lambda: not self.deployment.ask("sessions"), END_SECONDS, "all sessions to be over")
        self.assertEqual(self.deployment.ask("status")["leases"], 0)
        self.assertEqual(self.before.changes(self.lab.snapshot("server")), [])

    def apart(self) -> None:
        """Each PC reaches its own customer's web server, by the address that they all have, and no other PC."""
        web = self.lab.addresses["web"]
        for number in self.numbers:
            pc = f"pc{site_suffix(number)}"
            found = self.lab.probe(pc, "get", f"http://{web}/host").strip()
            self.assertEqual(found, f"web{site_suffix(number)}", pc)


class TwoCustomersTests(CrowdCase):
    """Two customers, and two engineers whose PCs have the same addresses, too."""

    sessions = 2

    def test_at_once(self) -> None:
        """Joined at the server, each engineer is at his own customer's, routed or bridged, by whichever tunnels."""
        for mode, backends in (("L3", ("vtun",)), ("L2", ("stunnel", "vtun"))):
            with self.guests(mode):
                self.visit(mode, *backends)
                self.assertEqual({each["join"] for each in self.deployment.ask("sessions")}, {"glue"})
                self.apart()
                if mode == "L2":
                    self.assertFalse(self.lab.pings("pc", str(CUSTOMER_LAN[202])), "the other PC answers")
                self.leave()

    @contextmanager
    def guests(self, mode: str) -> Iterator[None]:
        """In mode L2 each PC has an address of the LAN, a different one, so that they could meet."""
        words = [(f"pc{site_suffix(n)}", f"{CUSTOMER_LAN[200 + n]}/{CUSTOMER_LAN.prefixlen}") for n in self.numbers]
        for pc, address in words if mode == "L2" else ():
            self.lab.run(pc, ["ip", "address", "add", address, "dev", "eth0"], check=True)
        yield
        for pc, address in words if mode == "L2" else ():
            self.lab.run(pc, ["ip", "address", "del", address, "dev", "eth0"], check=True)


class TenTests(CrowdCase):
    """Ten customers, ten engineers."""

    sessions = 10

    def test_ten_at_once(self) -> None:
        """Ten sessions that end at the server, of all kinds of tunnels, do not meet, and leave nothing behind."""
        self.visit("L3", "vtun", "stunnel")
        self.assertEqual(len(self.deployment.ask("sessions")), self.sessions)
        self.assertEqual({each["join"] for each in self.deployment.ask("sessions")}, {"glue"})
        self.apart()
        ends = [
            IPv4Interface(str(self.deployment.wait_record(processes[number], id(number), "up", 60)["address"])).ip
            for processes, id in ((self.deployment.masters, master_id), (self.deployment.onsites, onsite_id))
            for number in self.numbers
        ]
        self.assertEqual(len(set(ends)), 2 * self.sessions)
        for number in self.numbers:
            # Nobody else's end of a tunnel answers.
            pc, others = f"pc{site_suffix(number)}", ends[number % self.sessions :: self.sessions]
            self.assertEqual([end for end in others if self.lab.pings(pc, str(end))], [], pc)
        self.leave()
