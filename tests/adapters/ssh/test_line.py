"""A device's line at the server: how it is kept, and how it ends; and a server that ends."""

from __future__ import annotations

from twisted.conch.ssh import connection as numbers
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.eventlog import EventLog
from rdvtwisted.adapters.ssh.server import FAREWELLS
from rdvtwisted.adapters.ssh.signatures import PrivateKey
from rdvtwisted.adapters.ssh.wire import boolean, string
from rdvtwisted.errors import ConnectionLost, FellSilent, LanAddressMissing
from rdvtwisted.events import EntryRefused
from rdvtwisted.ration import INTERVAL_SECONDS
from rdvtwisted.shell.shell import Action, Shell
from tests.adapters.ssh.world import ED25519, RSA, STRANGER, Listener, MemoryReception, World


class LivenessTests(World):
    """Both ends look after the connection."""

    def test_idle(self) -> None:
        """On an idle connection the server learns the round trip, and that the device lives; nobody is dropped."""
        link = self.log_in()
        self.assertEqual(self.until(lambda: bool(self.desk.round_trips)), 0, "it is measured at once")
        passed = self.until(lambda: len(self.desk.round_trips) == 2 or link.round_trip is not None)
        self.assertEqual(passed, 45)
        self.until(lambda: len(self.desk.round_trips) >= 3 and self.desk.heard_count >= 3)
        self.assertFalse(self.server_end.closing)

    def test_traffic(self) -> None:
        """What an idle connection costs a day, headers of TCP and IP included, is far below a megabyte."""
        self.log_in()
        sent = 0
        pump = self.pumps[-1]
        for io in (pump.clientIO, pump.serverIO):
            before = io.writeSequence

            def count(data: list[bytes], before: object = before) -> None:
                nonlocal sent
                # 52 bytes of headers for the segment, and as many for its acknowledgement.
                sent += sum(map(len, data)) + 104
                before(data)  # type: ignore[operator]

            io.writeSequence = count  # type: ignore[method-assign, assignment]
        self.until(lambda: self.clock.seconds() >= 86400, 15, 100_000)
        self.assertLess(sent, 700_000)
        self.assertGreater(sent, 100_000)

    def test_device_gone(self) -> None:
        """A device whose connection has silently died is noticed within 60 s."""
        self.log_in()
        self.server_end.heard = lambda: None  # type: ignore[method-assign]
        self.client_end.dataReceived = lambda data: None  # type: ignore[method-assign]
        self.client_end.transport.write = lambda data: None
        self.client_end.transport.writeSequence = lambda data: None
        passed = self.until(lambda: bool(self.desk.left))
        self.assertEqual(passed, 60)
        self.assertEqual(self.desk.left, ["nothing was heard of it for 60 s"])
        self.assertTrue(self.server_end.transport.aborted)

    def test_doubted(self) -> None:
        """A device that is asked because there is a doubt stays if it answers; if not, it is noticed in 8 s."""
        self.log_in()
        self.until(lambda: bool(self.desk.round_trips))
        for _ in range(3):
            self.desk.line.probe()
        self.until(lambda: len(self.desk.round_trips) == 2)
        self.clock.advance(30)
        self.assertFalse(self.server_end.closing)
        self.client_end.dataReceived = lambda data: None  # type: ignore[method-assign]
        self.client_end.transport.writeSequence = lambda data: None
        self.desk.line.probe()
        self.clock.advance(5)
        self.desk.line.probe()
        passed = self.until(lambda: bool(self.desk.left))
        self.assertEqual((passed, self.desk.left), (3, ["nothing was heard of it for 38 s"]))
        self.desk.line.probe()

    def test_server_gone(self) -> None:
        """So is a server, by the device."""
        link = self.successResultOf(self.begin())
        self.server_end.dataReceived = lambda data: None  # type: ignore[method-assign]
        self.server_end.transport.writeSequence = lambda data: None
        passed = self.until(lambda: self.client_end.closing)
        self.assertEqual(passed, 60)
        self.failureResultOf(link.closed, FellSilent)

    def test_heard_seldom(self) -> None:
        """A busy device's desk is told that it lives at most once a second."""
        self.log_in()
        self.clock.advance(10)
        before = self.desk.heard_count
        for _ in range(50):
            self.client_end.send(2, string(b""))
            self.pump()
        self.assertEqual(self.desk.heard_count, before + 1)


