"""What a device tells its operator: numbers for people, and a file of records for programs."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import StateDirectoryError
from rdvtwisted.services.console import Console, amount, carriage, carried, duration, established, flow
from rdvtwisted.testing.tunnels import identity
from rdvtwisted.values import Mode, Role, TunnelParameters, TunnelReport

KEY = identity("rpi1100").public
PARAMETERS = TunnelParameters(
    session="s1",
    backend="tls",
    mode=Mode.L3,
    join="relay",
    peer="rpi1100",
    peer_key=KEY,
    peer_role=Role.ONSITE,
    address=IPv4Interface("192.168.128.2/30"),
    peer_address=IPv4Address("192.168.128.1"),
    mtu=1500,
    door_port=443,
    ticket="not for any record",
)
REPORT = TunnelReport("tls", "X25519MLKEM768", "TLS_AES_256_GCM_SHA384", 1234, 5_000_000, 12, 4000, 0.0123456, KEY)


class NumbersTests(SynchronousTestCase):
    """Numbers as people read them."""

    def test_amounts(self) -> None:
        """Bytes come with the unit that keeps the number short."""
        for count, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (4242, "4.2 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_300_000, "1.3 MB"),
            (7_000_000_000, "7.0 GB"),
            (2_500_000_000_000, "2.5 TB"),
            (2_500_000_000_000_000, "2500.0 TB"),
        ):
            self.assertEqual(amount(count), text)

    def test_durations(self) -> None:
        """Times come in the two units that matter."""
        for seconds, text in (
            (0, "0 s"),
            (42.9, "42 s"),
            (60, "1 min 0 s"),
            (185, "3 min 5 s"),
            (3600, "1 h 0 min"),
            (7805, "2 h 10 min"),
            (360_000, "100 h 0 min"),
        ):
            self.assertEqual(duration(seconds), text)

    def test_flow(self) -> None:
        """What a tunnel has carried is one line, with the round trip if it is known."""
        self.assertEqual(flow(REPORT), "sent 1.2 kB, received 5.0 MB; round trip 12.3 ms")
        self.assertEqual(flow(TunnelReport("tls")), "sent 0 B, received 0 B")


class CarriageTests(SynchronousTestCase):
    """Who can read a session."""

    def test_end_to_end(self) -> None:
        """It is called end to end if the other device has proved its key, and not because the server calls it so."""
        self.assertTrue(carriage(PARAMETERS, REPORT).startswith("End to end by tls, "))
        for parameters, report in (
            (PARAMETERS, evolve(REPORT, proved=None)),
            (PARAMETERS, evolve(REPORT, proved=identity("other").public)),
            (evolve(PARAMETERS, join="glue"), REPORT),
        ):
            self.assertTrue(
                carriage(parameters, report).startswith("Joined by the server, which can read this session")
            )


class ConsoleTests(SynchronousTestCase):
    """The file of records."""

    def setUp(self) -> None:
        """A console with a file."""
        self.path = Path(self.mktemp())
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.console = Console(self.said.append, self.complaints.append, self.path, lambda: 1700000000.12345)

    def records(self) -> list[dict[str, object]]:
        """What stands in the file."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def test_up(self) -> None:
        """The record of a session that is up has all that is known of it, and no secret."""
        self.console.record("up", **established(PARAMETERS, REPORT))
        self.assertEqual(
            self.records(),
            [
                {
                    "event": "up",
                    "time": 1700000000.123,
                    "session": "s1",
                    "peer": "rpi1100",
                    "peer_key": KEY.fingerprint,
                    "backend": "tls",
                    "mode": "L3",
                    "join": "relay",
                    "address": "192.168.128.2/30",
                    "kex": "X25519MLKEM768",
                    "cipher": "TLS_AES_256_GCM_SHA384",
                    "rtt_ms": 12.346,
                }
            ],
        )
        self.assertIsNone(established(PARAMETERS, TunnelReport("tls"))["rtt_ms"])

    def test_ended(self) -> None:
        """The record of an end has what was carried."""
        self.console.record("ended", reason="operator", **carried(REPORT))
        self.assertEqual(
            self.records(),
            [
                {
                    "event": "ended",
                    "time": 1700000000.123,
                    "reason": "operator",
                    "sent_bytes": 1234,
                    "received_bytes": 5_000_000,
                    "sent_packets": 12,
                    "received_packets": 4000,
                }
            ],
        )

    def test_appends(self) -> None:
        """Records are appended to what is there, each its own line, whatever is in them."""
        self.path.write_text('{"event": "old"}\n')
        self.console.check()
        self.console.record("failed", error="two\nlines")
        self.assertEqual([record["event"] for record in self.records()], ["old", "failed"])
        self.assertEqual(self.records()[1]["error"], "two\nlines")

    def test_check(self) -> None:
        """A file that cannot be written is refused before anything begins."""
        console = Console(self.said.append, self.complaints.append, self.path / "gone" / "report")
        error = self.assertRaises(StateDirectoryError, console.check)
        self.assertEqual(str(error), f"cannot write the report {console.report}: No such file or directory")

    def test_lost(self) -> None:
        """A file that cannot be written any more is complained of once, and stops nothing."""
        self.path.mkdir()
        self.console.record("online")
        self.console.record("ended")
        self.assertEqual(self.complaints, [f"cannot write the report {self.path}: Is a directory"])

    def test_none(self) -> None:
        """Nobody has to have a file."""
        console = Console(self.said.append, self.complaints.append)
        console.check()
        console.record("online")
        self.assertEqual((self.said, self.complaints), ([], []))
