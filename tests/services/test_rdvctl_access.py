"""C{rdvctl access}: rules and groups as an administrator works with them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.store.inventory import open_inventory
from rdvtwisted.config import ServerSettings
from rdvtwisted.values import Device, Role
from tests.adapters.store.keys import key
from tests.services.rdvctl import Rdvctl


class AccessTestCase(SynchronousTestCase):
    """An inventory with two masters and two onsites, and no rule."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="rdv-")  # short enough for a socket
        self.addCleanup(shutil.rmtree, folder)
        self.rdvctl = Rdvctl(folder)
        with closing(open_inventory(ServerSettings(state_directory=self.rdvctl.directory))) as inventory:
            for number, id in enumerate(("ann", "bob", "rpi1", "rpi2")):
                inventory.add(Device(id, Role.ONSITE if id.startswith("rpi") else Role.MASTER, (key(number),)))

    def run_(self, *arguments: str, stdin: str = "") -> int:
        return self.rdvctl(*arguments, stdin=stdin)

    def access(self, *arguments: str) -> str:
        """What a command that is done has to say."""
        self.assertEqual(self.run_("access", *arguments), 0, self.rdvctl.err)
        return self.rdvctl.out

    def refused(self, line: str, *arguments: str, status: int = 1, stdin: str = "") -> None:
        """A command is not done, and says why; nothing is changed."""
        before = self.rules()
        self.assertEqual(self.run_("access", *arguments, stdin=stdin), status)
        self.assertEqual(self.rdvctl.err, f"rdvctl: error: {line}\n")
        self.assertEqual(self.rules(), before)

    def rules(self) -> Any:
        """All rules, as JSON shows them."""
        return self.rdvctl.document(["access", "list"])

    def numbers(self) -> list[int]:
        """Their numbers."""
        return [rule["number"] for rule in self.rules()]


