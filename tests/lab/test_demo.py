"""C{script/demo}: the whole product, from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import Lab, obstacles

CHECKOUT = Path(__file__).parent.parent.parent

LIMIT = 60.0
"""Seconds that a demo may take (installation apart)."""


class DemoTests(SynchronousTestCase):
    """The demo works, and says so in a form that programs read."""

    skip = obstacles()

    def demo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it in a lab of its own, as C{script/demo} does."""
        lab = Lab(f"rdve{os.getpid()}")
        self.addCleanup(lab.down)
        result = subprocess.run(
            [sys.executable, "-B", "-m", "tests.lab.demo", "--prefix", lab.prefix, "--json", *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual(lab.leftovers(), [])
        return result

    def assert_worked(self, result: subprocess.CompletedProcess[str], **expected: str) -> None:
        """The demo says that all of it worked, and these of its findings."""
        self.assertEqual(result.returncode, 0, result.stderr)
        findings = json.loads(result.stdout)
        self.assertTrue(findings["ok"])
        self.assertEqual({name: findings[name] for name in expected}, expected)
        self.assertGreater(findings["rtt_ms"], 0)
        self.assertGreater(findings["session_s"], 0)

    def test_routed(self) -> None:
        """A routed session through the SSH door carries ping, HTTP and UDP, and leaves nothing behind."""
        self.assert_worked(self.demo(), mode="L3", backend="tls", join="relay", door="ssh")

    def test_bridged(self) -> None:
        """A bridged session puts the PC on the customer's LAN with an address of its own, and leaves nothing behind."""
        self.assert_worked(self.demo("--mode", "L2"), mode="L2", backend="tls", join="relay", door="ssh")

    def test_through_tls(self) -> None:
        """The same with both devices connected by TLS."""
        self.assert_worked(self.demo("--door", "tls"), mode="L3", backend="tls", join="relay", door="tls")

    def test_failure(self) -> None:
        """A demo whose devices cannot build a tunnel fails, says at which step, and shows what the services said."""
        result = self.demo("--backend", "pigeons")
        self.assertEqual(result.returncode, 1)
        findings = json.loads(result.stdout)
        self.assertFalse(findings["ok"])
        self.assertIn("open a session", findings["failed"])
        for host in ("server", "onsite", "master"):
            self.assertIn(f"{host}, the end of its log:", result.stderr)
