"""What a device that is logged in is refused is in the server's log."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import fail
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs, formatEvent

from rdvtwisted.adapters.ssh.denials import LINES_PER_DEVICE
from rdvtwisted.adapters.ssh.wire import string
from rdvtwisted.ration import INTERVAL_SECONDS
from tests.adapters.ssh.test_refusals import Probe
from tests.adapters.ssh.world import RSA, Recorder, World


class DenialsTests(World):
    """Has a device that is logged in."""

    def setUp(self) -> None:
        super().setUp()
        self.link = self.log_in()

    def lines(self, act: Callable[[], object]) -> list[str]:
        """What the log says of refusals while C{act} is done."""
        with capturedLogs() as events:
            act()
            self.pump()
        return [line for line in (formatEvent(event) for event in events) if "was refused" in line]

    def forward(self, host: str = "10.0.0.1", port: int = 80, times: int = 1) -> None:
        """Try to reach something."""
        for _ in range(times):
            self.link.endpoint(host, port).connect(Factory.forProtocol(Recorder)).addErrback(lambda failure: None)

    def open(self, kind: bytes, data: bytes = b"") -> Probe:
        """Ask for a channel."""
        probe = Probe(kind)
        self.client_end.channels.open(probe, data)
        self.pump()
        return probe

    def test_forward(self) -> None:
        """A refused forward is in the log: who, whereto, and why not."""
        self.assertEqual(
            self.lines(self.forward),
            ["rpi1100 was refused a forward to '10.0.0.1' port 80: the registration does not own such a target"],
        )

    def test_channels(self) -> None:
        """So is a channel of a kind that does not exist, or of which there are enough."""
        (line,) = self.lines(lambda: self.open(b"x11", bytes(20)))
        self.assertEqual(line, "rpi1100 was refused a channel of the kind 'x11': there are no such channels here")
        (line,) = self.lines(lambda: [self.open(b"session") for _ in range(5)])
        self.assertEqual(line, "rpi1100 was refused a channel of the kind 'session': there are 4 such channels already")

    def test_requests(self) -> None:
        """So is a request, of a channel or of the connection."""
        probe = self.open(b"session")
        (line,) = self.lines(lambda: probe.request(b"exec", string(b"reboot"), want_reply=True))
        self.assertEqual(line, "rpi1100 was refused the request 'exec'")
        (line,) = self.lines(lambda: self.client_end.channels.ask(b"tcpip-forward", lambda granted: None))
        self.assertEqual(line, "rpi1100 was refused the request 'tcpip-forward'")

    def test_routine(self) -> None:
        """What each stock client asks for, and does not need, makes no line."""
        probe = self.open(b"session")

        def ask() -> None:
            probe.request(b"env", string(b"LANG") + string(b"C"), want_reply=True)
            probe.request(b"shell", b"", want_reply=True)
            self.client_end.channels.ask(b"keepalive@libssh.org", lambda granted: None)

        self.assertEqual(self.lines(ask), [])

    def test_fault_of_ours(self) -> None:
        """What goes wrong in the server is no refusal, and is logged as what it is."""
        self.reception.forwards["10.0.0.1", 80] = lambda: fail(ZeroDivisionError())
        self.assertEqual(self.lines(self.forward), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_flood(self) -> None:
        """A device that is refused things all the time makes few lines, also if it comes back; others have theirs."""
        first = self.lines(lambda: self.forward(times=100))
        self.link.disconnect()
        self.pump()
        self.link = self.log_in()
        self.assertEqual(len(first), LINES_PER_DEVICE)
        self.assertEqual(self.lines(lambda: self.forward(times=100)), [])
        self.link = self.log_in(RSA, "rpi0900")
        self.assertIn("rpi0900 was refused a forward", self.lines(self.forward)[0])
        self.link = self.log_in()
        self.clock.advance(INTERVAL_SECONDS)
        told, again = self.lines(self.forward)
        self.assertEqual(told, f"rpi1100 was refused {200 - LINES_PER_DEVICE} more things before")
        self.assertEqual(again, first[0])

    def test_forged_line(self) -> None:
        """What a device names is data: no line break, no colour, nothing to format, and not long."""
        lines = self.lines(lambda: self.open(b"x\n{device}\x1b[31m" + bytes(5000)))
        lines += self.lines(lambda: self.forward("h\r\n{port}\u202e" * 500))
        self.assertEqual(len(lines), 2)
        for line in lines:
            self.assertTrue(line.isprintable() and line.isascii(), line)
            self.assertLess(len(line), 500)
        self.assertIn(r"'x\n{device}\x1b[31m", lines[0])
