"""An onsite device: it comes back whatever happens, and a session's failure is no failure of the device."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from ipaddress import IPv4Interface
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel

from rdvtwisted.errors import ConnectionLost, KeyRejected, NetworkError, NoSession, RequestRefused
from rdvtwisted.plan import Site
from rdvtwisted.requests import (
    EndSession,
    GetReturnTime,
    GetSession,
    GetTunnelParameters,
    Publish,
    Readiness,
    WaitForMaster,
    WaitForSessionChange,
)
from rdvtwisted.services.console import Console
from rdvtwisted.services.footing import GRACE_SECONDS
from rdvtwisted.services.link import Link
from rdvtwisted.services.onsite import OnsiteService
from rdvtwisted.services.pace import Pace
from rdvtwisted.services.resumption import LONGEST_SECONDS, RESUME_SECONDS
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.testing.tunnels import identity
from rdvtwisted.values import EndReason, Profile, Role, SessionView
from tests.services.neighbours import REPORT, SITE, DeviceCase
from tests.services.twin import DEVICE, SSHTwin

PROFILE = Profile(
    lan=IPv4Interface("192.168.7.9/24"), dns=SITE.dns, hostname="cellar", uplink="lan", backends=("twin",)
)


class OnsiteCase(DeviceCase):
    """An onsite that connects to one server after the other."""

    def setUp(self) -> None:
        """Not started yet."""
        super().setUp()
        self.said: list[str] = []
        self.report = self.folder / "report"
        #: What becomes of the next tries to connect; afterwards there is a server.
        self.outcomes: list[Deferred[SSHTwin]] = []
        self.tries = 0
        self.links: list[Link] = []
        self.service = OnsiteService(
            equipment=self.equipment,
            console=Console(self.said.append, self.said.append, self.report, self.clock.seconds),
            pace=Pace(lambda: 1.0),
            connect=self.connect,
        )
        self.addCleanup(self.stop)

    async def _connect(self) -> Link:
        self.tries += 1
        ssh = await (self.outcomes.pop(0) if self.outcomes else succeed(self.server()))
        link = Link(Dialogue(DEVICE, Role.ONSITE), self.clock, ssh)
        self.links.append(link)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link

    def connect(self) -> Coroutine[Any, Any, Link]:
        """As the real one does, the service gets a link that is open."""
        return self._connect()

    def fail_next(self, *errors: Exception) -> None:
        """The next tries to connect fail with these."""
        for error in errors:
            outcome: Deferred[SSHTwin] = Deferred()
            outcome.errback(error)
            self.outcomes.append(outcome)

    def start(self) -> None:
        """Start, and go as far as it goes."""
        self.service.startService()
        self.pump()

    def stop(self) -> None:
        """Stop; however that goes, it ends without error and nothing is left."""
        stopping = self.service.stopService()
        self.pump()
        self.pass_time(2.0)
        if stopping is not None:
            self.assertIsNone(self.successResultOf(stopping))
        self.assertEqual(self.network.applied, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(all(tunnel.closings for tunnel in self.backend.tunnels))
        self.assertTrue(all(server.partings or server.closed.called for server in self.servers))

    def records(self, *keys: str) -> list[Any]:
        """What stands in the file of records: the events, or tuples with these facts of them."""
        found = [json.loads(line) for line in self.report.read_text().splitlines()] if self.report.exists() else []
        return [tuple(record.get(key) for key in ("event", *keys)) if keys else record["event"] for record in found]

    @property
    def here(self) -> SSHTwin:
        """The server that the device is connected to now."""
        return self.servers[-1]

    def begin_session(self) -> None:
        """A master wants the device."""
        self.here.answer(Readiness.READY)

    def bring_up(self) -> None:
        """Packets flow."""
        self.tunnel.carrying.callback(REPORT)
        self.pump()

    def end_session(self, reason: EndReason) -> None:
        """The server says that the session is over."""
        self.assertIsInstance(self.requests[-1], WaitForSessionChange)
        self.here.answer(SessionView(reason=reason))


class WaitingTests(OnsiteCase):
    """Being online."""

    def test_online(self) -> None:
        """The device publishes what it is attached to, and waits; the operator learns it."""
        self.start()
        self.assertEqual(self.requests[-2:], [Publish(PROFILE), WaitForMaster(60.0)])
        self.assertEqual(self.said, ["Online. A master will reach 192.168.7.9/24 on eth0. Waiting for one"])
        self.assertEqual(self.records("interface", "lan"), [("online", "eth0", "192.168.7.9/24")])

    def test_named_interface(self) -> None:
        """The operator may name another interface than that of the default route."""
        self.service.interface = "eth1"
        self.start()
        profile = evolve(PROFILE, lan=IPv4Interface("10.1.2.3/16"), uplink="wlan")
        self.assertEqual(self.asked(Publish)[-1], Publish(profile))

    def test_waits_on(self) -> None:
        """It waits for days, without publishing again what the server knows."""
        self.start()
        before = len(self.asked(Publish))
        for _ in range(100):
            self.clock.advance(60.0)
            self.here.answer(Readiness.NOT_READY)
        self.assertEqual(len(self.asked(WaitForMaster)), 101)
        self.assertEqual((len(self.asked(Publish)), len(self.said), self.tries), (before, 1, 1))

    def test_address_changes(self) -> None:
        """A new address on the LAN is published before the next wait."""
        self.start()
        site = evolve(SITE, attachments=(evolve(SITE.attachments[0], address=IPv4Interface("192.168.7.44/24")),))
        self.network._site = site
        self.here.answer(Readiness.NOT_READY)
        self.assertEqual(
            self.requests[-2:], [Publish(evolve(PROFILE, lan=IPv4Interface("192.168.7.44/24"))), WaitForMaster(60.0)]
        )
        self.assertEqual(self.said[-1], "Online. A master will reach 192.168.7.44/24 on eth0. Waiting for one")

    def test_reset(self) -> None:
        """A server that wants to begin anew gets everything anew."""
        self.start()
        before = len(self.asked(Publish))
        self.here.answer(Readiness.RESET)
        self.assertEqual(len(self.asked(Publish)), 2 * before)
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_sweeps(self) -> None:
        """What a killed process has left behind is removed first, and told."""
        self.network.sweep = lambda owner: succeed([f"the table of {owner}"])
        self.start()
        self.assertEqual(self.said[0], "Removed what an earlier run left behind: the table of onsite-rpi1100")


class ReconnectingTests(OnsiteCase):
    """Coming back."""

    def assert_offline(self, *waits: float) -> None:
        """The device tries again after each of these waits, no sooner."""
        for wait in waits:
            tries = self.tries
            self.pass_time(wait - 0.01)
            self.assertEqual(self.tries, tries)
            self.pass_time(0.01)
            self.assertEqual(self.tries, tries + 1)

    def test_pace(self) -> None:
        """Tries become rarer up to the promised limit, and go on for ever."""
        self.fail_next(*[ConnectionLost("no route")] * 7)
        self.start()
        self.assert_offline(0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_said_once(self) -> None:
        """A reason that stays the same is told once, in the log and in the records: days offline fill no disk."""
        self.fail_next(*[ConnectionLost("no route")] * 3, KeyRejected("unknown key"), ConnectionLost("no route"))
        self.start()
        for _ in range(10):
            self.pass_time(8.0)
        self.assertEqual(self.logged(LogLevel.warn), ["no route", "unknown key", "no route"])
        self.assertEqual(
            self.records("error"),
            [
                ("offline", "no route"),
                ("offline", "unknown key"),
                ("offline", "no route"),
                ("online", None),
            ],
        )
        self.here.lose(ConnectionLost("no route"))
        self.pump()
        self.assertEqual(len(self.logged(LogLevel.warn)), 4)

    def test_goodbye(self) -> None:
        """When the server has said for how long its devices are to spread, this one waits for its part of that."""
        self.service.pace = Pace(lambda: 0.5)
        self.start()
        self.here.lose(ConnectionLost("the connection was lost: the server is stopping: come back within 8 s"))
        self.assert_offline(0.375 + 4.0)

    def test_spread(self) -> None:
        """The server tells beforehand over how many seconds its devices are to spread; that counts for every try."""
        self.service.pace = Pace(lambda: 0.5)
        self.start()
        self.here.answers[GetReturnTime] = 8
        self.here.answer(Readiness.NOT_READY)
        self.fail_next(ConnectionLost("refused"))
        self.here.lose(ConnectionLost("cut"))
        self.assert_offline(0.375 + 4.0, 0.75 + 4.0)

    def test_asks_rarely(self) -> None:
        """It is asked after a wait that was in vain, so not while all come back, and from then on every ten minutes."""
        self.start()
        self.assertEqual(self.asked(GetReturnTime), [])
        for _ in range(21):
            self.clock.advance(60.0)
            self.here.answer(Readiness.NOT_READY)
        self.assertEqual(len(self.asked(GetReturnTime)), 3)
        self.here.lose(ConnectionLost("cut"))
        self.pass_time(0.5)
        self.here.answer(Readiness.NOT_READY)
        self.assertEqual(self.asked(GetReturnTime), [])

    def test_spread_unknown(self) -> None:
        """A server that gives no usable answer to that, or too large a one, is none the worse for it."""
        self.service.pace = Pace(lambda: 0.5)
        self.start()
        for answer, part in ((RequestRefused("no"), 0.0), (10**6, 0.0), (9999, 30.0)):
            self.here.answers[GetReturnTime] = answer
            for _ in range(11):
                self.clock.advance(60.0)
                self.here.answer(Readiness.NOT_READY)
            self.assertEqual(self.requests[-1], WaitForMaster(60.0))
            self.here.lose(ConnectionLost("cut"))
            self.assert_offline(0.375 + part)

    def test_own_fault(self) -> None:
        """A device whose own address has gone comes back alone, so it need not wait for others."""
        self.service.pace = Pace(lambda: 0.5)
        self.start()
        self.here.answers[GetReturnTime] = 8
        self.here.answer(Readiness.NOT_READY)
        self.links[-1].give_up(ConnectionLost("this machine does not have the address any more"))
        self.pump()
        self.assert_offline(0.375)

    def test_lost(self) -> None:
        """A connection that breaks is made anew, and everything is published on the new one."""
        self.start()
        self.here.lose(ConnectionLost("cut"))
        self.assert_offline(0.5)
        self.assertEqual((len(self.servers), self.requests[-1]), (2, WaitForMaster(60.0)))
        self.assertEqual(self.asked(Publish)[-1], Publish(PROFILE))
        self.assertEqual(self.records(), ["online", "offline", "online"])

    def test_pace_resets(self) -> None:
        """Once the server has answered a wait, the next tries come soon again."""
        self.fail_next(*[ConnectionLost("no route")] * 3)
        self.start()
        self.assert_offline(0.5, 1.0, 2.0)
        self.here.lose(ConnectionLost("cut"))
        self.assert_offline(4.0)
        self.here.answer(Readiness.NOT_READY)
        self.here.lose(ConnectionLost("cut"))
        self.assert_offline(0.5)

    def test_wrong_role(self) -> None:
        """A master's account is refused with a line; the administrator may put it right while the device goes on."""
        server = SSHTwin(Role.MASTER)
        self.servers.append(server)
        self.outcomes.append(succeed(server))
        self.start()
        self.assertEqual(
            self.logged(LogLevel.warn), ["Tundev shell returns a role that does not match this script (onsite)"]
        )
        self.assert_offline(0.5)
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_no_network(self) -> None:
        """Without default route, or without address, there is nothing to give access to; it may come later."""
        self.network._site = Site()
        self.start()
        self.network._site = Site(interface="eth9")
        self.assert_offline(0.5)
        self.network._site = SITE
        self.assert_offline(1.0)
        self.assertEqual(
            self.logged(LogLevel.warn),
            [
                "invalid interface: there is no default route to find it by; name it with --interface",
                "invalid interface 'eth9': it has no IPv4 address yet",
            ],
        )
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_sweep_fails(self) -> None:
        """Leftovers that cannot be removed now are tried again; the device is here meanwhile, and tells it once."""
        refused, lines = NetworkError("the kernel refuses to undo it"), ["the table of onsite-rpi1100"]
        outcomes: list[Any] = [fail(refused), fail(refused), fail(refused), succeed(lines)]
        self.network.sweep = lambda owner: outcomes.pop(0)
        self.start()
        self.assertEqual((self.tries, self.requests[-1], len(outcomes)), (1, WaitForMaster(60.0), 2))
        self.pass_time(5.0)
        self.assertEqual(self.logged(LogLevel.warn), ["the kernel refuses to undo it: this is tried again"])
        self.pass_time(5.0)
        self.assertEqual((outcomes, self.said[-1]), ([], f"Removed what an earlier run left behind: {lines[0]}"))
        self.pass_time(5.0)
        self.here.answer(Readiness.NOT_READY)
        self.assertEqual((self.tries, self.requests[-1]), (1, WaitForMaster(60.0)))

    def test_left_by_a_session(self) -> None:
        """What a session has left, because no program could be started, is taken away as soon as that is possible."""
        self.start()
        self.begin_session()
        self.bring_up()
        undo, outcomes = self.network.undo, [fail(NetworkError("the kernel refuses to undo it"))]
        self.network.undo = lambda owner: outcomes.pop() if outcomes else undo(owner)
        sweep, refusals = self.network.sweep, [fail(NetworkError("not yet"))]
        self.network.sweep = lambda owner: refusals.pop() if refusals else sweep(owner)
        self.end_session(EndReason.OPERATOR)
        self.assertIn("ended", self.records())
        self.assertTrue(self.network.applied)
        self.assertEqual((len(self.servers), self.requests[-1]), (1, WaitForMaster(60.0)))
        self.pass_time(5.0)
        self.assertEqual(self.network.applied, {})
        self.assertTrue(self.said[-1].startswith("Removed what an earlier run left behind: "))

    def test_left_and_wanted(self) -> None:
        """A session that begins while leftovers are being taken away waits until that is done."""
        taking: Deferred[list[str]] = Deferred()
        outcomes: list[Any] = [fail(NetworkError("busy")), fail(NetworkError("busy")), taking]
        self.network.sweep = lambda owner: outcomes.pop(0)
        self.start()
        self.pass_time(5.0)
        self.begin_session()
        self.assertEqual(self.backend.tunnels, [])
        taking.callback([])
        self.pump()
        self.assertEqual(len(self.backend.tunnels), 1)
        self.bring_up()

    def test_fault(self) -> None:
        """A fault of the program is logged with its traceback, and the device connects anew."""
        self.fail_next(ZeroDivisionError("fault"))
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_offline(0.5)
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))