class RuleTests(AccessTestCase):
    """Rules one by one."""

    def test_none(self) -> None:
        """At first there is none, and it is said what that means."""
        self.assertEqual(
            self.access("list"),
            "There is no rule, so no master may use any onsite. See: rdvctl access allow --help\n",
        )

    def test_allow(self) -> None:
        """A rule is shown as it was given."""
        shown = self.access(
            *("allow", "ann", "rpi1", "192.168.1.10:tcp/80,443", "10.0.0.7/8"),
            *("--until", "+8h", "--comment", "the press"),
        )
        places = "192.168.1.10:tcp/80,443 10.0.0.0/8"
        gap = " " * 22
        self.assertEqual(
            shown.splitlines()[1:],
            [
                f"RULE  EFFECT  MASTER  ONSITE  MODES  DESTINATIONS  {gap}UNTIL                 COMMENT",
                f"1     allow   ann     rpi1    L3     {places}  1970-01-01T08:18:20Z  the press",
            ],
        )
        self.assertEqual(
            self.rules(),
            [
                {
                    "number": 1,
                    "effect": "allow",
                    "master": "ann",
                    "onsite": "rpi1",
                    "modes": ["L3"],
                    "destinations": ["192.168.1.10:tcp/80,443", "10.0.0.0/8"],
                    "until": "1970-01-01T08:18:20Z",
                    "comment": "the press",
                }
            ],
        )
        self.assertEqual(self.access("list"), shown.partition("\n")[2])

    def test_modes(self) -> None:
        """Without destinations a rule is about both modes, unless one is named."""
        self.access("allow", "*", "*")
        self.access("allow", "*", "*", "--mode", "L2")
        self.access("deny", "*", "rpi1", "10.0.0.1", "--mode", "L3")
        self.assertEqual([rule["modes"] for rule in self.rules()], [["L3", "L2"], ["L2"], ["L3"]])
        self.assertEqual(self.rdvctl.err, "")

    def test_bridged_destinations(self) -> None:
        """Destinations cannot be had in L2; a deny with some denies L2 as a whole, and says so."""
        self.refused(
            "destinations cannot be kept in a bridged session (L2): leave them out, or use --mode L3",
            *("allow", "*", "*", "10.0.0.1", "--mode", "L2"),
            status=2,
        )
        self.access("allow", "*", "*", "*", "--mode", "L2")
        self.access("deny", "*", "*", "10.0.0.1")
        self.assertEqual(
            self.rdvctl.err,
            "rdvctl: warning: destinations cannot be kept in a bridged session (L2), so L2 is denied as a whole;"
            " --mode L3 leaves it alone\n",
        )

    def test_refused(self) -> None:
        """A rule that cannot do what its author thinks is refused."""
        for line, arguments in (
            ("invalid device 'eve': there is no device 'eve'", ("eve", "rpi1")),
            ("invalid device 'rpi2': rpi2 is an onsite, where a master is to be named", ("rpi2", "rpi1")),
            ("invalid device 'bob': bob is a master, where an onsite is to be named", ("*", "bob")),
            ("invalid group 'lyon': there is no such group", ("ann", "@lyon")),
        ):
            self.refused(line, "allow", *arguments)
            self.refused(line, "deny", *arguments)

    def test_misused(self) -> None:
        """A destination, a time or a key that is none is bad usage: status 2."""
        line = "invalid end '+0m': it is past"
        self.refused(line, "allow", "ann", "rpi1", "--until", "+0m", status=2)
        for arguments in (("access", "allow"), ("access", "deny"), ("access", "check")):
            self.assertEqual(self.run_(*arguments, "ann", "rpi1", "web"), 2)
            self.assertIn("invalid destination 'web': use ADDRESS", self.rdvctl.err)
        for words in (("device", "add", "new", "--role", "onsite", "--key"), ("key", "add", "rpi1")):
            self.assertEqual(self.run_(*words, "rubbish"), 2)
            self.assertIn("invalid public key 'rubbish'", self.rdvctl.err)
        self.assertEqual(self.run_("device", "add", "rpi 3", "--role", "onsite"), 2)
        self.assertIn("invalid device id 'rpi 3': use 1 to 32 of", self.rdvctl.err)

    def test_role_in_use(self) -> None:
        """A device that a rule names keeps its role: a rule never names one of the other role."""
        self.access("allow", "ann", "rpi1")
        self.access("deny", "*", "rpi1", "192.168.1.1")
        change = ("device", "set", "rpi1", "--label", "Lyon", "--role")
        self.assertEqual(self.run_(*change, "master"), 1)
        line = "invalid role 'master': rule 1 names rpi1: remove that first"
        self.assertEqual(self.rdvctl.err, f"rdvctl: error: {line}\n")
        self.assertEqual(self.run_(*change, "onsite"), 0)
        self.access("remove", "1", "2")
        self.assertEqual(self.run_(*change, "master"), 0)

    def test_key_by_option(self) -> None:
        """A further key may be given as the first one is, too."""
        self.assertEqual(
            self.run_("key", "add", "rpi1", "--key", key(7).line, "--key", key(8).line), 0, self.rdvctl.err
        )
        self.assertIn("rpi1 has 2 more keys: ", self.rdvctl.out)
        self.assertEqual(self.run_("key", "add", "rpi1", *key(9).line.split(), "comment"), 0)

    def test_order_of_words(self) -> None:
        """Options may stand anywhere; what is wrong with a command without arguments is what it cannot do without."""
        for words in (
            ("ann", "rpi1", "--mode", "L3", "192.168.1.1"),
            ("ann", "--mode", "L3", "rpi1", "192.168.1.1"),
            ("--mode", "L3", "ann", "rpi1", "192.168.1.1"),
            ("ann", "rpi1", "192.168.1.1", "--mode", "L3"),
        ):
            self.access("allow", *words)
            rule = self.rules()[-1]
            self.assertEqual((rule["modes"], rule["destinations"]), (["L3"], ["192.168.1.1"]))
        self.assertIn("yes, to 192.168.1.1", self.access("check", "ann", "rpi1", "--mode", "L3", "192.168.1.1"))
        self.access("group", "set", "lyon", "--json", "rpi1", "rpi2")
        self.assertIn("rpi1 rpi2\n", self.access("group", "list"))
        file = self.mktemp()
        self.access("export", "--json", file)
        self.assertTrue(os.path.exists(file))
        self.assertEqual(self.run_("access", "allow"), 2)
        self.assertIn("the following arguments are required: MASTER, ONSITE\n", self.rdvctl.err)
        self.assertIn("usage: rdvctl access allow ", self.rdvctl.err)
        self.assertEqual(self.run_("access", "allow", "ann", "rpi1", "--mode", "L4"), 2)
        self.assertEqual(self.run_("access", "allow", "ann", "rpi1", "--nonsense", "192.168.1.1"), 2)
        self.assertIn("unrecognized arguments: --nonsense", self.rdvctl.err)
        self.assertEqual(self.run_("access", "remove"), 2)
        self.assertIn("the following arguments are required: RULE\n", self.rdvctl.err)

    def test_no_port(self) -> None:
        """Nothing listens on port 0: who names it means something else."""
        for words in (("allow", "ann", "rpi1"), ("deny", "ann", "rpi1"), ("check", "ann", "rpi1")):
            for ports in ("0", "80,0"):
                text = f"192.168.1.10:tcp/{ports}"
                self.refused(f"invalid destination '{text}': port 0 is none", *words, text, status=2)

    def test_remove(self) -> None:
        """Rules are removed by number, all that are named or none."""
        for id in ("rpi1", "rpi2", "*"):
            self.access("allow", "ann", id)
        self.refused("invalid rule '7': there is no such rule", "remove", "1", "7")
        self.assertIn("Removed:\n", self.access("remove", "1", "3"))
        self.assertEqual(self.numbers(), [2])

    def test_list_about(self) -> None:
        """The list can be narrowed to what is about some device, by whatever name."""
        self.access("group", "set", "support", "bob")
        for master, onsite in (("ann", "rpi1"), ("@support", "*"), ("*", "rpi2")):
            self.access("allow", master, onsite)
        self.assertEqual(
            [
                [rule["number"] for rule in self.rdvctl.document(["access", "list", *words])]
                for words in (["--master", "ann"], ["--master", "bob"], ["--onsite", "rpi1"], ["--onsite", "rpi2"])
            ],
            [[1, 3], [2, 3], [1, 2], [2, 3]],
        )

    def test_device_removed(self) -> None:
        """With a device go the rules that name it, and it is said which."""
        self.access("allow", "ann", "rpi1")
        self.access("allow", "*", "rpi2")
        self.access("deny", "bob", "rpi1")
        self.assertEqual(self.run_("device", "remove", "rpi1"), 0)
        self.assertEqual(self.rdvctl.out, "rpi1 is removed. With it went 2 access rules: 1, 3.\n")
        self.assertEqual(self.numbers(), [2])
        self.assertEqual(self.run_("device", "remove", "ann"), 0)
        self.assertEqual(self.rdvctl.out, "ann is removed.\n")


