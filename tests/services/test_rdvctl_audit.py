"""C{rdvctl audit}: who did what, for those who ask; and what rdvctl itself does, which is in it too."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.store.auditfiles import AuditFiles
from rdvtwisted.audit import Deed, Entry
from rdvtwisted.verification import verify
from tests.adapters.store.keys import key
from tests.services.rdvctl import NOW, Rdvctl

#: What the trail of these tests holds behind its beginning: seconds before now, and a deed.
DEEDS = (
    (7200, Deed("device-arrived", "device:rpi1101", 0, device="rpi1101", address="192.0.2.9:4712", door="tls")),
    (3600, Deed("session-opened", "device:rpi1101", 0, device="rpi1100", master="rpi1101", session="s1", mode="L3")),
    (
        60,
        Deed(
            "session-ended",
            "server",
            0,
            device="rpi1100",
            master="rpi1101",
            session="s1",
            reason="operator",
            duration=3540,
            bytes_to_onsite=1500,
            bytes_to_master=2_500_000,
        ),
    ),
    (30, Deed("more", "server", 0, door="ssh", count=17, reason="refused")),
)


class AuditCase(SynchronousTestCase):
    """A state directory."""

    def setUp(self) -> None:
        """Make it; its name is short enough for a control socket."""
        folder = tempfile.mkdtemp(prefix="rdv-")
        self.addCleanup(shutil.rmtree, folder)
        self.rdvctl = Rdvctl(folder)

    def trail(self) -> AuditFiles:
        """Its trail."""
        files = AuditFiles.within(self.rdvctl.directory)
        self.addCleanup(files.close)
        return files

    def audit(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        """What a command has to say."""
        self.assertEqual(self.rdvctl("audit", *arguments, stdin=stdin), status, self.rdvctl.err)
        return self.rdvctl.out

    def refused(self, line: str, *arguments: str, status: int = 1) -> None:
        """A command is not done, and says why."""
        self.assertEqual(self.rdvctl("audit", *arguments), status)
        self.assertEqual((self.rdvctl.err, self.rdvctl.out), (f"rdvctl: error: {line}\n", ""))


class NoTrailTests(AuditCase):
    """Nothing was recorded yet."""

    def test_nothing(self) -> None:
        """It is said, and nothing is made."""
        path = f"{self.rdvctl.directory}/audit"
        self.assertEqual(self.audit("list"), "There is no such entry.\n")
        self.assertEqual(self.audit("verify", status=3), f"There is no audit trail in {path}\n")
        words = f"({path}, line 1): the trail ends before entry 4, which was noted down: cut off"
        self.assertIn(words, self.audit("verify", "--head", f"4:{'0' * 64}", status=1))
        self.assertEqual(self.audit("export"), "")
        self.refused(f"there is no audit trail in {path}", "head")
        self.refused("invalid entry '0': there is no such entry; see rdvctl audit list", "show", "0")
        self.assertEqual(os.listdir(self.rdvctl.directory), [])


class TrailCase(AuditCase):
    """A trail of five entries."""

    def setUp(self) -> None:
        """Write it."""
        super().setUp()
        files = self.trail()
        for ago, deed in DEEDS:
            files.append(evolve(deed, time=NOW - ago))
        (self.path,) = Path(self.rdvctl.directory).glob("audit/*")
        self.marks = [Entry.from_line(line).mark for line in files.lines()]


class ReadingTests(TrailCase):
    """List, show and export."""

    def numbers(self, *arguments: str) -> list[int]:
        """The numbers of the entries that are listed."""
        return [each["entry"] for each in self.rdvctl.document(["audit", "list", *arguments])]

    def test_list(self) -> None:
        """One line for each entry, with what matters of it."""
        header, *lines = self.audit("list").splitlines()
        self.assertEqual(header.split(), "ENTRY TIME ACTION ACTOR DEVICE SESSION FROM WHAT".split())
        self.assertEqual(len(lines), 5)
        self.assertEqual(
            " ".join(lines[3].split()),
            "3 1970-01-01 00:17:20 session-ended server rpi1100 s1 -"
            " operator, master rpi1101, 59 min 0 s, 1.5 kB to the onsite, 2.5 MB to the master",
        )
        self.assertIn("17 times, refused", lines[4])

    def test_last(self) -> None:
        """Only the newest are listed, unless all are wanted; it is said how many are left out."""
        text = self.audit("list", "--last", "2")
        self.assertEqual(self.numbers("--last", "2"), [3, 4])
        self.assertIn("3 older entries are left out", text)
        self.assertEqual(self.numbers("--last", "0"), [0, 1, 2, 3, 4])

    def test_no_number(self) -> None:
        """How many cannot be less than none, nor more than can be counted: that is bad usage, in one line."""
        for number in ("-1", "9" * 20, "many"):
            self.assertEqual(self.rdvctl("audit", "list", "--last", number), 2)
            words = f"argument --last: {number!r} is not a whole number from 0 to 999999999\n"
            self.assertTrue(self.rdvctl.err.endswith(words), self.rdvctl.err)

    def test_filters(self) -> None:
        """By time, device, session and action, and all of these together."""
        for arguments, numbers in (
            (["--since", "1h"], [2, 3, 4]),
            (["--since", "1970-01-01T00:17:00Z"], [3, 4]),
            (["--until", "1h"], [0, 1]),
            (["--device", "rpi1101"], [1, 2, 3]),
            (["--device", "rpi1100"], [2, 3]),
            (["--session", "s1"], [2, 3]),
            (["--action", "session-ended"], [3]),
            (["--action", "refused"], [4]),
            (["--device", "rpi1101", "--since", "2m", "--session", "s1"], [3]),
            (["--device", "nobody"], []),
        ):
            self.assertEqual(self.numbers(*arguments), numbers, arguments)

    def test_no_time(self) -> None:
        """A time that is none is refused."""
        self.refused(
            "invalid time 'yesterday': use 30m, 8h, 3d, 2w for so long ago,"
            " a date such as 2030-07-01, or with a time such as 2030-07-01T18:00 or ...T18:00Z",
            "list",
            "--since",
            "yesterday",
            status=2,
        )

    def test_show(self) -> None:
        """One entry, all of it."""
        text = self.audit("show", "3")
        self.assertIn(f"hash:            {self.marks[3].hash}", text)
        self.assertIn("bytes to master: 2500000", text)
        self.assertEqual(self.rdvctl.document(["audit", "show", "3"])["duration_ms"], 3_540_000)

    def test_export(self) -> None:
        """What is exported is what stands there, to standard output or to a file of one's own."""
        whole = self.path.read_text()
        self.assertEqual(self.audit("export"), whole)
        self.assertEqual(self.audit("export", "-"), whole)
        file = Path(self.rdvctl.directory, "out")
        self.assertEqual(self.audit("export", str(file)), f"5 lines written to {file}.\n")
        self.assertEqual(file.read_text(), whole)
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(
            [json.loads(line)["entry"] for line in self.audit("export", "--session", "s1").splitlines()], [2, 3]
        )

    def test_export_refused(self) -> None:
        """A file that cannot be written is told."""
        self.refused("cannot write /nonexistent/file: no such file or directory", "export", "/nonexistent/file")

    def test_export_interrupted(self) -> None:
        """One that cannot be finished leaves the former one whole, and no half of another."""
        folder = Path(self.mktemp())
        folder.mkdir()
        file = folder / "out"
        self.audit("export", str(file))
        whole = file.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "fsync", full)
        self.refused(f"cannot write {file}: no space left on device", "export", "--session", "s1", str(file))
        self.path.unlink()
        self.path.mkdir()
        self.refused(f"cannot read {self.path.parent}: is a directory", "export", str(file))
        self.assertEqual((file.read_bytes(), list(folder.iterdir())), (whole, [file]))

    def test_unreadable(self) -> None:
        """What cannot be read is told, whatever is asked."""
        self.path.unlink()
        self.path.mkdir()
        for command in (["list"], ["export"], ["head"], ["show", "1"]):
            self.refused(f"cannot read {self.path.parent}: is a directory", *command)
        # Not the status of a trail that was tampered with.
        self.refused(f"cannot read {self.path.parent}: is a directory", "verify", status=3)

    def test_damaged(self) -> None:
        """Lines that are no entries do not hide the others, and are told; an export has them."""
        with self.path.open("ab") as opened:
            opened.write(b"noise\xff\n")
        self.assertEqual(self.numbers(), [0, 1, 2, 3, 4])
        self.audit("list")
        self.assertEqual(self.rdvctl.err, "rdvctl: warning: lines that are no entries: 1; see rdvctl audit verify\n")
        self.assertEqual(self.audit("export").splitlines()[5], "noise\\xff")
        file = Path(self.rdvctl.directory, "out")
        self.audit("export", str(file))
        self.assertEqual(file.read_bytes(), self.path.read_bytes())


