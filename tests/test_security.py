"""C{SECURITY.md} and the table of parsers name tests that exist."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.source import CHECKOUT

#: A test module, and tests of the one that was named last.
_NAMED = re.compile(r"`(?:(?P<module>tests\.[a-z0-9_.]+)|(?P<test>test_[a-z0-9_]+))`")


class SecurityTests(SynchronousTestCase):
    """A promise is worth what its tests are."""

    def setUp(self) -> None:
        """Read it."""
        text = (CHECKOUT / "SECURITY.md").read_text()
        self.promises = text.split("## Promises")[1].split("\n## ")[0]

    def test_named(self) -> None:
        """Every test that is named is there, in the module that is named before it."""
        self.assert_named(self.promises, 80)

    def test_parsers(self) -> None:
        """So it is in the table of what reads what others have written."""
        self.assert_named((CHECKOUT / "docs" / "hostile-input.md").read_text(), 120)

    def assert_named(self, text: str, least: int) -> None:
        """A text names tests that are there, more than C{least}."""
        module, missing, seen = "", [], 0
        for match in _NAMED.finditer(text):
            seen += 1
            if match["module"]:
                module = match["module"]
                path = CHECKOUT / (module.replace(".", "/") + ".py")
                source = path.read_text() if path.exists() else ""
                missing += [module] if not source else []
            elif not re.search(rf"def {match['test']}\(", source):
                missing.append(f"{module}.{match['test']}")
        self.assertEqual(missing, [])
        self.assertGreater(seen, least)

    def test_each(self) -> None:
        """No promise is without a test."""
        paragraphs = [each for each in self.promises.split("\n\n") if each.startswith("**")]
        self.assertGreater(len(paragraphs), 15)
        self.assertEqual([each[:60] for each in paragraphs if "`tests." not in each], [])