class EndTests(World):
    """How a line ends."""

    def test_device_says_goodbye(self) -> None:
        """A device that takes leave has left, once, for the reason that it gave; nothing is left running."""
        link = self.log_in()
        self.result(link.open_shell(Listener()))
        self.result(link.disconnect("update"))
        self.assertEqual(self.desk.left, ["update"])
        self.assertEqual((self.clock.getDelayedCalls(), self.server.lines), ([], set()))

    def test_connection_breaks(self) -> None:
        """So has one whose connection breaks; what it waited for is given up."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"wait_master_connection\n")
        self.pump()
        _, answer = self.desk.requests[0]
        self.pumps[-1].clientIO.loseConnection()
        self.pump()
        self.assertEqual(self.desk.left, ["the connection was lost"])
        self.assertEqual(listener.end, (None, "the connection was lost"))
        self.assertTrue(answer.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_server_sends_away(self) -> None:
        """A device that is sent away is told why, and has left for that reason, once."""
        link = self.log_in()
        listener = Listener()
        self.result(link.open_shell(listener))
        self.desk.line.disconnect("another connection has come")
        self.desk.line.disconnect("again")
        self.pump()
        self.assertEqual(self.desk.left, ["another connection has come"])
        self.assertEqual(listener.end, (None, "another connection has come"))
        self.failureResultOf(link.open_shell(Listener()), ConnectionLost)

    def test_unread_goodbye(self) -> None:
        """A device that does not read is cut off five seconds after the goodbye."""
        self.log_in()
        line = self.server_end
        line.transport.loseConnection = lambda: None
        self.desk.line.disconnect("enough")
        self.clock.advance(4.9)
        self.assertFalse(line.transport.aborted)
        self.clock.advance(0.1)
        self.assertTrue(line.transport.aborted)

    def test_fatal_error(self) -> None:
        """A shell that a refused request ends tells its status, and the device has left."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"wait_master_connection\n")
        self.pump()
        self.desk.requests[0][1].errback(LanAddressMissing())
        self.pump()
        self.assertEqual(listener.end, (1, ""))
        self.assertIn(b"LanIpShouldBeProvided", listener.err)
        self.assertEqual(self.desk.left, ["its shell ended with status 1"])

    def test_faulty_answer(self) -> None:
        """A fault of ours is in our log; the device reads one line without a traceback."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"get_tunnel_mode\nget_role\n")
        self.pump()
        self.desk.requests[0][1].errback(ZeroDivisionError("secret"))
        self.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        said = listener.out + listener.err
        self.assertIn(b"its log says why", said)
        self.assertNotIn(b"secret", said)
        self.assertIn(b"onsite", said)

    def test_faulty_shell(self) -> None:
        """A shell that breaks ends alone, with status 255."""

        class Faulty(Shell):
            def receive(self, data: bytes) -> list[Action]:
                raise ZeroDivisionError

        self.server.open_shell = lambda device, terminal: Faulty(device.id, device.role, terminal=terminal)
        listener = Listener()
        shell = self.result(self.log_in().open_shell(listener))
        shell.write(b"x\n")
        self.pump()
        self.assertEqual(listener.end, (255, ""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_close(self) -> None:
        """A server that ends tells everybody, strangers too, and knows when all are gone."""
        self.successResultOf(self.server.close("the server stops"))
        self.log_in()
        self.puppet()
        closed = self.server.close("the server stops")
        self.assertNoResult(closed)
        self.pump()
        self.successResultOf(closed)
        self.assertEqual(self.desk.left, ["the server stops"])


class DoorTests(World):
    """Several doors of one server."""

    def test_names(self) -> None:
        """A line knows by which door it came, and from where."""
        for door in ("ssh", "tls"):
            self.log_in(door=door)
            self.assertEqual((self.desk.line.door, self.desk.line.address), (door, "192.0.2.7:4711"))
            self.assertTrue(verifyObject(IPushProducer, self.server_end))

    def test_common_limits(self) -> None:
        """The limits on strangers are for all doors together."""
        for door in ("ssh", "tls") * 4:
            self.assertIsNotNone(self.server.factory(door).buildProtocol(self.peer))
        for door in ("ssh", "tls"):
            self.assertIsNone(self.server.factory(door).buildProtocol(self.peer))

    def test_refusals_name_the_door(self) -> None:
        """An operator sees at which door somebody was refused."""
        self.failureResultOf(self.begin(STRANGER, door="tls"))
        self.assertEqual([refusal[0] for refusal in self.reception.refusals], ["tls"])

    def test_factory(self) -> None:
        """A door's factory makes its connections without being started, as behind another protocol."""
        factory = self.server.factory("tls")
        self.assertFalse(factory.noisy)
        self.assertIsNotNone(factory.buildProtocol(UNIXAddress("/nowhere")))
        self.assertIsNotNone(factory.buildProtocol(None))