class SessionTests(OnsiteCase):
    """Sessions."""

    def test_session(self) -> None:
        """A master comes, a session is carried and ends, and the device waits again on the same connection."""
        self.start()
        self.said.clear()
        self.begin_session()
        self.bring_up()
        self.end_session(EndReason.MASTER_LEFT)
        self.assertEqual(
            self.said,
            [
                "A master wants a session",
                "Session now established with remote master rpi2200",
                "End to end by twin, key exchange X25519MLKEM768, cipher TLS_AES_256_GCM_SHA384",
                "Session over: master-left; sent 1.0 kB, received 2.0 kB; round trip 1.0 ms",
                "Online. A master will reach 192.168.7.9/24 on eth0. Waiting for one",
            ],
        )
        self.assertEqual(
            self.records("peer", "reason", "received_bytes"),
            [
                ("online", None, None, None),
                ("up", "rpi2200", None, None),
                ("ended", None, "master-left", 2000),
                ("online", None, None, None),
            ],
        )
        self.assertEqual((self.requests[-1], self.tries, self.network.applied), (WaitForMaster(60.0), 1, {}))

    def test_many_sessions(self) -> None:
        """One session after the other, without anything that adds up."""
        self.start()
        for _ in range(5):
            self.begin_session()
            self.bring_up()
            self.end_session(EndReason.OPERATOR)
        self.assertEqual(len(self.backend.tunnels), 5)
        self.assertEqual(self.records().count("ended"), 5)

    def test_time_limit(self) -> None:
        """The operator's limit ends each session."""
        self.service.session_seconds = 5.0
        self.start()
        self.begin_session()
        self.bring_up()
        self.pass_time(5.0)
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.TIME_LIMIT, "s1")])
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))

    def test_extremity_lost(self) -> None:
        """When the interface of a session is gone for good, the session ends, and the device says why."""
        self.service.interface = "eth1"
        self.start()
        self.begin_session()
        self.bring_up()
        self.said.clear()
        self.network.move(evolve(SITE, ports=SITE.ports[:1], attachments=SITE.attachments[:1]))
        self.pass_time(GRACE_SECONDS)
        self.assertEqual(self.said[0], "The session cannot go on: the interface eth1 is gone")
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.EXTREMITY_LOST, "s1")])

    def test_session_fails(self) -> None:
        """A session that cannot be built is told, and the device waits for the next one."""
        self.start()
        self.begin_session()
        self.tunnel.carrying.errback(ConnectionLost("the other device did not come"))
        self.pump()
        self.assertEqual(self.logged(LogLevel.warn), ["the other device did not come"])
        self.assertIn("Session over: tunnel-failed", self.said)
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.TUNNEL_FAILED, "s1")])
        self.assertEqual((self.requests[-1], self.tries), (WaitForMaster(60.0), 1))

    def test_peer_key_changed(self) -> None:
        """A master with another key than before gets no session, and the server and the log learn why."""
        self.equipment.peers.pin("rpi2200", identity("former").public)
        self.start()
        self.begin_session()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.PEER_KEY_REFUSED, "s1")])
        self.assertTrue(self.logged(LogLevel.warn)[0].startswith("the key of rpi2200 has changed: pinned "))
        self.assertIn("Session over: peer-key-refused", self.said)
        self.assertEqual((self.backend.tunnels, self.requests[-1]), ([], WaitForMaster(60.0)))

    def test_lost_in_session(self) -> None:
        """When the server is lost the session ends, everything is undone, and the device comes back."""
        self.start()
        self.begin_session()
        self.bring_up()
        self.here.lose(ConnectionLost("cut"))
        self.pump()
        self.assertEqual(self.network.applied, {})
        self.pass_time(0.5)
        self.assertEqual((len(self.servers), self.requests[-1]), (2, WaitForMaster(60.0)))

    def test_comes_first(self) -> None:
        """Whose session was lost with the server does not spread, and is in a hurry as long as the master seeks it."""
        self.service.pace = Pace(lambda: 0.5)
        self.start()
        self.here.answers[GetReturnTime] = 60
        self.here.answer(Readiness.NOT_READY)
        self.begin_session()
        self.bring_up()
        self.fail_next(*[ConnectionLost("refused")] * 50)
        self.here.lose(ConnectionLost("the connection was lost: the server is stopping: come back within 60 s"))
        self.pump()
        tries: list[float] = []
        before = self.clock.seconds()
        while self.clock.seconds() - before < RESUME_SECONDS + 60:
            self.pass_time(0.125)
            if len(tries) < self.tries - 1:
                tries.append(self.clock.seconds() - before)
        self.assertEqual(tries[:5], [0.375, 1.125, 2.625, 5.625, 8.625])
        late = [moment for moment in tries if moment > RESUME_SECONDS + LONGEST_SECONDS]
        self.assertEqual(len(late), 1)
        for outcome in self.outcomes:
            outcome.addErrback(lambda _: None)

    def test_fault_in_session(self) -> None:
        """A fault of the program in a session costs the connection, and nothing more."""
        self.start()
        self.begin_session()
        self.tunnel.carrying.errback(ZeroDivisionError("fault"))
        self.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.network.applied, {})
        self.pass_time(0.5)
        self.assertEqual((len(self.servers), self.requests[-1]), (2, WaitForMaster(60.0)))


