"""How a shell takes its input: in any pieces, ahead of time, too much of it, and with Ctrl-C in it."""

from __future__ import annotations

import tracemalloc
from ipaddress import IPv4Address, IPv4Interface

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.errors import NoSession, OnsiteNotRegistered, RDVError
from rdvtwisted.requests import Readiness, WaitForMaster
from rdvtwisted.shell.commands import COMMANDS
from rdvtwisted.shell.printout import Stream
from rdvtwisted.shell.shell import OUTPUT_LIMIT, TYPE_AHEAD_CAP, TYPE_AHEAD_LIMIT, Action, Interrupt, Shell
from rdvtwisted.values import Mode, Profile, RemoteSite, Role, SessionView
from tests.shell.conversation import ANSWERS, GRANT, PARAMETERS, SESSION, SITE, Conversation, joined, presence

PROPERTY = settings(derandomize=True, max_examples=200, deadline=None)

#: What people and devices send, and what nobody should.
PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(sorted(name.encode() for commands in COMMANDS.values() for name in commands)),
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\t", b"\t\t", b" ", b"\x7f", b"\x15", b"?", b"\x1b[A", b"\xc3", b"\xa9"]),
    st.sampled_from([b"debug_mode on\n", b"echo x\n", b"set_tunnel_mode x\n", b"wait_session_change up 5\n"]),
    st.sampled_from([b"get_session\r", b"get_role\r", b"show_onsite_devs\n", b"connect_to_onsite_dev a\r"]),
)
INPUT = st.lists(PIECES, max_size=30)
#: Bytes in the order in which they are sent, cut anywhere.
CUTS = st.lists(st.integers(min_value=0, max_value=400), max_size=8)

TEXT = st.text(max_size=30)
ADDRESS = st.just(IPv4Address("10.0.0.1"))
PROFILE = st.builds(
    Profile,
    mode=st.sampled_from(Mode),
    lan=st.none() | st.just(IPv4Interface("10.0.0.1/8")),
    dns=st.lists(ADDRESS, max_size=3).map(tuple),
    hostname=st.none() | TEXT,
    uplink=st.none() | TEXT,
)
PRESENCE = st.builds(presence, TEXT, PROFILE, TEXT, TEXT)
SITES = st.builds(RemoteSite, TEXT, st.none(), st.just(()), st.none() | TEXT, st.none() | TEXT, TEXT)
ERRORS = st.builds(RDVError, TEXT)
#: For each kind of request any answer, or a refusal.
ANY_ANSWERS = st.fixed_dictionaries(
    {
        requests.Publish: st.none() | ERRORS,
        requests.GetMode: st.sampled_from(Mode) | ERRORS,
        requests.ListOnsite: st.lists(PRESENCE, max_size=3).map(tuple) | ERRORS,
        WaitForMaster: st.sampled_from(Readiness) | ERRORS,
        requests.Connect: st.none() | ERRORS,
        requests.GetRemoteSite: st.none() | SITES | st.just(SITE) | ERRORS,
        requests.GetVtunParameters: st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple) | ERRORS,
        requests.GetTunnelParameters: st.just(PARAMETERS) | ERRORS,
        requests.DropTunnel: st.none() | ERRORS,
        requests.GetSession: st.just(SESSION) | st.builds(SessionView, id=TEXT, master=TEXT) | ERRORS,
        requests.WaitForSessionChange: st.just(SessionView()) | ERRORS,
        requests.GetSessionGrant: st.just(GRANT) | ERRORS,
        requests.LimitSession: st.none() | ERRORS,
        requests.EndSession: st.none() | ERRORS,
        requests.GetCertificateAuthority: st.binary(max_size=40) | ERRORS,
        requests.GetReturnTime: st.integers(0, 60) | ERRORS,
    }
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """C{data} in pieces."""
    ends = sorted({place for place in places if place < len(data)})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