class VerifyTests(TrailCase):
    """Verify and head."""

    def test_whole(self) -> None:
        """A trail that nobody touched is whole; what that does not cover is said."""
        mark = self.marks[4]
        self.assertEqual(self.audit("head"), f"{mark}\n")
        text = f"The audit trail is whole: 5 entries, 0 to 4; head {mark}"
        self.assertEqual(self.audit("verify"), f"{text}; that its end was not cut off is known only with --head\n")
        self.assertEqual(self.audit("verify", "--head", str(self.marks[2])), f"{text}\n")
        self.assertEqual(
            self.rdvctl.document(["audit", "verify"]),
            {"whole": True, "entries": 5, "torn": 0, "losses": 0, "head": str(mark), "broken": None},
        )

    def test_cut_off_before(self) -> None:
        """A trail that was cut off under its server, and is whole since, is not called whole without a word of that."""
        files = self.trail()
        files.append(DEEDS[0][1])
        self.path.write_bytes(b"".join(self.path.read_bytes().splitlines(keepends=True)[:-2]))
        files.append(DEEDS[0][1])
        self.assertIn(
            ". Its end was cut off under a running server 1 times before; see rdvctl audit list --action end-lost",
            self.audit("verify"),
        )
        self.assertEqual(self.rdvctl.document(["audit", "verify"])["losses"], 1)

    def test_broken(self) -> None:
        """One line says where it is broken and how, with the file and its line; the exit status is 1."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"L3", b"L2"), *lines[3:]]))
        self.assertEqual(
            self.audit("verify", status=1),
            f"The audit trail is broken at entry 2 ({self.path}, line 3):"
            " the line was altered or put in: its hash is not that of what it says\n",
        )
        document = self.rdvctl.document(["audit", "verify"])
        self.assertEqual((document["whole"], document["broken"]["entry"], document["broken"]["line"]), (False, 2, 3))

    def test_cut_off(self) -> None:
        """A mark that was noted down finds an end that was cut off."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        self.path.write_bytes(b"".join(lines[:3]))
        self.audit("verify")
        self.assertEqual(
            self.audit("verify", "--head", str(self.marks[4]), status=1),
            f"The audit trail is broken at entry 3 ({self.path}, line 4):"
            " the trail ends before entry 4, which was noted down: cut off\n",
        )

    def test_exported(self) -> None:
        """What was exported can be verified elsewhere, from a file or standard input; a part of it with a mark."""
        whole = self.audit("export")
        file = Path(self.rdvctl.directory, "out")
        file.write_text(whole)
        for path in self.path.parent.iterdir():
            path.unlink()
        self.assertIn("is whole: 5 entries", self.audit("verify", "--file", str(file)))
        self.assertIn("is whole: 5 entries", self.audit("verify", "--file", "-", stdin=whole))
        part = "".join(whole.splitlines(keepends=True)[2:])
        self.assertIn(
            f"is whole: 3 entries, 2 to 4; head {self.marks[4]}",
            self.audit("verify", "--file", "-", "--after", str(self.marks[1]), stdin=part),
        )
        self.assertIn("is broken at entry 0 (-, line 1)", self.audit("verify", "--file", "-", stdin=part, status=1))
        self.assertIn("no audit trail in -", self.audit("verify", "--file", "-", status=3))
        line = "cannot read /nonexistent: no such file or directory"
        self.refused(line, "verify", "--file", "/nonexistent", status=3)

    def test_torn(self) -> None:
        """Half a line of a writer that was killed is told, and is no fault once the next writer knows of it."""
        with self.path.open("ab") as file:
            file.write(b'{"action":"refu')
        self.assertIn("its writer was stopped within it", self.audit("verify", status=1))
        self.trail().append(Deed("refused", "stranger:", NOW))
        self.assertIn("7 entries, 0 to 6, 1 of them behind a torn line; head", self.audit("verify"))

    def test_no_mark(self) -> None:
        """What is no mark is refused."""
        for option in ("--head", "--after"):
            line = "invalid mark '4': it should read NUMBER:HASH, as rdvctl audit head prints it"
            self.refused(line, "verify", option, "4", status=2)


