"""Access rules between real devices: who may do what, what is refused and by whom, and changes during a session."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from tests.lab.deployment import END_SECONDS, EXTREMITY, MASTER, START_SECONDS, onsite_id
from tests.lab.processes import LabProcess, eventually
from tests.lab.scene import BACK_SECONDS
from tests.lab.test_session import other_key
from tests.lab.topology import CUSTOMER_LAN
from tests.lab.traffic import TrafficTestCase
from tests.lab.website import ECHO_PORT, SINK_PORT, WEB_PORT

ONSITE = onsite_id()

AT_ONCE = 3.0
"""How long a change of the rules may take until it is in force everywhere, in seconds."""

LOOK_SECONDS = 12.0
"""How long it may take until an onsite has seen that its own rules have changed, and has done something about it."""

CHATTER = """
import socket, sys, time
talking = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("open", flush=True)
try:
    while True:
        talking.sendall(b"!")
        time.sleep(0.1)
except OSError as error:
    print(type(error).__name__, flush=True)
"""
"""A program that sends without end in one connection, and says when it is open and how it ended."""


class AccessTestCase(TrafficTestCase):
    """A scene whose rules a test may change; afterwards they are those that were there."""

    def setUp(self) -> None:
        """Remember the rules."""
        super().setUp()
        self.file = self.lab.directory / "rules.toml"
        before = self.deployment.rdvctl("access", "export")
        self.addCleanup(self.load, before)

    def load(self, text: str) -> None:
        """Put these rules in place of all that there are."""
        self.file.write_text(text)
        self.deployment.rdvctl("access", "import", "--remove-all", str(self.file))

    def allow(self, *destinations: str, until: float | None = None) -> None:
        """The master may reach these places at the onsite, and that is all that anybody may."""
        places = ", ".join(f'"{each}"' for each in destinations)
        rule = f'[[rule]]\neffect = "allow"\nmaster = "{MASTER}"\nonsite = "{ONSITE}"\n'
        rule += f"destinations = [{places}]\n" if places else ""
        if until is not None:
            rule += f"until = {datetime.fromtimestamp(until, timezone.utc):%Y-%m-%dT%H:%M:%SZ}\n"
        self.load(rule)

    # What the PC sees

    def connect(self, address: str, port: int) -> str:
        """What comes of an attempt to connect: C{open}, C{refused}, or C{silence} for all else, after two seconds."""
        return self.lab.probe("pc", "connect", address, str(port)).strip()

    def echo(self, address: str) -> str:
        """What comes of a datagram: the echo, or the error that the kernel has for it."""
        script = (
            "import socket\n"
            "asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "asking.settimeout(2)\n"
            f"asking.connect(({address!r}, {ECHO_PORT}))\n"
            "asking.send(b'echo')\n"
            "try:\n"
            "    print(asking.recv(9).decode())\n"
            "except OSError as error:\n"
            "    print(error)\n"
        )
        return self.lab.run("pc", [sys.executable, "-c", script]).stdout.strip()

    def chat(self, port: int) -> LabProcess:
        """A connection from the PC to the web server's host in which something is sent all the time."""
        talking = self.lab.start("pc", [sys.executable, "-u", "-c", CHATTER, self.web, str(port)])
        self.addCleanup(talking.stop)
        eventually(lambda: "open" in talking.output(), START_SECONDS, "the connection to be open")
        return talking

    def story(self) -> None:
        """The web server's page can be had, and that is all."""
        router = str(CUSTOMER_LAN[1])
        self.assertIn("customer's LAN", self.page())
        self.assertEqual(self.connect(self.web, SINK_PORT), "refused")
        self.assertEqual(self.connect(self.lab.addresses["onsite"], WEB_PORT), "refused")
        self.assertEqual(self.connect(router, WEB_PORT), "refused")
        self.assertIn("No route to host", self.echo(self.web))
        self.assertIn("Packet filtered", self.ping(self.web))


