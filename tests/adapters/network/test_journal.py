"""The journal: on disk before the first change, whole or absent, and of this boot only."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from ipaddress import IPv4Interface
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.network.journal import Entry, Journal, this_place
from rdvtwisted.errors import InvalidValue, NetworkError, StateDirectoryError
from rdvtwisted.plan import Address, LinkUp, Plan, Sysctl

ENTRY = Entry(
    Plan(
        "rpi1100",
        (
            Address("rdv-t", IPv4Interface("10.0.0.1/30")),
            LinkUp("rdv-t", 1400),
            Sysctl("net/ipv4/conf/eth0/forwarding", "1"),
        ),
    ),
    (False, [0, 1500], "0"),
)

#: Takes the lock that its arguments name, says so, and waits to be killed.
HOLDER = """
import sys
from pathlib import Path
from rdvtwisted.adapters.network.journal import Journal
Journal(Path(sys.argv[1])).lock(sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


class JournalTests(SynchronousTestCase):
    """What is written is what a later process reads."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "deep"
        self.journal = self.opened("boot-1 4:1")

    def opened(self, place: str | None = None) -> Journal:
        """A journal in the test's directory."""
        journal = Journal(self.directory, place)
        self.addCleanup(journal.close)
        return journal

    def test_read_back(self) -> None:
        """A later process reads what an earlier one wrote, until it is removed."""
        self.journal.lock("rpi1100")
        self.assertIsNone(self.journal.read("rpi1100"))
        self.journal.write(ENTRY)
        self.assertEqual(self.opened("boot-1 4:1").read("rpi1100"), ENTRY)
        self.journal.remove("rpi1100")
        self.assertIsNone(self.opened("boot-1 4:1").read("rpi1100"))
        self.journal.remove("rpi1100")

    def test_other_place(self) -> None:
        """A journal of another boot or network namespace describes nothing any more."""
        self.journal.lock("rpi1100")
        self.journal.write(ENTRY)
        self.assertIsNone(self.opened("boot-2 4:1").read("rpi1100"))
        self.assertIsNone(self.opened("boot-1 4:2").read("rpi1100"))
        self.assertEqual(this_place(), this_place())

    def test_private(self) -> None:
        """Nobody else may look into the directory or its files."""
        self.journal.lock("rpi1100")
        self.journal.write(ENTRY)
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        self.assertEqual({stat.S_IMODE(path.stat().st_mode) for path in self.directory.iterdir()}, {0o600})

    def test_on_disk_before_its_name(self) -> None:
        """The journal's bytes are on disk before it takes the name by which it is found, and the name after that."""
        self.journal.lock("rpi1100")
        calls: list[str] = []
        fsync, replace = os.fsync, os.replace

        def noted_fsync(descriptor: int) -> None:
            kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            calls.append(f"fsync {kind} {os.fstat(descriptor).st_size > 0}")
            fsync(descriptor)

        def noted_replace(source: Path, target: Path) -> None:
            calls.append(f"replace {target.name}")
            replace(source, target)

        self.patch(os, "fsync", noted_fsync)
        self.patch(os, "replace", noted_replace)
        self.journal.write(ENTRY)
        self.assertEqual(calls, ["fsync file True", "replace rpi1100.json", "fsync directory True"])

    def test_half_a_draft_is_nothing(self) -> None:
        """A process killed while it writes leaves a draft, wherever it got to: the journal is what it was."""
        self.journal.lock("rpi1100")
        self.journal.write(ENTRY)
        whole = (self.directory / "rpi1100.json").read_bytes()
        self.journal.remove("rpi1100")
        for length in range(0, len(whole) + 1, 7):
            (self.directory / "rpi1100.draft").write_bytes(whole[:length])
            self.assertIsNone(self.journal.read("rpi1100"))
        self.journal.write(ENTRY)
        self.assertEqual(self.journal.read("rpi1100"), ENTRY)
        (self.directory / "rpi1100.tunnel.draft").write_bytes(whole)
        self.assertEqual(self.journal.owners("rpi1100"), ["rpi1100.tunnel"])
        for owner in ("rpi1100", "rpi1100.tunnel"):
            self.journal.remove(owner)
        self.assertEqual([path.suffix for path in self.directory.iterdir()], [".lock"])

    def test_damaged(self) -> None:
        """A journal that something else damaged is refused in one line that names the file, whatever is left of it."""
        self.journal.lock("rpi1100")
        self.journal.write(ENTRY)
        path = self.directory / "rpi1100.json"
        whole = path.read_bytes()
        record = json.loads(whole)
        damaged = [whole[:length] for length in range(len(whole))]
        damaged += [json.dumps({**record, "version": 2}).encode(), json.dumps({**record, "steps": [1]}).encode()]
        damaged += [b"[]", b"{}", b"\xff", json.dumps({**record, "steps": [[{"kind": "X"}, None]]}).encode()]
        for text in damaged:
            path.write_bytes(text)
            error = self.assertRaises(StateDirectoryError, self.journal.read, "rpi1100")
            self.assertIn(str(path), str(error))
            self.assertNotIn("\n", str(error))

    @settings(derandomize=True, max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=100)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["Address", "LinkUp"]),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["kind", "interface", "address", "mtu"]) | st.text(max_size=5), inner)
            ),
        ).map(lambda steps: json.dumps({"version": 1, "place": "boot-1 4:1", "steps": steps}).encode())
        | st.just(b"[" * 100_000)
    )
    def test_any(self, text: bytes) -> None:
        """Whatever stands in a journal, it is one or is refused in one line."""
        self.journal.lock("rpi1100")
        (self.directory / "rpi1100.json").write_bytes(text)
        try:
            self.journal.read("rpi1100")
        except StateDirectoryError as error:
            self.assertNotIn("\n", str(error))

    def test_owner_stays_in_directory(self) -> None:
        """An owner that is no file name reaches no file."""
        for call in (self.journal.lock, self.journal.read, self.journal.remove):
            self.assertRaises(InvalidValue, call, "../passwd")

    def test_lock(self) -> None:
        """An owner has one process at a time; the lock is taken twice by the same, and given back at close."""
        other = self.opened()
        self.journal.lock("rpi1100")
        self.journal.lock("rpi1100")
        self.assertRaises(NetworkError, other.lock, "rpi1100")
        other.lock("another")
        self.journal.close()
        other.lock("rpi1100")

    def test_lock_of_the_dead(self) -> None:
        """A process that is killed holds its lock no longer."""
        command = [sys.executable, "-c", HOLDER, str(self.directory.resolve()), "rpi1100"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        root = Path(__file__).parents[3]
        with subprocess.Popen(command, cwd=root, **pipes) as holder:  # type: ignore[call-overload]
            try:
                self.assertEqual(holder.stdout.readline(), b"locked\n")
                self.assertRaises(NetworkError, self.journal.lock, "rpi1100")
            finally:
                holder.kill()
                holder.wait()
        self.journal.lock("rpi1100")
