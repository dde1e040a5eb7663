"""A device that gets nowhere tries other ways, and says so."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue
from rdvtwisted.services.device import DeviceSettings, server_addresses
from rdvtwisted.services.ladder import ACCOUNT, CONNECTION, MACHINE, RESTART_SECONDS, SERVICE, SWITCH_SECONDS, Ladder
from rdvtwisted.values import Role


def settings(servers: str, tls: bool = False) -> DeviceSettings:
    """Those of a device with such servers."""
    (host, port), *others = server_addresses(servers)
    place = Path("/var/lib/x")
    return DeviceSettings(
        role=Role.ONSITE,
        account="rpi1",
        host=host,
        port=port or (443 if tls else 22),
        tls=tls,
        state=place,
        identity=place / "identity",
        known_hosts=place / "known_hosts",
        known_peers=place / "known_peers",
        authority=place / "server-ca.pem",
        others=tuple(others),
        port_named=port is not None,
    )


class WaysTests(SynchronousTestCase):
    """Which ways there are."""

    def ways(self, servers: str, tls: bool = False) -> list[str]:
        """In words."""
        return [way.place for way in settings(servers, tls).ways()]

    def test_doors(self) -> None:
        """A server has two doors, the operator's first; one whose port is named has that one only."""
        self.assertEqual(self.ways("a"), ["SSH to a:22", "TLS to a:443"])
        self.assertEqual(self.ways("a", tls=True), ["TLS to a:443", "SSH to a:22"])
        self.assertEqual(self.ways("a:2222"), ["SSH to a:2222"])

    def test_servers(self) -> None:
        """All servers come before any of their other doors' turn."""
        self.assertEqual(self.ways("a,b:2222, [::1]"), [
            "SSH to a:22", "SSH to b:2222", "SSH to [::1]:22", "TLS to a:443", "TLS to [::1]:443",
        ])  # fmt: skip

    def test_trust(self) -> None:
        """The other door of a server is held to the same keys; another server has an authority of its own."""
        ssh, other, tls, _ = settings("a,b").ways()
        self.assertEqual([(way.host, way.pinned_port) for way in (ssh, tls, other)], [("a", 22), ("a", 22), ("b", 22)])
        self.assertEqual(ssh.authority, tls.authority)
        self.assertEqual(other.authority.name, "server-ca-b.pem")

    def test_addresses(self) -> None:
        """Servers stand with commas between them; what is none is named."""
        self.assertEqual(server_addresses("a, b:22,[::1]:3"), (("a", None), ("b", 22), ("::1", 3)))
        for text in ("", "a,,b", "a,b:0"):
            self.assertRaises(InvalidValue, server_addresses, text)


class LadderTests(SynchronousTestCase):
    """Which way is used."""

    def setUp(self) -> None:
        self.clock, self.restarts = Clock(), 0
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)
        self.ladder = self.made("a")

    def note(self, event: LogEvent) -> None:
        """What it says."""
        if event["log_namespace"].endswith("Ladder"):
            self.lines.append(formatEvent(event))

    def made(self, servers: str) -> Ladder:
        """One to such servers."""
        return Ladder(settings(servers).ways(), self.clock, self.restart)

    def restart(self) -> None:
        """A new process is wanted."""
        self.restarts += 1

    def fail(self, seconds: float, stage: str = CONNECTION, pause: float = 4.0) -> list[str]:
        """Fail for so long; which ways were used meanwhile, each once."""
        used: dict[str, None] = {}
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            used[self.ladder.way.place] = None
            self.ladder.failed(stage)
            self.clock.advance(pause)
        return list(used)

    def test_short(self) -> None:
        """While a server is restarted, nothing changes."""
        self.assertEqual(self.fail(SWITCH_SECONDS - 1, pause=0.5), ["SSH to a:22"])
        self.assertEqual(self.lines, [])

    def test_other_door(self) -> None:
        """When the connection fails again and again, the other door is tried, then the first one again; it is said."""
        self.assertEqual(self.fail(60.0), ["SSH to a:22", "TLS to a:443"])
        first = "The connection fails again and again by SSH to a:22: from now on by TLS to a:443"
        self.assertEqual(self.lines[0], first)
        self.assertIn("by TLS to a:443: from now on by SSH to a:22", self.lines[1])
        self.assertEqual(self.restarts, 0)

    def test_slow(self) -> None:
        """One that hangs each time is left after two of its tries."""
        self.fail(40.0, pause=20.0)
        self.assertEqual(self.ladder.way.place, "TLS to a:443")

    def test_other_server(self) -> None:
        """With several servers, each has its turn, then their other doors."""
        self.ladder = self.made("a,b")
        self.assertEqual(self.fail(90.0), ["SSH to a:22", "SSH to b:22", "TLS to a:443", "TLS to b:443"])

    def test_one_way(self) -> None:
        """With one way only there is nothing to say."""
        self.ladder = self.made("a:22")
        self.fail(90.0)
        self.assertEqual(self.lines, [])

    def test_stages(self) -> None:
        """It is the same stage that must fail: one that gets further each time gets more time."""
        for number in range(20):
            self.ladder.failed((CONNECTION, SERVICE)[number % 2])
            self.clock.advance(4.0)
        self.assertEqual(self.ladder.way.place, "SSH to a:22")

    def test_machine(self) -> None:
        """What fails on this machine itself is not for another server to mend."""
        self.assertEqual(self.fail(300.0, MACHINE), ["SSH to a:22"])
        self.assertEqual(self.lines, [])

    def test_account(self) -> None:
        """A server that does not know the device says so at either door; another server may know it."""
        self.assertEqual(self.fail(300.0, ACCOUNT), ["SSH to a:22"])
        self.assertEqual(self.lines, [])
        self.ladder = self.made("a,b")
        self.assertEqual(self.fail(90.0, ACCOUNT), ["SSH to a:22", "SSH to b:22"])
        self.assertIn("The login fails again and again by SSH to a:22: from now on by SSH to b:22", self.lines)

    def test_first_again(self) -> None:
        """A way that has worked is used until it fails; then the operator's choice comes first again."""
        self.fail(20.0)
        self.assertEqual(self.ladder.way.place, "TLS to a:443")
        self.ladder.worked()
        self.assertEqual(self.ladder.way.place, "TLS to a:443")
        self.ladder.failed(CONNECTION)
        self.assertEqual(self.ladder.way.place, "SSH to a:22")

    def test_restart(self) -> None:
        """When nothing has worked for half an hour, the process is replaced, and says so; not sooner."""
        for stage in (CONNECTION, MACHINE):
            self.restarts, self.lines = 0, []
            self.ladder.worked()
            self.fail(RESTART_SECONDS - 10, stage)
            self.assertEqual(self.restarts, 0)
            self.fail(20.0, stage)
            self.assertEqual(self.restarts, 1)
            self.assertIn(
                f"Nothing has worked for 30 minutes, last of all {stage}: this program starts itself anew", self.lines
            )

    def test_worked(self) -> None:
        """What works now and then is no reason for it."""
        for _ in range(10):
            self.fail(RESTART_SECONDS / 2)
            self.ladder.worked()
        self.assertEqual(self.restarts, 0)
