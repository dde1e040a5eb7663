"""Access rules at work in the server's memory: who sees whom, who is let in, and what becomes of sessions."""

from __future__ import annotations

import itertools

from attrs import evolve
from twisted.internet.task import Clock

from rdvtwisted import requests
from rdvtwisted.access import Effect, Policy, Rule, SessionGrant
from rdvtwisted.carriers import Carrier
from rdvtwisted.device import Desk
from rdvtwisted.entitlement import LOOK_SECONDS
from rdvtwisted.errors import ModeNotGranted, NetworkError, NoSession, OnsiteBusy, OnsiteNotRegistered
from rdvtwisted.scope import ALL, Destination, Scope
from rdvtwisted.testing.ends import MemoryServerTunnel
from rdvtwisted.testing.glue import MemoryGlue
from rdvtwisted.values import EndReason, Mode, SessionState
from tests.registry import EVERYTHING, RegistryCase

WEB = Destination.parse("192.168.1.10:tcp/80")
PRINTER = Destination.parse("192.168.1.20")

#: What the wall clock is ahead of the registry's own: a machine that has been told the time late.
AHEAD = 1_000_000.0


def allow(master: str, onsite: str, *destinations: Destination, **more: object) -> Rule:
    """A rule that allows."""
    return Rule(Effect.ALLOW, master, onsite, destinations=destinations, **more)  # type: ignore[arg-type]


class AccessCase(RegistryCase):
    """The registry goes by a wall clock that is not its own."""

    def build(self) -> None:
        """A fresh registry, and nobody has access."""
        super().build()
        self.wall = Clock()
        self.wall.advance(AHEAD)
        self.registry = evolve(self.registry, wall=self.wall.seconds)
        self.rule()

    def rule(self, *rules: Rule) -> None:
        """These rules and no others are stored, and the server is told."""
        numbers = itertools.count(1)
        self.inventory.replace_policy(Policy(tuple(evolve(rule, number=next(numbers)) for rule in rules)))
        self.registry.review_access()

    def pass_time(self, seconds: float) -> None:
        """Both clocks run."""
        self.wall.advance(seconds)
        self.clock.advance(seconds)

    def listed(self, desk: Desk) -> list[str]:
        """The ids that a master is shown."""
        return [each.id for each in self.ask(desk, requests.ListOnsite())]

    def grant(self, desk: Desk) -> SessionGrant:
        """What a device of a session is told."""
        answer: SessionGrant = self.ask(desk, requests.GetSessionGrant())
        return answer


class WayInTests(AccessCase):
    """Who sees whom, and who is let in."""

    def test_list(self) -> None:
        """A master is shown the onsites that it may use, in whichever mode, and no others."""
        master = self.arrive("ma1")
        for id in ("on1", "on2"):
            self.wait(self.arrive(id))
        self.assertEqual(self.listed(master), [])
        self.rule(allow("ma1", "on2", WEB))
        self.assertEqual(self.listed(master), ["on2"])
        self.rule(allow("ma1", "on1", modes=(Mode.L2,)), allow("*", "on2", until=AHEAD + 5))
        self.assertEqual(self.listed(master), ["on1", "on2"])
        self.wall.advance(5)
        self.assertEqual(self.listed(master), ["on1"])

    def test_refused(self) -> None:
        """An onsite that is not for a master is refused in the words for one that does not exist, even if busy."""
        master, onsite = self.arrive("ma1"), self.arrive("on1")
        self.wait(onsite)
        unknown = self.refused(master, requests.Connect("nobody"), OnsiteNotRegistered).replace("nobody", "on1")
        self.assertEqual(self.refused(master, requests.Connect("on1"), OnsiteNotRegistered), unknown)
        self.rule(allow("ma2", "*"))
        self.ask(self.arrive("ma2"), requests.Connect("on1"))
        self.assertEqual(self.refused(master, requests.Connect("on1"), OnsiteNotRegistered), unknown)
        self.rule(allow("*", "*"))
        self.refused(master, requests.Connect("on1"), OnsiteBusy)

    def test_mode(self) -> None:
        """A master that may use an onsite in the other mode only is told so."""
        master = self.arrive("ma1", mode=Mode.L2)
        self.wait(self.arrive("on1"))
        self.rule(allow("ma1", "on1", WEB))
        self.assertEqual(
            self.refused(master, requests.Connect("on1"), ModeNotGranted),
            "ModeNotGranted: the access rules let you use on1 in another mode than L2 only",
        )

    def test_refusal_changes_nothing(self) -> None:
        """A master that is refused keeps the session that it has."""
        self.rule(allow("ma1", "on1"))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.wait(self.arrive("on2"))
        self.refused(master, requests.Connect("on2"), OnsiteNotRegistered)
        self.assertIs(self.registry.views()[0].state, SessionState.UP)

    def test_revoked_while_waiting(self) -> None:
        """What is allowed is looked at when the session opens, not when it was asked for."""
        self.rule(allow("*", "*"))
        self.relay.lingering = True
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        again = master.perform(requests.Connect("on1"))
        self.assertNoResult(again)
        self.rule()
        self.relay.end(0)
        self.failureResultOf(again, OnsiteNotRegistered)
        self.assertEqual(self.registry.views(), [])


