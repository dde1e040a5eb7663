"""What the process that faces the Internet may do, which is nothing; and what there is without its other one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rdvtwisted.adapters.network.gluer import KEPT, LENT
from rdvtwisted.adapters.network.privileges import held
from tests.lab import namespaces
from tests.lab.deployment import END_SECONDS, START_SECONDS
from tests.lab.processes import eventually
from tests.lab.programs import PROGRAMS, obstacles
from tests.lab.scene import BACK_SECONDS
from tests.lab.traffic import TrafficTestCase

SUCCESSOR_SECONDS = 20.0
"""How long it may take until there is another process that makes namespaces."""


def parent(pid: int) -> int:
    """The process that a process was started by."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> dict[int, str]:
    """The processes that a process has started and that run: the command line by number."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and parent(int(entry)) == pid:
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:  # a zombie has none
                    found[int(entry)] = command
        except OSError:
            continue
    return found


def namespace(pid: int, kind: str) -> int:
    """The namespace of a kind that a process is in."""
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


class ConfinementTests(TrafficTestCase):
    """The server, started by root as usual."""

    skip = obstacles([*PROGRAMS, "ping", "vtund"])

    @property
    def server(self) -> int:
        """Its process."""
        assert self.deployment.server is not None
        return self.deployment.server.pid

    def gluer(self) -> int:
        """The process that makes namespaces for it; the only one that it has started."""
        [(pid, command)] = children(self.server).items()
        self.assertIn("rdvtwisted.adapters.network.gluer", command)
        return pid

    def successor(self, predecessor: int) -> None:
        """Wait until there is another one, and the server uses it."""

        def ready() -> bool:
            another = children(self.server).keys() - {predecessor}
            return bool(another) and self.deployment.ask("status")["glue"] == "available"

        self.eventually(ready, SUCCESSOR_SECONDS, "another process that makes namespaces")

    def glued(self) -> None:
        """Have a session whose tunnels end at the server."""
        with self.session("--backend", "vtun") as record:
            self.assertEqual(record["join"], "glue")
            self.eventually(self.reaches, BACK_SECONDS, "the PC to reach the LAN")

    def test_no_capability(self) -> None:
        """While a session ends at it, no thread of the server holds a capability, or could ever get one again."""
        with self.session("--backend", "vtun"):
            self.assertTrue(self.reaches())
            threads = os.listdir(f"/proc/{self.server}/task")
            for thread in threads:
                found = held(f"{self.server}/task/{thread}")
                sets = (found.effective, found.permitted, found.inheritable, found.bounding, found.ambient)
                self.assertEqual(sets, (frozenset(),) * 5, f"thread {thread} of {len(threads)}")
                self.assertTrue(found.no_new_privileges)

    def test_gluer(self) -> None:
        """
        The process that makes namespaces holds what it takes for that, against what it has made itself only: it is
        in no network of the machine's, and its capabilities mean nothing there.
        """
        with self.session("--backend", "vtun"):
            gluer = self.gluer()
            found = held(str(gluer))
            self.assertEqual((found.effective, found.permitted, found.bounding), (KEPT, KEPT, KEPT))
            self.assertEqual((found.ambient, found.no_new_privileges), (LENT, True))
            self.assertNotEqual(namespace(gluer, "user"), namespace(self.server, "user"))
            networks = {*namespaces.inodes(self.lab.prefix), namespace(os.getpid(), "net")}
            self.assertNotIn(namespace(gluer, "net"), networks)
        self.assertEqual(self.gluer(), gluer)
        self.assertEqual(self.scene.strangers(), [])

    def test_killed_in_relayed_session(self) -> None:
        """If it is killed, a session that is relayed does not notice; the server has another one, and says so."""
        with self.session() as record:
            self.assertEqual(record["join"], "relay")
            gluer = self.gluer()
            os.kill(gluer, signal.SIGKILL)
            self.successor(gluer)
            self.assertTrue(self.reaches())
        assert self.deployment.server is not None
        log = self.deployment.server.output()
        self.assertIn("the process that makes network namespaces has ended (status -9)", log)
        self.assertIn("There is another process that makes network namespaces", log)
        self.glued()

    def test_killed_in_glued_session(self) -> None:
        """A session that ends at the server goes on, too, until somebody ends it; nothing of it is left."""
        for mode in ("L3", "L2"):
            with self.session("--backend", "vtun", "--tunnel-mode", mode):
                gluer = self.gluer()
                os.kill(gluer, signal.SIGKILL)
                self.successor(gluer)
                if mode == "L3":
                    self.assertTrue(self.reaches())
                    self.download(1_000_000)
                self.assertEqual(len(self.scene.sessions()), 1)
        descriptors = Path(f"/proc/{self.server}/fd")
        eventually(
            lambda: not [path for path in descriptors.iterdir() if os.readlink(path) == "/dev/net/tun"],
            END_SECONDS,
            "the end of the packet devices",
        )
        self.glued()

    @contextmanager
    def without(self) -> Iterator[None]:
        """The server runs without such a process."""
        setting = {"RDV_SERVER_SESSION_GLUE": "false"}
        patched = self.patch(self.deployment, "environment", lambda host: setting if host == "server" else {})
        try:
            self.restart()
            yield
        finally:
            patched.restore()
            self.restart()

    def restart(self) -> None:
        """Stop the server and start it; the onsite comes back."""
        assert self.deployment.server is not None
        self.deployment.server.stop()
        self.deployment.start_server()
        self.eventually(self.scene.free, 2 * START_SECONDS, "the onsite to be back")

    def test_without(self) -> None:
        """
        Where there is none, sessions that would end at the server are refused in one line, the others work, and
        C{rdvctl backends} tells why.
        """
        with self.without():
            process = self.open("--backend", "vtun")
            self.assertEqual(process.wait(START_SECONDS), 1)
            self.assertIn("GlueNotAvailable: this server cannot end the tunnels of", process.output())
            with self.session():
                self.assertTrue(self.reaches())
            status = self.deployment.ask("status")
            self.assertEqual(status["glue"], "it is switched off (setting session.glue)")
            self.assertEqual(children(self.server), {})
        self.eventually(self.scene.free, BACK_SECONDS, "the onsite to be free")
        self.glued()
