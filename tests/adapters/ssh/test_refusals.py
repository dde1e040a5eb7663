"""What a device that is logged in cannot have, and what it cannot do to us."""

from __future__ import annotations

from typing import Any

from twisted.conch.ssh import connection as numbers
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory

from rdvtwisted.adapters.ssh.channel import SHELL_WINDOW, Channel
from rdvtwisted.adapters.ssh.connection import SMALLEST_PACKET
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.wire import Reader, boolean, string, uint32
from rdvtwisted.errors import ConnectionLost, RequestRefused
from tests.adapters.ssh.world import Listener, Recorder, World


class Probe(Channel):
    """A channel that asks for things, and notes what it gets."""

    def __init__(self, kind: bytes = b"session") -> None:
        super().__init__()
        self.kind = kind
        self.answers: list[bool] = []
        self.refusal: tuple[int, str] | None = None
        self.is_open = False
        self.end: str | None = None
        self.data = b""

    def opened(self) -> None:
        self.is_open = True

    def refused(self, code: int, reason: str) -> None:
        self.refusal = (code, reason)

    def answered(self, granted: bool) -> None:
        self.answers.append(granted)

    def received(self, stream: int, data: bytes) -> None:
        self.data += data
        self.credit(len(data))

    def closed(self, reason: str) -> None:
        self.end = reason


class RefusalsTestCase(World):
    """Has a device that is logged in."""

    def setUp(self) -> None:
        super().setUp()
        self.link: SSHLink = self.log_in()

    def probe(self, kind: bytes = b"session", data: bytes = b"") -> Probe:
        """Ask for a channel."""
        probe = Probe(kind)
        self.client_end.channels.open(probe, data)
        self.pump()
        return probe

    def asked(self, probe: Probe, name: bytes, data: bytes = b"") -> bool:
        """Ask for something on a channel."""
        probe.request(name, data, want_reply=True)
        self.pump()
        return probe.answers.pop()

    def say(self, number: int, *parts: bytes) -> None:
        """Send any message."""
        self.client_end.send(number, *parts)
        self.pump()

    def ended(self) -> str:
        """Why the server has ended the connection; the device has left its desk for that reason, once."""
        self.assertTrue(self.server_end.closing)
        (reason,) = self.desk.left
        return reason


PTY = string(b"xterm") + uint32(80, 24, 0, 0) + string(b"\0")