class CheckTests(AccessTestCase):
    """What rules come to."""

    def test_no_rule(self) -> None:
        """Without a rule: no, and the exit status says so, too."""
        self.assertEqual(self.run_("access", "check", "ann", "rpi1"), 1)
        self.assertEqual(
            self.rdvctl.out,
            "L3: no\nL2: no\n\nNo rule is about ann and rpi1, and what no rule allows is denied.\n",
        )

    def test_explained(self) -> None:
        """The rules that count are shown with what they come to."""
        self.access("allow", "ann", "*", "192.168.1.0/24:tcp/80", "--until", "+1h")
        self.access("allow", "bob", "*")
        self.access("deny", "*", "rpi1", "192.168.1.128/25")
        shown = self.access("check", "ann", "rpi1").splitlines()
        self.assertEqual(shown[:3], ["L3: yes, until 1970-01-01T01:18:20Z, to", "  192.168.1.0/25:tcp/80", "L2: no"])
        self.assertEqual([line.split()[:2] for line in shown[-2:]], [["1", "allow"], ["3", "deny"]])
        document = self.rdvctl.document(["access", "check", "ann", "rpi1"])
        self.assertEqual(
            document["modes"],
            {
                "L3": {
                    "allowed": True,
                    "destinations": ["192.168.1.0/25:tcp/80"],
                    "until": "1970-01-01T01:18:20Z",
                },
                "L2": {"allowed": False, "destinations": [], "until": None},
            },
        )
        self.assertEqual([rule["number"] for rule in document["rules"]], [1, 3])

    def test_destination(self) -> None:
        """One can ask for a destination: all of it, a part or nothing."""
        self.access("allow", "ann", "rpi1", "192.168.1.10:tcp/80-89")
        for destination, verdict, status in (
            ("192.168.1.10:tcp/80,81", "yes, to 192.168.1.10:tcp/80,81", 0),
            ("192.168.1.10:tcp/89-90", "in part, of 192.168.1.10:tcp/89-90 to 192.168.1.10:tcp/89", 1),
            ("192.168.1.10:udp/80", "no, not to 192.168.1.10:udp/80", 1),
        ):
            self.assertEqual(self.run_("access", "check", "ann", "rpi1", destination, "--mode", "L3"), status)
            self.assertEqual(self.rdvctl.out.splitlines()[0], f"L3: {verdict}")

    def test_over(self) -> None:
        """A rule that is past its end is shown, and does not count."""
        self.run_(
            "access",
            "import",
            "-",
            stdin='[[rule]]\neffect="allow"\nmaster="*"\nonsite="*"\nuntil=1970-01-01T00:00:01Z\n',
        )
        self.assertEqual(self.run_("access", "check", "ann", "rpi1"), 1)
        self.assertIn("1970-01-01T00:00:01Z (over)", self.rdvctl.out)

    def test_refused(self) -> None:
        """It is about two devices, each of its kind."""
        self.refused("invalid device 'eve': there is no device 'eve'", "check", "eve", "rpi1")
        self.refused("invalid device '*': name one device, not all or a group", "check", "ann", "*")
        self.refused("invalid device 'bob': bob is a master, where an onsite is to be named", "check", "ann", "bob")

    def test_disabled(self) -> None:
        """A disabled device has no access, whatever the rules say; that is noted."""
        self.access("allow", "*", "*")
        self.run_("device", "disable", "ann")
        self.access("check", "ann", "rpi1")
        self.assertEqual(self.rdvctl.err, "rdvctl: warning: ann is disabled, so nothing of this counts\n")