class ServersRulesTests(AccessTestCase):
    """What the server's administrator allows."""

    def test_ports(self) -> None:
        """A port that is allowed works; the next one, other machines, UDP and ping are refused at once."""
        self.allow(f"{self.web}:tcp/{WEB_PORT}")
        with self.session():
            self.assertIn(f"The access rules let you reach: {self.web}:tcp/80", self.master_said())
            self.story()

    def master_said(self) -> str:
        """What the master has told its operator."""
        assert self.deployment.master is not None
        return self.deployment.master.output()

    def test_udp_and_ping(self) -> None:
        """A UDP port and ping can be allowed without the rest."""
        self.allow(f"{self.web}:udp/{ECHO_PORT}", f"{self.web}:icmp")
        with self.session():
            self.assertEqual(self.echo(self.web), "echo")
            self.assertTrue(self.reaches())
            self.assertEqual(self.connect(self.web, WEB_PORT), "refused")

    def test_changed(self) -> None:
        """A rule that is changed applies to the session that runs, and to connections that are open, at once."""
        self.allow()
        with self.session():
            kept, cut = self.chat(WEB_PORT), self.chat(SINK_PORT)
            self.deployment.rdvctl("access", "deny", MASTER, ONSITE, f"{self.web}:tcp/{SINK_PORT}", "--mode", "L3")
            self.eventually(lambda: "ConnectionResetError" in cut.output(), AT_ONCE, "the connection to be cut")
            self.assertEqual(self.connect(self.web, SINK_PORT), "refused")
            self.assertTrue(self.reaches())
            time.sleep(0.5)
            self.assertEqual(kept.output().split(), ["open"])
            self.deployment.rdvctl("access", "remove", "2")
            self.eventually(lambda: self.connect(self.web, SINK_PORT) == "open", AT_ONCE, "the port to be open again")

    def test_revoked(self) -> None:
        """A session that is not allowed any more ends at once, and both devices know why."""
        self.allow()
        process = self.open()
        self.deployment.wait_session()
        self.assertTrue(self.reaches())
        self.deployment.rdvctl("access", "deny", "*", ONSITE)
        self.assertEqual(process.wait(AT_ONCE + END_SECONDS), 1)
        self.assertIn("the server's access rules do not allow it any more", process.output())
        self.require_over("access-revoked")

    def test_expires(self) -> None:
        """A session ends with the rule that allows it, also if that has got its end while the session lasts."""
        self.allow()
        process = self.open()
        self.deployment.wait_session()
        end = float(int(time.time() + 10))
        self.allow(until=end)
        self.assertTrue(self.reaches())
        self.assertEqual(process.wait(10 + END_SECONDS), 0)
        self.assertTrue(-0.5 < float(str(self.ended(MASTER)["time"])) - end < AT_ONCE)
        self.require_over("time-limit")

    def test_unseen(self) -> None:
        """An onsite that a master may not use is not listed for it, and cannot be told from one that is not there."""
        self.load("")
        listing = self.deployment.start_command("--list-onsite")
        self.assertEqual(listing.wait(START_SECONDS), 0)
        self.assertIn("No onsite device currently available", listing.output())
        said = []
        for id in (ONSITE, "rpi9999"):
            refused = self.deployment.start_command("-o", id, "-e", EXTREMITY, "--wait", "0")
            self.assertEqual(refused.wait(START_SECONDS), 1)
            said.append(refused.output().replace(id, "it"))
        self.assertEqual(_plain(said[0]), _plain(said[1]))
        self.assertIn("OnsiteDeviceIsNotRegistered: it is not online", said[0])

    def test_bridged(self) -> None:
        """Who is limited to destinations cannot be bridged, and is told what may be had instead."""
        self.allow(f"{self.web}:tcp/{WEB_PORT}")
        refused = self.deployment.start_command("-o", ONSITE, "-m", "L2", "-e", EXTREMITY)
        self.assertEqual(refused.wait(START_SECONDS), 1)
        self.assertIn("ModeNotGranted: the access rules let you use rpi1100 in another mode than L2", refused.output())


def _plain(text: str) -> list[str]:
    """What was said, without times."""
    return [line.split("] ", 1)[-1] for line in text.splitlines()]


