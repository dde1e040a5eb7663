"""The registry and its desks: who is here, who may join whom, and that everything is given back."""

from __future__ import annotations

from ipaddress import IPv4Interface

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from rdvtwisted import requests
from rdvtwisted.device import CLOSE_SECONDS, MAX_WAITS, Desk
from rdvtwisted.errors import (
    LanAddressMissing,
    NoCommonBackend,
    NoSession,
    OnsiteBusy,
    OnsiteNotRegistered,
    RDVError,
    RequestRefused,
    TicketRefused,
    VtunNotAvailable,
    VtunNotChosen,
    VtunNotStarted,
)
from rdvtwisted.events import DeviceLeft, SessionEnded, SessionOpened, SessionRefused
from rdvtwisted.interfaces import IDesk, IReception, ITicketOffice
from rdvtwisted.requests import GetReturnTime, Readiness
from rdvtwisted.session import INQUEST_SECONDS, ISessionWorld
from rdvtwisted.testing.streams import MemoryStream
from rdvtwisted.values import Device, EndReason, Mode, Profile, Role, SessionState
from tests.registry import RegistryCase, key


class RegistryTests(RegistryCase):
    """A server that relays, and ends no tunnels."""

    def test_provides(self) -> None:
        """Registry, desk and office are what other rooms ask."""
        verifyObject(IReception, self.registry)
        verifyObject(ISessionWorld, self.registry)
        verifyObject(IDesk, self.arrive("on1"))
        verifyObject(ITicketOffice, self.tickets)

    def test_admits(self) -> None:
        """Only an enabled device with its own key is admitted."""
        self.assertEqual(self.registry.admit("on1", key("on1")), self.inventory.device("on1"))
        self.assertIsNone(self.registry.admit("on1", key("on2")))
        self.assertIsNone(self.registry.admit("nobody", key("on1")))
        self.inventory.replace(Device("on1", Role.ONSITE, (key("on1"),), enabled=False))
        self.assertIsNone(self.registry.admit("on1", key("on1")))

    def test_connecting_is_not_registering(self) -> None:
        """A device that only looks around is not online, and ends no older registration."""
        onsite = self.arrive("on1")
        self.wait(onsite)
        self.arrive("on1").leave("looked around")
        self.assertEqual([presence.id for presence in self.registry.online()], ["on1"])
        self.assertIsNone(onsite.line.closed)

    def test_no_lan_address(self) -> None:
        """A device without a LAN address cannot register, with the old error's name."""
        desk = self.arrive("on1", lan=None)
        text = self.refused(desk, requests.WaitForMaster(), LanAddressMissing)
        self.assertTrue(text.startswith("LanIpShouldBeProvidedBeforeRegistrationToManager"))

    def test_bridging_needs_no_lan_address(self) -> None:
        """A master that bridges may have no address towards the PC."""
        self.wait(self.arrive("on1"))
        master = self.arrive("ma1", lan=None, mode=Mode.L2)
        self.ask(master, requests.Connect("on1"))
        self.assertEqual(self.ask(master, requests.GetTunnelParameters()).mode, Mode.L2)

    def test_waits_in_vain(self) -> None:
        """Nobody comes: not_ready after the time, not before."""
        waiting = self.wait(self.arrive("on1"))
        self.clock.advance(59.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertIs(self.successResultOf(waiting), Readiness.NOT_READY)

    def test_is_wanted_while_waiting(self) -> None:
        """A master's selection answers a wait at once."""
        waiting = self.wait(self.arrive("on1"))
        self.ask(self.arrive("ma1"), requests.Connect("on1"))
        self.assertIs(self.successResultOf(waiting), Readiness.READY)

    def test_is_wanted_between_waits(self) -> None:
        """A selection between two waits is not lost."""
        onsite = self.arrive("on1")
        waiting = self.wait(onsite)
        onsite.interrupt()
        self.assertIs(self.successResultOf(waiting), Readiness.NOT_READY)
        self.ask(self.arrive("ma1"), requests.Connect("on1"))
        self.clock.advance(10)
        self.assertIs(self.ask(onsite, requests.WaitForMaster()), Readiness.READY)

    def test_cancelled_wait(self) -> None:
        """A wait whose shell has gone leaves no timer."""
        waiting = self.wait(self.arrive("on1"))
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_are_bounded(self) -> None:
        """A device cannot pile up waits."""
        onsite = self.arrive("on1")
        waiting = [self.wait(onsite) for _ in range(MAX_WAITS)]
        self.refused(onsite, requests.WaitForMaster(), RequestRefused)
        for each in waiting:
            self.assertNoResult(each)

    def test_mode_is_the_masters(self) -> None:
        """After a selection the onsite's mode is the master's (a defect of the old server)."""
        onsite, master = self.arrive("on1"), self.arrive("ma1", mode=Mode.L2)
        self.wait(onsite)
        self.assertIs(self.ask(onsite, requests.GetMode()), Mode.L3)
        self.ask(master, requests.Connect("on1"))
        self.assertIs(self.ask(onsite, requests.GetMode()), Mode.L2)

    def test_parameters(self) -> None:
        """Both ends get matching addresses, each other's key, and tickets of their own."""
        onsite, master = self.pair()
        at_onsite = self.ask(onsite, requests.GetTunnelParameters())
        at_master = self.ask(master, requests.GetTunnelParameters())
        self.assertEqual(str(at_onsite.address), "192.168.128.1/30")
        self.assertEqual(str(at_master.address), "192.168.128.2/30")
        self.assertEqual((at_onsite.peer_address, at_master.peer_address), (at_master.address.ip, at_onsite.address.ip))
        self.assertEqual((at_onsite.peer, at_onsite.peer_key), ("ma1", key("ma1")))
        self.assertEqual((at_master.peer, at_master.peer_key), ("on1", key("on1")))
        self.assertEqual((at_master.backend, at_master.join, at_master.door_port), ("tls", "relay", 4430))
        self.assertEqual(at_onsite.session, at_master.session)
        self.assertNotEqual(at_onsite.ticket, at_master.ticket)
        self.assertRaises(TicketRefused, self.tickets.redeem, at_onsite.ticket, master.key)

    def test_parameters_without_session(self) -> None:
        """Without a session there is no tunnel to build."""
        self.refused(self.arrive("on1"), requests.GetTunnelParameters(), NoSession)

    def test_leases_avoid_the_lans(self) -> None:
        """Tunnel addresses never hide the network of either device."""
        onsite, master = self.arrive("on1", lan="192.168.128.9/24"), self.arrive("ma1", lan="192.168.129.9/24")
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        parameters = self.ask(master, requests.GetTunnelParameters())
        self.assertEqual(str(parameters.address), "192.168.130.2/30")

    def test_whole_session(self) -> None:
        """Selected, built, joined, seen by an administrator, ended by the master, everything given back."""
        onsite, master = self.pair()
        watching = master.perform(requests.WaitForSessionChange(SessionState.PENDING, 30))
        self.bring_up(onsite, master)
        self.assertIs(self.successResultOf(watching).state, SessionState.BUILDING)
        (view,) = self.registry.views()
        self.assertEqual((view.state, view.master, view.onsite), (SessionState.UP, "ma1", "on1"))
        self.assertEqual({presence.session for presence in self.registry.presences()}, {view.id})
        told = onsite.perform(requests.WaitForSessionChange(SessionState.UP, 30))
        self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assertIs(self.successResultOf(told).reason, EndReason.OPERATOR)
        self.assertEqual(
            self.events.names,
            ["DeviceArrived", "DeviceArrived", "SessionOpened", "SessionUp", "SessionEnded"],
        )
        self.assert_nothing_held()
        self.assertIs(self.ask(onsite, requests.GetSession()).reason, EndReason.OPERATOR)

    def test_change_between_waits(self) -> None:
        """A change of state between two waits is not lost either."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.relay.end(0)
        self.clock.advance(INQUEST_SECONDS)
        view = self.ask(onsite, requests.WaitForSessionChange(SessionState.UP, 30))
        self.assertEqual((view.state, view.reason), (SessionState.NONE, EndReason.TUNNEL_LOST))

    def test_no_change(self) -> None:
        """When nothing changes the wait answers the same state after its time."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        waiting = onsite.perform(requests.WaitForSessionChange(SessionState.UP, 8))
        self.clock.advance(8)
        self.assertIs(self.successResultOf(waiting).state, SessionState.UP)

    def test_remote_site(self) -> None:
        """A master is told what it is about to reach, and nothing without a session."""
        master = self.arrive("ma1")
        self.assertIsNone(self.ask(master, requests.GetRemoteSite()))
        onsite = self.arrive("on1", lan="192.168.1.50/24", hostname="shopbox", uplink="lan")
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        remote = self.ask(master, requests.GetRemoteSite())
        self.assertEqual((remote.id, str(remote.lan), remote.hostname), ("on1", "192.168.1.50/24", "shopbox"))

    def test_consent(self) -> None:
        """A master is told that the site is asked, and the session waits for it until the onsite builds its tunnel."""
        master, onsite = self.arrive("ma1"), self.arrive("on1", consent_seconds=120.0)
        self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        self.assertEqual(self.ask(master, requests.GetRemoteSite()).consent_seconds, 120.0)
        self.assertEqual(self.ask(master, requests.GetSession()).waiting, "consent")
        change = master.perform(requests.WaitForSessionChange(SessionState.PENDING, 8.0))
        self.assertNoResult(change)
        self.ask(onsite, requests.GetTunnelParameters())
        view = self.successResultOf(change)
        self.assertEqual((view.state, view.waiting), (SessionState.BUILDING, ""))

    def test_limits(self) -> None:
        """What one device says of the end of the session the other learns, if it is the session that is meant."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        view = self.ask(master, requests.GetSession())
        self.ask(onsite, requests.LimitSession(5.0, "another"))
        change = master.perform(requests.WaitForSessionChange(SessionState.UP, 8.0, view.grant))
        self.assertNoResult(change)
        self.ask(onsite, requests.LimitSession(50.0, view.id))
        self.assertEqual(self.successResultOf(change).grant, view.grant + 1)
        self.assertEqual(self.ask(master, requests.GetSessionGrant()).seconds, 50.0)
        self.clock.advance(50)
        self.assertIs(self.ask(master, requests.GetSession()).reason, EndReason.TIME_LIMIT)

    def test_late_publication_counts(self) -> None:
        """What is published after registering reaches the master too (a defect of the old server)."""
        onsite, master = self.pair()
        self.ask(onsite, requests.Publish(Profile(lan=IPv4Interface("10.9.9.9/8"), backends=("tls",))))
        self.assertEqual(str(self.ask(master, requests.GetRemoteSite()).lan), "10.9.9.9/8")

    def test_unknown_and_absent_and_master(self) -> None:
        """An onsite that is unknown, offline, or no onsite is refused in the same words."""
        master = self.arrive("ma1")
        self.ask(self.arrive("ma2"), requests.Publish(Profile(lan=IPv4Interface("10.0.0.2/24"))))
        for id in ("nobody", "on1", "ma2"):
            text = self.refused(master, requests.Connect(id), OnsiteNotRegistered)
            self.assertEqual(text, f"OnsiteDeviceIsNotRegistered: {id} is not online")

    def test_busy(self) -> None:
        """An onsite in a session with another master is refused, and that session goes on."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.refused(self.arrive("ma2"), requests.Connect("on1"), OnsiteBusy)
        event = self.events.all[-1]
        self.assertIsInstance(event, SessionRefused)
        self.assertEqual((event.master, event.onsite), ("ma2", "on1"))
        self.assertIs(self.registry.views()[0].state, SessionState.UP)

    def test_same_pair_again(self) -> None:
        """The same master selecting the same onsite again replaces the session."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.ask(master, requests.Connect("on1"))
        (view,) = self.registry.views()
        self.assertIs(view.state, SessionState.PENDING)
        ended = [event for event in self.events.all if isinstance(event, SessionEnded)]
        self.assertEqual([event.reason for event in ended], [EndReason.REPLACED])

    def test_replacement_waits_for_the_end(self) -> None:
        """The new session begins when the old one holds nothing any more, or is refused if that takes too long."""
        onsite, master = self.pair()
        self.relay.lingering = True
        self.bring_up(onsite, master)
        again = master.perform(requests.Connect("on1"))
        self.assertNoResult(again)
        self.relay.end(0)
        self.successResultOf(again)
        self.bring_up(onsite, master)
        stuck = master.perform(requests.Connect("on1"))
        self.clock.advance(CLOSE_SECONDS)
        self.failureResultOf(stuck, RequestRefused)

    def test_no_common_backend(self) -> None:
        """Two devices that share no way to carry packets are told so, by name."""
        onsite, master = self.arrive("on1", backends=("vtun",)), self.arrive("ma1")
        self.wait(onsite)
        text = self.refused(master, requests.Connect("on1"), NoCommonBackend)
        self.assertIn("ma1 and on1", text)
        self.assert_nothing_held_but_waits(onsite)

    def assert_nothing_held_but_waits(self, *desks: Desk) -> None:
        """Nothing is held once these desks wait no more."""
        for desk in desks:
            desk.interrupt()
        self.assert_nothing_held()

    def test_backend_by_preference_and_mode(self) -> None:
        """The master's first choice that both have, that carries the mode, and that can be relayed, is taken."""
        onsite = self.arrive("on1", backends=("tls", "routed", "ended"))
        self.wait(onsite)
        for mode, expected in ((Mode.L3, "routed"), (Mode.L2, "tls")):
            master = self.arrive("ma1", mode=mode, backends=("unknown", "ended", "routed", "tls"))
            self.ask(master, requests.Connect("on1"))
            self.assertEqual(self.ask(master, requests.GetTunnelParameters()).backend, expected)
            master.leave("done")

    def test_newest_connection_wins(self) -> None:
        """A second registration of a device takes over: the first one's session ends and its connection is closed."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        newer = self.arrive("on1")
        waiting = self.wait(newer)
        self.assertIn("newer connection", onsite.line.closed)
        self.assertNoResult(waiting)
        self.assertEqual(self.registry.views(), [])
        self.assertIs(self.ask(master, requests.GetSession()).reason, EndReason.ONSITE_LEFT)
        onsite.leave("its connection is closed now")
        self.assertEqual([presence.id for presence in self.registry.online(Role.ONSITE)], ["on1"])
        self.refused(onsite, requests.GetMode(), RequestRefused)

    def test_leaving_ends_everything(self) -> None:
        """Losing either device ends the session at once, with who left as its reason."""
        for leaver, reason in ((0, EndReason.ONSITE_LEFT), (1, EndReason.MASTER_LEFT)):
            self.build()
            members = self.pair()
            self.bring_up(*members)
            members[leaver].leave("connection lost")
            members[leaver].leave("again")
            self.assert_nothing_held()
            self.assertIs(self.ask(members[1 - leaver], requests.GetSession()).reason, reason)
            self.assertEqual(self.events.names[-2:], ["SessionEnded", "DeviceLeft"])

    def test_leaving_answers_waits(self) -> None:
        """A wait on a connection that ends is answered, not forgotten."""
        onsite = self.arrive("on1")
        waiting = self.wait(onsite)
        onsite.leave("gone")
        self.failureResultOf(waiting, RequestRefused)
        self.assert_nothing_held()

    def test_drop_disentitled(self) -> None:
        """Disabling, removing, or taking the key of a device closes its connections at once, and no other's."""
        changes = {
            "on1": lambda: self.inventory.replace(Device("on1", Role.ONSITE, (key("on1"),), enabled=False)),
            "on2": lambda: self.inventory.remove("on2"),
            "ma1": lambda: self.inventory.replace(Device("ma1", Role.MASTER, (key("other"),))),
            "ma2": lambda: self.inventory.replace(Device("ma2", Role.ONSITE, (key("ma2"),))),
        }
        desks = {id: self.arrive(id) for id in changes}
        for id, change in changes.items():
            self.assertEqual(self.registry.drop_disentitled(), 0)
            change()
            self.assertEqual(self.registry.drop_disentitled(), 1)
            self.assertIn("not entitled", desks[id].line.closed)

    def test_disentitled_in_session(self) -> None:
        """A session whose device is disabled or removed ends by the administrator; neither device has left."""
        for id in ("on1", "ma1"):
            for change in (lambda device: self.inventory.remove(device.id), self.disable):
                self.build()
                self.bring_up(*self.pair())
                change(self.inventory.device(id))
                self.assertEqual(self.registry.drop_disentitled(), 1)
                self.assert_nothing_held()
                reasons = [event.reason for event in self.events.all if isinstance(event, SessionEnded)]
                self.assertEqual(reasons, [EndReason.ADMINISTRATOR])

    def disable(self, device: Device) -> None:
        """An administrator does."""
        self.inventory.replace(evolve(device, enabled=False))

    def test_goodbye_is_life(self) -> None:
        """Who says goodbye, or whose shell ends, was alive at that moment; who is silent, lost or dismissed was not."""
        for reason, seen in (
            ("goodbye", 40.0),
            ("logout", 40.0),
            ("disconnected by user", 40.0),
            ("nothing was heard of it for 60 s", 10.0),
            ("the connection was lost", 10.0),
        ):
            self.build()
            desk = self.arrive("on1")
            self.wait_for_ever(desk)
            self.clock.advance(10)
            desk.heard()
            self.clock.advance(30)
            desk.leave(reason)
            self.clock.advance(5)
            desk.leave("goodbye")
            self.assertEqual(self.last_heard(), seen, reason)
        self.build()
        self.wait_for_ever(self.arrive("on1"))
        self.clock.advance(30)
        self.wait_for_ever(self.arrive("on1"))
        self.assertEqual(self.last_heard(), 0.0)

    def wait_for_ever(self, desk: Desk) -> None:
        """An onsite waits for a master until it leaves."""
        self.wait(desk).addErrback(lambda failure: failure.trap(RequestRefused))

    def last_heard(self) -> float:
        """Of the device that has left last, as it is told."""
        [*_, left] = [event.presence for event in self.events.all if isinstance(event, DeviceLeft)]
        assert left is not None
        return left.last_heard

    def test_administrator_ends(self) -> None:
        """A session can be ended by its own id or by either device's."""
        for choose in (lambda view: view.id, lambda view: "on1", lambda view: "ma1"):
            self.build()
            self.bring_up(*self.pair())
            self.assertTrue(self.registry.end_session(choose(self.registry.views()[0]), EndReason.ADMINISTRATOR))
            self.assert_nothing_held()
        self.assertFalse(self.registry.end_session("nothing", EndReason.ADMINISTRATOR))

    def test_server_stops(self) -> None:
        """Stopping ends all sessions with that reason and closes every connection."""
        members = self.pair()
        self.bring_up(*members)
        self.registry.close()
        self.assertEqual([desk.line.closed for desk in members], ["the server is stopping: come back at once"] * 2)
        self.assert_nothing_held()
        reasons = [event.reason for event in self.events.all if isinstance(event, SessionEnded)]
        self.assertEqual(reasons, [EndReason.SERVER_STOPPED])

    def test_return_time(self) -> None:
        """Whoever asks learns over how many seconds to spread, for the number of devices that are here now."""
        desk, other = self.arrive("on1"), self.arrive("ma1")
        self.assertEqual(self.successResultOf(desk.perform(GetReturnTime())), 0)
        self.registry.register(desk)
        self.registry._registered |= {f"other{number}": other for number in range(200)}
        self.assertEqual(self.successResultOf(desk.perform(GetReturnTime())), 2)
        self.registry._registered.clear()

    def test_forward(self) -> None:
        """No registration owns a forwarding target, not even in a session that is relayed."""
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.assertRaises(RequestRefused, onsite.forward, "127.0.0.1", 5000)

    def test_no_vtun(self) -> None:
        """A server that ends no tunnels has none for old devices; a session's own kind is named."""
        self.refused(self.arrive("on2"), requests.GetVtunParameters(), VtunNotAvailable)
        onsite, _ = self.pair()
        self.assertIn("by tls", self.refused(onsite, requests.GetVtunParameters(), VtunNotChosen))

    def test_drop(self) -> None:
        """Dropping the tunnel ends the session; without one it is refused to who has registered, and else ignored."""
        self.ask(self.arrive("ma2"), requests.DropTunnel())
        onsite, master = self.pair()
        self.refused(master, requests.DropTunnel(), VtunNotStarted)
        self.bring_up(onsite, master)
        self.ask(master, requests.DropTunnel())
        self.assert_nothing_held()

    def test_doubt(self) -> None:
        """An onsite is asked whether it is there when it is selected, and both devices when a tunnel has broken."""
        onsite, master = self.pair()
        self.assertEqual((onsite.line.probes, master.line.probes), (1, 0))
        self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assertEqual((onsite.line.probes, master.line.probes), (1, 0))
        self.ask(master, requests.Connect("on1"))
        self.ask(onsite, requests.EndSession(EndReason.TUNNEL_LOST))
        self.assertEqual((onsite.line.probes, master.line.probes), (3, 1))

    def test_end_of_a_former_session(self) -> None:
        """Who ends a session by its id ends no later one, for which it has been selected meanwhile."""
        onsite, master = self.pair()
        [former] = self.registry.views()
        self.ask(master, requests.EndSession(EndReason.OPERATOR, former.id))
        self.assert_nothing_held()
        waiting = self.wait(onsite)
        self.ask(master, requests.Connect("on1"))
        self.assertIs(self.successResultOf(waiting), Readiness.READY)
        self.ask(onsite, requests.EndSession(EndReason.TUNNEL_LOST, former.id))
        [later] = self.registry.views()
        self.assertNotIn(later.id, ("", former.id))
        self.ask(onsite, requests.EndSession(EndReason.TUNNEL_LOST, later.id))
        self.assert_nothing_held()

    def test_two_hundred_sessions(self) -> None:
        """Two hundred sessions in a row leave nothing behind, and get the same addresses."""
        onsite, master = self.arrive("on1"), self.arrive("ma1")
        self.ask_ready = self.wait(onsite)
        for _ in range(200):
            self.ask(master, requests.Connect("on1"))
            self.assertIs(self.ask(onsite, requests.WaitForMaster()), Readiness.READY)
            self.bring_up(onsite, master)
            self.ask(master, requests.EndSession(EndReason.OPERATOR))
        self.assert_nothing_held()
        opened = [event for event in self.events.all if isinstance(event, SessionOpened)]
        self.assertEqual(len({event.session.id for event in opened}), 200)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30))
    @settings(derandomize=True, max_examples=150, deadline=None)
    def test_whatever_devices_do(self, steps: list[tuple[int, int]]) -> None:
        """Whatever devices ask in whatever order, nothing but refusals goes wrong, and nothing is left at the end."""
        self.build()
        ids = ("on1", "on2", "ma1", "ma2")
        desks = {id: self.arrive(id) for id in ids}

        def tunnel(desk: Desk) -> None:
            desk.perform(requests.GetTunnelParameters()).addCallback(
                lambda parameters: self.tickets.redeem(parameters.ticket, desk.key).occupy(MemoryStream("x"))
            ).addErrback(lambda failure: failure.trap(RDVError))

        for which, action in steps:
            id = ids[which]
            desk = desks[id]
            if action == 0:
                desks[id] = self.arrive(id)
            elif action == 1:
                desk.leave("left")
            elif action == 2:
                self.clock.advance(7)
            elif action == 3:
                for index in range(len(self.relay.joins)):
                    self.relay.end(index)
            elif action in (4, 5):
                tunnel(desk)
            else:
                request: requests.Request = (
                    requests.WaitForMaster(5),
                    requests.Connect("on1"),
                    requests.Connect("on2"),
                    requests.EndSession(EndReason.OPERATOR),
                )[action - 6]
                desk.perform(request).addErrback(lambda failure: failure.trap(RDVError))
            for view in self.registry.views():
                members = [self.registry.desk(view.master), self.registry.desk(view.onsite)]
                self.assertTrue(any(desk is not None for desk in members), view)
        for desk in desks.values():
            desk.leave("the end")
        self.registry.close()
        self.assert_nothing_held()
        self.assertEqual(self.registry.online(), ())
        self.assertEqual(self.events.names.count("DeviceArrived"), self.events.names.count("DeviceLeft"))
