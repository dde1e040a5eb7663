"""The unit files for systemd: they can be read, say what exists, and give no more away than they must."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters.network.gluer import KEPT
from rdvtwisted.adapters.network.privileges import CAP_SETPCAP, name_of
from tap import master_dev, onsite_dev, rdv_server
from tests.unitfile import FOLDER, sections, service, units, words

#: What the units' command is, and what reads its words.
TWISTD = "/opt/rdvtwisted/bin/twistd"
PLUGINS = {"rdv-server": rdv_server.Options, "onsite-dev": onsite_dev.Options, "master-dev": master_dev.Options}
#: The exposure that C{systemd-analyze security} may find, in tenths.
MOST_EXPOSED = 25


class UnitTests(SynchronousTestCase):
    """What stands in them."""

    def test_seen(self) -> None:
        """There is one for each service."""
        self.assertEqual(units(), ["master-dev@.service", "onsite-dev.service", "rdv-server.service"])

    def test_commands(self) -> None:
        """Their commands are such as the services take, with their state where systemd makes it."""
        for name in units():
            unit = service(name)
            (command,) = unit["ExecStart"]
            twistd, nodaemon, pidfile, plugin, *options = shlex.split(command.replace("%i", "rpi1100"))
            self.assertEqual((twistd, nodaemon, pidfile), (TWISTD, "--nodaemon", "--pidfile="))
            self.assertTrue(name.startswith(plugin))
            read = PLUGINS[plugin]()
            given = [word for word in options if not word.startswith("$")]
            required = [] if plugin == "rdv-server" else ["--username=rpi1", "--rdv-server=rdv.example.net"]
            read.parseOptions([*given, *required])
            self.assertEqual(read["state-dir"], f"/var/lib/{unit['StateDirectory'][0]}")
            self.assertEqual(unit["StateDirectoryMode"], ["0700"])

    def test_always_back(self) -> None:
        """Server and onsite are started again whatever happened, and however often."""
        for name in ("rdv-server.service", "onsite-dev.service"):
            self.assertEqual(service(name)["Restart"], ["always"])
            self.assertEqual(sections(name)["Unit"]["StartLimitIntervalSec"], ["0"])
            self.assertEqual(sections(name)["Install"]["WantedBy"], ["multi-user.target"])

    def test_journals(self) -> None:
        """What a device has to undo after a SIGKILL is not thrown away between two starts."""
        for name in ("master-dev@.service", "onsite-dev.service"):
            unit = service(name)
            self.assertEqual((unit["RuntimeDirectory"], unit["RuntimeDirectoryPreserve"]), (["rdvtwisted"], ["yes"]))

    def test_capabilities(self) -> None:
        """Nobody is root; each has one capability, and can get no other."""
        for name, capability in (
            ("rdv-server.service", "CAP_NET_BIND_SERVICE"),
            ("onsite-dev.service", "CAP_NET_ADMIN"),
            ("master-dev@.service", "CAP_NET_ADMIN"),
        ):
            unit = service(name)
            self.assertIn(unit["User"][0], {"rdv-server", "rdv-device"})
            self.assertEqual(unit["AmbientCapabilities"], [capability])
            self.assertEqual(unit["CapabilityBoundingSet"], [capability])
            self.assertEqual(unit["NoNewPrivileges"], ["yes"])

    def test_users(self) -> None:
        """The users that they run as are made by the file for systemd-sysusers."""
        lines = (FOLDER / "rdvtwisted.conf").read_text().splitlines()
        made = {line.split()[1] for line in lines if line.startswith("u ")}
        self.assertEqual({service(name)["User"][0] for name in units()}, made)

    def test_drop_in(self) -> None:
        """The drop-in for kernels without user namespaces names what the helper process wants."""
        text = (FOLDER / "README.md").read_text()
        (bounding,) = re.findall(r"CapabilityBoundingSet=(.*)", text)
        self.assertEqual(set(bounding.split()), {name_of(each) for each in KEPT | {CAP_SETPCAP}})
        self.assertIn(f"AmbientCapabilities={bounding}\n", text)

    def test_reader(self) -> None:
        """What reads them here reads lists, and takes nothing else for a setting."""
        self.assertEqual(words({"A": ["x y", "z"]}, "A"), {"x", "y", "z"})
        self.assertGreater(len(service("rdv-server.service")["SystemCallFilter"]), 1)


class SystemdTests(SynchronousTestCase):
    """What systemd says to them."""

    def setUp(self) -> None:
        """Copies whose program is there."""
        self.systemd = shutil.which("systemd-analyze")
        if self.systemd is None:
            raise SkipTest("systemd-analyze is not installed")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.copies = []
        for name in units():
            text = (FOLDER / name).read_text()
            self.assertIn(TWISTD, text)
            self.copies.append(self.folder / name.replace("@.", "@rpi1100."))
            self.copies[-1].write_text(text.replace(TWISTD, "/bin/true"))
            if "@." in name:
                (self.folder / name).write_text(text.replace(TWISTD, "/bin/true"))

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run C{systemd-analyze}."""
        assert self.systemd is not None
        command = [self.systemd, "--no-pager", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_verify(self) -> None:
        """It can read them, and knows every setting."""
        for path in self.copies:
            result = self.analyze("verify", "--man=no", "--generators=no", str(path))
            self.assertNotIn(path.name, result.stderr)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_mistake(self) -> None:
        """It would say if a setting were none."""
        path = self.copies[0]
        path.write_text(path.read_text().replace("NoNewPrivileges", "NoNewPriviledges"))
        self.assertIn("NoNewPriviledges", self.analyze("verify", "--man=no", "--generators=no", str(path)).stderr)

    def test_security(self) -> None:
        """It finds them well confined."""
        if "--offline" not in self.analyze("--help").stdout:
            raise SkipTest("this systemd-analyze judges running units only")
        for path in self.copies:
            result = self.analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(path))
            self.assertEqual(result.returncode, 0, result.stdout[-200:])


class PageTests(SynchronousTestCase):
    """What the page beside them says is to be typed."""

    def test_fresh_machine(self) -> None:
        """On a machine that has nothing of ours yet it makes the settings of an onsite, or of a master."""
        page = (FOLDER / "README.md").read_text()
        install, _, onsite, master = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for device, name in ((onsite, "onsite-dev"), (master, "master-dev")):
            root = Path(self.mktemp()).absolute()
            for folder in ("etc/systemd/system", "opt/rdvtwisted/bin", "bin"):
                (root / folder).mkdir(parents=True)
            for program in ("bin/python3", "bin/systemctl", "bin/systemd-sysusers", "bin/journalctl"):
                (root / program).symlink_to("/bin/true")
            for program in ("pip", "twistd"):
                (root / "opt/rdvtwisted/bin" / program).symlink_to("/bin/true")
            text = re.sub(r"(?<![\w.])/(etc|opt)/", rf"{root}/\1/", install + device)
            told = subprocess.run(
                ["/bin/sh", "-eu"],
                input=text,
                capture_output=True,
                text=True,
                cwd=FOLDER.parent.parent,
                env={"PATH": f"{root}/bin:/usr/bin:/bin"},
                check=False,
                timeout=60,
            )
            self.assertEqual((told.returncode, told.stderr), (0, ""))
            given = (root / f"etc/rdvtwisted/{name}.env").read_text()
            self.assertIn("RDV_SERVER_HOSTNAME=rdv.example.net\n", given)
