"""What one end of a connection refuses the other once both know each other: each kind of channel, each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.conch.ssh import connection as numbers
from twisted.internet.defer import succeed
from twisted.internet.protocol import Factory

from rdvtwisted.adapters.ssh.channel import Channel
from rdvtwisted.adapters.ssh.client import ClientTransport
from rdvtwisted.adapters.ssh.server import ServerTransport
from rdvtwisted.adapters.ssh.transport import REKEY_BURST, REKEY_SECONDS
from rdvtwisted.adapters.ssh.wire import boolean, string, uint32
from tests.adapters.ssh.test_refusals import PTY, Probe
from tests.adapters.ssh.world import Listener, Recorder, World

HUGE = b"x" * 60_000
#: A request that is refused, and what it says. Each is tried as it should be, torn, and with too much in it.
REQUESTS: tuple[tuple[bytes, bytes], ...] = (
    (b"exec", string(b"id")),
    (b"exec", string(HUGE)),
    (b"subsystem", string(b"sftp")),
    (b"subsystem", string(b"")),
    (b"auth-agent-req@openssh.com", b""),
    (b"x11-req", boolean(False) + string(b"MIT-MAGIC-COOKIE-1") + string(b"00") + uint32(0)),
    (b"env", string(b"LD_PRELOAD") + string(b"/x.so")),
    (b"env", string(HUGE) + string(HUGE)),
    (b"signal", string(b"KILL")),
    (b"break", uint32(500)),
    (b"xon-xoff", boolean(True)),
    (b"eow@openssh.com", b""),
    (b"keepalive@openssh.com", b""),
    (b"exit-signal", string(b"SEGV") + boolean(True) + string(HUGE) + string(b"")),
    (b"", b""),
    (b"\xff\0\xfe", b"\xff" * 50),
    (HUGE, b""),
)
#: Requests that mean something on a session channel of the server, and on no other.
TERMINAL: tuple[tuple[bytes, bytes], ...] = (
    (b"pty-req", PTY),
    (b"pty-req", b""),
    (b"pty-req", string(HUGE) + uint32(0xFFFFFFFF, 0xFFFFFFFF, 0, 0) + string(HUGE)),
    (b"window-change", uint32(0, 0xFFFFFFFF, 0, 0)),
    (b"window-change", b""),
)
GLOBAL: tuple[tuple[bytes, bytes], ...] = (
    (b"tcpip-forward", string(b"0.0.0.0") + uint32(22)),
    (b"tcpip-forward", string(b"") + uint32(0)),
    (b"tcpip-forward", b""),
    (b"cancel-tcpip-forward", string(b"0.0.0.0") + uint32(22)),
    (b"streamlocal-forward@openssh.com", string(b"/run/x")),
    (b"cancel-streamlocal-forward@openssh.com", string(b"/run/x")),
    (b"no-more-sessions@openssh.com", b""),
    (b"hostkeys-00@openssh.com", string(HUGE)),
    (b"hostkeys-prove-00@openssh.com", string(HUGE)),
    (b"tun@openssh.com", b""),
    (b"keepalive@openssh.com", b""),
    (b"", b""),
    (HUGE, HUGE),
)
_FROM = string(b"192.0.2.1") + uint32(4711)
#: Kinds of channels that neither end has.
CHANNELS: tuple[tuple[bytes, bytes], ...] = (
    (b"x11", _FROM),
    (b"auth-agent@openssh.com", b""),
    (b"agent-connect", b""),
    (b"forwarded-tcpip", string(b"127.0.0.1") + uint32(22) + _FROM),
    (b"direct-streamlocal@openssh.com", string(b"/run/x") + string(b"") + uint32(0)),
    (b"forwarded-streamlocal@openssh.com", string(b"/run/x") + string(b"")),
    (b"tun@openssh.com", uint32(1, 0)),
    (b"", b""),
    (HUGE, b""),
)
#: And those that only the server has: what a device does not open for it.
SERVERS_CHANNELS: tuple[tuple[bytes, bytes], ...] = (
    (b"session", b""),
    (b"direct-tcpip", string(b"192.168.1.1") + uint32(80) + _FROM),
)

End = ServerTransport | ClientTransport
#: As in the other test modules of this room.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


class EndsTestCase(World):
    """Has a device that is logged in, and channels of each kind."""

    def setUp(self) -> None:
        super().setUp()
        self.link = self.log_in()

    def ends(self) -> Iterator[tuple[str, Any, Any]]:
        """Each end that is asked, with the one that asks it."""
        yield "server", self.server_end, self.client_end
        yield "device", self.client_end, self.server_end

    def channels(self) -> Iterator[tuple[str, Channel]]:
        """Each kind of channel that there is, as the end sees it that is going to ask; its name says who is asked."""
        self.reception.forwards["127.0.0.1", 5000] = lambda: succeed(Recorder())
        bare = Probe()
        self.client_end.channels.open(bare)
        self.result(self.link.open_shell(Listener()))
        self.result(self.link.endpoint("127.0.0.1", 5000).connect(Factory.forProtocol(Recorder)))
        names = ("session without shell", "shell", "forward")
        for number, name in enumerate(names):
            yield f"server: {name}", self.client_end.channels.channels[number]
            if number:
                yield f"device: {name}", self.server_end.service.channels[number]

    def answer(self, channel: Channel, name: bytes, data: bytes) -> bool | None:
        """The answer to a request; C{None} if there is none."""
        answers: list[bool] = []
        channel.answered = answers.append  # type: ignore[method-assign, assignment]
        channel.request(name, data, want_reply=True)
        self.pump()
        del channel.answered
        return answers.pop() if answers else None

    def assert_well(self) -> None:
        """The connection is, and the device gets a shell."""
        self.assertFalse(self.server_end.closing or self.client_end.closing, self.server_end.end_reason)
        listener = Listener()
        shell = self.result(self.link.open_shell(listener))
        shell.write(b"get_role\n")
        self.pump()
        self.assertEqual(listener.out, b"rpi1100$ onsite\nrpi1100$ ")


class RefusalTests(EndsTestCase):
    """Each row of the tables, at each end that it can be asked of."""

    def test_channel_requests(self) -> None:
        """No channel grants what is not for it, whatever the request says, and nothing else comes of it."""
        for where, channel in self.channels():
            rows = REQUESTS if where == "server: session without shell" else REQUESTS + TERMINAL
            for name, data in rows:
                if where == "server: shell" and name == b"window-change":
                    continue
                with self.subTest(where=where, name=name[:40]):
                    self.assertIs(self.answer(channel, name, data), False)
                    channel.request(name, data, want_reply=False)
        self.pump()
        self.assert_well()

    def test_terminal(self) -> None:
        """A terminal of any size, or of none, is only a terminal; its window may be as it likes."""
        for name, data in TERMINAL:
            probe = Probe()
            self.client_end.channels.open(probe)
            self.pump()
            self.assertIs(self.answer(probe, name, data), True)
            self.assertIs(self.answer(probe, b"shell", HUGE), True)
            self.assertIs(self.answer(probe, b"window-change", data), True)
            probe.abort()
            self.log_in()
        self.link = self.log_in()
        self.assert_well()

    def test_shell_of_the_device(self) -> None:
        """A server that asks for a shell on a channel of the device's gets none."""
        for where, channel in self.channels():
            if where.startswith("device"):
                self.assertIs(self.answer(channel, b"shell", b""), False)
        self.assert_well()

    def test_global_requests(self) -> None:
        """Neither end grants anything, with whatever the request says; without wish for an answer there is none."""
        for who, asked, asking in self.ends():
            for name, data in GLOBAL:
                answers: list[bool] = []
                with self.subTest(who=who, name=name[:40]):
                    asking.service._questions.append(answers.append)
                    asking.send(numbers.MSG_GLOBAL_REQUEST, string(name), boolean(True), data)
                    asking.send(numbers.MSG_GLOBAL_REQUEST, string(name), boolean(False), data)
                    self.pump()
                    self.assertEqual(answers, [False])
                    self.assertFalse(asked.closing)
        self.assert_well()

    def test_channels(self) -> None:
        """Neither end opens any other channel; a device opens none at all."""
        for who, asked, asking in self.ends():
            for kind, data in CHANNELS + (SERVERS_CHANNELS if who == "device" else ()):
                for extra in (data, b"", data + HUGE):
                    probe = Probe(kind)
                    with self.subTest(who=who, kind=kind[:40]):
                        asking.service.open(probe, extra)
                        self.pump()
                        assert probe.refusal is not None
                        self.assertEqual(probe.refusal[0], numbers.OPEN_UNKNOWN_CHANNEL_TYPE)
                        self.assertEqual((asked.service.channels, asked.service._deciding), ({}, {}))
        self.assert_well()

    def test_many_channels(self) -> None:
        """Thousands of channels that are refused, or opened and closed, leave nothing behind."""
        for _ in range(1000):
            probe, other = Probe(), Probe(b"direct-tcpip")
            self.client_end.channels.open(probe)
            self.client_end.channels.open(other, string(b"127.0.0.1") + uint32(22) + _FROM)
            self.pump()
            probe.close()
            self.pump()
        for end in (self.server_end.service, self.client_end.channels):
            self.assertEqual((end.channels, end._deciding, end._asked_for), ({}, {}, {}))
        self.assert_well()


