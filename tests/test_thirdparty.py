"""A tunnel backend that others have written and packaged: found, listed, and held to the same contracts as ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.source import CHECKOUT
from tests.test_packaging import PATIENCE, Environment, copy_of_checkout, run

PLAIN = CHECKOUT / "tests" / "thirdparty" / "plain"


class PlainTests(SynchronousTestCase):
    """The example C{rdvtwisted-plain}, installed beside rdvtwisted."""

    def setUp(self) -> None:
        """Install both, from copies, without network."""
        base = Path(self.mktemp()).resolve()
        base.mkdir()
        self.environment = Environment(base)
        self.environment.install(copy_of_checkout(base / "a copy"))
        self.source = base / "plain"
        shutil.copytree(PLAIN, self.source, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info"))

    def backends(self) -> dict[str, dict[str, object]]:
        """What C{rdvctl backends} says of each; nothing is tried that needs privileges."""
        words = [self.environment.bin / "rdvctl", "--json", "backends"]
        environment = {
            "PATH": "/usr/bin:/bin",
            "RDV_SERVER_SESSION_GLUE": "false",
            "RDV_SERVER_STATE_DIRECTORY": "/nonexistent",
        }
        ended = subprocess.run(
            words, cwd=self.environment.elsewhere, env=environment, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        self.assertNotEqual(ended.stdout, "", ended.stderr)
        document = json.loads(ended.stdout)
        self.assertEqual((document["problems"], ended.stderr), ([], ""))
        return {each["name"]: each for each in document["backends"]}

    def test_story(self) -> None:
        """
        Once it is installed, servers and devices list it with what it can do; it keeps both contracts there; and
        when it is uninstalled it is gone without a trace.
        """
        before = self.environment.content()
        self.assertNotIn("plain", self.backends())
        self.environment.install(self.source)
        found = self.backends()
        self.assertEqual(list(found), ["tls", "stunnel", "vtun", "plain"])
        self.assertEqual((found["plain"]["modes"], found["plain"]["joins"]), (["L2", "L3"], ["glue"]))
        listing = self.environment.twistd("onsite-dev", "--help-backends")
        self.assertIn("plain      L2, L3  glue         Packets in the device's SSH connection;", listing)
        trial = [self.environment.python, "-m", "twisted.trial", "rdvplain.test_plain"]
        self.assertIn("PASSED (successes=", run(trial, self.environment.elsewhere))
        self.environment.pip("uninstall", "--yes", "rdvtwisted-plain")
        self.assertEqual(self.environment.content(), before)
        self.assertNotIn("plain", self.backends())
