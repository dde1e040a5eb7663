"""New devices at old servers: what they ask there, what they never do, and what they tell their operators."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.consent import Consent
from rdvtwisted.errors import ConnectionLost, ProtocolError, TunnelFailed
from rdvtwisted.oldserver import tunnel_parameters
from rdvtwisted.requests import Publish, WaitForMaster
from rdvtwisted.services.console import Console
from rdvtwisted.services.link import LEAVE_SECONDS, Link
from rdvtwisted.services.master import MasterService, MasterSettings
from rdvtwisted.services.onsite import AWAY_SECONDS, OnsiteService
from rdvtwisted.services.pace import Pace
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.shell.parameters import parse_vtun
from rdvtwisted.values import Mode, Profile, Role, TunnelParameters
from tests.services.neighbours import REPORT, DeviceCase
from tests.services.oldtwin import KEY, ONSITE, VTUN, OldSSHTwin
from tests.services.twin import DEVICE

PARAMETERS = TunnelParameters(
    session="tundevrpi1100",
    backend="vtun",
    mode=Mode.L3,
    join="glue",
    peer="",
    peer_key=KEY,
    peer_role=Role.MASTER,
    address=IPv4Interface("192.168.128.2/30"),
    peer_address=IPv4Address("192.168.128.1"),
    mtu=1450,
    door_port=5000,
    ticket="_rpi1100",
)


class ParametersTests(SynchronousTestCase):
    """What an old server's answer means."""

    def parameters(self, text: str) -> TunnelParameters:
        """Those of an onsite that got this answer."""
        return tunnel_parameters(DEVICE, Role.ONSITE, "", Mode.L3, parse_vtun(text.strip()), KEY)

    def test_parameters(self) -> None:
        """A tunnel that the server ends, to its own end of the block."""
        self.assertEqual(self.parameters(VTUN), PARAMETERS)

    def test_nonsense(self) -> None:
        """Two ends that cannot be one tunnel's are refused before anything is built."""
        for far in ("192.168.128.2", "192.168.128.9"):
            with self.assertRaises(ProtocolError):
                self.parameters(VTUN.replace("192.168.128.1\n", f"{far}\n"))

    def test_too_much(self) -> None:
        """Nor can half the Internet, or the address of somebody else's server, be the tunnel's."""
        for wrong in (VTUN.replace("/30", "/2"), VTUN.replace("192.168.128.", "8.8.8.")):
            self.assertNotEqual(wrong, VTUN)
            error = self.assertRaises(ProtocolError, self.parameters, wrong)
            self.assertIn("the server should take them out of a private network", str(error))

    def test_other_blocks(self) -> None:
        """Blocks of old servers that were set up otherwise are as good."""
        for start, prefix in (
            ("192.168.101.", "/30"),
            ("192.168.101.", "/24"),
            ("10.8.0.", "/29"),
            ("172.20.7.", "/30"),
        ):
            parameters = self.parameters(VTUN.replace("192.168.128.", start).replace("/30", prefix))
            self.assertEqual(parameters.address, IPv4Interface(f"{start}2{prefix}"))


class OldServerCase(DeviceCase):
    """A device that knows vtun besides what it prefers, and old servers."""

    def setUp(self) -> None:
        """Not started yet."""
        super().setUp()
        self.backend.name = "vtun"
        self.backend.relay = False
        self.equipment.backends = {"vtun": self.backend}
        self.olds: list[OldSSHTwin] = []
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.report = self.folder / "report"
        self.console = Console(self.said.append, self.complaints.append, self.report, self.clock.seconds)

    @property
    def here(self) -> OldSSHTwin:
        """The server that the device is connected to now."""
        return self.olds[-1]

    def old_server(self) -> OldSSHTwin:
        """One more connection."""
        self.olds.append(OldSSHTwin(self.role))
        return self.olds[-1]

    async def connected(self) -> Link:
        """A link that is open."""
        link = Link(Dialogue(DEVICE, self.role), self.clock, self.old_server())  # type: ignore[arg-type]
        opening = Deferred.fromCoroutine(link.open())
        self.here.pump()
        await opening
        return link

    def pump(self) -> None:
        """Let all talk until nobody has more to say."""
        before = None
        while before != (before := [(len(old.lines), len(old.said), bytes(old.typed)) for old in self.olds]):
            for old in list(self.olds):
                old.pump()

    def records(self) -> list[dict[str, Any]]:
        """What stands in the file of records."""
        return [json.loads(line) for line in self.report.read_text().splitlines()]

    def connector(self) -> Callable[[], Awaitable[Link]]:
        """As a service wants it."""
        return self.connected

    def assert_left(self, old: OldSSHTwin) -> None:
        """The device has logged out in order, and is gone."""
        self.assertEqual(old.lines[-1], "logout")
        self.assertEqual(old.partings, ["goodbye"])