class HostileTests(OnsiteCase):
    """A server that keeps the device busy with nothing."""

    def setUp(self) -> None:
        """It answers each wait at once, in each test with another word, and gives no session."""
        super().setUp()
        self.start()
        self.here.answers[GetTunnelParameters] = NoSession()
        self.here.answers[GetSession] = SessionView()

    def spin(self, answer: Readiness, seconds: int) -> int:
        """Answer each wait at once for so long; how often the device has waited."""
        waits = 0
        for _ in range(seconds):
            for _ in range(1000):
                if not isinstance(self.requests[-1], WaitForMaster) or self.here.asked[-1][1].called:
                    break
                waits += 1
                self.here.answer(answer)
            self.pass_time(1.0)
        return waits

    def recover(self) -> None:
        """For two minutes the server is an honest one."""
        self.pass_time(5.0)
        for _ in range(2):
            self.pass_time(60.0)
            self.here.answer(Readiness.NOT_READY)

    def test_slowed(self) -> None:
        """Whichever word it is, the device waits ever so often at once, and then every five seconds."""
        for answer in Readiness:
            self.recover()
            self.assertTrue(5 <= self.spin(answer, 5) <= 12)
            self.assertTrue(10 <= self.spin(answer, 60) <= 13)
        self.assertEqual(self.tries, 1)

    def test_not_told(self) -> None:
        """What comes to nothing again and again is told a few times, and then once that it is not told any more."""
        for answer in (Readiness.READY, Readiness.RESET):
            self.recover()
            self.spin(answer, 10)
            told = len(self.said), len(self.records()), len(self.logged(LogLevel.warn))
            self.spin(answer, 600)
            self.assertEqual((len(self.said), len(self.records()), len(self.logged(LogLevel.warn))), told)
            self.assertTrue(max(told) < 100, told)

    def test_attended_at_once(self) -> None:
        """After whatever nonsense, a master that selects the device while it waits is attended at once, and told of."""
        self.spin(Readiness.NOT_READY, 60)
        self.pass_time(5.0)
        self.here.answers[GetTunnelParameters] = self.parameters()
        self.said.clear()
        self.begin_session()
        self.bring_up()
        self.assertIn("Session now established with remote master rpi2200", self.said)
        self.end_session(EndReason.MASTER_LEFT)
        self.assertTrue(any(line.startswith("Session over: master-left") for line in self.said))

    def test_sessions(self) -> None:
        """Sessions that are up are as many as there are masters who want them, up to one a second."""
        self.here.answers[GetTunnelParameters] = self.parameters()
        for _ in range(30):
            self.begin_session()
            self.bring_up()
            self.end_session(EndReason.OPERATOR)
        for _ in range(5):
            self.begin_session()
            self.bring_up()
            self.end_session(EndReason.OPERATOR)
            self.assertNotIsInstance(self.requests[-1], WaitForMaster)
            self.pass_time(1.0)
        self.assertEqual(self.records().count("up"), 35)

    def test_reconnects(self) -> None:
        """Nor is a server served better that closes the connection after each answer."""
        for _ in range(1000):
            if isinstance(self.requests[-1], WaitForMaster) and not self.here.closed.called:
                self.here.answer(Readiness.NOT_READY)
                self.here.lose(ConnectionLost("cut"))
            self.pass_time(0.5)
        self.assertTrue(self.tries < 150, self.tries)

    def test_stopped(self) -> None:
        """It can be stopped while it takes its time; L{OnsiteCase.stop} looks whether anything is left."""
        self.spin(Readiness.NOT_READY, 3)


