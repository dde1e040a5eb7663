"""A session between real devices: what it takes to have one, how it ends, and who learns of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rdvtwisted.values import PublicKey
from tests.lab.deployment import DOORS, END_SECONDS, EXTREMITY, MASTER, SESSION_SECONDS, START_SECONDS, onsite_id
from tests.lab.processes import eventually
from tests.lab.scene import BACK_SECONDS
from tests.lab.traffic import TrafficTestCase

ONSITE = onsite_id()
CUSTOMER_LINE = "198.51.100.6"
"""The public address of the first customer's router."""


def other_key() -> PublicKey:
    """A key that is nobody's."""
    public = Ed25519PrivateKey.generate().public_key()
    return PublicKey.from_line(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii"))


class DoorTests(TrafficTestCase):
    """What the firewalls on the way have to let out."""

    @contextmanager
    def only(self, *ports: int) -> Iterator[None]:
        """Nothing but these TCP ports is let out of either site."""
        try:
            for router in ("site-router", "support-router"):
                self.lab.allow_only(router, *ports)
            yield
        finally:
            for router in ("site-router", "support-router"):
                self.lab.allow_all(router)

    def main_story(self) -> None:
        """A session with a bit of everything."""
        self.assertFalse(self.reaches())
        with self.session() as record:
            self.assertEqual(record["kex"], "X25519MLKEM768")
            self.assertTrue(self.reaches())
            self.assertEqual(self.page("client"), self.lab.addresses["onsite"])
            self.assertEqual(self.lab.probe("pc", "udp", self.web, "hello"), "hello")
            self.download(1_000_000)
            self.upload(1_000_000)
        self.scene.require_rest()

    def test_two_ports(self) -> None:
        """Where TCP ports 22 and 443 are open and nothing else, devices work without further options."""
        with self.only(*DOORS.values()):
            self.main_story()

    def test_one_port(self) -> None:
        """Where nothing but TCP port 443 is open, the option C{-T} is all that it takes, on either device."""

        def through(door: str) -> None:
            self.deployment.onsites[1].stop()
            self.deployment.door = door
            self.deployment.start_onsite()

        try:
            with self.only(443):
                through("tls")
                eventually(self.scene.free, BACK_SECONDS, "the onsite to be here")
                self.assertEqual(self.scene.online()[ONSITE]["door"], "tls")
                self.main_story()
        finally:
            through("ssh")

    def test_two_customers(self) -> None:
        """Two customers with the same LAN addresses are visited one after the other, each at his own."""
        self.deployment.start_onsite(2)
        self.addCleanup(self.deployment.onsites.pop, 2)
        self.addCleanup(self.deployment.onsites[2].stop)
        for site, host in ((1, "web"), (2, "web2"), (1, "web")):
            with self.session(site=site):
                self.assertEqual(self.page("host"), host)

    def test_second_command(self) -> None:
        """
        A master device is in one session at a time: a second command on it is refused, names the first, and
        leaves that session alone.
        """
        with self.session():
            first = self.deployment.master
            assert first is not None
            second = self.deployment.start_command("--onsite", ONSITE, "--extremity", EXTREMITY)
            self.assertEqual(second.wait(START_SECONDS), 1)
            self.assertIn(f"another process is already at work for master-{MASTER}", second.output())
            self.deployment.master = first
            self.assertTrue(self.reaches())


class EndTests(TrafficTestCase):
    """How a session ends, and who says so."""

    def test_time_limit(self) -> None:
        """With C{-t 3} the session ends by itself after three seconds; that is no failure."""
        process = self.open("--session-time", "3")
        up = self.deployment.wait_session()
        self.assertTrue(self.reaches())
        self.assertEqual(process.wait(3 + END_SECONDS), 0)
        self.require_over("time-limit")
        lasted = float(str(self.ended(MASTER)["time"])) - float(str(up["time"]))
        self.assertTrue(2.9 < lasted < 3 + END_SECONDS, f"it lasted {lasted} s")

    def test_list(self) -> None:
        """The plain command lists who is online, without or before opening a session, and its exit status is 0."""
        listing = self.deployment.start_command("--list-onsite")
        self.assertEqual(listing.wait(START_SECONDS), 0)
        self.assertIn(f"\n{ONSITE}\nTotal: 1\n", listing.output())
        self._seen = len(self.deployment.records(ONSITE))
        process = self.deployment.start_command("-l", "-o", ONSITE, "-e", EXTREMITY)
        self.deployment.wait_session()
        self.assertIn("Ctrl-C ends the session", process.output())
        self.assertTrue(self.reaches())
        self.assertEqual(self.deployment.end_session(), 0)
        self.assertIn(f"\n{ONSITE}\nTotal: 1\n", process.output())
        self.assertIn("Session ended (operator)", process.output())
        self.require_over("operator")

    def test_status(self) -> None:
        """C{rdvctl} tells the truth about devices and sessions before, in and after a session."""

        def told(*arguments: str) -> str:
            return self.deployment.rdvctl(*arguments)

        self.assertEqual(told("sessions"), "There is no session.\n")
        self.assertEqual((set(self.scene.online()), self.scene.free()), ({ONSITE}, True))
        with self.session() as record:
            [session] = self.scene.sessions()
            expected = {
                "id": record["session"],
                "state": "up",
                "onsite": ONSITE,
                "master": MASTER,
                "mode": "L3",
                "backend": "tls",
                "join": "relay",
                "reason": None,
            }
            self.assertEqual({name: session[name] for name in expected}, expected)
            self.download(1_000_000)
            [later] = self.scene.sessions()
            self.assertGreater(int(str(later["to_master"])), int(str(session["to_master"])) + 1_000_000)
            self.assertGreater(int(str(later["to_onsite"])), int(str(session["to_onsite"])))
            online = self.scene.online()
            self.assertEqual({each["session"] for each in online.values()}, {record["session"]})
            self.assertEqual(set(online), {ONSITE, MASTER})
            self.assertEqual(online[ONSITE]["lan"], "192.168.1.10/24")
            self.assertTrue(str(online[ONSITE]["address"]).startswith(f"{CUSTOMER_LINE}:"))
            self.assertIn(str(record["session"]), told("sessions", "--json"))
            self.assertIn(str(record["session"]), told("online"))
        self.assertEqual(self.scene.sessions(), [])
        eventually(lambda: set(self.scene.online()) == {ONSITE}, END_SECONDS, "the master to be gone")

    def test_administrator_ends(self) -> None:
        """C{rdvctl end} ends a session at once; both devices know who did it."""
        process = self.open()
        self.deployment.wait_session()
        self.deployment.rdvctl("end", ONSITE)
        self.assertEqual(process.wait(END_SECONDS), 0)
        self.require_over("administrator")

    def test_onsite_disabled(self) -> None:
        """
        When the administrator disables the onsite device in a session, the session ends at once, the master is
        told why, the device learns that it may not be here, and is back once it may.
        """
        process = self.open()
        self.deployment.wait_session()
        self.deployment.rdvctl("device", "disable", ONSITE)
        try:
            self.assertEqual(process.wait(END_SECONDS), 0)
            self.assertEqual(self.ended(MASTER)["reason"], "administrator")
            self.assertIn("(administrator)", process.output())
            self.ended(ONSITE)
            self.assertNotIn(ONSITE, self.scene.online())
            onsite = self.deployment.onsites[1]
            onsite.wait_output("not entitled any more", END_SECONDS)
            self.scene.require_clean()
        finally:
            self.deployment.rdvctl("device", "enable", ONSITE)
        eventually(self.scene.free, BACK_SECONDS, f"{ONSITE} to be free")

    def test_master_disabled(self) -> None:
        """When the master is disabled, its session ends at once, and its operator reads why."""
        process = self.open()
        self.deployment.wait_session()
        self.deployment.rdvctl("device", "disable", MASTER)
        try:
            self.assertEqual(process.wait(END_SECONDS), 0)
            self.assertIn("(administrator)", process.output())
            self.assertEqual(self.ended(ONSITE)["reason"], "administrator")
        finally:
            self.deployment.rdvctl("device", "enable", MASTER)


class TrustTests(TrafficTestCase):
    """A key is trusted as it was first seen."""

    def remembering(self, id: str, peer: str, key: PublicKey) -> None:
        """A device knows another one by this key, until the test is over."""
        path = self.deployment.state(id) / "known_peers"
        before = path.read_bytes() if path.exists() else b""
        path.write_text(f"{peer} {key.line}\n")
        self.addCleanup(path.write_bytes, before)

    def real_fingerprint(self, id: str) -> str:
        """That of the key that a device really has."""
        return PublicKey.from_line((self.deployment.state(id) / "identity.pub").read_text()).fingerprint

    def test_master_refuses_another_key(self) -> None:
        """
        A master that knows the onsite by another key refuses it: exit status 4, both fingerprints and the file
        are named on the terminal, nothing is left, and the onsite is told.
        """
        known = other_key()
        self.remembering(MASTER, ONSITE, known)
        self._seen = len(self.deployment.records(ONSITE))
        process = self.deployment.start_command("--onsite", ONSITE, "--extremity", EXTREMITY)
        self.assertEqual(process.wait(SESSION_SECONDS), 4)
        for words in (known.fingerprint, self.real_fingerprint(ONSITE), "known_peers"):
            self.assertIn(words, process.output())
        self.require_over("peer-key-refused")
        self.assertFalse(self.reaches())

    def test_onsite_refuses_another_key(self) -> None:
        """
        An onsite that knows the master by another key refuses it: its log names both fingerprints, and the
        master ends with exit status 4 and the reason.
        """
        known = other_key()
        self.remembering(ONSITE, MASTER, known)
        process = self.open()
        self.assertEqual(process.wait(SESSION_SECONDS), 4)
        self.assertIn("peer-key-refused", process.output())
        log = self.deployment.onsites[1].output()
        for words in (known.fingerprint, self.real_fingerprint(MASTER), "known_peers"):
            self.assertIn(words, log)
        self.require_over("peer-key-refused")
