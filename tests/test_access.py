"""Which master may use which onsite: what rules come to."""

from __future__ import annotations

from ipaddress import IPv4Address

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.access import LONGEST_COMMENT, MOST_RULE_DESTINATIONS, Effect, Grant, Policy, Rule
from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import ALL, Destination, Scope
from rdvtwisted.values import Mode

GROUPS = {"support": ("ann", "bob"), "lyon": ("rpi1", "rpi2")}
WEB = Destination.parse("192.168.1.10:tcp/80")
ROUTER = Destination.parse("192.168.1.1")


def allow(master: str, onsite: str, *destinations: Destination, **more: object) -> Rule:
    """A rule that allows."""
    return Rule(Effect.ALLOW, master, onsite, destinations=destinations, **more)  # type: ignore[arg-type]


def deny(master: str, onsite: str, *destinations: Destination, **more: object) -> Rule:
    """A rule that denies."""
    return evolve(allow(master, onsite, *destinations, **more), effect=Effect.DENY)


def policy(*rules: Rule) -> Policy:
    """These rules, numbered, with L{GROUPS}."""
    return Policy(tuple(evolve(rule, number=number) for number, rule in enumerate(rules, 1)), GROUPS)


class DecisionTests(SynchronousTestCase):
    """Examples, as an administrator would think of them."""

    def granted(self, rules: Policy, mode: Mode = Mode.L3, now: float = 0.0) -> Grant | None:
        return rules.decide("ann", "rpi1", mode, now)

    def test_default(self) -> None:
        """What no rule allows is denied."""
        self.assertIsNone(self.granted(Policy()))
        self.assertIsNone(self.granted(policy(allow("bob", "rpi1"), allow("ann", "rpi2"), allow("rpi1", "ann"))))

    def test_names(self) -> None:
        """A rule names a device, a group or everybody, on either side."""
        for master in ("ann", "@support", "*"):
            for onsite in ("rpi1", "@lyon", "*"):
                self.assertEqual(self.granted(policy(allow(master, onsite))), Grant(ALL), (master, onsite))

    def test_group_of_the_other_kind(self) -> None:
        """A group means those who are in it, and nobody else."""
        self.assertIsNone(self.granted(policy(allow("@lyon", "@lyon"))))
        self.assertIsNone(policy(allow("@support", "*")).decide("eve", "rpi1", Mode.L3, 0))

    def test_deny_wins(self) -> None:
        """A deny beats an allow, however narrow that is and wherever it stands."""
        for rules in ((allow("ann", "rpi1"), deny("*", "@lyon")), (deny("@support", "*"), allow("ann", "rpi1"))):
            self.assertIsNone(self.granted(policy(*rules)))

    def test_destinations(self) -> None:
        """What several rules allow adds up; what one denies is taken off."""
        grant = self.granted(policy(allow("ann", "rpi1", WEB), allow("@support", "*", ROUTER), deny("*", "rpi1", WEB)))
        self.assertEqual(grant, Grant(Scope.of([ROUTER])))

    def test_denied_destination(self) -> None:
        """A deny with destinations leaves the session, without them."""
        grant = self.granted(policy(allow("ann", "rpi1"), deny("*", "*", ROUTER)))
        assert grant is not None
        self.assertFalse(grant.scope.permits(IPv4Address("192.168.1.1"), "tcp", 80))
        self.assertTrue(grant.scope.permits(IPv4Address("192.168.1.2"), "tcp", 80))

    def test_nothing_left(self) -> None:
        """If every destination is denied there is no session."""
        self.assertIsNone(self.granted(policy(allow("ann", "rpi1", WEB), deny("*", "*", Destination.parse("*")))))
        self.assertIsNone(self.granted(policy(allow("ann", "rpi1", WEB), deny("*", "*", WEB))))

    def test_too_much(self) -> None:
        """What is too long to be told to a device is not granted at all, rather than in part."""
        ports = ",".join(map(str, range(1001, 1127, 2)))
        rules = [
            allow("ann", "rpi1", *(Destination.parse(f"10.0.{one}.{other}:tcp/{ports}") for other in range(0, 120, 2)))
            for one in range(4)
        ]
        self.assertIsNotNone(self.granted(policy(*rules[:3])))
        self.assertIsNone(self.granted(policy(*rules)))

    def test_modes(self) -> None:
        """A rule may be about one mode only."""
        rules = policy(allow("ann", "rpi1"), deny("ann", "*", modes=(Mode.L2,)))
        self.assertEqual((self.granted(rules), self.granted(rules, Mode.L2)), (Grant(ALL), None))
        rules = policy(allow("ann", "rpi1", modes=(Mode.L2,)))
        self.assertEqual((self.granted(rules), self.granted(rules, Mode.L2)), (None, Grant(ALL)))

    def test_bridged(self) -> None:
        """Destinations cannot be kept in a bridged session: who is given some has none, nor has who is denied some."""
        self.assertIsNone(self.granted(policy(allow("ann", "rpi1", WEB)), Mode.L2))
        self.assertIsNone(self.granted(policy(allow("ann", "rpi1"), deny("ann", "rpi1", WEB)), Mode.L2))
        self.assertEqual(self.granted(policy(allow("ann", "rpi1", WEB), allow("ann", "*")), Mode.L2), Grant(ALL))

    def test_expiry(self) -> None:
        """A rule counts up to its end; the grant tells when it ends, and when to look again."""
        rules = policy(allow("ann", "rpi1", until=100.0))
        self.assertEqual(self.granted(rules, now=99.9), Grant(ALL, 100.0, 100.0))
        self.assertIsNone(self.granted(rules, now=100.0))

    def test_expiry_of_one(self) -> None:
        """When one of several rules ends, what the others allow goes on."""
        rules = policy(
            allow("ann", "rpi1", WEB, until=300.0), allow("ann", "*", ROUTER, until=100.0), deny("*", "*", until=50.0)
        )
        self.assertIsNone(self.granted(rules, now=49.0))
        self.assertEqual(self.granted(rules, now=50.0), Grant(Scope.of([WEB, ROUTER]), 300.0, 100.0))
        self.assertEqual(self.granted(rules, now=100.0), Grant(Scope.of([WEB]), 300.0, 300.0))
        self.assertIsNone(self.granted(rules, now=300.0))
        forever = policy(*rules.rules[:2], allow("ann", "rpi1"))
        self.assertEqual(self.granted(forever, now=50.0), Grant(ALL, None, 100.0))

    def test_sees(self) -> None:
        """A master sees what it may use in some mode."""
        rules = policy(allow("ann", "rpi1", modes=(Mode.L2,)), allow("ann", "rpi2", WEB, until=10.0))
        self.assertEqual([rules.sees("ann", id, 5.0) for id in ("rpi1", "rpi2", "rpi3")], [True, True, False])
        self.assertFalse(rules.sees("ann", "rpi2", 10.0))


