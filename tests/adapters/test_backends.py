"""Finding the tunnel backends that are installed."""

from __future__ import annotations

import os
import pickle
import sys
from importlib import import_module, invalidate_caches
from itertools import count
from pathlib import Path
from types import ModuleType

from twisted.logger import capturedLogs
from twisted.plugin import CachedDropin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.backends import OWN, discover, joins
from rdvtwisted.interfaces import ITunnelBackend

GOOD = """
from attrs import frozen
from zope.interface import implementer
from rdvtwisted.interfaces import ITunnelBackend

@implementer(ITunnelBackend)
class Backend:
    def __init__(self, name):
        self.name = name
    summary = "For a test."
    modes = frozenset()
    relay = True
    glue = inside = False
    mtu = 1500
    needs = ()
    def missing(self):
        return []
    def device_end(self, parameters, site):
        raise NotImplementedError
    def server_end(self, terms, site):
        raise NotImplementedError

"""

_numbers = count()


class InstalledTests(SynchronousTestCase):
    """What this very installation has."""

    def test_own(self) -> None:
        """All of our own backends are there, without a problem, in the order in which they are preferred."""
        found = discover()
        self.assertEqual([backend.name for backend in found.backends][: len(OWN)], list(OWN))
        self.assertEqual(found.problems, ())
        for backend in found.backends:
            verifyObject(ITunnelBackend, backend)

    def test_joins(self) -> None:
        """What a server can do with them: without a TLS door, only with those whose bytes come inside SSH."""
        backends = {backend.name: backend for backend in discover().backends}
        for name, with_door, without in (
            ("tls", ("relay", "glue"), ()),
            ("stunnel", ("glue",), ()),
            ("vtun", ("glue",), ("glue",)),
        ):
            self.assertEqual(joins(backends[name]), with_door)
            self.assertEqual(joins(backends[name], door=False), without)


class DropInTests(SynchronousTestCase):
    """What others install."""

    def package(self, **dropins: str) -> ModuleType:
        """A plugin package of its own, with these drop-ins."""
        folder = Path(self.mktemp()).absolute()
        name = f"dropins_of_{next(_numbers)}"
        place = folder / name
        place.mkdir(parents=True)
        for dropin, text in dropins.items():
            (place / f"{dropin}.py").write_text(text)
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        (place / "__init__.py").write_text("")
        invalidate_caches()
        for module in [name, *(f"{name}.{dropin}" for dropin in dropins)]:
            self.addCleanup(sys.modules.pop, module, None)
        return import_module(name)

    def problems(self, package: ModuleType) -> list[str]:
        """The problems there, but for our own backends, which are not installed there."""
        return [
            problem for problem in discover(package).problems if "is rdvtwisted installed completely" not in problem
        ]

    def test_nothing(self) -> None:
        """An expected backend that is not there is a problem with its name in it."""
        found = discover(self.package())
        self.assertEqual(found.backends, ())
        self.assertEqual([problem.split()[0] for problem in found.problems], list(OWN))

    def test_order(self) -> None:
        """Our own come first, others after them by their names, wherever they come from."""
        package = self.package(
            one=GOOD + "b = Backend('zebra')\na = Backend('ape')\n", two=GOOD + f"own = Backend({OWN[0]!r})\n"
        )
        self.assertEqual([backend.name for backend in discover(package).backends], [OWN[0], "ape", "zebra"])
        self.assertEqual(self.problems(package), [])

    def test_borrowed(self) -> None:
        """A drop-in may import another one's backend: that is one backend all the same."""
        package = self.package(one=GOOD + "b = Backend('one')\n", two="from .one import b\nagain = b\n")
        found = discover(package)
        self.assertEqual([backend.name for backend in found.backends], ["one"])
        self.assertEqual(self.problems(package), [])

    def test_broken(self) -> None:
        """A drop-in that cannot be imported costs one line, with its file and the reason, and harms no other."""
        for text, words in (
            ("import nosuchthing\n", "ModuleNotFoundError: No module named 'nosuchthing'"),
            ("raise ValueError('one\\ntwo')\n", "ValueError: one two"),
            ("def\n", "SyntaxError: "),
            ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ):
            package = self.package(bad=text, good=GOOD + "b = Backend('fine')\n")
            with capturedLogs() as events:
                found = discover(package)
                (problem,) = self.problems(package)
            self.assertEqual(events, [])
            self.assertEqual([backend.name for backend in found.backends], ["fine"])
            (folder,) = package.__path__
            self.assertIn(f"the drop-in {folder}/bad.py cannot be imported: {words}", problem)

    def test_broken_later(self) -> None:
        """So does one that could be imported once and is still in Twisted's cache."""
        package = self.package(late=GOOD + "import sys\nassert not hasattr(sys, 'rdv_broken')\nb = Backend('late')\n")
        self.assertEqual([backend.name for backend in getPlugins(ITunnelBackend, package)], ["late"])
        self.assertEqual([backend.name for backend in discover(package).backends], ["late"])
        del sys.modules[f"{package.__name__}.late"]
        sys.rdv_broken = True  # type: ignore[attr-defined]
        self.addCleanup(delattr, sys, "rdv_broken")
        self.assertEqual(discover(package).backends, ())
        (problem,) = self.problems(package)
        self.assertIn("late.py cannot be imported: AssertionError", problem)

    def test_hidden(self) -> None:
        """A backend is found also if Twisted's cache does not know of it, and if that cannot be read."""
        package = self.package(one=GOOD + "b = Backend('one')\n")
        (folder,) = package.__path__
        cache = Path(folder) / "dropin.cache"
        for content in (pickle.dumps({"one": CachedDropin(f"{package.__name__}.one", "")}), b"\xff"):
            cache.write_bytes(content)
            os.utime(cache, (2**32, 2**32))
            self.assertEqual([backend.name for backend in discover(package).backends], ["one"])

    def test_unfit(self) -> None:
        """A backend with an impossible or a taken name, or with something missing, is left out with the reason."""
        for text, words in (
            ("b = Backend('Bad Name')\n", "calls itself 'Bad Name'"),
            ("b = Backend(7)\n", "calls itself 7"),
            ("b = Backend('twin')\nc = Backend('twin')\n", "two backends call themselves twin"),
            ("b = Backend('lame')\ndel Backend.device_end\n", "lame is no tunnel backend"),
        ):
            package = self.package(dropin=GOOD + text)
            (problem,) = self.problems(package)
            self.assertIn(words, problem)
            self.assertNotIn("\n", problem)
            self.assertLessEqual(len(discover(package).backends), 1)