class FloodTests(EndsTestCase):
    """What costs little to ask for, and much to do."""

    def flood(self, asking: Any, asked: Any, times: int) -> int:
        """Ask for new keys so many times in a row; how many times it was done."""
        for done in range(times):
            asking.rekey()
            self.pump()
            if asked.closing:
                return done
        return times

    def test_rekeys(self) -> None:
        """Who wants new keys again and again, without having sent anything with the old ones, is dropped."""
        for who in ("server", "device"):
            self.log_in()
            _, asked, asking = next(row for row in self.ends() if row[0] == who)
            self.assertEqual(self.flood(asking, asked, 1000), REKEY_BURST)
            self.assertEqual(asked.end_reason, "it wants new keys too often")

    def test_rekeys_now_and_then(self) -> None:
        """New keys now and then are anybody's right."""
        for _ in range(50):
            self.clock.advance(REKEY_SECONDS)
            self.assertEqual(self.flood(self.client_end, self.server_end, 1), 1)
        self.assert_well()

    @PROPERTY
    @example([(numbers.MSG_CHANNEL_OPEN, string(b"session") + uint32(0, 0, 1))], True)
    @given(
        st.lists(
            st.tuples(
                st.integers(80, 110) | st.integers(0, 255),
                st.binary(max_size=40)
                | st.builds(lambda *parts: b"".join(parts), st.binary(max_size=12).map(string), st.binary(max_size=40))
                | st.builds(
                    lambda number, *parts: uint32(number) + b"".join(parts),
                    st.integers(0, 3),
                    st.sampled_from([name for name, _ in REQUESTS + TERMINAL if len(name) < 50]).map(string),
                    st.booleans().map(boolean),
                    st.binary(max_size=20),
                ),
            ),
            max_size=8,
        ),
        st.booleans(),
    )
    def test_any_messages(self, messages: list[tuple[int, bytes]], at_server: bool) -> None:
        """Whatever somebody says who is logged in, or a server to whoever has logged in: nothing is raised."""
        self.link = self.log_in()
        for _ in self.channels():
            pass
        asking = self.client_end if at_server else self.server_end
        for number, body in messages:
            asking.send(number, body)
        self.pump()
        self.clock.advance(100)
        self.pump()
        self.client_end.disconnect("enough")
        self.pump()
        self.assertEqual(self.desk.left, self.desk.left[:1])
        self.assertTrue(self.desk.left)
        self.pumps.clear()
