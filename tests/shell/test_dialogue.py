"""The device's end: against our shell, and against what an old one says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.errors import (
    ConnectionLost,
    InvalidValue,
    NoSession,
    OnsiteBusy,
    ProtocolError,
    RequestRefused,
)
from rdvtwisted.requests import Publish, Readiness, WaitForMaster
from rdvtwisted.shell import dialogue
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.shell.listing import OnsiteEntry
from rdvtwisted.shell.printout import Stream
from rdvtwisted.shell.questions import _QUESTIONS, Asked, GetRemoteLan, GetRole, Heartbeat, ListOnsiteIds
from rdvtwisted.shell.reply import Reply
from rdvtwisted.values import EndReason, Mode, Profile, Role, SessionState
from tests.shell.conversation import ANSWERS, PARAMETERS, SESSION, SITE, VTUN, Conversation

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)

PROFILE = Profile(
    lan=IPv4Interface("192.168.1.50/24"),
    dns=(IPv4Address("192.168.1.1"), IPv4Address("8.8.8.8")),
    hostname="shop's bôx",
    uplink="lan",
    backends=("tls", "vtun"),
)

#: Everything that a device can ask, the role that may ask it, and the value of the reply to it.
QUESTIONS: list[tuple[Asked, Role, object]] = [
    (Publish(PROFILE), Role.ONSITE, None),
    (Publish(evolve(PROFILE, uplink=None, mode=Mode.L2)), Role.MASTER, None),
    (Publish(Profile()), Role.ONSITE, None),
    (requests.GetMode(), Role.ONSITE, Mode.L3),
    (
        requests.ListOnsite(),
        Role.MASTER,
        (
            OnsiteEntry("rpi1100", "shopbox", IPv4Interface("192.168.1.50/24"), "lan", True, "203.0.113.7:1"),
            OnsiteEntry("rpi1102", address="203.0.113.7:1"),
        ),
    ),
    (ListOnsiteIds(), Role.MASTER, ("rpi1100", "rpi1102")),
    (WaitForMaster(60.0), Role.ONSITE, Readiness.READY),
    (requests.Connect("rpi1100"), Role.MASTER, None),
    (requests.GetRemoteSite(), Role.MASTER, SITE),
    (GetRemoteLan(), Role.MASTER, SITE.lan),
    (requests.GetVtunParameters(), Role.ONSITE, VTUN),
    (requests.GetTunnelParameters(), Role.MASTER, PARAMETERS),
    (requests.DropTunnel(), Role.MASTER, None),
    (requests.GetSession(), Role.ONSITE, SESSION),
    (requests.WaitForSessionChange(SessionState.UP, 2.5), Role.ONSITE, ANSWERS[requests.WaitForSessionChange]),
    (requests.WaitForSessionChange(SessionState.UP, 2.5, 7), Role.ONSITE, ANSWERS[requests.WaitForSessionChange]),
    (requests.GetSessionGrant(), Role.ONSITE, ANSWERS[requests.GetSessionGrant]),
    (requests.EndSession(EndReason.PEER_KEY_REFUSED), Role.MASTER, None),
    (requests.LimitSession(7200.5, "s1"), Role.ONSITE, None),
    (requests.GetCertificateAuthority(), Role.ONSITE, ANSWERS[requests.GetCertificateAuthority]),
    (requests.GetReturnTime(), Role.ONSITE, 5),
    (GetRole(), Role.MASTER, Role.MASTER),
    (Heartbeat("17"), Role.ONSITE, None),
]

#: What the server is asked by questions that are not requests themselves.
ASKED: dict[type, list[object]] = {
    ListOnsiteIds: [requests.ListOnsite()],
    GetRemoteLan: [requests.GetRemoteSite()],
    GetRole: [],
    Heartbeat: [],
}


def pieces(data: bytes, size: int) -> list[bytes]:
    """C{data} in pieces of that many bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def tell(device: Dialogue, printed: list[tuple[Stream, bytes]], size: int = 1 << 16) -> list[Reply]:
    """Give a device what a shell has printed."""
    replies = []
    for stream, text in printed:
        for piece in pieces(text, size):
            replies += device.receive(piece) if stream is Stream.STDOUT else device.receive_error(piece)
    return replies


