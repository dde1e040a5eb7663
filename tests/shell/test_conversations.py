"""Whole conversations with old devices, as they were observed with the original shell."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.requests import Publish, Readiness, WaitForMaster
from rdvtwisted.shell.printout import Stream
from rdvtwisted.values import Mode, Profile, Role
from tests.shell.conversation import ANSWERS, VTUN, Conversation, presence

VTUN_LINES = "".join(f"{key}: {value}\r\n" for key, value in VTUN).encode()

#: The commands by which a script has its SSH client forward a port. The keys for
#: the client itself (C{~C} and what follows) never reach the server.
FORWARD = [
    ("echo Testing ssh escape shell", b"Testing ssh escape shell\r\n"),
    ("echo ...done", b"...done\r\n"),
    (
        'echo Adding ssh redirect escape shell "-L5000:127.0.0.1:5000"',
        b'Adding ssh redirect escape shell "-L5000:127.0.0.1:5000"\r\n',
    ),
    ("echo ...done", b"...done\r\n"),
]


class OldDeviceTests(SynchronousTestCase):
    """An old device, with a terminal, one command at a time."""

    def exchange(self, conversation: Conversation, script: list[tuple[str, bytes]]) -> None:
        """Each command is echoed and answered so, and followed by the prompt."""
        prompt = f"{conversation.device}$ ".encode()
        for command, answer in script:
            self.assertEqual(
                conversation.send(f"{command}\r".encode()), f"{command}\r\n".encode() + answer + prompt, command
            )

    def test_onsite(self) -> None:
        """A full run of the onsite script."""
        readiness = [Readiness.NOT_READY, Readiness.RESET, Readiness.READY]
        modes = [Mode.L3, Mode.L3, Mode.L2]
        conversation = Conversation(
            answers=ANSWERS
            | {WaitForMaster: lambda request: readiness.pop(0), requests.GetMode: lambda request: modes.pop(0)}
        )
        self.assertEqual(conversation.greeting, [(Stream.STDOUT, b"rpi1100$ ")])
        publish = [
            ("get_tunnel_mode", b"L3\r\n"),
            ("set_tunnelling_dev_lan_ip_address 192.168.1.50/24", b""),
            ("set_tunnelling_dev_dns_server_list 192.168.1.1 8.8.8.8", b""),
            ("set_tunnelling_dev_hostname 'shopbox'", b""),
            ("set_tunnelling_dev_uplink_type lan", b""),
        ]
        self.exchange(conversation, [("", b""), ("get_role", b"onsite\r\n"), *publish])
        self.exchange(conversation, [("wait_master_connection", b"not_ready\r\n")])
        self.exchange(conversation, [("wait_master_connection", b"reset\r\n"), *publish])
        self.exchange(
            conversation,
            [
                ("wait_master_connection", b"ready\r\n"),
                ("get_tunnel_mode", b"L2\r\n"),
                ("get_vtun_parameters", VTUN_LINES),
                *FORWARD,
            ],
        )
        self.assertEqual(conversation.send(b"logout\r"), b"logout\r\n")
        self.assertEqual(conversation.shell.exit_status, 0)
        profile = Profile(
            lan=IPv4Interface("192.168.1.50/24"),
            dns=(IPv4Address("192.168.1.1"), IPv4Address("8.8.8.8")),
            hostname="shopbox",
            uplink="lan",
        )
        published = [request.profile for request in conversation.asked if isinstance(request, Publish)]
        self.assertEqual(published[3:], [profile] * 5)

    def test_master(self) -> None:
        """A full run of the master script, which waits for its onsite to come."""
        listings = [(presence("rpi1102", Profile()),), (presence("rpi1100", Profile()), presence("rpi1102", Profile()))]
        conversation = Conversation(
            Role.MASTER,
            device="rpi1101",
            answers=ANSWERS | {requests.ListOnsite: lambda request: listings.pop(0)},
        )
        self.assertEqual(conversation.greeting, [(Stream.STDOUT, b"rpi1101$ ")])
        self.exchange(
            conversation,
            [
                ("", b""),
                ("show_online_onsite_devs", b"rpi1102\r\n"),
                ("show_online_onsite_devs", b"rpi1100\r\nrpi1102\r\n"),
                ("set_tunnelling_dev_lan_ip_address 10.0.0.7/24", b""),
                ("set_tunnel_mode L3", b""),
                ("connect_to_onsite_dev rpi1100", b""),
                ("get_role", b"master\r\n"),
                ("get_tunnel_mode", b"L3\r\n"),
                ("get_vtun_parameters", VTUN_LINES),
                *FORWARD,
                ("show_remote_onsite_ip_config", b"192.168.1.50/24\r\n"),
            ],
        )
        self.assertEqual(conversation.send(b"logout\r"), b"logout\r\n")
        self.assertEqual(conversation.shell.exit_status, 0)
        self.assertIn(requests.Connect("rpi1100"), conversation.asked)

    def test_enter_repeats_nothing(self) -> None:
        """A bare Enter after any command prints the prompt, and has no other effect."""
        for command in ["get_vtun_parameters", "foo", "wait_master_connection", "help"]:
            conversation = Conversation()
            conversation.send(f"{command}\r".encode())
            asked = list(conversation.asked)
            self.assertEqual(conversation.send(b"\r"), b"\r\nrpi1100$ ")
            self.assertEqual(conversation.asked, asked)

    def test_idempotent(self) -> None:
        """The parameters of the tunnel can be asked for twice."""
        conversation = Conversation()
        self.exchange(conversation, [("get_vtun_parameters", VTUN_LINES)] * 2)

    def test_garbage(self) -> None:
        """Garbage of any kind is unknown, and the next command is as good as ever."""
        for terminal in (True, False):
            conversation = Conversation(terminal=terminal)
            for garbage in [b"x" * 300, b"\0" * 300, bytes(range(128, 256)) * 3, b"x" * 10000, b"\x1b[A" * 50]:
                conversation.send(garbage + b"\n")
                expected = b"get_role\r\nonsite\r\nrpi1100$ " if terminal else b"onsite\nrpi1100$ "
                self.assertEqual(conversation.send(b"get_role\n"), expected)
                self.assertIsNone(conversation.shell.exit_status)
            self.assertEqual(conversation.asked, [])

    def test_too_long(self) -> None:
        """A line of 10 kB is refused in one line."""
        refusal = b"Error: a line has at most 2048 characters"
        plain = Conversation(terminal=False)
        self.assertEqual(
            plain.exchange(b"x" * 10000 + b"\n"), [(Stream.STDERR, refusal + b"\n"), (Stream.STDOUT, b"rpi1100$ ")]
        )
        self.assertTrue(Conversation().send(b"x" * 10000 + b"\r").endswith(b"x\r\n" + refusal + b"\r\nrpi1100$ "))


class PipeTests(SynchronousTestCase):
    """A script fed to the shell through a pipe."""

    def test_script(self) -> None:
        """All commands are run in their order, the last also without line end; then the shell ends in peace."""
        conversation = Conversation(terminal=False)
        printed = conversation.exchange(b"get_role\r\nfoo\nset_tunnelling_dev_uplink_type x\n\nget_tunnel_mode")
        printed += conversation.end()
        self.assertEqual(
            printed,
            [
                (Stream.STDOUT, b"onsite\nrpi1100$ *** Unknown syntax: foo\nrpi1100$ "),
                (Stream.STDERR, b"Unsupported uplink type: x\n"),
                (Stream.STDOUT, b"rpi1100$ rpi1100$ "),
                (Stream.STDOUT, b"L3\nrpi1100$ "),
            ],
        )
        self.assertEqual(conversation.shell.exit_status, 0)

    def test_end_while_waiting(self) -> None:
        """The end of input comes after the command that is being performed, and those behind it."""
        conversation = Conversation(terminal=False)
        shell = conversation.shell
        self.assertEqual(shell.receive(b"wait_master_connection\nget_tunnel_mode\n"), [WaitForMaster(60.0)])
        self.assertEqual(shell.end_of_input(), [])
        self.assertIsNone(shell.exit_status)
        self.assertEqual(shell.answer(Readiness.READY), [requests.GetMode()])
        self.assertEqual(shell.answer(Mode.L2), [])
        self.assertEqual(shell.exit_status, 0)
        self.assertEqual(shell.take_output(), [(Stream.STDOUT, b"ready\nrpi1100$ L2\nrpi1100$ ")])
