"""Access rules as a file: what is written, what is read, and what is said of a file that cannot be used."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.access import LONGEST_COMMENT, Effect, Policy, Rule
from rdvtwisted.accessfile import RuleFileError, dump, load, place
from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import Destination
from rdvtwisted.values import Mode

POLICY = (
    Policy()
    .with_group("support", ["ann", "bob"])
    .with_group("lyon", ["rpi1100", "rpi1102"])
    .with_rule(
        Rule(
            Effect.ALLOW,
            "@support",
            "@lyon",
            (Mode.L3,),
            (Destination.parse("192.168.1.0/24:tcp/80,443"), Destination.parse("192.168.1.9")),
            1_909_159_200.0,
            'press "3", hall\\cellar, Zürich',
        )
    )
    .with_rule(Rule(Effect.DENY, "*", "rpi1102"))
)

TEXT = r"""# Access rules of an RDV server; 'rdvctl access import FILE' puts them in place of those that it has.
# What no rule allows is denied, and a deny beats every allow, in whatever order they stand.

[groups]
lyon = ["rpi1100", "rpi1102"]
support = ["ann", "bob"]

[[rule]]
effect = "allow"
master = "@support"
onsite = "@lyon"
modes = ["L3"]
destinations = ["192.168.1.0/24:tcp/80,443", "192.168.1.9"]
until = 2030-07-01T18:00:00Z
comment = "press \"3\", hall\\cellar, Zürich"

[[rule]]
effect = "deny"
master = "*"
onsite = "rpi1102"
"""


class AccessFileTests(SynchronousTestCase):
    """Examples."""

    def assertRefused(self, line: str, text: str) -> None:
        self.assertEqual(str(self.assertRaises(RuleFileError, load, text)), f"invalid file of rules: {line}")

    def test_written(self) -> None:
        """The file is one that people would write."""
        self.assertEqual(dump(POLICY), TEXT)

    def test_read(self) -> None:
        """What was written is read as it was."""
        self.assertEqual(load(TEXT), POLICY)

    def test_empty(self) -> None:
        """Without a rule nothing is allowed; that is a file, too."""
        self.assertEqual(load(""), Policy())
        self.assertEqual(load(dump(Policy())), Policy())

    def test_by_hand(self) -> None:
        """Order, quotes, offsets and blanks are the writer's choice."""
        text = """
        rule = [{ onsite = 'rpi1', master = '*', effect = 'allow', modes = ['L2', 'L3'] }]
        [groups]
        "lyon" = ['rpi2', 'rpi1', 'rpi2']
        """
        self.assertEqual(load(text), Policy().with_group("lyon", ["rpi1", "rpi2"]).with_rule(_plain("*", "rpi1")))
        end = load('[[rule]]\neffect="allow"\nmaster="*"\nonsite="*"\nuntil=2030-07-01T20:00:00+02:00').rules[0].until
        self.assertEqual(end, 1_909_159_200.0)

    def test_complaints(self) -> None:
        """What cannot be used is told in one line, with the number of the line on which it stands."""
        rule = '[[rule]]\neffect = "allow"\nmaster = "*"\n'
        form = "use ADDRESS, NETWORK/PREFIX, FIRST-LAST or *, then if wanted :tcp, :udp, :icmp, with ports"
        for line, text in (
            ("line 2: there is no such thing as 'rules': use [groups] and [[rule]]", "#\n[[rules]]\n"),
            ("line 1: write [[rule]], in two brackets, above each rule", "[rule]\n"),
            ("line 1: write [[rule]], in two brackets, above each rule", "rule = [3]\n"),
            ("line 1: groups is a section: write [groups], and the groups below", "groups = 1\n"),
            ("line 3: the group 'b' is a list of device ids in quotes", '[groups]\na = ["x"]\nb = "x"\n'),
            ("line 2: the group 'b' is a list of device ids in quotes", "[groups]\nb = [1]\n"),
            (
                "line 2: invalid device id 'X': use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash",
                '[groups]\nb = ["X"]\n',
            ),
            ("line 1: the rule has no onsite", rule),
            (
                "line 4: a rule has no 'port': use effect, master, onsite, modes, destinations, until, comment",
                rule + "port = 1\n",
            ),
            ('line 7: effect is "allow" or "deny"', rule + 'onsite = "*"\n\n[[rule]]\neffect = "permit"\n'),
            ('line 4: onsite is a device id, "@group" or "*"', rule + "onsite = 5\n"),
            ("line 4: there is no group 'lyon'", rule + 'onsite = "@lyon"\n'),
            ('line 5: modes is a list of "L3" and "L2"', rule + 'onsite = "*"\nmodes = ["L4"]\n'),
            (
                "line 5: until is a date and time with its offset, such as 2030-07-01T18:00:00Z",
                rule + 'onsite = "*"\nuntil = 2030-07-01T18:00:00\n',
            ),
            (
                f"line 5: invalid destination 'web': {form} :tcp/80,8000-8080",
                rule + 'onsite = "*"\ndestinations = ["web"]\n',
            ),
            (
                f"line 5: invalid comment '{'x' * 80}': use one line of at most 200 characters",
                rule + f'onsite = "*"\ncomment = "{"x" * 201}"\n',
            ),
        ):
            self.assertRefused(line, text)

    def test_no_toml(self) -> None:
        """What is not TOML at all is said to be so, with the place."""
        error = self.assertRaises(RuleFileError, load, "#\nno toml\n")
        self.assertTrue(str(error).startswith("invalid file of rules: it is not TOML: "), str(error))
        self.assertIn("line 2", str(error))
        for deep in ("a=" + "[" * 100_000, "a=" + "{a=" * 100_000):
            error = self.assertRaises(RuleFileError, load, deep)
            self.assertEqual(str(error), "invalid file of rules: it is nested too deeply")

    def test_place(self) -> None:
        """A device that is named in a file is found there, whole and in quotes."""
        self.assertEqual(place(TEXT, "rpi1102"), 5)
        self.assertIsNone(place(TEXT, "rpi110"))

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(Effect),
                st.sampled_from(["*", "ann", "@a"]),
                st.sampled_from([None, 1.0, 253_402_300_799.0]),
                st.text(max_size=LONGEST_COMMENT).filter(str.isprintable),
            ),
            max_size=4,
        )
    )
    def test_round_trip(self, parts: list[tuple[Effect, str, float | None, str]]) -> None:
        """Whatever there is can be exported and imported again."""
        policy = Policy().with_group("a", ["b"])
        for effect, master, until, comment in parts:
            policy = policy.with_rule(Rule(effect, master, "@a", until=until, comment=comment))
        self.assertEqual(load(dump(policy)), policy)

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from([*TEXT.split("\n"), "=", '"', "[", "]]", "rule = 1", "\x00", "until = 1e999"])))
    def test_hostile(self, lines: list[str]) -> None:
        """Any file is either rules or one line of complaint."""
        try:
            load("\n".join(lines))
        except InvalidValue as error:
            self.assertTrue(str(error).isprintable())


def _plain(master: str, onsite: str) -> Rule:
    return Rule(Effect.ALLOW, master, onsite)
