"""What a machine needs to make TUN and TAP devices."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tunnels.requirements import missing_for_packets

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