class SessionTests(AccessCase):
    """Sessions follow the rules while they last."""

    def test_told(self) -> None:
        """Both devices of a session can ask what may be done in it; without a session there is nothing to ask for."""
        self.rule(allow("ma1", "on1", WEB, until=AHEAD + 100))
        onsite, master = self.pair()
        self.pass_time(10)
        for desk in (onsite, master):
            self.assertEqual(self.grant(desk), SessionGrant(1, 90.0, Scope.of([WEB])))
        self.refused(self.arrive("on2"), requests.GetSessionGrant(), NoSession)

    def test_everything(self) -> None:
        """Without limits everything is granted, for ever."""
        self.rule(allow("*", "*"))
        onsite, _ = self.pair()
        self.assertEqual(self.grant(onsite), SessionGrant(1, None, ALL))

    def test_changed(self) -> None:
        """A change is told at once to who waits for it, also if it came between two waits; nothing else is."""
        self.rule(allow("ma1", "on1", WEB))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        waits = [desk.perform(requests.WaitForSessionChange(SessionState.UP, 60, 1)) for desk in (onsite, master)]
        indifferent = onsite.perform(requests.WaitForSessionChange(SessionState.UP, 60))
        self.rule(allow("ma1", "on1", WEB), allow("ma2", "on1", PRINTER))
        for wait in waits:
            self.assertNoResult(wait)
        self.rule(allow("ma1", "on1", WEB), allow("*", "on1", PRINTER))
        for wait in waits:
            view = self.successResultOf(wait)
            self.assertEqual((view.state, view.grant), (SessionState.UP, 2))
        self.assertNoResult(indifferent)
        self.assertEqual(self.grant(onsite), SessionGrant(2, None, Scope.of([WEB, PRINTER])))
        self.rule(allow("ma1", "on1"))
        view = self.successResultOf(onsite.perform(requests.WaitForSessionChange(SessionState.UP, 60, 2)))
        self.assertEqual(view.grant, 3)

    def test_revoked(self) -> None:
        """A session that nothing allows any more ends at once, for this reason; another one goes on."""
        self.rule(allow("*", "*"))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.wait(self.arrive("on2"))
        self.ask(self.arrive("ma2"), requests.Connect("on2"))
        self.rule(allow("ma2", "on2"))
        self.assertEqual([view.onsite for view in self.registry.views()], ["on2"])
        for desk in (onsite, master):
            self.assertIs(self.ask(desk, requests.GetSession()).reason, EndReason.ACCESS_REVOKED)
        self.assertEqual(self.registry.review_access(), 0)

    def test_mode_revoked(self) -> None:
        """In L2 a destination that is denied ends the session: it could not be kept from it."""
        self.rule(allow("*", "*"))
        self.wait(self.arrive("on1"))
        self.ask(self.arrive("ma1", mode=Mode.L2), requests.Connect("on1"))
        self.rule(allow("*", "*"), evolve(allow("*", "on1", WEB), effect=Effect.DENY))
        self.assertEqual(self.registry.views(), [])

    def test_device_removed(self) -> None:
        """With a device go the rules that name it, and what others have by them."""
        self.rule(allow("ma1", "on1"), allow("*", "on2"))
        self.pair()
        self.inventory.remove("ma1")
        self.registry.drop_disentitled()
        self.registry.review_access()
        self.assertEqual(self.registry.views(), [])
        self.assertEqual([rule.onsite for rule in self.inventory.policy().rules], ["on2"])

    def test_expiry(self) -> None:
        """A session ends with the rule that allows it, at the second; no timer is left."""
        self.rule(allow("ma1", "on1", until=AHEAD + 1000))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.pass_time(999)
        self.assertIs(self.registry.views()[0].state, SessionState.UP)
        self.pass_time(1)
        self.assertIs(self.ask(master, requests.GetSession()).reason, EndReason.TIME_LIMIT)
        self.assert_nothing_held()

    def test_part_expires(self) -> None:
        """What one of several rules allows ends with it; the session goes on with the rest."""
        self.rule(allow("ma1", "on1", WEB, until=AHEAD + 300), allow("*", "*", PRINTER, until=AHEAD + 100))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.assertEqual(self.grant(onsite), SessionGrant(1, 300.0, Scope.of([WEB, PRINTER])))
        wait = onsite.perform(requests.WaitForSessionChange(SessionState.UP, 300, 1))
        self.pass_time(100)
        self.assertEqual(self.successResultOf(wait).grant, 2)
        self.assertEqual(self.grant(onsite), SessionGrant(2, 200.0, Scope.of([WEB])))

    def test_wall_clock_set(self) -> None:
        """When the wall clock is put forward past the end of a rule, its session ends within a minute."""
        self.rule(allow("ma1", "on1", until=AHEAD + 100_000))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.wall.advance(100_000)
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.registry.views(), [])

    def test_nothing_to_look_for(self) -> None:
        """While nothing ends by itself, nothing is looked for."""
        self.rule(allow("*", "*"))
        onsite, master = self.pair()
        self.bring_up(onsite, master)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class GluedTests(AccessCase):
    """Sessions that end at the server, which keeps to the rules itself."""

    def carriers(self) -> dict[str, Carrier]:
        """The server can end the tunnels of old devices."""
        return {"vtun": Carrier("vtun", frozenset(Mode), 1450, False, lambda terms: MemoryServerTunnel(terms, "x"))}

    def build(self) -> None:
        """A fresh registry."""
        super().build()
        self.glue = self.registry.ends.glue = MemoryGlue()

    def begun(self, mode: Mode = Mode.L3) -> Desk:
        """An old master has selected an old onsite; the master."""
        self.wait(self.arrive("on1", backends=()))
        master = self.arrive("ma1", backends=(), mode=mode)
        self.ask(master, requests.Connect("on1"))
        return master

    def test_confined(self) -> None:
        """The namespace lets pass what is granted, from the beginning and after every change."""
        self.rule(allow("ma1", "on1", WEB))
        self.begun()
        (session,) = self.glue.specs
        self.assertEqual(self.glue.specs[session].scope, Scope.of([WEB]))
        self.rule(allow("ma1", "on1", PRINTER))
        self.assertEqual(self.glue.specs[session].scope, Scope.of([PRINTER]))
        self.rule(allow("ma1", "on1", until=AHEAD + 10))
        self.assertEqual(self.glue.specs[session].scope, ALL)
        self.rule(allow("ma1", "on1", until=AHEAD + 20))
        self.assertEqual(self.registry.views()[0].grant, 4)

    def test_bridged(self) -> None:
        """A bridged session is granted whole."""
        self.inventory.replace_policy(EVERYTHING)
        self.begun(Mode.L2)
        self.assertEqual([spec.scope for spec in self.glue.specs.values()], [ALL])

    def test_not_confined(self) -> None:
        """If the namespace does not take a change the session ends: nobody keeps what is not granted any more."""
        self.rule(allow("ma1", "on1"))
        master = self.begun()
        self.glue.refusal = NetworkError("no")
        self.rule(allow("ma1", "on1", WEB))
        self.assertIs(self.ask(master, requests.GetSession()).reason, EndReason.TUNNEL_FAILED)
        self.assert_nothing_held()