class TwinTests(SynchronousTestCase):
    """Dialogue and shell understand each other."""

    def pair(self, role: Role, terminal: bool, answers: dict[type, object]) -> tuple[Dialogue, Conversation]:
        server = Conversation(role, terminal, answers)
        device = Dialogue("rpi1100", role)
        (greeting,) = tell(device, server.greeting)
        self.assertEqual(greeting.value, "")
        return device, server

    def ask(self, asked: Asked, role: Role, terminal: bool = False, size: int = 1 << 16, **answers: object) -> Any:
        table = ANSWERS | {getattr(requests, name): answer for name, answer in answers.items()}
        device, server = self.pair(role, terminal, table)
        (reply,) = tell(device, server.exchange(device.ask(asked)), size)
        self.server = server
        return reply.value

    def test_complete(self) -> None:
        """There is a question for every request that the server knows."""
        self.assertEqual({type(asked) for asked, _, _ in QUESTIONS}, set(_QUESTIONS))
        self.assertLessEqual(set(ANSWERS), set(_QUESTIONS))

    def test_everything(self) -> None:
        """Whatever is asked is answered by its value, with and without terminal, in pieces of any size."""
        for asked, role, value in QUESTIONS:
            for terminal in (False, True):
                for size in (1, 7, 1 << 16):
                    self.assertEqual(self.ask(asked, role, terminal, size), value, asked)
                    if not isinstance(asked, Publish):
                        self.assertEqual(self.server.asked, ASKED.get(type(asked), [asked]))

    def test_publish(self) -> None:
        """A whole profile is published in one go."""
        self.ask(Publish(PROFILE), Role.ONSITE)
        self.assertEqual(self.server.asked[-1], Publish(PROFILE))
        master = evolve(PROFILE, mode=Mode.L2)
        self.ask(Publish(master), Role.MASTER)
        self.assertEqual(self.server.asked[-1], Publish(evolve(master, uplink=None)))

    def test_odd_uplink(self) -> None:
        """An uplink that servers do not know is not told."""
        self.ask(Publish(evolve(PROFILE, uplink="other")), Role.ONSITE)
        self.assertEqual(self.server.asked[-1], Publish(evolve(PROFILE, uplink=None)))

    @given(st.text(max_size=60))
    @PROPERTY
    def test_any_hostname(self, hostname: str) -> None:
        """Any hostname arrives, but for what the server does not keep."""
        self.ask(Publish(Profile(hostname=hostname)), Role.ONSITE)
        kept = "".join(letter for letter in hostname.encode("utf-8", "replace").decode() if letter.isprintable())
        self.assertEqual(self.server.asked[-1], Publish(Profile(hostname=kept)))

    def test_waiting(self) -> None:
        """All answers of a waiting command are told apart."""
        for readiness in Readiness:
            for terminal in (False, True):
                answer = self.ask(WaitForMaster(60.0), Role.ONSITE, terminal, WaitForMaster=readiness)
                self.assertIs(answer, readiness)

    def test_no_remote(self) -> None:
        """Without session there is no remote onsite, which is no error."""
        questions: list[Asked] = [requests.GetRemoteSite(), GetRemoteLan()]
        for asked in questions:
            for terminal in (False, True):
                self.assertIsNone(self.ask(asked, Role.MASTER, terminal, GetRemoteSite=None))

    def test_refused(self) -> None:
        """A refusal is told by the server's own words."""
        for terminal in (False, True):
            device, server = self.pair(
                Role.ONSITE, terminal, ANSWERS | {requests.GetTunnelParameters: NoSession(), Publish: NoSession()}
            )
            questions: list[Asked] = [requests.GetTunnelParameters(), Publish(Profile(hostname="x"))]
            for asked in questions:
                (reply,) = tell(device, server.exchange(device.ask(asked)))
                with self.assertRaises(RequestRefused) as caught:
                    reply.value  # noqa: B018 -- it is a property that raises
                self.assertEqual(str(caught.exception), str(NoSession()))

    def test_fatal(self) -> None:
        """A refusal that ends the shell is told by the server's own words, too."""
        for terminal in (False, True):
            device, server = self.pair(Role.MASTER, terminal, ANSWERS | {requests.Connect: OnsiteBusy("rpi1100")})
            self.assertEqual(tell(device, server.exchange(device.ask(requests.Connect("rpi1100")))), [])
            self.assertEqual(server.shell.exit_status, 1)
            error = device.closed()
            self.assertIsInstance(error, RequestRefused)
            self.assertEqual(str(error), str(OnsiteBusy("rpi1100")))

    def test_unknown(self) -> None:
        """A command of the other role is not known."""
        for terminal in (False, True):
            device, server = self.pair(Role.ONSITE, terminal, ANSWERS.copy())
            (reply,) = tell(device, server.exchange(device.ask(ListOnsiteIds())))
            self.assertTrue(reply.unknown_syntax)
            with self.assertRaises(RequestRefused) as caught:
                reply.value  # noqa: B018 -- it is a property that raises
            self.assertIn("show_online_onsite_devs", str(caught.exception))

    def test_command(self) -> None:
        """A person's command is given as it stands, and its output is its value."""
        for terminal in (False, True):
            device, server = self.pair(Role.ONSITE, terminal, ANSWERS.copy())
            for line, value in [("echo  a  b", "a  b"), ("", ""), ("echo", ""), ("get_role", "onsite")]:
                (reply,) = tell(device, server.exchange(device.command(line)))
                self.assertEqual((reply.value, reply.errors, reply.unknown_syntax), (value, "", False))
            (reply,) = tell(device, server.exchange(device.command("debug_mode x")))
            said = "Unsupported debug mode: x"
            self.assertEqual((reply.output, reply.errors), (said, "") if terminal else ("", said))

    def test_interrupt(self) -> None:
        """An interrupted wait is answered at once; an interrupt that comes too late does no harm."""
        device, server = self.pair(Role.ONSITE, False, ANSWERS.copy())
        self.assertEqual(device.interrupt(), b"")
        self.assertEqual(len(server.shell.receive(device.ask(WaitForMaster(60.0)))), 1)
        self.assertEqual(len(server.shell.receive(device.interrupt())), 1)
        late = device.interrupt()
        (reply,) = tell(device, server.carry_on(server.shell.answer(Readiness.NOT_READY)))
        self.assertIs(reply.value, Readiness.NOT_READY)
        self.assertEqual(server.exchange(late), [])
        (reply,) = tell(device, server.exchange(device.ask(requests.GetMode())))
        self.assertIs(reply.value, Mode.L3)


