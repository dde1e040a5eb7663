"""C{script/demo}: the whole product, from end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import Lab, obstacles
from tests.lab.programs import OLD_PROGRAMS

CHECKOUT = Path(__file__).parent.parent.parent

LIMIT = 60.0
"""Seconds that a demo may take (installation apart)."""

PIGEONS = """
from attrs import field, frozen
from rdvtwisted.errors import TunnelFailed
from tunnels.tls import TLSBackend

@frozen
class Pigeons(TLSBackend):
    name: str = field(default="pigeons", init=False)

    def device_end(self, parameters, site):
        raise TunnelFailed("no pigeon has come back")

pigeons = Pigeons()
"""
"""A drop-in with a tunnel backend that never works."""


class DemoTests(SynchronousTestCase):
    """The demo works, and says so in a form that programs read."""

    skip = obstacles()

    def demo(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it in a lab of its own, as C{script/demo} does, with more in its environment."""
        lab = Lab(f"rdve{os.getpid()}")
        self.addCleanup(lab.down)
        result = subprocess.run(
            [sys.executable, "-B", "-m", "tests.lab.demo", "--prefix", lab.prefix, "--json", *arguments],
            cwd=CHECKOUT,
            env={**os.environ, **environment},
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

    def test_unlike(self) -> None:
        """Each device may have a backend of its own; the server joins them."""
        result = self.demo("--onsite-backend", "stunnel", "--master-backend", "tls")
        self.assert_worked(result, mode="L3", backend="stunnel-tls", join="glue", kex="X25519MLKEM768")

    def test_old_devices(self) -> None:
        """Either device may be an old one, also in mode L2, with stunnel before it or without."""
        if (why := obstacles(OLD_PROGRAMS)) is not None:
            self.skipTest(why)
        result = self.demo("--pair", "old-new")
        self.assert_worked(result, pair="old-new", backend="vtun-tls", join="glue", door="ssh")
        result = self.demo("--pair", "old-old", "--mode", "L2", "--door", "tls")
        self.assert_worked(result, pair="old-old", mode="L2", backend="vtun", kex="", door="tls")

    def test_third_party(self) -> None:
        """A backend that comes in a package of its own is used like ours."""
        base = Path(self.mktemp()).absolute()
        shutil.copytree(CHECKOUT / "tests" / "thirdparty" / "plain", base / "source")
        words = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(base / "installed")]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *words, str(base / "source")], check=True, capture_output=True
        )
        path = os.pathsep.join(filter(None, [str(base / "installed"), os.environ.get("PYTHONPATH")]))
        for mode in ("L3", "L2"):
            result = self.demo("--backend", "plain", "--mode", mode, PYTHONPATH=path)
            self.assert_worked(result, mode=mode, backend="plain", join="glue", kex="")

    def test_failure(self) -> None:
        """A demo whose devices cannot build a tunnel fails, says at which step, and shows what the services said."""
        plugins = Path(self.mktemp()).absolute() / "twisted" / "plugins"
        plugins.mkdir(parents=True)
        (plugins / "rdv_pigeons.py").write_text(PIGEONS)
        result = self.demo("--backend", "pigeons", PYTHONPATH=str(plugins.parent.parent))
        self.assertEqual(result.returncode, 1)
        findings = json.loads(result.stdout)
        self.assertFalse(findings["ok"])
        self.assertIn("open a session", findings["failed"])
        for host in ("server", "onsite", "master"):
            self.assertIn(f"{host}, the end of its log:", result.stderr)