class LinkTests(OldServerCase):
    """The connection itself."""

    def leave(self, link: Link) -> Deferred[None]:
        """Close it, as far as it goes by itself."""
        closing = Deferred.fromCoroutine(link.close())
        self.pump()
        return closing

    def old_link(self) -> Link:
        """A link that has found out what its server is."""
        link = self.successResultOf(Deferred.fromCoroutine(self.connected()))
        self.assertFalse(link.old)
        published = link.ask(Publish(Profile(backends=("tls", "vtun"))))
        self.pump()
        self.successResultOf(published)
        self.assertTrue(link.old)
        return link

    def test_stuck(self) -> None:
        """A server that does not end its shell is left all the same, after a short while."""
        link = self.old_link()
        self.here.stuck = True
        closing = self.leave(link)
        self.assertNoResult(closing)
        self.pass_time(LEAVE_SECONDS)
        self.successResultOf(closing)
        self.assert_left(self.here)

    def test_waiting(self) -> None:
        """Who leaves while the shell is busy hangs up, since no command would be heard."""
        link = self.old_link()
        link.ask(WaitForMaster(60.0)).addErrback(lambda failure: None)
        self.pump()
        self.successResultOf(self.leave(link))
        self.assertEqual((self.here.lines[-1], self.here.partings), ("wait_master_connection", ["goodbye"]))

    def test_gone(self) -> None:
        """Everybody who waits for the end of the link learns why it came, also afterwards; who gives up does not."""
        link = self.old_link()
        first, given_up = link.gone(), link.gone()
        given_up.addErrback(lambda failure: None)
        given_up.cancel()
        self.assertNoResult(first)
        self.here.lose(ConnectionLost("cable cut"))
        self.assertEqual([str(self.successResultOf(each)) for each in (first, link.gone())], ["cable cut"] * 2)

    def test_forward(self) -> None:
        """A forward leads to the server's own machine."""
        self.old_link().forward(5000)
        self.assertEqual(self.here.forwards, [("127.0.0.1", 5000)])