class OldServerTests(SynchronousTestCase):
    """What an original server says is understood."""

    def setUp(self) -> None:
        self.device = Dialogue("rpi1100", Role.ONSITE)
        self.device.receive(b"Welcome to the machine\r\nrpi1100$ ")

    def reply(self, asked: Asked, output: bytes, errors: bytes = b"") -> Reply:
        self.device.ask(asked)
        self.device.receive_error(errors)
        (reply,) = self.device.receive(output)
        return reply

    def test_greeting(self) -> None:
        """A banner before the first prompt is tolerated."""
        device = Dialogue("rpi1100", Role.ONSITE)
        self.assertFalse(device.ready)
        self.assertEqual(device.receive(b"Linux rdv 2.6.32\nrpi11"), [])
        (greeting,) = device.receive(b"00$ ")
        self.assertEqual(greeting.value, "Linux rdv 2.6.32")
        self.assertTrue(device.ready)

    def test_echo(self) -> None:
        """An echo is taken off, and with it one line end; then one line end at the end."""
        for output, text in [
            (b"get_role\r\nonsite\r\nrpi1100$ ", "onsite"),
            (b"get_role\nonsite\nrpi1100$ ", "onsite"),
            (b"get_role\r\nrpi1100$ ", ""),
            (b"onsite\nrpi1100$ ", "onsite"),
            (b"onsiterpi1100$ ", "onsite"),
            (b"get_role\r\n\r\nx\r\n\r\nrpi1100$ ", "\nx\n"),
            (b"rpi1100$ ", ""),
        ]:
            self.device.command("get_role")
            (reply,) = self.device.receive(output)
            self.assertEqual(reply.output, text)

    def test_no_backends(self) -> None:
        """An old server does not know of backends: that is told, and refuses nothing."""
        reply = self.reply(
            Publish(PROFILE), b"rpi1100$ " * 4 + b"*** Unknown syntax: set_tunnel_backends tls vtun\nrpi1100$ "
        )
        self.assertTrue(reply.unknown_syntax)
        self.assertIsNone(reply.value)

    def test_other_unknown_setting(self) -> None:
        """Any other setting that is not known is a refusal."""
        reply = self.reply(Publish(PROFILE), b"*** Unknown syntax: set_tunnelling_dev_hostname\nrpi1100$ " * 5)
        self.assertRaises(RequestRefused, lambda: reply.value)

    def test_late_errors(self) -> None:
        """Standard error may come after the prompt: it is not taken for the answer to what follows."""
        reply = self.reply(WaitForMaster(60.0), b"rpi1100$ ")
        self.assertEqual(self.device.receive_error(b"not_ready\n"), [])
        self.assertIs(reply.value, Readiness.NOT_READY)
        reply = self.reply(GetRole(), b"onsite\nrpi1100$ ", b"not_ready\n")
        self.assertIs(reply.value, Role.ONSITE)
        reply = self.reply(GetRole(), b"onsite\nrpi1100$ ")
        self.assertEqual(reply.errors, "")

    def test_traceback(self) -> None:
        """A shell that dies with a traceback has refused what was asked, for the reason in the last line."""
        self.device.ask(requests.GetVtunParameters())
        self.device.receive_error(b'Traceback (most recent call last):\n  File "x", line 1\nBufferError: full\x07\n')
        error = self.device.closed()
        self.assertIsInstance(error, RequestRefused)
        self.assertEqual(str(error), "BufferError: full?")

    def test_gone(self) -> None:
        """A shell that closes without a word is gone."""
        self.assertIsInstance(self.device.closed(), ConnectionLost)
        self.device.ask(GetRole())
        self.assertIsInstance(self.device.closed(), ConnectionLost)

    def test_unusable_answers(self) -> None:
        """An answer that cannot be is refused, whatever it is."""
        cases: list[tuple[Asked, bytes]] = [
            (GetRole(), b"boss\n"),
            (GetRole(), b""),
            (requests.GetMode(), b"L3_multi\n"),
            (WaitForMaster(60.0), b"soon\n"),
            (requests.Connect("rpi1"), b"connected\n"),
            (requests.GetVtunParameters(), b"tunnel_secret: x\n"),
            (requests.GetCertificateAuthority(), b"certificate_authority: ?\n"),
            *((requests.GetReturnTime(), line) for line in (b"return_within: soon\n", b"return_within: -1\n", b"5\n")),
            (requests.GetReturnTime(), b"return_within: 99999\n"),
            (requests.GetRemoteSite(), b"id: rpi1\n"),
            (GetRemoteLan(), b"192.168.1.1/24; reboot\n"),
        ]
        for asked, output in cases:
            reply = self.reply(asked, output + b"rpi1100$ ")
            self.assertRaises(ProtocolError, lambda reply=reply: reply.value)

    def test_wrong_heartbeat(self) -> None:
        """A heartbeat must be answered by its own word."""
        self.assertRaises(RequestRefused, lambda: self.reply(Heartbeat("2"), b"heartbeat: 1\nrpi1100$ ").value)