class GroupTests(AccessTestCase):
    """Groups."""

    def test_life(self) -> None:
        """A group is made, grows, shrinks and goes."""
        self.assertEqual(self.access("group", "list"), "There is no group.\n")
        self.assertEqual(
            self.access("group", "add", "lyon", "rpi2", "rpi1"), "The group lyon has 2 devices: rpi1 rpi2\n"
        )
        self.assertEqual(self.access("group", "remove", "lyon", "rpi1"), "The group lyon has 1 device: rpi2\n")
        self.assertEqual(self.access("group", "set", "support", "ann"), "The group support has 1 device: ann\n")
        self.assertEqual(self.access("group", "list"), "GROUP    DEVICES\nlyon     rpi2\nsupport  ann\n")
        self.assertEqual(self.rdvctl.document(["access", "group", "list"]), {"lyon": ["rpi2"], "support": ["ann"]})
        self.assertEqual(self.access("group", "set", "lyon"), "The group lyon has 0 devices: -\n")
        self.assertEqual(self.access("group", "remove", "lyon"), "The group lyon is removed.\n")

    def test_refused(self) -> None:
        """What is not there cannot be added or removed; what is in use cannot go."""
        self.access("group", "set", "lyon", "rpi1")
        self.access("allow", "ann", "@lyon")
        self.refused("invalid group 'lyon': rule 1 names it: remove that first", "group", "remove", "lyon")
        self.refused("invalid device id 'rpi2': it is not in the group lyon", "group", "remove", "lyon", "rpi2")
        self.refused("invalid device id 'eve': there is no such device", "group", "add", "lyon", "eve")
        self.refused("invalid group 'paris': there is no such group", "group", "remove", "paris")