class CompromisedServerTests(AccessTestCase):
    """A server that grants everything to everybody, at an onsite with rules of its own."""

    def setUp(self) -> None:
        """The server's rules are of no use to anybody."""
        super().setUp()
        self.load('[[rule]]\neffect = "allow"\nmaster = "*"\nonsite = "*"\n')
        self.rules = self.lab.directory / "access.toml"

    def restart(self, options: Sequence[str]) -> None:
        """Have the onsite run with these options besides, until the test is over."""
        self.deployment.onsites[1].stop()
        known = len(self.deployment.records(ONSITE))
        words = [*self.deployment.options(ONSITE), "--interface", "eth0", *options]
        self.deployment.onsites[1] = process = self.deployment.twistd("onsite", "onsite-dev", *words)
        self.addCleanup(self._back)
        self.deployment.wait_record(process, ONSITE, "online", START_SECONDS, after=known)
        eventually(self.scene.free, BACK_SECONDS, "the onsite to be here")

    def _back(self) -> None:
        self.deployment.onsites[1].stop()
        self.deployment.start_onsite()

    def test_command_line(self) -> None:
        """What the onsite's command line allows can be reached, and nothing else, whatever the server grants."""
        self.restart(["--allow", f"{self.web}:tcp/{WEB_PORT}"])
        with self.session():
            self.story()

    def test_file(self) -> None:
        """The same by a file; a change of it is in force within seconds, in connections that are open, too."""
        self.rules.write_text(f'allow = ["{self.web}:tcp/{WEB_PORT},{SINK_PORT}"]\n')
        self.restart(["--access", str(self.rules)])
        with self.session():
            cut = self.chat(SINK_PORT)
            self.rules.write_text(f'allow = ["{self.web}:tcp/{WEB_PORT}"]\n')
            self.eventually(lambda: "ConnectionResetError" in cut.output(), LOOK_SECONDS, "the connection to be cut")
            self.story()

    def test_file_broken(self) -> None:
        """A file that cannot be used any more allows nothing: the session ends."""
        self.rules.write_text("")
        self.restart(["--access", str(self.rules)])
        process = self.open()
        self.deployment.wait_session()
        self.rules.write_text("nonsense")
        self.assertEqual(process.wait(LOOK_SECONDS + END_SECONDS), 1)
        self.require_over("access-denied")
        self.rules.write_text("")

    def test_bridged(self) -> None:
        """An onsite with destinations of its own is never bridged, though the server has agreed to it."""
        self.restart(["--allow", f"{self.web}:tcp/{WEB_PORT}"])
        self._seen = len(self.deployment.records(ONSITE))
        refused = self.deployment.start_command("-o", ONSITE, "-m", "L2", "-e", EXTREMITY)
        self.assertEqual(refused.wait(START_SECONDS), 1)
        self.assertIn("the onsite's own rules forbid it", refused.output())
        self.assertIn("cannot be kept in a bridged session", self.deployment.onsites[1].output())

    def test_masters(self) -> None:
        """An onsite that knows its masters by their keys has no session with another, whom the server has let in."""
        self.rules.write_text(f'masters = ["{other_key().fingerprint}"]\n')
        self.restart(["--access", str(self.rules)])
        refused = self.deployment.start_command("-o", ONSITE, "-e", EXTREMITY)
        self.assertEqual(refused.wait(START_SECONDS), 1)
        self.assertIn("the onsite's own rules forbid it", refused.output())
        public = Path(self.deployment.state(MASTER) / "identity.pub").read_text()
        self.rules.write_text(f'masters = ["{public.strip()}"]\n')
        with self.session():
            self.assertTrue(self.reaches())

    def test_not_roots(self) -> None:
        """A file that somebody else could have written is refused at the start."""
        self.rules.write_text("")
        self.rules.chmod(0o666)
        self.addCleanup(self.rules.unlink)
        words = [*self.deployment.options(ONSITE), "--interface", "eth0", "--access", str(self.rules)]
        refused = self.deployment.twistd("onsite", "onsite-dev", *words)
        self.assertEqual(refused.wait(START_SECONDS), 1)
        self.assertIn(f"{self.rules} can be written by others than root: chmod go-w {self.rules}", refused.output())