class RefusalsTests(RefusalsTestCase):
    """Each way in that is shut."""

    def test_exec(self) -> None:
        """No command is run; the channel can still have its shell."""
        probe = self.probe()
        self.assertFalse(self.asked(probe, b"exec", string(b"get_role")))
        self.assertTrue(self.asked(probe, b"shell"))

    def test_subsystem(self) -> None:
        """There is no subsystem, sftp or other."""
        self.assertFalse(self.asked(self.probe(), b"subsystem", string(b"sftp")))

    def test_agent(self) -> None:
        """No agent is forwarded."""
        self.assertFalse(self.asked(self.probe(), b"auth-agent-req@openssh.com"))

    def test_x11(self) -> None:
        """No X11 is forwarded."""
        cookie = boolean(False) + string(b"MIT-MAGIC-COOKIE-1") + string(b"00") + uint32(0)
        self.assertFalse(self.asked(self.probe(), b"x11-req", cookie))

    def test_environment(self) -> None:
        """No environment variable is taken."""
        self.assertFalse(self.asked(self.probe(), b"env", string(b"LANG") + string(b"C")))

    def test_signal_and_unknown(self) -> None:
        """Signals, breaks and what nobody knows are refused."""
        probe = self.probe()
        for name in (b"signal", b"break", b"xon-xoff", b"\xff\xff", b""):
            self.assertFalse(self.asked(probe, name, string(b"KILL")))

    def test_second_shell(self) -> None:
        """A channel has one shell, also after that one has ended."""
        probe = self.probe()
        self.assertTrue(self.asked(probe, b"shell"))
        self.assertFalse(self.asked(probe, b"shell"))
        self.assertFalse(self.asked(probe, b"pty-req", PTY))
        probe.send(b"exit\n")
        probe.request(b"shell", b"", want_reply=True)
        self.pump()
        self.assertEqual((probe.answers, probe.end), ([], ""))

    def test_window_change(self) -> None:
        """Another size of the terminal's window is no news, and no fault."""
        probe = self.probe()
        self.assertTrue(self.asked(probe, b"pty-req", PTY))
        self.assertTrue(self.asked(probe, b"shell"))
        self.assertTrue(self.asked(probe, b"window-change", uint32(100, 50, 0, 0)))
        self.assertEqual(probe.data, b"rpi1100$ ")

    def test_global_requests(self) -> None:
        """The server listens nowhere, and cancels nothing."""
        answers: list[bool] = []
        for name in (
            b"tcpip-forward",
            b"cancel-tcpip-forward",
            b"streamlocal-forward@openssh.com",
            b"cancel-streamlocal-forward@openssh.com",
            b"no-more-sessions@openssh.com",
            b"hostkeys-prove-00@openssh.com",
            b"keepalive@openssh.com",
        ):
            self.client_end.channels.ask(name, answers.append)
        self.pump()
        self.assertEqual(answers, [False] * 7)

    def test_other_channels(self) -> None:
        """There are no other channels than sessions and forwards over TCP."""
        for kind in (
            b"direct-streamlocal@openssh.com",
            b"forwarded-tcpip",
            b"x11",
            b"auth-agent@openssh.com",
            b"tun@openssh.com",
            b"",
        ):
            refusal = self.probe(kind, string(b"/run/x") + bytes(100)).refusal
            self.assertEqual(refusal and refusal[0], numbers.OPEN_UNKNOWN_CHANNEL_TYPE)

    def test_forward(self) -> None:
        """A forward that the desk does not allow, or to an impossible port, is refused."""
        for host, port in [("127.0.0.1", 22), ("localhost", 5000), ("127.0.0.1", 0), ("127.0.0.1", 70000)]:
            d = self.link.endpoint(host, port).connect(_factory())
            self.pump()
            self.failureResultOf(d, ConnectionLost)

    def test_number_of_sessions(self) -> None:
        """A connection has four session channels; one that is closed makes room."""
        probes = [self.probe() for _ in range(5)]
        self.assertEqual([probe.is_open for probe in probes], [True] * 4 + [False])
        self.assertEqual(probes[4].refusal and probes[4].refusal[0], numbers.OPEN_RESOURCE_SHORTAGE)
        probes[0].close()
        self.pump()
        self.assertTrue(self.probe().is_open)

    def test_number_of_forwards(self) -> None:
        """A connection has sixteen forwards; those that are not open yet count."""
        self.reception.forwards["127.0.0.1", 5000] = Deferred
        asked = [self.link.endpoint("127.0.0.1", 5000).connect(_factory()) for _ in range(20)]
        self.pump()
        for d in asked[16:]:
            self.assertIn("16 such channels", str(self.failureResultOf(d, ConnectionLost).value))
        for d in asked[:16]:
            self.assertNoResult(d)
        self.server_end.disconnect("enough")
        self.pump()
        for d in asked[:16]:
            self.failureResultOf(d, ConnectionLost)

    def test_after_the_last_shell(self) -> None:
        """Once its last shell has ended a device has left, and opens nothing more; it goes, or is sent after 5 s."""
        probe = self.probe()
        self.asked(probe, b"shell")
        probe.send(b"exit\n")
        self.pump()
        self.assertEqual(self.desk.left, ["logout"])
        self.assertEqual(self.probe().refusal, (numbers.OPEN_ADMINISTRATIVELY_PROHIBITED, "the last shell has ended"))
        self.assertFalse(self.server_end.closing)
        self.clock.advance(5)
        self.assertTrue(self.server_end.closing)
        self.pump()
        self.assertEqual(self.desk.left, ["logout"])

    def test_not_the_last_shell(self) -> None:
        """A device stays as long as one of its shells does; a channel without shell does not count."""
        first, second, _ = self.probe(), self.probe(), self.probe()
        self.asked(first, b"shell")
        self.asked(second, b"shell")
        first.send(b"exit\n")
        self.pump()
        self.assertEqual((first.end, self.desk.left), ("", []))
        second.abort()
        self.pump()
        self.assertEqual(self.desk.left, ["its shell was closed"])