class StoppingTests(OnsiteCase):
    """The operator stops the device, at any stage; L{OnsiteCase.stop} looks whether anything is left."""

    def test_before_start(self) -> None:
        """A device that was never started can be stopped."""
        self.assertIsNone(self.service.stopService())

    def test_sweeping(self) -> None:
        """While leftovers are removed."""
        self.network.sweep = lambda owner: Deferred()
        self.start()
        self.stop()
        self.assertEqual(self.tries, 0)

    def test_connecting(self) -> None:
        """While it connects."""
        self.outcomes.append(Deferred())
        self.start()
        self.stop()
        self.assertEqual(self.servers, [])

    def test_opening(self) -> None:
        """While the server opens a shell."""
        server = self.server()
        server.opening = Deferred()
        self.outcomes.append(succeed(server))
        self.start()
        self.stop()
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_publishing(self) -> None:
        """While it publishes."""
        server = self.server()
        del server.answers[Publish]
        self.outcomes.append(succeed(server))
        self.start()
        self.assertIsInstance(self.requests[-1], Publish)
        self.stop()

    def test_waiting(self) -> None:
        """While it waits for a master."""
        self.start()
        self.stop()
        self.assertEqual(self.here.partings, ["goodbye"])

    def test_preparing(self) -> None:
        """While it prepares a session; the server learns who has ended it."""
        self.start()
        value = self.here.answers.pop(GetTunnelParameters)
        self.begin_session()
        stopping = self.service.stopService()
        self.pump()
        self.here.answer(value)
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.OPERATOR)])
        self.assertIsNone(self.successResultOf(stopping))

    def test_building(self) -> None:
        """While it builds a tunnel."""
        self.start()
        self.begin_session()
        self.stop()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.OPERATOR, "s1")])
        self.assertEqual(self.records("reason")[-1], ("ended", "operator"))

    def test_in_session(self) -> None:
        """In a session."""
        self.start()
        self.begin_session()
        self.bring_up()
        self.stop()
        self.assertEqual(self.asked(EndSession), [EndSession(EndReason.OPERATOR, "s1")])
        self.assertEqual(len(self.servers), 1)

    def test_in_session_of_stuck_server(self) -> None:
        """In a session whose server does not answer any more, in at most four seconds."""
        self.start()
        self.begin_session()
        self.bring_up()
        self.here.obliging = False
        self.here.stuck = True
        stopping = self.service.stopService()
        self.pump()
        self.pass_time(2.0)
        self.pass_time(2.0)
        self.assertIsNone(self.successResultOf(stopping))

    def test_pausing(self) -> None:
        """Between two tries."""
        self.fail_next(ConnectionLost("no route"))
        self.start()
        self.stop()
        self.assertEqual(self.tries, 1)

    def test_again(self) -> None:
        """It can be started again."""
        self.start()
        self.stop()
        self.start()
        self.assertEqual(self.requests[-1], WaitForMaster(60.0))
