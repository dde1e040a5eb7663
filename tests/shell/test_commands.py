"""Every command: what it says, what it asks, and who may use it; byte for byte as old devices compare it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import requests
from rdvtwisted.access import SessionGrant
from rdvtwisted.errors import (
    InvalidTunnelMode,
    LanAddressMissing,
    NoSession,
    OnsiteBusy,
    OnsiteNotRegistered,
    PoolExhausted,
    RDVError,
    RequestRefused,
)
from rdvtwisted.requests import Publish, Readiness
from rdvtwisted.scope import ALL
from rdvtwisted.shell.commands import COMMANDS, candidates
from rdvtwisted.shell.printout import Stream
from rdvtwisted.values import EndReason, Mode, Profile, RemoteSite, Role, SessionState, SessionView
from tests.shell.conversation import ANSWERS, Conversation, presence
from tests.source import CHECKOUT

OUT, ERR = Stream.STDOUT, Stream.STDERR
ONSITE, MASTER = Role.ONSITE, Role.MASTER


class CommandTests(SynchronousTestCase):
    """One command in a fresh shell, with and without a terminal."""

    def says(
        self,
        command: str,
        output: str = "",
        errors: str = "",
        *,
        role: Role = ONSITE,
        asked: object = None,
        **answers: object,
    ) -> None:
        """The command prints this and then the prompt, with a terminal or without, and asks the server for that."""
        table = ANSWERS | {getattr(requests, name): answer for name, answer in answers.items()}
        for terminal in (True, False):
            conversation = Conversation(role, terminal, table.copy())
            printed = conversation.exchange(f"{command}\n".encode())
            if terminal:
                text = f"{command}\n{output}{errors}".replace("\n", "\r\n")
                self.assertEqual(printed, [(OUT, f"{text}rpi1100$ ".encode())])
            elif errors:
                before = [(OUT, output.encode())] if output else []
                self.assertEqual(printed, [*before, (ERR, errors.encode()), (OUT, b"rpi1100$ ")])
            else:
                self.assertEqual(printed, [(OUT, f"{output}rpi1100$ ".encode())])
            self.assertEqual(conversation.asked, [] if asked is None else [asked])
            self.assertIsNone(conversation.shell.exit_status)

    def ends(self, command: str, errors: str = "", status: int = 0, *, role: Role = ONSITE, **answers: object) -> None:
        """The command ends the shell, after this on standard error."""
        table = ANSWERS | {getattr(requests, name): answer for name, answer in answers.items()}
        for terminal in (True, False):
            conversation = Conversation(role, terminal, table.copy())
            printed = conversation.exchange(f"{command}\necho more\n".encode())
            if terminal:
                self.assertEqual(printed, [(OUT, f"{command}\n{errors}".replace("\n", "\r\n").encode())])
            else:
                self.assertEqual(printed, [(ERR, errors.encode())] if errors else [])
            self.assertEqual(conversation.shell.exit_status, status)
            self.assertFalse(conversation.shell.wants_input)
            self.assertEqual(conversation.exchange(b"get_role\n"), [])

    # Both roles

    def test_get_role(self) -> None:
        """The role is told, whatever follows the command."""
        self.says("get_role", "onsite\n")
        self.says("get_role", "master\n", role=MASTER)
        self.says("  get_role;abc  ", "onsite\n")

    def test_get_tunnel_mode(self) -> None:
        """The mode is the one that the server knows."""
        self.says("get_tunnel_mode", "L3\n", asked=requests.GetMode())
        self.says("get_tunnel_mode now", "L2\n", asked=requests.GetMode(), GetMode=Mode.L2)

    def test_lan_address(self) -> None:
        """An address is taken with prefix length, netmask, wildcard mask or without."""
        for argument, lan in [
            ("192.168.1.50/24", "192.168.1.50/24"),
            ("192.168.1.50", "192.168.1.50/32"),
            ("192.168.1.50/255.255.255.0", "192.168.1.50/24"),
            ("192.168.1.50/0.0.0.255", "192.168.1.50/24"),
            ("10.0.0.7/0", "10.0.0.7/0"),
            ("10.0.0.7/32", "10.0.0.7/32"),
        ]:
            self.says(f"set_tunnelling_dev_lan_ip_address {argument}", asked=Publish(Profile(lan=IPv4Interface(lan))))

    def test_invalid_lan_address(self) -> None:
        """What is no address is refused."""
        for argument in ["None", "", "1.2.3", "01.2.3.4", "1.2.3.4/33", "1.2.3.4 /24", "::1", "1.2.3.4/24 x", "a/24"]:
            command = f"set_tunnelling_dev_lan_ip_address {argument}"
            self.says(command, errors=f"Invalid IP network: {argument}\n")

    def test_dns_servers(self) -> None:
        """Any number of addresses replaces the former list."""
        for argument in ["192.168.1.1 8.8.8.8", "8.8.8.8", "", "1.1.1.1\t 8.8.8.8"]:
            dns = tuple(map(IPv4Address, argument.split()))
            if "\t" not in argument:
                self.says(f"set_tunnelling_dev_dns_server_list {argument}", asked=Publish(Profile(dns=dns)))
        conversation = Conversation(terminal=False)
        conversation.send(b"set_tunnelling_dev_dns_server_list 1.1.1.1\t 8.8.8.8\nset_tunnelling_dev_dns_server_list\n")
        self.assertEqual(
            conversation.asked,
            [Publish(Profile(dns=(IPv4Address("1.1.1.1"), IPv4Address("8.8.8.8")))), Publish(Profile())],
        )

    def test_invalid_dns_servers(self) -> None:
        """One bad address refuses them all."""
        for argument in ["8.8.8.8 x", "8.8.8", "8.8.8.8,1.1.1.1", "::1"]:
            self.says(f"set_tunnelling_dev_dns_server_list {argument}", errors=f"Invalid DNS list: {argument}\n")

    def test_hostname(self) -> None:
        """A hostname is taken with or without quotes, without its control characters, as far as it is not too long."""
        for argument, name in [
            ("'shopbox'", "shopbox"),
            (r"'shop\'s box'", "shop's box"),
            ("shop box", "shop box"),
            ("''", ""),
            ("", ""),
            (r"'\xc3\xa9\xff\x1b\n'", "é\ufffd"),
            ("x" * 300, "x" * 255),
        ]:
            self.says(f"set_tunnelling_dev_hostname {argument}", asked=Publish(Profile(hostname=name)))

    def test_invalid_hostname(self) -> None:
        """An escape that is cut off is refused."""
        for argument in [r"'\x4'", r"'abc\'"]:
            self.says(f"set_tunnelling_dev_hostname {argument}", errors=f"Invalid hostname: {argument}\n")

    def test_echo(self) -> None:
        """The argument comes back, with its inner blanks."""
        self.says("echo", "\n")
        self.says("echo   a  b  ", "a  b\n")
        self.says('echo Adding ssh redirect escape shell "-L5000:127.0.0.1:5000"',
                  'Adding ssh redirect escape shell "-L5000:127.0.0.1:5000"\n')  # fmt: skip

    def test_drop_vtun(self) -> None:
        """The tunnel is taken down without a word; a refusal ends the shell."""
        self.says("drop_vtun", asked=requests.DropTunnel())
        self.ends("drop_vtun", "Error: VtundNotRunning\n", 1, DropTunnel=RequestRefused("VtundNotRunning"))

    def test_debug_mode(self) -> None:
        """Two words are known."""
        self.says("debug_mode on")
        self.says("debug_mode off")
        for argument in ["", "ON", "on off", "1"]:
            self.says(f"debug_mode {argument}", errors=f"Unsupported debug mode: {argument}\n")

    def test_debug_lines(self) -> None:
        """Debug mode tells on standard error what is asked; not on a terminal, where answers are compared."""
        for terminal in (False, True):
            conversation = Conversation(terminal=terminal)
            conversation.send(b"debug_mode on\n")
            printed = conversation.exchange(b"get_tunnel_mode\n")
            if terminal:
                self.assertEqual(printed, [(OUT, b"get_tunnel_mode\r\nL3\r\nrpi1100$ ")])
            else:
                self.assertEqual(printed, [(ERR, b"DEBUG asking GetMode\n"), (OUT, b"L3\nrpi1100$ ")])
                conversation.send(b"debug_mode off\n")
                self.assertEqual(conversation.exchange(b"get_tunnel_mode\n"), [(OUT, b"L3\nrpi1100$ ")])

    def test_leave(self) -> None:
        """There are three ways to say goodbye, and any of them ends the shell in peace."""
        for command in ["exit", "logout", "EOF", "logout now"]:
            self.ends(command)

    def test_unknown(self) -> None:
        """What is not known is told by the text that old devices look for."""
        for command in ["foo", "foo  bar", "Get_role", "!ls", "get-role", "-", "exitus", "*** Unknown syntax: x"]:
            self.says(command, f"*** Unknown syntax: {command}\n")
        self.says("  foo ", "*** Unknown syntax: foo\n")

    def test_help(self) -> None:
        """Help lists all commands of the role, and explains each."""
        for role in Role:
            conversation = Conversation(role, terminal=False)
            text = conversation.send(b"help\n").decode()
            header = "Documented commands (type help <topic>):"
            self.assertTrue(text.startswith(f"\n{header}\n{'=' * len(header)}\n"))
            self.assertTrue(text.endswith("\n\nrpi1100$ "))
            rows = text.split("\n")[3:-2]
            self.assertEqual({name for row in rows for name in row.split()}, set(COMMANDS[role]))
            self.assertLess(max(map(len, rows)), 80)
            for name, command in COMMANDS[role].items():
                expected = f"{command.usage}\n  {command.summary}\nrpi1100$ "
                self.assertEqual(conversation.send(f"help {name}\n".encode()).decode(), expected)
                self.assertEqual(conversation.send(f"?{name}\n".encode()).decode(), expected)
        self.says("help foo", "*** No help on foo\n")
        self.says("?connect_to_onsite_dev", "*** No help on connect_to_onsite_dev\n")

    # Roles

    def test_roles(self) -> None:
        """Each role has the commands that its old devices use, and more, but none of the other role's."""
        common = (
            "EOF debug_mode drop_vtun echo exit get_role get_tunnel_mode get_vtun_parameters help logout"
            " set_tunnelling_dev_dns_server_list set_tunnelling_dev_hostname set_tunnelling_dev_lan_ip_address"
            " end_session get_certificate_authority get_return_time get_session get_session_grant get_tunnel_parameters"
            " heartbeat limit_session set_tunnel_backends wait_session_change"
        )
        onsite = "set_consent_time set_tunnelling_dev_uplink_type wait_master_connection"
        master = (
            "connect_to_onsite_dev set_tunnel_mode show_online_onsite_devs show_remote_onsite_ip_config"
            " show_onsite_devs show_remote_onsite"
        )
        self.assertEqual(set(COMMANDS[ONSITE]), {*common.split(), *onsite.split()})
        self.assertEqual(set(COMMANDS[MASTER]), {*common.split(), *master.split()})
        for name in onsite.split():
            self.says(f"{name} x", f"*** Unknown syntax: {name} x\n", role=MASTER)
        for name in master.split():
            self.says(f"{name} x", f"*** Unknown syntax: {name} x\n")

    def test_table(self) -> None:
        """Every command says how it is used and what it does, and the operators' page has it."""
        page = (CHECKOUT / "docs" / "shell.md").read_text(encoding="utf-8")
        for commands in COMMANDS.values():
            for name, command in commands.items():
                self.assertEqual(command.name, name)
                self.assertTrue(command.summary.endswith("."))
                self.assertIn(f"`{command.usage}`", page.replace("\\|", "|"))

    def test_candidates(self) -> None:
        """Names can be completed at the start of a line and after a call for help, and nowhere else."""
        getters = [name for name in sorted(COMMANDS[ONSITE]) if name.startswith("get_")]
        for line in ["get_", "  get_", "?get_", "help get_", "help  get_", "? get_"]:
            self.assertEqual(candidates(ONSITE, line), getters, line)
        for line in ["echo get_", "get_role ", "helpget_", "help get_role x"]:
            self.assertEqual(candidates(ONSITE, line), [], line)
        self.assertEqual(candidates(ONSITE, ""), sorted(COMMANDS[ONSITE]))

    def test_tab(self) -> None:
        """Tab completes names on a terminal, by plain text only."""
        conversation = Conversation()
        self.assertEqual(conversation.send(b"get_ro\t\r"), b"get_role \r\nonsite\r\nrpi1100$ ")
        self.assertEqual(conversation.send(b"?get_ro\t\r")[:17], b"?get_role \r\nget_r")
        self.assertEqual(conversation.send(b"help set_tunn\t"), b"help set_tunnel")
        names = [name for name in sorted(COMMANDS[ONSITE]) if name.startswith("set_tunnel")]
        listed = conversation.send(b"\t").decode()
        self.assertTrue(listed.startswith("\r\n") and listed.endswith("rpi1100$ help set_tunnel"), listed)
        self.assertEqual(sorted(listed.split()[: len(names)]), names)

    # Onsite

    def test_uplink_type(self) -> None:
        """Three kinds of uplink are known."""
        for uplink in ["lan", "wlan", "3g"]:
            self.says(f"set_tunnelling_dev_uplink_type {uplink}", asked=Publish(Profile(uplink=uplink)))
        for uplink in ["other", "LAN", "", "lan x"]:
            self.says(f"set_tunnelling_dev_uplink_type {uplink}", errors=f"Unsupported uplink type: {uplink}\n")

    def test_wait_for_master(self) -> None:
        """One word answers; C{not_ready} alone is on standard error."""
        asked = requests.WaitForMaster(60.0)
        self.says("wait_master_connection", "ready\n", asked=asked)
        self.says("wait_master_connection", "reset\n", asked=asked, WaitForMaster=Readiness.RESET)
        self.says("wait_master_connection", errors="not_ready\n", asked=asked, WaitForMaster=Readiness.NOT_READY)
        self.ends("wait_master_connection", f"Error: {LanAddressMissing()}\n", 1, WaitForMaster=LanAddressMissing())

    # Master

    def test_tunnel_mode(self) -> None:
        """A mode that exists is published; one that does not is kept until it matters."""
        self.says("set_tunnel_mode L2", role=MASTER, asked=Publish(Profile(mode=Mode.L2)))
        for mode in ["L3_multi", "l2", "", "nonsense mode"]:
            self.says(f"set_tunnel_mode {mode}", role=MASTER)
            conversation = Conversation(MASTER, terminal=False)
            conversation.send(f"set_tunnel_mode {mode}\n".encode())
            self.assertEqual(conversation.send(b"get_tunnel_mode\n"), f"{mode}\nrpi1100$ ".encode())
            error = f"Error: {InvalidTunnelMode(mode)}\n".encode()
            self.assertEqual(conversation.exchange(b"get_tunnel_parameters\n"), [(ERR, error), (OUT, b"rpi1100$ ")])
            for command in ["get_vtun_parameters", "connect_to_onsite_dev rpi1100"]:
                doomed = Conversation(MASTER, terminal=False)
                self.assertEqual(
                    doomed.exchange(f"set_tunnel_mode {mode}\n{command}\n".encode()),
                    [(OUT, b"rpi1100$ "), (ERR, error)],
                )
                self.assertEqual((doomed.shell.exit_status, doomed.asked), (1, []))
            conversation.send(b"set_tunnel_mode L2\nconnect_to_onsite_dev rpi1100\n")
            self.assertEqual(conversation.asked, [Publish(Profile(mode=Mode.L2)), requests.Connect("rpi1100")])

    def test_show_online_onsites(self) -> None:
        """Ids, one a line; nothing if there are none."""
        self.says("show_online_onsite_devs", "rpi1100\nrpi1102\n", role=MASTER, asked=requests.ListOnsite())
        self.says("show_online_onsite_devs x", role=MASTER, asked=requests.ListOnsite(), ListOnsite=())
        refused = RequestRefused("not now")
        self.says(
            "show_online_onsite_devs",
            errors="Error: not now\n",
            role=MASTER,
            asked=requests.ListOnsite(),
            ListOnsite=refused,
        )

    def test_connect(self) -> None:
        """A connect is silent, and its refusal ends the shell."""
        self.says("connect_to_onsite_dev rpi1100", role=MASTER, asked=requests.Connect("rpi1100"))
        errors: list[RDVError] = [OnsiteNotRegistered("rpi1100"), OnsiteBusy("rpi1100"), PoolExhausted("x")]
        for error in errors:
            self.ends("connect_to_onsite_dev rpi1100", f"Error: {error}\n", 1, role=MASTER, Connect=error)
        for id in ["", "RPI 1", "9", "x" * 33, "a b"]:
            expected = f"Error: OnsiteDeviceIsNotRegistered: {id} is not online\n"
            self.ends(f"connect_to_onsite_dev {id}", expected, 1, role=MASTER)

    def test_remote_lan(self) -> None:
        """The onsite's LAN address, or why there is none."""
        asked, command = requests.GetRemoteSite(), "show_remote_onsite_ip_config"
        none = "No remote onsite IP configuration retrieved. Are you connected to an onsite?\n"
        self.says(command, "192.168.1.50/24\n", role=MASTER, asked=asked)
        self.says(command, errors=none, role=MASTER, asked=asked, GetRemoteSite=None)
        nowhere = RemoteSite("rpi1100", None, (), None, None, "203.0.113.7:1")
        self.says(command, errors=none, role=MASTER, asked=asked, GetRemoteSite=nowhere)

    def test_vtun_parameters(self) -> None:
        """Seven lines; a refusal ends the shell."""
        lines = (
            "tunnel_ip_network: 192.168.128.0\n"
            "tunnel_ip_prefix: /30\n"
            "tunnel_ip_netmask: 255.255.255.252\n"
            "tunnelling_dev_ip_address: 192.168.128.2\n"
            "rdv_server_ip_address: 192.168.128.1\n"
            "rdv_server_vtun_tcp_port: 5000\n"
            "tunnel_secret: _rpi1100\n"
        )
        for role in Role:
            self.says("get_vtun_parameters", lines, role=role, asked=requests.GetVtunParameters())
            error = PoolExhausted("192.168.128.0/17")
            self.ends("get_vtun_parameters", f"Error: {error}\n", 1, role=role, GetVtunParameters=error)

    # What old devices do not know

    def test_backends(self) -> None:
        """Names are published in their order; a bad one refuses them all."""
        self.says("set_tunnel_backends tls vtun", asked=Publish(Profile(backends=("tls", "vtun"))))
        for argument in ["", "TLS", "tls,vtun", "x" * 33, "tls é", " ".join(["a"] * 17)]:
            self.says(f"set_tunnel_backends {argument}", errors=f"Invalid tunnel backends: {argument}\n")

    def test_tunnel_parameters(self) -> None:
        """All that a device needs, a key a line; a refusal is no end."""
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
        lines = (
            "session: 0123456789ab\nbackend: tls\nmode: L3\njoin: relay\npeer: rpi1101\npeer_role: master\n"
            f"peer_key: {key}\naddress: 192.168.128.1/30\npeer_address: 192.168.128.2\nmtu: 1400\n"
            "door_port: 443\nticket: t-i_cket\n"
        )
        asked = requests.GetTunnelParameters()
        self.says("get_tunnel_parameters", lines, asked=asked)
        self.says(
            "get_tunnel_parameters", errors=f"Error: {NoSession()}\n", asked=asked, GetTunnelParameters=NoSession()
        )

    def test_session(self) -> None:
        """A session is told a key a line, and so is that there is none."""
        lines = (
            "state: up\nid: 0123456789ab\nmaster: rpi1101\nonsite: rpi1100\nmode: L2\nbackend: tls\njoin: relay\n"
            "selected_at: 1700000000.5\nup_at: 1700000002.25\nto_onsite: 12\nto_master: 34567890123\nreason: \n"
            "grant: 0\nwaiting: \n"
        )
        none = (
            "state: none\nid: \nmaster: \nonsite: \nmode: L3\nbackend: \njoin: \n"
            "selected_at: 0.0\nup_at: 0.0\nto_onsite: 0\nto_master: 0\nreason: time-limit\ngrant: 5\nwaiting: \n"
        )
        over = SessionView(reason=EndReason.TIME_LIMIT, grant=5)
        self.says("get_session", lines, asked=requests.GetSession())
        self.says("get_session", none, asked=requests.GetSession(), GetSession=over)
        for argument, *wanted in [("60", 60.0), ("1", 1.0), ("2.5", 2.5), ("8 0", 8.0, 0), ("8  17", 8.0, 17)]:
            self.says(
                f"wait_session_change pending {argument}",
                none,
                asked=requests.WaitForSessionChange(SessionState.PENDING, *wanted),
                WaitForSessionChange=over,
            )

    def test_grant(self) -> None:
        """What may be done in a session is told a key a line."""
        asked = requests.GetSessionGrant()
        self.says(
            "get_session_grant",
            "revision: 3\nseconds: 3600.0\n"
            "scope: 0.0.0.0-192.168.1.9:icmp 192.168.1.10:tcp/80,8000-8080 192.168.1.10:icmp"
            " 192.168.1.11-255.255.255.255:icmp\n",
            asked=asked,
        )
        self.says(
            "get_session_grant",
            "revision: 0\nseconds: \nscope: *\n",
            asked=asked,
            GetSessionGrant=SessionGrant(0, None, ALL),
        )
        refusal = NoSession()
        self.says("get_session_grant", errors=f"Error: {refusal}\n", asked=asked, GetSessionGrant=refusal)

    def test_invalid_wait(self) -> None:
        """A wait needs a state, and a number of seconds that is neither too small nor too large."""
        for argument in [
            "",
            "up",
            "up 0",
            "up 0.9",
            "up 61",
            "up nan",
            "up 1e1",
            "up -1",
            "UP 5",
            "up 5 x",
            "up 5 -1",
            "up 5 1 1",
            "up 5 \u0661",
            "up 5 1234567890123456789",
            "up \u0665",
        ]:
            command = f"wait_session_change {argument}"
            self.says(command, errors=f"Invalid session state or seconds: {argument}\n")

    def test_limit_session(self) -> None:
        """A device says in how many seconds its session will be over; what is no number, or too much, is refused."""
        self.says("limit_session 7200.5 s1", asked=requests.LimitSession(7200.5, "s1"))
        for wrong in ("", "60", "-1 s1", "nan s1", "1e3 s1", "2592001 s1", "60 s1 s2"):
            self.says(f"limit_session {wrong}".rstrip(), errors=f"Invalid seconds or session: {wrong}\n")

    def test_consent_time(self) -> None:
        """An onsite says for how long its site is asked."""
        self.says("set_consent_time 120", asked=requests.Publish(Profile(consent_seconds=120.0)))
        self.says("set_consent_time 0", asked=requests.Publish(Profile()))
        for wrong in ("", "601", "-1", "1.5", "soon"):
            self.says(f"set_consent_time {wrong}".rstrip(), errors=f"Invalid number of seconds: {wrong}\n")

    def test_end_session(self) -> None:
        """A session is ended with a reason, which is the operator's wish if none is given."""
        self.says("end_session", asked=requests.EndSession(EndReason.OPERATOR))
        self.says("end_session tunnel-lost", asked=requests.EndSession(EndReason.TUNNEL_LOST))
        self.says("end_session operator s1", asked=requests.EndSession(EndReason.OPERATOR, "s1"))
        self.says("end_session operator s1 s2", errors="Unsupported session: s1 s2\n")
        self.says("end_session boredom", errors="Unsupported reason: boredom\n")

    def test_remote_onsite(self) -> None:
        """All that is known of the onsite, or that there is none."""
        lines = (
            "id: rpi1100\nlan: 192.168.1.50/24\ndns: 192.168.1.1 8.8.8.8\nhostname: shopbox\nuplink: lan\n"
            "address: 203.0.113.7:40022\nconsent_seconds: \n"
        )
        bare = RemoteSite("rpi1100", None, (), None, None, "203.0.113.7:1")
        asked, command = requests.GetRemoteSite(), "show_remote_onsite"
        self.says(command, lines, role=MASTER, asked=asked)
        self.says(
            command,
            "id: rpi1100\nlan: \ndns: \nhostname: \nuplink: \naddress: 203.0.113.7:1\nconsent_seconds: \n",
            role=MASTER,
            asked=asked,
            GetRemoteSite=bare,
        )
        none = "No remote onsite. Are you connected to an onsite?\n"
        self.says(command, errors=none, role=MASTER, asked=asked, GetRemoteSite=None)

    def test_onsites(self) -> None:
        """The table of onsites has tabs between its fields, and only there."""
        asked, command = requests.ListOnsite(), "show_onsite_devs"
        self.says(
            command,
            "rpi1100\tshopbox\t192.168.1.50/24\tlan\tbusy\t203.0.113.7:1\nrpi1102\t\t\t\tidle\t203.0.113.7:1\n",
            role=MASTER,
            asked=asked,
        )
        rude = presence("rpi1100", Profile(hostname="a\tb\nc\x1b[2Jrpi1100$ d"))
        expected = "rpi1100\ta?b?c?[2Jrpi1100$?d\t\t\tidle\t203.0.113.7:1\n"
        self.says(command, expected, role=MASTER, asked=asked, ListOnsite=(rude,))

    def test_certificate_authority(self) -> None:
        """The certificate is one line of base64."""
        self.says(
            "get_certificate_authority",
            "certificate_authority: MAMCAQU=\n",
            asked=requests.GetCertificateAuthority(),
        )

    def test_return_time(self) -> None:
        """Devices learn over how many seconds to spread when they come back."""
        for role in (ONSITE, MASTER):
            self.says("get_return_time", "return_within: 5\n", role=role, asked=requests.GetReturnTime())

    def test_heartbeat(self) -> None:
        """A word comes back."""
        self.says("heartbeat 17", "heartbeat: 17\n")
        for argument in ["", "a b", "x" * 65, "é"]:
            self.says(f"heartbeat {argument}", errors=f"Invalid heartbeat: {argument}\n")