class OrderTests(SynchronousTestCase):
    """The dialogue keeps its order and its limits."""

    def setUp(self) -> None:
        self.device = Dialogue("rpi1100", Role.MASTER)
        self.device.receive(b"rpi1100$ ")

    def test_one_at_a_time(self) -> None:
        """A second question before the answer to the first is a fault of the caller."""
        self.device.ask(GetRole())
        self.assertRaises(RuntimeError, self.device.ask, GetRole())
        self.assertRaises(RuntimeError, self.device.command, "get_role")
        self.assertRaises(RuntimeError, Dialogue("rpi1100", Role.MASTER).command, "too early")

    def test_prompt_too_many(self) -> None:
        """Once it is not clear what a prompt answers, nothing is: the dialogue is over."""
        self.assertRaises(ProtocolError, self.device.receive, b"rpi1100$ ")
        device = Dialogue("rpi1100", Role.MASTER)
        self.assertRaises(ProtocolError, device.receive, b"rpi1100$ rpi1100$ ")

    def test_unasked_bytes(self) -> None:
        """Anything but a prompt that comes unasked is skipped, and not kept."""
        for _ in range(1000):
            self.assertEqual(self.device.receive(b"noise" * 100), [])
        self.assertLess(len(self.device._output), 16)
        self.device.ask(GetRole())
        (reply,) = self.device.receive(b"master\nrpi1100$ ")
        self.assertIs(reply.value, Role.MASTER)

    def test_too_much(self) -> None:
        """An answer without end is refused."""
        self.device.ask(GetRole())
        with self.assertRaises(ProtocolError):
            for _ in range(dialogue.OUTPUT_LIMIT // 4096 + 1):
                self.device.receive(b"x" * 4096)
        self.device = Dialogue("rpi1100", Role.MASTER)
        with self.assertRaises(ProtocolError):
            for _ in range(dialogue.ERRORS_LIMIT // 4096 + 1):
                self.device.receive_error(b"x" * 4096)

    def test_too_many_lines_together(self) -> None:
        """The limit holds for all answers to one question together."""
        self.device.ask(Publish(PROFILE))
        with self.assertRaises(ProtocolError):
            for _ in range(3):
                self.device.receive(b"x" * (dialogue.OUTPUT_LIMIT // 3) + b"rpi1100$ ")
            self.device.receive(b"x" * 4096)

    def test_unsayable(self) -> None:
        """What would be misunderstood is not sent."""
        for line in ["a\nexit", "a\x03", "é", "x" * 3000, "echo rpi1100$ x"]:
            self.assertRaises(InvalidValue, self.device.command, line)
        questions: list[Asked] = [
            requests.Connect("Rpi 1"),
            requests.WaitForSessionChange(SessionState.UP, 0.5),
            requests.WaitForSessionChange(SessionState.UP, float("nan")),
            Heartbeat("a\nexit"),
            Publish(Profile(backends=("a\nexit",))),
        ]
        for asked in questions:
            self.assertRaises(InvalidValue, self.device.ask, asked)
        self.assertTrue(self.device.ready)

    @given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40) | st.just(b"rpi1100$ ")), max_size=20))
    @PROPERTY
    def test_any_bytes(self, told: list[tuple[bool, bytes]]) -> None:
        """Whatever a server sends, the device gets a value, or an error that is meant for it."""
        for asked, role, _ in QUESTIONS:
            device = Dialogue("rpi1100", role)
            device.receive(b"rpi1100$ ")
            device.ask(asked)
            try:
                for error, data in told:
                    for reply in device.receive_error(data) if error else device.receive(data):
                        self.assertIsNotNone(type(reply.value))
            except (ProtocolError, RequestRefused):
                pass
            self.assertIsInstance(device.closed(), (RequestRefused, ConnectionLost))

    @given(st.binary(max_size=200), st.integers(1, 30))
    @PROPERTY
    def test_pieces(self, output: bytes, size: int) -> None:
        """Into which pieces an answer is cut makes no difference."""
        data = output.replace(b"$", b"") + b"rpi1100$ "
        other = Dialogue("rpi1100", Role.MASTER)
        other.receive(b"rpi1100$ ")
        for device in (self.device, other):
            device.command("echo x")
        replies = [reply for piece in pieces(data, size) for reply in other.receive(piece)]
        self.assertEqual(replies, self.device.receive(data))
