"""What the engineer's PC sends and fetches, and whether it arrives as it was."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.lab.processes import LabProcess
from tests.lab.scene import SceneTestCase
from tests.lab.website import PORTS, content


def digest(size: int) -> str:
    """What C{probe.py} should say of so many bytes."""
    return hashlib.sha256(content(size)).hexdigest()


class TrafficTestCase(SceneTestCase):
    """The engineer's PC uses the customer's LAN."""

    def ping(self, address: str, *options: str) -> str:
        """What ping says at the PC, of one packet."""
        return self.lab.run("pc", ["ping", "-c", "1", "-W", "2", *options, address]).stdout

    def download(self, size: int, host: str | None = None) -> None:
        """A file comes to the PC as it is."""
        self.assertEqual(
            self.lab.probe("pc", "digest", f"http://{host or self.web}/random/{size}"), digest(size), f"{size} bytes"
        )

    def upload(self, size: int, host: str | None = None) -> None:
        """A file of the PC arrives as it is."""
        self.assertEqual(
            self.lab.probe("pc", "put", f"http://{host or self.web}/", str(size)), digest(size), f"{size} bytes"
        )

    def page(self, name: str = "", host: str | None = None) -> str:
        """A page of a web server, as the PC sees it."""
        return self.lab.probe("pc", "get", f"http://{host or self.web}/{name}").strip()

    def serve(self, host: str) -> LabProcess:
        """Have the same services on another host as on the customer's web server; they go before the scene is left."""
        process = self.lab.start(host, [sys.executable, "-B", str(Path(__file__).parent / "website.py")])
        self.addCleanup(process.stop)
        process.wait_listening(*PORTS)
        return process