class PropertyTests(SynchronousTestCase):
    """What holds whatever a device sends and whatever the server answers."""

    @given(INPUT, ANY_ANSWERS, st.sampled_from(Role), st.booleans())
    @PROPERTY
    def test_harmless(self, pieces: list[bytes], answers: dict[type, object], role: Role, terminal: bool) -> None:
        """Nothing fails, nothing steers a terminal, and the end of input ends the shell."""
        conversation = Conversation(role, terminal, answers)
        printed = list(conversation.greeting)
        for piece in [*pieces, b"\x03"]:
            printed += conversation.exchange(piece)
        printed += conversation.end()
        self.assertIsNotNone(conversation.shell.exit_status)
        self.assertFalse(conversation.shell.wants_input)
        allowed = "\r\n\b\t" if terminal else "\n\t"
        for _, text in joined(printed):
            for letter in text.decode():
                self.assertTrue(letter.isprintable() or letter in allowed, repr(text))

    @given(INPUT, CUTS, ANY_ANSWERS, st.sampled_from(Role), st.booleans())
    @PROPERTY
    def test_pieces(
        self, pieces: list[bytes], places: list[int], answers: dict[type, object], role: Role, terminal: bool
    ) -> None:
        """Into which pieces the input is cut makes no difference, nor does when the requests are performed."""
        # Ctrl-C is about time: what it breaks off depends on when it comes.
        data = b"".join(pieces).replace(b"\x03", b"")
        whole = Conversation(role, terminal, answers)
        parts = Conversation(role, terminal, answers)
        expected = joined([*whole.exchange(data), *whole.end()])
        printed = [chunk for piece in cut(data, places) for chunk in parts.exchange(piece)]
        self.assertEqual(joined([*printed, *parts.end()]), expected)
        self.assertEqual(parts.asked, whole.asked)
        self.assertEqual(parts.shell.exit_status, whole.shell.exit_status)

    @given(INPUT, CUTS, st.booleans())
    @PROPERTY
    def test_pieces_before_answers(self, pieces: list[bytes], places: list[int], terminal: bool) -> None:
        """As long as nothing is answered, pieces make no difference to Ctrl-C either."""
        data = b"get_session\n" + b"".join(pieces)

        def actions(pieces: list[bytes]) -> tuple[list[Action], list[tuple[Stream, bytes]]]:
            shell = Shell("rpi1100", Role.ONSITE, terminal=terminal)
            found = [action for piece in pieces for action in shell.receive(piece)]
            # One request at a time, and it is told to hurry at most once.
            self.assertIn(found, [[requests.GetSession()], [requests.GetSession(), Interrupt()]])
            return found + shell.answer(SESSION), shell.take_output()

        self.assertEqual(actions(cut(data, places)), actions([data]))


class TypeAheadTests(SynchronousTestCase):
    """Commands that are sent before the former ones are done."""

    def setUp(self) -> None:
        self.shell = Shell("rpi1100", Role.ONSITE, terminal=True)
        self.shell.start()

    def printed(self) -> bytes:
        return b"".join(text for _, text in self.shell.take_output())

    def test_in_order(self) -> None:
        """Each has its own echo, output and prompt, although they were sent together; the echo waits for its turn."""
        actions = self.shell.receive(b"get_role\rget_tunnel_mode\recho a\rget_tunnel_mode\r")
        self.assertEqual(actions, [requests.GetMode()])
        self.assertEqual(self.printed(), b"rpi1100$ get_role\r\nonsite\r\nrpi1100$ get_tunnel_mode\r\n")
        self.assertEqual(self.shell.answer(Mode.L2), [requests.GetMode()])
        self.assertEqual(self.printed(), b"L2\r\nrpi1100$ echo a\r\na\r\nrpi1100$ get_tunnel_mode\r\n")
        self.assertEqual(self.shell.fail(NoSession()), [])
        self.assertEqual(self.printed(), f"Error: {NoSession()}\r\nrpi1100$ ".encode())

    def test_crlf_across_an_answer(self) -> None:
        """A CR LF is one Enter also when a command is performed between its two halves."""
        self.shell.receive(b"get_tunnel_mode\r")
        self.shell.receive(b"\nget_role\r\n")
        self.printed()
        self.shell.answer(Mode.L3)
        self.assertEqual(self.printed(), b"L3\r\nrpi1100$ get_role\r\nonsite\r\nrpi1100$ ")

    def test_interrupt(self) -> None:
        """Ctrl-C interrupts once, and what was typed before it is void."""
        self.assertEqual(self.shell.receive(b"wait_master_connection\rexit\r\x03"), [WaitForMaster(60.0), Interrupt()])
        self.assertEqual(self.shell.receive(b"\x03\x03get_role\r"), [])
        self.printed()
        self.assertEqual(self.shell.answer(Readiness.NOT_READY), [])
        self.assertEqual(self.printed(), b"not_ready\r\nrpi1100$ get_role\r\nonsite\r\nrpi1100$ ")
        self.assertEqual(self.shell.receive(b"wait_master_connection\r"), [WaitForMaster(60.0)])
        self.assertEqual(self.shell.receive(b"\x03"), [Interrupt()])

    def test_interrupt_of_nothing(self) -> None:
        """Ctrl-C gives up the line that is being typed; without a terminal and without a line it is not heard."""
        self.assertEqual(self.shell.receive(b"exit\x03\r"), [])
        self.assertEqual(self.printed(), b"rpi1100$ exit^C\r\nrpi1100$ \r\nrpi1100$ ")
        plain = Shell("rpi1100", Role.ONSITE, terminal=False)
        self.assertEqual(plain.receive(b"\x03exit\x03\n\x03"), [])
        self.assertEqual(plain.take_output(), [(Stream.STDOUT, b"rpi1100$ rpi1100$ ")])
        self.assertIsNone(plain.exit_status)

    def test_end_of_input(self) -> None:
        """Ctrl-D ends the shell in peace, as does a terminal that goes away."""
        self.shell.receive(b"\x04get_role\r")
        self.assertEqual((self.shell.exit_status, self.printed()), (0, b"rpi1100$ "))
        other = Shell("rpi1100", Role.ONSITE, terminal=True)
        other.receive(b"get_tunnel_mode")
        self.assertEqual(other.end_of_input(), [])
        self.assertEqual(other.exit_status, 0)

    def test_fatal(self) -> None:
        """After a fatal refusal what was typed ahead is not run."""
        master = Conversation(Role.MASTER, answers=ANSWERS | {requests.Connect: OnsiteNotRegistered("a")})
        master.send(b"connect_to_onsite_dev a\rget_tunnel_mode\r")
        self.assertEqual(master.asked, [requests.Connect("a")])
        self.assertEqual(master.shell.exit_status, 1)

    def test_nothing_asked(self) -> None:
        """An answer to nothing is a fault of the caller."""
        with self.assertRaises(RuntimeError):
            self.shell.answer(None)
        with self.assertRaises(RuntimeError):
            self.shell.fail(NoSession())


