"""What a command has to say, where it can say it, and where it cannot."""

from __future__ import annotations

import io
import os
from io import StringIO
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, TextIO

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services import rdv_onsite, rdvctl
from rdvtwisted.services.administrator import Terminal
from rdvtwisted.services.printing import printed

FULL = "cannot write to standard output: no space left on device"


class PrintingTests(SynchronousTestCase):
    """A standard output that takes nothing more."""

    def setUp(self) -> None:
        """A state directory whose name is short enough for a socket."""
        self.state = mkdtemp(prefix="rdv-")
        self.addCleanup(rmtree, self.state)

    def full(self, unbuffered: bool = False) -> TextIO:
        """A full one, to be closed as Python does at its exit: what is left in it is written, if it can be."""
        raw = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 - it is closed when the test is over
        file = io.TextIOWrapper(raw if unbuffered else io.BufferedWriter(raw), "utf-8", write_through=unbuffered)
        self.addCleanup(file.close)
        return file

    def test_printed(self) -> None:
        """What could be said leaves nothing to complain of."""
        out = StringIO()
        self.assertEqual(printed(out, ["one\n", "two\n"]), "")
        self.assertEqual(out.getvalue(), "one\ntwo\n")

    def test_full(self) -> None:
        """A full disk is one line; and no other one at the exit, when Python tries again."""
        out = self.full()
        self.assertEqual(printed(out, ["word\n"]), FULL)
        out.write("more")
        out.close()

    def test_nobody_reads(self) -> None:
        """Who has seen enough needs not be told so."""
        reading, writing = os.pipe()
        os.close(reading)
        out = open(writing, "w", encoding="utf-8")  # noqa: SIM115 - closed below
        self.assertEqual(printed(out, ["word\n"]), "")
        out.close()

    def rdvctl(self, out: TextIO, *arguments: str) -> tuple[int, str]:
        """Call rdvctl."""
        errors = StringIO()
        environment = {"RDV_SERVER_STATE_DIRECTORY": self.state}
        terminal = Terminal(StringIO(), out, errors, environment, lambda: 0.0, True)
        return rdvctl.main(arguments, terminal), errors.getvalue()

    def test_rdvctl(self) -> None:
        """rdvctl says in a line that it could not say anything, and has failed, also when it was asked for help."""
        for arguments in (["status"], ["sample-config"], ["--json", "sample-config"], ["--help"], ["--version"]):
            for unbuffered in (False, True):
                told = self.rdvctl(self.full(unbuffered), *arguments)
                self.assertEqual(told, (1, f"rdvctl: error: {FULL}\n"))

    def test_rdv_onsite(self) -> None:
        """So does rdv-onsite."""

        class Device:
            def __init__(self, socket: str) -> None:
                self.socket = socket

            def ask(self, verb: str, **details: object) -> Any:
                return "Refused"

        self.patch(rdv_onsite, "ControlClient", Device)
        for arguments in (["refuse"], ["--help"]):
            for unbuffered in (False, True):
                errors = StringIO()
                status = rdv_onsite.main(arguments, {}, self.full(unbuffered), errors)
                self.assertEqual((status, errors.getvalue()), (1, f"rdv-onsite: error: {FULL}\n"))
