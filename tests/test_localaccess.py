"""An onsite's own rules: what a file of them means, and what a session may be by them."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import AccessDenied, ConfigError
from rdvtwisted.localaccess import MOST_ENTRIES, LocalRules, parse
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.testing.tunnels import identity, parameters
from rdvtwisted.values import Mode, Role

KEY = identity("rpi2200").public
OTHER = identity("other").public
PARAMETERS = parameters("tls", Mode.L3, Role.ONSITE, "rpi2200", KEY, "0" * 32)


class FileTests(SynchronousTestCase):
    """What may stand in the file."""

    def assertRefused(self, line: str, text: str) -> None:
        self.assertEqual(str(self.assertRaises(ConfigError, parse, text)), f"setting {line}")

    def test_empty(self) -> None:
        """What is left out limits nothing."""
        self.assertEqual(parse(""), LocalRules())
        self.assertEqual(LocalRules().limit(PARAMETERS, ALL), ALL)

    def test_all(self) -> None:
        """Every setting; a key may be named by its fingerprint or be given whole."""
        text = f"""
        masters = ["{KEY.line} ann@laptop", "{OTHER.fingerprint}"]
        modes = ["L3"]
        allow = ["192.168.1.0/24:tcp/80", "192.168.1.9"]
        deny = ["192.168.1.1"]
        """
        self.assertEqual(
            parse(text),
            LocalRules(
                Scope.parse("192.168.1.0/24:tcp/80 192.168.1.9") - Scope.parse("192.168.1.1"),
                frozenset([Mode.L3]),
                frozenset([KEY.fingerprint, OTHER.fingerprint]),
            ),
        )

    def test_empty_lists(self) -> None:
        """A list with nothing in it allows nothing, or denies nothing."""
        for text in ("allow = []", "modes = []", "masters = []"):
            self.assertRaises(AccessDenied, parse(text).limit, PARAMETERS, ALL)
        self.assertEqual(parse("deny = []"), LocalRules())

    def test_deny_only(self) -> None:
        """What is denied is taken off everything."""
        self.assertEqual(parse('deny = ["10.0.0.1"]').scope, ALL - Scope.parse("10.0.0.1"))

    def test_complaints(self) -> None:
        """What cannot be used is named, and nothing is guessed."""
        self.assertRefused("allows: there is no such setting; use masters, modes, allow, deny", 'allows = ["*"]')
        self.assertRefused('allow: it is a list of texts, such as ["..."]', 'allow = "*"')
        self.assertRefused('allow: it is a list of texts, such as ["..."]', "allow = [1]")
        self.assertRefused("modes: 'L4' is not a valid Mode", 'modes = ["L4"]')
        self.assertRefused(
            "masters: invalid fingerprint 'SHA256:abc': it is SHA256: and 43 more characters",
            'masters = ["SHA256:abc"]',
        )
        self.assertRefused(
            "masters: invalid public key 'ann': it should read: algorithm base64 [comment]", 'masters = ["ann"]'
        )
        many = ", ".join(['"*"'] * (MOST_ENTRIES + 1))
        self.assertRefused("deny: it has more than 10000 entries", f"deny = [{many}]")
        self.assertIn("file: it is not TOML: ", str(self.assertRaises(ConfigError, parse, "no toml")))
        self.assertRefused("file: it is nested too deeply", "a=" + "[" * 100_000)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.text(alphabet='alowdenym =[]"\n#1.0:/tcp*', max_size=80))
    def test_hostile(self, text: str) -> None:
        """Any file is either rules or one line of complaint."""
        try:
            parse(text)
        except ConfigError as error:
            self.assertNotIn("\n", str(error).partition("TOML")[0])


class LimitTests(SynchronousTestCase):
    """What a session may be."""

    WEB = LocalRules(Scope.parse("192.168.1.10:tcp/80"))

    def assertDenied(self, line: str, rules: LocalRules, granted: Scope = ALL, **changes: object) -> None:
        error = self.assertRaises(AccessDenied, rules.limit, evolve(PARAMETERS, **changes), granted)
        self.assertEqual(str(error), line)

    def test_both(self) -> None:
        """What is allowed here and by the server may be done, and nothing else."""
        self.assertEqual(self.WEB.limit(PARAMETERS, ALL), self.WEB.scope)
        self.assertEqual(self.WEB.limit(PARAMETERS, Scope.parse("192.168.1.0/24")), self.WEB.scope)
        self.assertEqual(
            self.WEB.within(Scope.parse("*:tcp/1-80")).limit(PARAMETERS, Scope.parse("192.168.1.10")), self.WEB.scope
        )
        self.assertDenied(
            "this device's own rules leave nothing of what the server allows", self.WEB, Scope.parse("192.168.1.11")
        )

    def test_bridged(self) -> None:
        """Destinations forbid L2, whoever names them."""
        line = (
            "destinations are limited here, by this device's own rules or the server's, and cannot be kept in a bridged"
            " session"
        )
        self.assertDenied(line, self.WEB, mode=Mode.L2)
        self.assertDenied(line, LocalRules(), Scope.parse("192.168.1.10"), mode=Mode.L2)
        self.assertEqual(LocalRules().limit(evolve(PARAMETERS, mode=Mode.L2), ALL), ALL)

    def test_modes(self) -> None:
        """A mode that is not named is refused."""
        self.assertDenied(
            "this device's own rules allow no session in mode L2", LocalRules(modes=frozenset([Mode.L3])), mode=Mode.L2
        )

    def test_masters(self) -> None:
        """Only masters whose keys are named, and proved from end to end, have a session."""
        rules = LocalRules(masters=frozenset([KEY.fingerprint]))
        self.assertEqual(rules.limit(PARAMETERS, ALL), ALL)
        self.assertDenied(
            f"this device's own rules do not name the key of rpi2200: {OTHER.fingerprint}", rules, peer_key=OTHER
        )
        self.assertDenied(
            "this device's own rules name masters by their keys, and in a session that ends at the server none is"
            " proved",
            rules,
            join="glue",
        )