Point = tuple[IPv4Address, str, int]

_subjects = st.sampled_from(["*", "@support", "@lyon", "ann", "rpi1", "rpi2", "eve"])
_places = st.sampled_from([Destination.parse(text) for text in ("10.0.0.1", "10.0.0.2:tcp/80", "*", "10.0.0.0/30:udp")])
_points = [(IPv4Address(f"10.0.0.{last}"), what, 80) for last in range(5) for what in ("tcp", "udp", "icmp", "other")]


@st.composite
def rules_of_any_kind(draw: st.DrawFn) -> Rule:
    """Any rule of a small world."""
    return Rule(
        draw(st.sampled_from(Effect)),
        draw(_subjects),
        draw(_subjects),
        tuple(mode for mode in Mode if draw(st.booleans())) or tuple(Mode),
        tuple(draw(st.lists(_places, max_size=2))),
        draw(st.sampled_from([None, 1.0, 2.0, 3.0])),
    )


def plainly(rules: list[Rule], mode: Mode, now: float) -> set[Point]:
    """What ann may reach at rpi1, by the words of the documentation."""
    masters, onsites = {"*", "ann", "@support"}, {"*", "rpi1", "@lyon"}
    about = [
        rule
        for rule in rules
        if rule.master in masters
        and rule.onsite in onsites
        and mode in rule.modes
        and (rule.until is None or now < rule.until)
    ]

    def means(rule: Rule, point: Point) -> bool:
        return not rule.destinations or Scope.of(rule.destinations).permits(*point)

    found = set()
    for point in _points:
        allowed = any(rule.effect is Effect.ALLOW and means(rule, point) for rule in about)
        if allowed and not any(rule.effect is Effect.DENY and means(rule, point) for rule in about):
            found.add(point)
    if any(rule.effect is Effect.DENY and not rule.destinations for rule in about):
        return set()
    if mode is Mode.L2:
        whole = any(
            rule.effect is Effect.ALLOW and Scope.of(rule.destinations or [Destination.parse("*")]) == ALL
            for rule in about
        )
        return found if whole and not any(rule.effect is Effect.DENY for rule in about) else set()
    return found