class OnsiteTests(OldServerCase):
    """An onsite."""

    def setUp(self) -> None:
        """Started, and waiting for a master."""
        super().setUp()
        self.service = OnsiteService(
            equipment=self.equipment, console=self.console, pace=Pace(lambda: 1.0), connect=self.connector()
        )
        self.addCleanup(self.stop)

    def start(self) -> None:
        """Start, and go as far as it goes."""
        self.service.startService()
        self.pump()

    def stop(self) -> None:
        """Stop; nothing is left."""
        stopping = self.service.stopService()
        self.pump()
        self.pass_time(LEAVE_SECONDS)
        if stopping is not None:
            self.successResultOf(stopping)
        self.assertEqual(self.network.applied, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_session(self) -> None:
        """It publishes and waits as an old device does, builds its tunnel by vtun, and comes back in two seconds."""
        self.start()
        self.assertEqual(
            self.here.lines,
            [
                "get_role",
                "set_tunnelling_dev_lan_ip_address 192.168.7.9/24",
                "set_tunnelling_dev_dns_server_list 192.168.7.1",
                "set_tunnelling_dev_hostname 'cellar'",
                "set_tunnelling_dev_uplink_type lan",
                "set_tunnel_backends vtun",
                "wait_master_connection",
            ],
        )
        self.assertIn("This server is an old one: it joins each session itself, and can read it", self.said)
        self.here.ready("not_ready")
        del self.here.lines[:]
        self.here.ready()
        self.pump()
        self.assertEqual(self.here.lines, ["get_tunnel_mode", "get_vtun_parameters"])
        self.assertEqual(self.tunnel.parameters, PARAMETERS)
        self.assertEqual(list(self.network.applied), ["onsite-rpi1100"])
        site = self.tunnel.site
        self.assertEqual((site.owner, site.door_address), ("onsite-rpi1100.tunnel", ("rdv.example.org", 5000)))
        self.assertEqual((site.forward(5000), site.programs), ("to 127.0.0.1:5000", self.equipment.programs))
        self.tunnel.carrying.callback(REPORT)
        self.pump()
        self.assertIn("Session now established with remote master", self.said)
        joined = "Joined by the server, which can read this session; the tunnel to it is by twin"
        self.assertTrue(any(line.startswith(joined) for line in self.said))
        self.assertEqual(self.here.lines, ["get_tunnel_mode", "get_vtun_parameters"])
        self.tunnel.closed.errback(TunnelFailed("the server has closed the vtun tunnel"))
        self.pump()
        self.assert_left(self.here)
        self.assertEqual(self.network.applied, {})
        self.assertEqual(
            [(record["event"], record.get("join"), record.get("reason")) for record in self.records()],
            [("online", None, None), ("up", "glue", None), ("ended", None, "tunnel-lost")],
        )
        self.assertFalse((self.folder / "known_peers").exists())
        self.pass_time(AWAY_SECONDS - 0.1)
        self.assertEqual(len(self.olds), 1)
        self.pass_time(0.1)
        self.assertEqual((len(self.olds), self.here.lines[-1]), (2, "wait_master_connection"))

    def test_lost(self) -> None:
        """When the connection breaks in a session, the session is over, and the device comes back."""
        self.start()
        self.here.ready()
        self.pump()
        self.tunnel.carrying.callback(REPORT)
        self.here.lose(ConnectionLost("cable cut"))
        self.pump()
        self.assertEqual(self.tunnel.closings, 1)
        self.assertIn("cable cut", self.logged(LogLevel.warn))
        self.pass_time(AWAY_SECONDS)
        self.assertEqual(len(self.olds), 2)

    def test_consent(self) -> None:
        """The site is asked about the mode that the server tells, and gets no other; that is all an old one tells."""
        consent = self.service.consent = Consent(self.clock, required=True)
        self.start()
        for mode, built in (("L2", 0), ("L3", 1)):
            self.here.mode = "L3"
            self.here.ready()
            self.pump()
            self.assertEqual((consent.status()["mode"], self.here.lines[-1]), ("L3", "get_tunnel_mode"))
            self.here.mode = mode
            consent.grant()
            self.pump()
            self.assertEqual(len(self.backend.tunnels), built)
            self.pass_time(AWAY_SECONDS)
        self.assertIn(
            "this site has agreed to a session with a master (L3), and the server has one with a master (L2)",
            self.logged(LogLevel.warn),
        )

    def test_fatal(self) -> None:
        """A server that gives no tunnel ends its shell: a session that failed, and nothing more."""
        self.start()
        self.here.vtun = "tunnel_secret: _rpi1100\n"
        self.here.ready()
        self.pump()
        self.assertEqual(self.logged(LogLevel.warn), ["the server's answer lacks tunnel_ip_network"])
        self.assert_left(self.here)

    def test_end_to_end(self) -> None:
        """A device that is to be read by nobody is not online at an old server, and says so once."""
        self.change(end_to_end=True)
        self.start()
        for _ in range(3):
            self.assert_left(self.here)
            self.pass_time(10.0)
        refusal = "this server is an old one, which can read every session: --end-to-end refuses that"
        self.assertEqual(self.logged(LogLevel.warn), [refusal])
        self.assertEqual([record["event"] for record in self.records()], ["offline"])

    def test_no_vtun(self) -> None:
        """A device that has no vtun is told what to install."""
        self.equipment.backends = {"tls": self.backend}
        self.start()
        self.assert_left(self.here)
        (warning,) = self.logged(LogLevel.warn)
        self.assertIn("install the package vtun", warning)


class MasterTests(OldServerCase):
    """A master."""

    role = Role.MASTER

    def setUp(self) -> None:
        """What the operator wants."""
        super().setUp()
        self.finished: list[bool] = []
        self.service = MasterService(
            equipment=self.equipment,
            console=self.console,
            settings=MasterSettings(onsite=ONSITE, list_onsite=True),
            connect=self.connector(),
            finished=lambda: self.finished.append(True),
            terminal=None,
        )

    def start(self) -> None:
        """Start, and go as far as it goes."""
        self.service.startService()
        self.pump()

    def test_session(self) -> None:
        """It selects the onsite as an old device does, and tells where it leads and who can read the session."""
        self.start()
        self.assertEqual(
            self.here.lines,
            [
                "get_role",
                "show_online_onsite_devs",
                "show_online_onsite_devs",
                "set_tunnelling_dev_lan_ip_address 192.168.7.9/24",
                "set_tunnelling_dev_dns_server_list",
                "set_tunnel_mode L3",
                "set_tunnel_backends vtun",
                f"connect_to_onsite_dev {ONSITE}",
                "show_remote_onsite_ip_config",
                "get_tunnel_mode",
                "get_vtun_parameters",
            ],
        )
        self.assertEqual((self.tunnel.parameters.peer, self.tunnel.parameters.peer_role), (ONSITE, Role.ONSITE))
        self.tunnel.carrying.callback(REPORT)
        self.pump()
        line = f"This server does not tell whether the site of {ONSITE} must agree: until it has, nothing answers"
        self.assertEqual(self.said.count(line), 1)
        told = self.said[self.said.index(f"Remote session to onsite {ONSITE} is now established") :]
        self.assertEqual(told[1], "Remote onsite has it LAN interface configured with IP address 192.168.50.1/24")
        self.assertTrue(told[2].startswith("Joined by the server, which can read this session; "), told[2])
        stopping = self.service.stopService()
        self.pump()
        assert stopping is not None
        self.successResultOf(stopping)
        self.assert_left(self.here)
        self.assertEqual((self.service.exit_status, self.finished, self.network.applied), (0, [True], {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bridged(self) -> None:
        """An operator who wants mode L2 is told why it may fail here: no onsite learns of it."""
        line = (
            f"This server does not tell {ONSITE} that mode L2 is wanted:"
            " if the tunnel is lost at once, have the session in mode L3"
        )
        self.service.settings = evolve(self.service.settings, mode=Mode.L2, extremity="eth2")
        self.start()
        self.assertIn("set_tunnel_mode L2", self.here.lines)
        self.assertEqual(self.said.count(line), 1)
        self.service.stopService()
        self.pump()
        self.assert_left(self.here)

    def test_lost_tunnel(self) -> None:
        """Of the other end's leaving, an old server tells no more than that the tunnel is closed."""
        self.start()
        self.tunnel.carrying.callback(REPORT)
        self.tunnel.closed.errback(TunnelFailed("the server has closed the vtun tunnel"))
        self.pump()
        self.assertEqual((self.service.exit_status, self.complaints), (4, ["the server has closed the vtun tunnel"]))
        self.assert_left(self.here)

    def test_end_to_end(self) -> None:
        """A master that is to be read by nobody selects nothing at an old server."""
        self.change(end_to_end=True)
        self.start()
        self.assertNotIn(f"connect_to_onsite_dev {ONSITE}", self.here.lines)
        refusal = "this server is an old one, which can read every session: --end-to-end refuses that"
        self.assertEqual((self.service.exit_status, self.complaints), (4, [refusal]))
        self.assert_left(self.here)
