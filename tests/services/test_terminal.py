"""The operator's terminal, and how it comes to this machine."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.services.terminal import ssh_connection

HERE = "192.168.38.226 50000 192.168.38.225 22"


class TerminalTests(SynchronousTestCase):
    """A process below sudo, a shell and sshd."""

    def setUp(self) -> None:
        self.processes = Path(self.mktemp())
        self.process(1, 0)
        self.process(20, 1)
        self.process(30, 20, f"HOME=/home/someone\0SSH_CONNECTION={HERE}\0")
        self.process(40, 30)
        self.process(50, 40)

    def process(self, pid: int, parent: int, environment: str = "PATH=/bin\0") -> None:
        """One process, as the kernel tells of it."""
        (self.processes / str(pid)).mkdir(parents=True)
        (self.processes / str(pid) / "status").write_text(f"Name:\tsomething\nPPid:\t{parent}\n")
        (self.processes / str(pid) / "environ").write_bytes(environment.encode() + b"BROKEN=\xff\0")

    def connection(self, pid: int, **environment: str) -> str | None:
        """What a process finds out."""
        return ssh_connection(environment, pid, self.processes)

    def test_told(self) -> None:
        """What the process itself was told counts first."""
        self.assertEqual(self.connection(50, SSH_CONNECTION="a 1 b 2"), "a 1 b 2")

    def test_below_sudo(self) -> None:
        """What sudo kept from the process, its ancestors tell."""
        self.assertEqual(self.connection(50), HERE)

    def test_on_the_spot(self) -> None:
        """Nobody who sits at the machine itself comes over the network; nor does a process without a past."""
        self.assertIsNone(self.connection(20))
        self.assertIsNone(self.connection(1))
        self.assertIsNone(self.connection(99))

    def test_circle(self) -> None:
        """Ancestors without end are not followed for ever."""
        self.process(60, 60)
        self.assertIsNone(self.connection(60))

    def test_real(self) -> None:
        """The real machine is asked where nothing else is given."""
        self.assertIn(type(ssh_connection()), (str, type(None)))
        self.assertEqual(ssh_connection({"SSH_CONNECTION": HERE}), HERE)