class AdministrationTests(AuditCase):
    """What rdvctl changes is recorded."""

    def done(self, *arguments: str) -> list[dict[str, object]]:
        """The entries that a command has made, without their places."""
        before = len(list(self.trail().lines()))
        self.assertEqual(self.rdvctl(*arguments), 0, self.rdvctl.err)
        entries = [Entry.from_line(line).facts for line in self.trail().lines()]
        places = ("entry", "previous", "hash", "time", "actor")
        return [{name: value for name, value in each.items() if name not in places} for each in entries[before:]]

    def add(self, id: str, number: int, role: str = "onsite") -> None:
        """A device more."""
        self.done("device", "add", id, "--role", role, "--key", key(number).line)

    def test_devices(self) -> None:
        """Devices: added, changed, disabled, removed; each with what it is from then on."""
        print_ = key(1).fingerprint
        begun, added = self.done(
            "device", "add", "rpi1", "--role", "onsite", "--key", key(1).line, "--label", "Lyon", "--legacy"
        )
        self.assertEqual(begun["action"], "begun")
        self.assertEqual(
            added,
            {
                "action": "device-added",
                "device": "rpi1",
                "detail": f"onsite, enabled, legacy, keys {print_}, label Lyon",
            },
        )
        for arguments, action, detail in (
            (
                ["device", "set", "rpi1", "--no-legacy", "--label", ""],
                "device-changed",
                f"onsite, enabled, keys {print_}",
            ),
            (["device", "disable", "rpi1"], "device-disabled", f"onsite, disabled, keys {print_}"),
            (["device", "enable", "rpi1"], "device-enabled", f"onsite, enabled, keys {print_}"),
        ):
            self.assertEqual(self.done(*arguments), [{"action": action, "device": "rpi1", "detail": detail}])
        self.assertEqual(self.done("device", "remove", "rpi1"), [{"action": "device-removed", "device": "rpi1"}])

    def test_keys(self) -> None:
        """Keys: which was given, which was taken."""
        self.add("rpi1", 1)
        (added,) = self.done("key", "add", "rpi1", key(2).line)
        self.assertEqual((added["action"], added["fingerprint"]), ("key-added", key(2).fingerprint))
        (removed,) = self.done("key", "remove", "rpi1", key(1).fingerprint)
        self.assertEqual((removed["action"], removed["fingerprint"]), ("key-removed", key(1).fingerprint))
        self.assertEqual(removed["detail"], f"onsite, enabled, keys {key(2).fingerprint}")

    def test_access(self) -> None:
        """Access rules: which was made, which was removed; groups; and that all were replaced."""
        self.add("rpi1", 1)
        self.add("ann", 2, "master")
        (added,) = self.done("access", "allow", "ann", "rpi1", "10.0.0.1:tcp/22", "--comment", "contract")
        self.assertEqual(
            added, {"action": "access-added", "detail": "rule 1: allow ann rpi1 L3 10.0.0.1:tcp/22 (contract)"}
        )
        (group,) = self.done("access", "group", "set", "lyon", "rpi1")
        self.assertEqual(group, {"action": "group-changed", "detail": "@lyon: rpi1"})
        file = Path(self.rdvctl.directory, "rules")
        self.assertEqual(self.done("access", "export", str(file)), [])
        (removed,) = self.done("access", "remove", "1")
        self.assertEqual(removed["action"], "access-removed")
        (replaced,) = self.done("access", "import", str(file))
        self.assertEqual(replaced["action"], "access-replaced")
        self.assertIn("1 rule in place of 0; export has SHA-256 ", str(replaced["detail"]))
        (gone,) = self.done("access", "group", "remove", "lyon")
        self.assertEqual(gone, {"action": "group-removed", "detail": "@lyon"})
        (with_it,) = self.done("device", "remove", "ann")
        self.assertEqual(with_it["detail"], "access rules that went with it: 1")
        self.assertIsNone(verify(self.trail().lines()).broken)

    def test_reading_is_none(self) -> None:
        """To look is not recorded, nor is what was refused."""
        self.add("rpi1", 1)
        for arguments in (["device", "list"], ["device", "show", "rpi1"], ["key", "list"], ["audit", "list"]):
            self.assertEqual(self.done(*arguments), [])
        before = list(self.trail().lines())
        self.assertEqual(self.rdvctl("device", "remove", "nobody"), 1)
        self.assertEqual(list(self.trail().lines()), before)

    def test_actor(self) -> None:
        """Who did it is the user whose process it was."""
        self.add("rpi1", 1)
        self.assertEqual(Entry.from_line(list(self.trail().lines())[-1]).facts["actor"], "admin:ann (uid 1000)")

    def test_not_recorded(self) -> None:
        """What cannot be recorded is done all the same, but told."""
        self.add("rpi1", 1)
        shutil.rmtree(Path(self.rdvctl.directory, "audit"))
        Path(self.rdvctl.directory, "audit").write_text("")
        self.assertEqual(self.rdvctl("device", "disable", "rpi1"), 0)
        self.assertEqual(
            self.rdvctl.err,
            "rdvctl: warning: it is done, but it is not in the audit trail:"
            f" cannot open {self.rdvctl.directory}/audit: not a directory\n",
        )
        self.assertFalse(self.rdvctl.document(["device", "show", "rpi1"])["enabled"])