def reached(grant: Grant | None) -> set[Point]:
    """What a grant permits of the small world."""
    return set() if grant is None else {point for point in _points if grant.scope.permits(*point)}


class RuleProperties(SynchronousTestCase):
    """What holds for all rules."""

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(rules_of_any_kind(), max_size=6), st.sampled_from(Mode), st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]))
    def test_words(self, rules: list[Rule], mode: Mode, now: float) -> None:
        """The decision is what the documentation says, packet by packet."""
        grant = policy(*rules).decide("ann", "rpi1", mode, now)
        self.assertEqual(reached(grant), plainly(rules, mode, now))

    @settings(max_examples=80, derandomize=True, deadline=None)
    @given(st.lists(rules_of_any_kind(), max_size=6), st.randoms(use_true_random=False), st.sampled_from(Mode))
    def test_order(self, rules: list[Rule], random: object, mode: Mode) -> None:
        """The order of rules means nothing."""
        shuffled = list(rules)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        self.assertEqual(
            policy(*shuffled).decide("ann", "rpi1", mode, 1.5), policy(*rules).decide("ann", "rpi1", mode, 1.5)
        )

    @settings(max_examples=80, derandomize=True, deadline=None)
    @given(st.lists(rules_of_any_kind(), max_size=5), rules_of_any_kind(), st.sampled_from(Mode))
    def test_one_more(self, rules: list[Rule], more: Rule, mode: Mode) -> None:
        """One more deny never permits anything, one more allow never takes anything, whatever else there is."""
        before = reached(policy(*rules).decide("ann", "rpi1", mode, 0.5))
        after = reached(policy(*rules, more).decide("ann", "rpi1", mode, 0.5))
        if more.effect is Effect.DENY:
            self.assertLessEqual(after, before)
        else:
            self.assertGreaterEqual(after, before)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.lists(rules_of_any_kind(), max_size=6), st.sampled_from(Mode))
    def test_moments(self, rules: list[Rule], mode: Mode) -> None:
        """Until the moment that a grant names nothing changes; at its end there is none."""
        decided = policy(*rules)
        grant = decided.decide("ann", "rpi1", mode, 0.5)
        if grant is None:
            return
        for now in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5):
            later = decided.decide("ann", "rpi1", mode, now)
            if grant.changes_at is None or now < grant.changes_at:
                self.assertEqual(later, grant)
            if grant.ends_at is None or now < grant.ends_at:
                self.assertIsNotNone(later)
        if grant.ends_at is not None:
            self.assertIsNone(decided.decide("ann", "rpi1", mode, grant.ends_at))


