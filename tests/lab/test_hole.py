"""
A path that swallows large packets, and the ICMP that would say so (RFC 2923): devices come back all the same.

The devices here believe in a silent server for a shorter time than usual, so that nobody waits for long.
"""

from __future__ import annotations

import signal

from tests.lab.deployment import END_SECONDS, MASTER, SESSION_SECONDS, START_SECONDS, onsite_id
from tests.lab.scene import BACK_SECONDS
from tests.lab.traffic import TrafficTestCase, digest

LONGEST = 1280
"""Bytes of the longest packet that passes: what IPv6 demands of every link, and mobile networks may leave."""

SILENCE_SECONDS = 9.0
"""How long the devices here believe in a silent server; also in the middle of a key exchange."""

NOTICED_SECONDS = 15.0
"""In a session, how long a silent tunnel may go unnoticed (design promise)."""

PAGE = 200_000
"""Bytes of a page: too many for the small packets of a handshake to stand for."""

ONSITE = onsite_id()


class HoleTests(TrafficTestCase):
    """Each device behind such a path, from the beginning and in the middle of a session."""

    def setUp(self) -> None:
        """Have devices that are started from now on believe in a silent server for a short time."""
        super().setUp()
        options = self.deployment.options
        silence = ["--silence", f"{SILENCE_SECONDS:g}"]
        self.patch(self.deployment, "options", lambda device: [*options(device), *silence])

    def swallow(self, router: str) -> None:
        """From now on, until the test is over, large packets get lost at a router."""
        self.addCleanup(self.lab.swallow, router, None)
        self.lab.swallow(router, LONGEST)

    def restart_onsite(self) -> None:
        """A new process, which knows nothing of the path."""
        self.deployment.onsites[1].stop(signal.SIGTERM, END_SECONDS)
        process = self.deployment.begin_onsite()
        self.deployment.wait_record(
            process, ONSITE, "online", START_SECONDS + SILENCE_SECONDS + BACK_SECONDS, after=self.known
        )

    @property
    def known(self) -> int:
        """How many records the onsite has made."""
        return len(self.deployment.records(ONSITE))

    def require_pages(self) -> None:
        """The session carries more than small packets, in both directions."""
        self.download(PAGE)
        self.upload(PAGE)

    def test_hole(self) -> None:
        """The path is what it should be: small packets pass, and a transfer of many bytes stands still for ever."""
        self.serve("server")
        url = f"http://{self.lab.addresses['server']}"
        self.assertEqual(self.lab.probe("onsite", "digest", f"{url}/random/{PAGE}"), digest(PAGE))
        self.swallow("site-router")
        for size, passes in ((1000, True), (PAGE, False)):
            found = self.lab.probe("onsite", "digest", f"{url}/random/{size}")
            self.assertEqual(found, digest(size) if passes else "")
        self.assertEqual(self.lab.probe("onsite", "put", f"{url}/", str(PAGE)), "")

    def test_onsite(self) -> None:
        """An onsite behind it is online after its first connection has stood still, and its sessions work."""
        for door in ("ssh", "tls"):
            self.patch(self.deployment, "door", door)
            self.swallow("site-router")
            self.restart_onsite()
            self.assertIn("segments of at most 1200 bytes", self.deployment.onsites[1].output())
            with self.session():
                self.require_pages()

    def test_master(self) -> None:
        """A master behind it has its session in the same start of its command."""
        self.swallow("support-router")
        self.open()
        process = self.deployment.masters[1]
        self.deployment.wait_record(process, MASTER, "up", SESSION_SECONDS + SILENCE_SECONDS)
        self.require_pages()
        self.assertEqual(self.deployment.end_session(), 0)
        self.require_over("operator")

    def test_in_session(self) -> None:
        """When a path becomes such a one in the middle of a session, the session is back by itself."""
        for router in ("site-router", "support-router"):
            process = self.deployment.start_master(resume=True)
            self.deployment.wait_session()
            self.require_pages()
            self.swallow(router)
            self.assertEqual(self.lab.probe("pc", "digest", f"http://{self.web}/random/{PAGE}"), "")
            self.deployment.wait_record(process, MASTER, "ended", NOTICED_SECONDS + END_SECONDS)
            ended = [record["event"] for record in self.deployment.records(MASTER)].index("ended")
            self.deployment.wait_record(process, MASTER, "up", BACK_SECONDS, after=ended)
            self.eventually(self.reaches, END_SECONDS, "the PC to reach the customer's LAN again")
            self.require_pages()
            self.assertEqual(self.deployment.end_session(), 0)
            self.lab.swallow(router, None)
