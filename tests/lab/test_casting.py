"""The demo's command line: what makes no sense is refused in one line, before anything is installed or built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.backends import OWN
from tests.lab.casting import DOORS, OWN_BACKENDS, Casting, read
from tests.lab.command import arguments
from tests.lab.deployment import DOORS as PORTS
from tests.source import CHECKOUT

#: Each command line that cannot be played, and how it is refused.
REFUSED = (
    ("--backend nope", "--backend nope: there is no such tunnel backend; use one of tls, stunnel, vtun"),
    ("--onsite-backend nope", "--onsite-backend nope: there is no such tunnel backend"),
    ("--mode L4", "argument --mode: invalid choice: 'L4'"),
    ("--pair new", "argument --pair: invalid choice: 'new'"),
    ("--door telnet", "argument --door: invalid choice: 'telnet'"),
    ("--nonsense", "unrecognized arguments: --nonsense"),
    ("--pair old-new --onsite-backend stunnel", "--onsite-backend stunnel: an old onsite has vtun and nothing else"),
    ("--pair new-old --master-backend tls", "--master-backend tls: an old master has vtun and nothing else"),
    ("--pair old-new --backend tls", "--backend tls: an old onsite has vtun and nothing else"),
    ("--backend tls --master-backend vtun", "--backend tls: --master-backend names another one for the master"),
)


class CastingTests(SynchronousTestCase):
    """What may be played."""

    def test_casting(self) -> None:
        """What makes sense is played as it was asked for."""
        for words, wanted in (
            ("", Casting()),
            ("--backend vtun --mode L2", Casting(mode="L2", master="vtun")),
            ("--onsite-backend stunnel --master-backend tls", Casting(onsite="stunnel", master="tls")),
            (
                "--pair old-new --onsite-backend vtun --master-backend tls",
                Casting(onsite="vtun", master="tls", old=frozenset(["onsite"])),
            ),
            ("--pair old-old --backend vtun", Casting(master="vtun", old=frozenset(["onsite", "master"]))),
        ):
            self.assertEqual(read(words.split())[1], wanted)

    def test_known(self) -> None:
        """What can be said before anything is installed is what there will be."""
        self.assertEqual((OWN_BACKENDS, DOORS), (OWN, tuple(PORTS)))

    def test_refused(self) -> None:
        """The script refuses with one line and status 2, whoever runs it; nothing was installed."""
        for words, line in REFUSED:
            result = subprocess.run(
                [CHECKOUT / "script" / "demo", *words.split()], capture_output=True, text=True, check=False
            )
            self.assertEqual((result.returncode, result.stdout, result.stderr.count("\n")), (2, "", 1), result.stderr)
            self.assertIn(f"script/demo: {line}", result.stderr)

    def test_without_anything(self) -> None:
        """To refuse, the standard library is enough: it happens before there is a virtualenv."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("attrs", "twisted", "zope"):
            (folder / f"{name}.py").write_text("raise ImportError('not installed')\n")
        for words, line in REFUSED:
            result = subprocess.run(
                [sys.executable, "-B", "-m", "tests.lab.casting", *words.split()],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(folder.absolute())},
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual((result.returncode, result.stderr.count("\n")), (2, 1), result.stderr)
            self.assertIn(line, result.stderr)

    def test_help(self) -> None:
        """--help tells the options, and that is all that happens."""
        result = subprocess.run([CHECKOUT / "script" / "demo", "--help"], capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("--master-backend", result.stdout)


class PrefixTests(SynchronousTestCase):
    """Which lab is meant."""

    def test_before_and_behind(self) -> None:
        """It may be said before or behind the command; a program that is run in a host has its own options."""
        for line, prefix in (
            ("up", "rdvlab"),
            ("--prefix x up", "x"),
            ("up --prefix x --sites 2", "x"),
            ("--prefix y status --prefix x", "x"),
            ("cut --prefix x onsite", "x"),
            ("--prefix x exec onsite sh --prefix y", "x"),
        ):
            self.assertEqual(arguments().parse_args(line.split()).prefix, prefix, line)