class LogTests(World):
    """What an operator reads."""

    def record(self) -> list[str]:
        """Lines of level info and above, from now on."""
        from twisted.logger import formatEvent

        lines: list[str] = []

        def observe(event: dict[str, object]) -> None:
            if event["log_level"] >= LogLevel.info:  # type: ignore[operator]
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def test_quiet(self) -> None:
        """A device that comes, works and goes, is no line from here; the server's events tell of it."""
        lines = self.record()
        link = self.log_in()
        shell = self.result(link.open_shell(Listener()))
        shell.write(b"get_role\n")
        self.server_end.rekey()
        self.pump()
        self.result(link.disconnect())
        self.assertEqual(lines, ["rdv.example.org is from now on known by its key " + str(link.server_key)])

    def test_refusal(self) -> None:
        """Somebody who is refused is one line, the reception's; what he says of himself cannot look like more."""
        self.patch(MemoryReception, "refused", lambda _, *facts: EventLog().emit(EntryRefused(*facts)))
        lines = self.record()
        self.hosts.check("rdv.example.org", 22, self.server.host_keys.public[0])
        lines.clear()
        self.failureResultOf(self.begin(STRANGER, account="x\n{oops}"))
        self.assertEqual(
            lines, ["refused at ssh: 192.0.2.7:4711, account x\\n{oops}: the account does not have that key"]
        )

    def test_misbehaviour(self) -> None:
        """A device that does what it must not is one line."""
        self.log_in()
        lines = self.record()
        self.client_end.send(numbers.MSG_CHANNEL_REQUEST, b"\0\0\0\7" + string(b"x") + boolean(True))
        self.pump()
        self.assertEqual(lines, ["SSH connection with 192.0.2.7:4711 is ended: it named a channel that does not exist"])

    def test_misbehaviour_without_end(self) -> None:
        """One that comes back to do so again and again is few lines, and then their number; others have their own."""

        def misbehave(times: int, key: PrivateKey = ED25519, account: str = "rpi1100") -> list[str]:
            lines = self.record()
            for _ in range(times):
                self.log_in(key, account)
                self.client_end.send(numbers.MSG_CHANNEL_REQUEST, b"\0\0\0\7" + string(b"x") + boolean(True))
                self.pump()
            return [line for line in lines if "ended" in line]

        self.assertEqual(len(misbehave(40)), FAREWELLS)
        self.assertEqual(len(misbehave(1, RSA, "rpi0900")), 1)
        self.clock.advance(INTERVAL_SECONDS)
        counted, told = misbehave(1)
        self.assertEqual(counted, f"{40 - FAREWELLS} more SSH connections of rpi1100 were ended")
        self.assertEqual(told, "SSH connection with 192.0.2.7:4711 is ended: it named a channel that does not exist")
