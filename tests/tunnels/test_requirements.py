"""What a machine needs to make TUN and TAP devices, and which stock programs it has."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tunnels.requirements import missing_for_packets, stock_program, version

#: Of proc(5): CAP_NET_ADMIN is bit 12.
ABLE = "Name:\tpython3\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003000\nCapBnd:\t000001ffffffffff\n"
UNABLE = ABLE.replace("3000", "2000")


class MissingTests(SynchronousTestCase):
    """What is missing, and what helps."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.tun = self.folder / "tun"
        self.status = self.folder / "status"

    def lacks(self) -> list[str]:
        return [each.what for each in missing_for_packets(self.tun, self.status)]

    def test_nothing(self) -> None:
        """With the device node and the right there is nothing missing."""
        self.tun.touch()
        self.status.write_text(ABLE)
        self.assertEqual(self.lacks(), [])

    def test_all(self) -> None:
        """The kernel module and the right are named, each with its cure."""
        self.status.write_text(UNABLE)
        missing = missing_for_packets(self.tun, self.status)
        self.assertEqual([each.what for each in missing], [str(self.tun), "CAP_NET_ADMIN"])
        self.assertIn("modprobe tun", missing[0].cure)
        self.assertIn("AmbientCapabilities=CAP_NET_ADMIN", missing[1].cure)

    def test_no_proc(self) -> None:
        """A right that cannot be found out is not there."""
        self.tun.touch()
        self.assertEqual(self.lacks(), ["CAP_NET_ADMIN"])
        self.status.write_text("Name:\tpython3\n")
        self.assertEqual(self.lacks(), ["CAP_NET_ADMIN"])


class ProgramTests(SynchronousTestCase):
    """Stock programs."""

    def program(self, name: str, text: str) -> str:
        """A program that is a script; the directory it is in."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
        return str(folder)

    def test_found(self) -> None:
        """The first name that is installed counts; what is none is none."""
        folder = self.program("stunnel", "#!/bin/sh\n")
        self.assertEqual(stock_program(["stunnel4", "stunnel"], folder), f"{folder}/stunnel")
        self.assertIsNone(stock_program(["stunnel4"], folder))

    def test_version(self) -> None:
        """It is found on either output, whatever the exit status; one that cannot be shown or is not said is none."""
        for text, found in (
            ("echo 'It 1.2 x' >&2; exit 1", "1.2"),
            ("echo first; echo 'It 7'", "7"),
            ("echo 'It'", None),
            ("printf 'It \\033[2J\\n'", None),
        ):
            path = self.program("it", f"#!/bin/sh\n{text}\n") + "/it"
            self.assertEqual(version(path, "-v", r"^It (\S+)"), found)
        self.assertIsNone(version("/nowhere/it", "-v", r"^It (\S+)"))