class FileTests(AccessTestCase):
    """Export and import."""

    def setUp(self) -> None:
        """With a rule and a group."""
        super().setUp()
        self.access("group", "set", "lyon", "rpi1", "rpi2")
        self.access("allow", "ann", "@lyon", "192.168.1.0/24:tcp/80", "--comment", "press")
        self.file = Path(self.mktemp())

    def test_round_trip(self) -> None:
        """What was exported can be imported, here or elsewhere; standard input and output will do."""
        exported, before = self.access("export"), self.rules()
        self.assertIn('comment = "press"', exported)
        self.assertEqual(self.access("export", str(self.file)), f"1 rule written to {self.file}.\n")
        self.assertEqual(self.file.read_text(), exported)
        self.access("deny", "*", "*")
        self.assertEqual(self.access("import", str(self.file)), "1 rule in place of 2.\n")
        self.assertEqual(self.rules(), before)
        self.assertEqual(self.run_("access", "import", "-", "--remove-all", stdin=""), 0)
        self.assertEqual(self.rules(), [])
        self.assertEqual(self.access("import", os.devnull), "0 rules in place of 0.\n")
        self.assertEqual(self.run_("access", "import", "-", stdin=exported), 0)
        self.assertEqual(self.rules(), before)

    def test_refused(self) -> None:
        """A file with one mistake changes nothing; the line is named."""
        rule = '[[rule]]\neffect = "allow"\nmaster = "ann"\n'
        for line, text in (
            ("line 8: there is no device 'rpi3'", rule + 'onsite = "rpi1"\n' + rule + 'onsite = "rpi3"\n'),
            ("line 4: bob is a master, where an onsite is to be named", rule + 'onsite = "bob"\n'),
            ("line 2: there is no device 'eve'", '[groups]\nb = ["ann", "eve"]\n'),
            (
                "line 5: a rule has no 'ports': use effect, master, onsite, modes, destinations, until, comment",
                rule + 'onsite = "*"\nports = 80\n',
            ),
        ):
            self.refused(f"invalid file of rules: {line}", "import", "-", stdin=text)

    def test_unreadable(self) -> None:
        """A file that cannot be read or written is named."""
        self.refused(f"cannot read {self.file}: no such file or directory", "import", str(self.file))
        self.refused(f"cannot write {self.file}/x: no such file or directory", "export", f"{self.file}/x")
        self.file.write_bytes(b"\xff")
        self.refused("invalid file of rules: it is not UTF-8 text", "import", str(self.file))

    def test_empty(self) -> None:
        """A file without a rule, or a pipe that nobody writes into, takes no rule away unless that is asked for."""
        before = self.rules()
        words = "there is no rule in it, and 1 would be gone; with --remove-all it is so"
        pipe = Path(self.mktemp())
        os.mkfifo(pipe)
        self.file.write_text('[groups]\nlyon = ["rpi1"]\n')
        for path in (os.devnull, str(pipe), str(self.file)):
            self.refused(f"invalid file of rules: {words}", "import", path)
        self.assertEqual(self.rules(), before)

    def test_interrupted(self) -> None:
        """An export that cannot be finished leaves the former one whole; a link stays one."""
        self.access("export", str(self.file))
        before = self.file.read_bytes()
        link = Path(self.mktemp())
        link.symlink_to(self.file.absolute())
        self.access("deny", "*", "*")
        synced = os.fsync

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "fsync", full)
        self.refused(f"cannot write {link}: no space left on device", "export", str(link))
        self.assertEqual(self.file.read_bytes(), before)
        self.patch(os, "fsync", synced)
        self.file.chmod(0o640)
        self.access("export", str(link))
        self.assertIn("deny", self.file.read_text())
        self.assertEqual((link.is_symlink(), stat.S_IMODE(self.file.stat().st_mode)), (True, 0o640))
        self.assertEqual(self.access("export", os.devnull), f"2 rules written to {os.devnull}.\n")
        self.assertTrue(stat.S_ISCHR(os.stat(os.devnull).st_mode))