class AttackTests(RefusalsTestCase):
    """What no client does; each ends the connection with one line, and nothing is raised."""

    def test_unknown_channel(self) -> None:
        """Messages for channels that do not exist."""
        for number, rest in [
            (numbers.MSG_CHANNEL_DATA, string(b"x")),
            (numbers.MSG_CHANNEL_EXTENDED_DATA, uint32(1) + string(b"x")),
            (numbers.MSG_CHANNEL_WINDOW_ADJUST, uint32(1)),
            (numbers.MSG_CHANNEL_EOF, b""),
            (numbers.MSG_CHANNEL_CLOSE, b""),
            (numbers.MSG_CHANNEL_REQUEST, string(b"shell") + boolean(True)),
            (numbers.MSG_CHANNEL_SUCCESS, b""),
            (numbers.MSG_CHANNEL_FAILURE, b""),
        ]:
            self.log_in()
            self.say(number, uint32(77), rest)
            self.assertEqual(self.ended(), "it named a channel that does not exist")

    def test_answers_to_nothing(self) -> None:
        """Answers to what was never asked."""
        for number, rest in [
            (numbers.MSG_CHANNEL_OPEN_CONFIRMATION, uint32(0, 0, 0, 1)),
            (numbers.MSG_CHANNEL_OPEN_FAILURE, uint32(0, 1) + string(b"")),
            (numbers.MSG_REQUEST_SUCCESS, b""),
            (numbers.MSG_REQUEST_FAILURE, b""),
        ]:
            self.log_in()
            self.say(number, rest)
            self.assertRegex(self.ended(), "nobody asked for|was not made")

    def test_torn_messages(self) -> None:
        """Messages that end too early."""
        for number in range(80, 101):
            self.log_in()
            self.say(number, b"\0\0")
            if number in numbers.messages and number not in (81, 82):
                self.assertEqual(self.ended(), "an SSH message is shorter than its fields", number)

    def test_too_much_data(self) -> None:
        """More than the window, in more than a packet's worth, or after the end."""
        probe = self.probe()
        self.say(numbers.MSG_CHANNEL_DATA, uint32(probe.remote_id), string(bytes(32769)))
        self.assertEqual(self.ended(), "it sent more data than a channel takes")
        self.log_in()
        probe = self.probe()
        self.say(numbers.MSG_CHANNEL_EOF, uint32(probe.remote_id))
        self.assertEqual(probe.end, "")

    def test_beyond_the_window(self) -> None:
        """A shell that is busy and whose window is used up takes nothing more."""
        probe = self.probe()
        self.asked(probe, b"shell")
        probe.send(b"wait_master_connection\n")
        self.pump()
        for _ in range(SHELL_WINDOW // 16384):
            self.say(numbers.MSG_CHANNEL_DATA, uint32(probe.remote_id), string(b"x" * 16384))
        self.assertEqual(self.ended(), "it sent more data than a channel takes")

    def test_window_overflow(self) -> None:
        """A window beyond four gigabytes."""
        probe = self.probe()
        self.say(numbers.MSG_CHANNEL_WINDOW_ADJUST, uint32(probe.remote_id, 0xFFFFFFFF))
        self.assertEqual(self.ended(), "it opened the window of a channel too wide")

    def test_no_packets(self) -> None:
        """A channel that takes data in pieces of nothing, or of so little that sending it is work."""
        for size in (0, 1, SMALLEST_PACKET - 1):
            self.log_in()
            self.say(numbers.MSG_CHANNEL_OPEN, string(b"session"), uint32(0, 100, size))
            self.assertEqual(self.ended(), "it opened a channel that takes hardly any data at a time")

    def test_unknown_messages(self) -> None:
        """Numbers that nobody knows are answered so, and harm nothing."""
        for number in (8, 60, 79, 83, 101, 192, 255):
            self.say(number, b"x")
        self.assertTrue(self.probe().is_open)

    def test_second_login(self) -> None:
        """A device that is in does not log in again."""
        self.say(5, string(b"ssh-userauth"))
        self.assertEqual(self.ended(), "there is no such service")

    def test_reader_of_nothing(self) -> None:
        """A device that asks and asks, but does not read the answers, is dropped before they fill the memory."""
        self.server_end.pauseProducing()
        sent = 0
        while not self.server_end.closing:
            for _ in range(500):
                self.client_end.channels.ask(b"keepalive@openssh.com", lambda granted: None)
            sent += 500
            self.assertLess(sent, 100_000)
            self.pumps[-1].pump()
        self.pump()
        self.assertEqual(self.ended(), "it does not read what it is sent")


class DelayedForwardTests(RefusalsTestCase):
    """A forward is confirmed once its far end is there, not before."""

    def test_confirmed_late(self) -> None:
        """While the desk is at it nothing is confirmed; then data flows."""
        opening: Deferred[IProtocol] = Deferred()
        self.reception.forwards["127.0.0.1", 5000] = lambda: opening
        d = self.link.endpoint("127.0.0.1", 5000).connect(_factory())
        self.pump()
        self.assertNoResult(d)
        far = Recorder()
        opening.callback(far)
        near = self.result(d)
        assert isinstance(near, Recorder) and near.transport is not None and far.transport is not None
        near.transport.write(b"there")
        far.transport.write(b"and back")
        self.pump()
        self.assertEqual((far.data, near.data), (b"there", b"and back"))
        self.assertEqual(far.transport.getHost().port, 5000)
        self.assertEqual(far.transport.getPeer().host, "192.0.2.7")

    def test_refused_late(self) -> None:
        """If it comes to nothing, the reason is told."""
        opening: Deferred[IProtocol] = Deferred()
        self.reception.forwards["127.0.0.1", 5000] = lambda: opening
        d = self.link.endpoint("127.0.0.1", 5000).connect(_factory())
        self.pump()
        opening.errback(RequestRefused("the tunnel has ended"))
        self.pump()
        self.assertIn("the tunnel has ended", str(self.failureResultOf(d, ConnectionLost).value))

    def test_broken(self) -> None:
        """A fault of ours is in our log; the device learns no more than that it went wrong."""
        self.reception.forwards["127.0.0.1", 5000] = lambda: fail(ZeroDivisionError("secret"))
        d = self.link.endpoint("127.0.0.1", 5000).connect(_factory())
        self.pump()
        text = str(self.failureResultOf(d, ConnectionLost).value)
        self.assertIn("could not be opened", text)
        self.assertNotIn("secret", text)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connection_lost_meanwhile(self) -> None:
        """If the device goes meanwhile, the attempt is given up."""
        cancelled: list[bool] = []
        self.reception.forwards["127.0.0.1", 5000] = lambda: Deferred(lambda _: cancelled.append(True))
        d = self.link.endpoint("127.0.0.1", 5000).connect(_factory())
        self.pump()
        self.link.disconnect()
        self.pump()
        self.failureResultOf(d, ConnectionLost)
        self.assertEqual(cancelled, [True])

    def test_too_late(self) -> None:
        """A device does not wait for ever; what is opened after that is closed at once."""
        opening: Deferred[IProtocol] = Deferred()
        self.reception.forwards["127.0.0.1", 5000] = lambda: opening
        d = self.link.endpoint("127.0.0.1", 5000).connect(_factory())
        self.pump()
        self.clock.advance(20)
        self.failureResultOf(d, ConnectionLost)
        far = Recorder()
        opening.callback(far)
        self.pump()
        self.assertIsNotNone(far.lost)
        self.assertFalse(self.server_end.closing)

    def test_faulty_protocol(self) -> None:
        """A forward that fails ends alone."""

        class Faulty(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(Faulty())
        near = self.result(self.link.endpoint("127.0.0.1", 5000).connect(_factory()))
        assert isinstance(near, Recorder) and near.transport is not None
        near.transport.write(b"x")
        self.pump()
        self.assertIsNotNone(near.lost)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.result(self.link.open_shell(Listener())))


def _factory() -> Factory[Any]:
    return Factory.forProtocol(Recorder)


class ReaderTests(World):
    """L{Reader} is tried with more in the messages above."""

    def test_fields(self) -> None:
        """Fields are read as they were written."""
        reader = Reader(string(b"abc") + uint32(7) + boolean(True) + string(b"a,b") + b"rest")
        self.assertEqual(
            (reader.string(), reader.uint32(), reader.boolean(), reader.names(), reader.rest()),
            (b"abc", 7, True, [b"a", b"b"], b"rest"),
        )