class LimitTests(SynchronousTestCase):
    """A device cannot make the server keep much for it."""

    def test_type_ahead(self) -> None:
        """Input is not wanted while much of it waits, and wanted again when it has been used."""
        shell = Shell("rpi1100", Role.ONSITE, terminal=False)
        self.assertTrue(shell.wants_input)
        shell.receive(b"get_tunnel_mode\n")
        self.assertTrue(shell.wants_input)
        shell.receive(b"\n" * TYPE_AHEAD_LIMIT)
        self.assertFalse(shell.wants_input)
        shell.answer(Mode.L3)
        while shell.take_output():
            shell.resume()
        self.assertTrue(shell.wants_input)

    def test_interrupt_through_full_type_ahead(self) -> None:
        """Ctrl-C frees what was typed ahead."""
        shell = Shell("rpi1100", Role.ONSITE, terminal=False)
        shell.receive(b"wait_master_connection\n" + b"x" * TYPE_AHEAD_LIMIT)
        self.assertFalse(shell.wants_input)
        self.assertEqual(shell.receive(b"\x03"), [Interrupt()])
        self.assertTrue(shell.wants_input)

    def test_output(self) -> None:
        """Commands with much output wait until the output is taken; none is lost."""
        shell = Shell("rpi1100", Role.ONSITE, terminal=False)
        shell.receive(b"help\n" * 500)
        self.assertFalse(shell.wants_input)
        total, takes = 0, 0
        while chunks := shell.take_output():
            size = sum(len(text) for _, text in chunks)
            self.assertLess(size, OUTPUT_LIMIT + 2048)
            total += size
            takes += 1
            self.assertEqual(shell.resume(), [])
        self.assertGreater(takes, 10)
        self.assertEqual(total, 500 * len(Conversation(terminal=False).send(b"help\n")))
        self.assertTrue(shell.wants_input)

    def test_flood(self) -> None:
        """Whoever goes on sending when no input is wanted is shown the door."""
        shell = Shell("rpi1100", Role.ONSITE, terminal=False)
        shell.receive(b"wait_master_connection\n")
        for _ in range(TYPE_AHEAD_CAP // 1024):
            self.assertIsNone(shell.exit_status)
            shell.receive(b"\n" * 1024)
        shell.receive(b"\n")
        self.assertEqual(shell.exit_status, 1)
        self.assertEqual(shell.take_output(), [(Stream.STDERR, b"Error: too much input at once\n")])
        self.assertEqual(shell.answer(Readiness.READY), [])
        self.assertEqual(shell.fail(NoSession()), [])
        self.assertEqual(shell.receive(b"get_role\n"), [])
        self.assertEqual(shell.take_output(), [])

    def test_endless_line(self) -> None:
        """A line without end takes no more memory than a line may have."""
        for terminal in (True, False):
            shell = Shell("rpi1100", Role.ONSITE, terminal=terminal)
            tracemalloc.start()
            try:
                for _ in range(200):
                    shell.receive(b"\xc3\xa9" * 2048)
                    shell.take_output()
                self.assertLess(tracemalloc.get_traced_memory()[0], 300_000)
            finally:
                tracemalloc.stop()
            self.assertTrue(shell.wants_input)