class PolicyTests(SynchronousTestCase):
    """Rules and groups together, and how they are changed."""

    def assertRefused(self, line: str, does: object, *arguments: object, **more: object) -> None:
        self.assertEqual(str(self.assertRaises(InvalidValue, does, *arguments, **more)), line)

    def test_rule_fields(self) -> None:
        """A rule that makes no sense is refused."""
        self.assertRefused(
            "invalid device id 'Ann': use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash", allow, "Ann", "*"
        )
        self.assertRefused(
            "invalid group: use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash", allow, "@", "*"
        )
        self.assertRefused(
            "invalid number of destinations '65': a rule has at most 64",
            allow,
            "*",
            "*",
            *[WEB] * (MOST_RULE_DESTINATIONS + 1),
        )
        for comment in ("two\nlines", "x" * (LONGEST_COMMENT + 1)):
            error = self.assertRaises(InvalidValue, allow, "*", "*", comment=comment)
            self.assertIn("use one line of at most 200 characters", str(error))
        for modes in ((), (Mode.L2, Mode.L3), (Mode.L3, Mode.L3)):
            self.assertRaises(InvalidValue, allow, "*", "*", modes=modes)
        for until in (0.0, -1.0, float("nan"), float("inf")):
            self.assertRaises(InvalidValue, allow, "*", "*", until=until)

    def test_add_and_remove(self) -> None:
        """A new rule gets a number above all others; rules are removed by their numbers."""
        rules = Policy().with_rule(allow("*", "*")).with_rule(deny("*", "*")).with_rule(allow("ann", "*"))
        self.assertEqual([rule.number for rule in rules.rules], [1, 2, 3])
        fewer = rules.without_rules([1, 2])
        self.assertEqual([rule.number for rule in fewer.with_rule(deny("*", "*")).rules], [3, 4])
        self.assertRefused("invalid rule '2': there is no such rule", fewer.without_rules, [2, 3])

    def test_groups(self) -> None:
        """A group that a rule names cannot go, nor can a rule name one that is not there."""
        grouped = Policy().with_group("lyon", ["rpi2", "rpi1", "rpi2"])
        self.assertEqual(grouped.groups, {"lyon": ("rpi1", "rpi2")})
        self.assertRefused("invalid group 'paris': there is no such group", grouped.with_rule, allow("*", "@paris"))
        self.assertRefused("invalid group 'paris': there is no such group", grouped.without_group, "paris")
        self.assertEqual(grouped.without_group("lyon"), Policy())
        used = grouped.with_rule(allow("*", "@lyon"))
        self.assertRefused("invalid group 'lyon': rule 1 names it: remove that first", used.without_group, "lyon")
        self.assertRaises(InvalidValue, Policy().with_group, "Lyon", [])
        self.assertRaises(InvalidValue, Policy().with_group, "lyon", ["@paris"])

    def test_device_goes(self) -> None:
        """With a device go the rules that name it and its memberships; the groups stay."""
        rules = policy(allow("ann", "*"), deny("*", "rpi1"), allow("@support", "@lyon"))
        self.assertEqual(rules.devices(), {"ann", "bob", "rpi1", "rpi2"})
        fewer = rules.without_device("ann").without_device("rpi1")
        self.assertEqual([rule.number for rule in fewer.rules], [3])
        self.assertEqual(fewer.groups, {"support": ("bob",), "lyon": ("rpi2",)})

    def test_numbers(self) -> None:
        """Rules without numbers of their own are no policy."""
        for numbers in ((0,), (2, 1), (1, 1)):
            rules = tuple(evolve(allow("*", "*"), number=number) for number in numbers)
            self.assertRefused("invalid rules: each has a number of its own, from 1 on, in order", Policy, rules)

    def test_many(self) -> None:
        """Thousands of rules do not slow down the decision on one pair: none but its own are looked at."""
        rules = policy(*(allow("bob", f"rpi{number}", until=number + 1.0) for number in range(5000)))
        self.assertEqual(len(list(rules.matching("bob", "rpi7"))), 1)
        self.assertEqual(rules.decide("bob", "rpi7", Mode.L3, 0.0), Grant(ALL, 8.0, 8.0))