class ProfileTests(SynchronousTestCase):
    """What a device says of itself adds up, and the server is told every time."""

    def test_accumulates(self) -> None:
        """Each setting is published together with the former ones, also after registration."""
        conversation = Conversation(terminal=False)
        conversation.send(
            b"set_tunnelling_dev_lan_ip_address 192.168.1.50/24\nset_tunnelling_dev_hostname 'a'\n"
            b"wait_master_connection\nset_tunnelling_dev_hostname 'b'\n"
        )
        first = Profile(lan=IPv4Interface("192.168.1.50/24"))
        self.assertEqual(
            conversation.asked,
            [
                Publish(first),
                Publish(Profile(lan=first.lan, hostname="a")),
                requests.WaitForMaster(60.0),
                Publish(Profile(lan=first.lan, hostname="b")),
            ],
        )

    def test_invalid_keeps(self) -> None:
        """A value that is refused, here or by the server, leaves the former one in place."""
        answers = ANSWERS | {
            Publish: lambda request: None if request.profile.hostname is None else RequestRefused("no such name")
        }
        conversation = Conversation(terminal=False, answers=answers)
        printed = conversation.exchange(
            b"set_tunnelling_dev_lan_ip_address 192.168.1.50/24\nset_tunnelling_dev_lan_ip_address None\n"
            b"set_tunnelling_dev_hostname x\nset_tunnelling_dev_uplink_type lan\n"
        )
        self.assertEqual(
            printed,
            [
                (OUT, b"rpi1100$ "),
                (ERR, b"Invalid IP network: None\n"),
                (OUT, b"rpi1100$ "),
                (ERR, b"Error: no such name\n"),
                (OUT, b"rpi1100$ rpi1100$ "),
            ],
        )
        self.assertEqual(conversation.asked[-1], Publish(Profile(lan=IPv4Interface("192.168.1.50/24"), uplink="lan")))
