"""The source keeps the house rules that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.source import CHECKOUT, PRODUCT, WORKSHOP, Module, modules, tracked, within

#: Lines that a module may have; a longer one holds more than one noun.
LONGEST_MODULE = 400

#: Names that say nothing of what a module is about.
EMPTY_NAMES = frozenset("common engine handler handlers helper helpers manager misc processor util utils".split())

#: Where real processes run in real time and a test may have to wait for them.
REAL_TIME = ("tests.lab", "tests.interop", "benchmarks")

#: Notes to oneself; put together here so that this module holds none.
NOTE = re.compile("|".join(rf"\b{first}{second}\b" for first, second in [("TO", "DO"), ("FIX", "ME"), ("XX", "X")]))

#: Folders that exist on the machine of one developer only.
HOST_PATH = re.compile(r"(?<![\w.$}])/(?:work|root)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _attribute(node: ast.expr) -> str:
    """The last word of a dotted name, and of what is called."""
    if isinstance(node, ast.Call):
        return _attribute(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def described(found: list[Module]) -> dict[str, set[str]]:
    """For each class that only describes, a zope C{Interface} or a typing C{Protocol}, its methods."""
    return {
        node.name: {item.name for item in node.body if isinstance(item, Function)}
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and {"Interface", "Protocol"} & {_attribute(base) for base in node.bases}
    }


def implemented(node: ast.ClassDef) -> set[str]:
    """Names of what a class says it implements: by C{@implementer(...)}, or as a base class."""
    decorated = {
        _attribute(argument)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and _attribute(decorator) == "implementer"
        for argument in decorator.args
    }
    return decorated | {_attribute(base) for base in node.bases}


def undocumented(module: Module, descriptions: dict[str, set[str]]) -> Iterator[str]:
    """
    What is public in a module and has no docstring.

    A method that an interface or a base class describes need not say it
    again; nor need what stands inside a function.
    """

    def look(name: str, body: list[ast.stmt], excused: set[str]) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_") or node.name in excused:
                continue
            if ast.get_docstring(node) is None and not _completes(node):
                yield f"{name}.{node.name}"
            if isinstance(node, ast.ClassDef):
                known = [descriptions.get(word, set()) for word in implemented(node)]
                yield from look(f"{name}.{node.name}", node.body, set[str]().union(*known))

    if ast.get_docstring(module.tree) is None:
        yield module.name
    yield from look(module.name, module.tree.body, set())


def _completes(node: ast.ClassDef | Function) -> bool:
    """Whether a function is the setter of a property, or one of several signatures of an overload."""
    return bool({"setter", "overload"} & {_attribute(decorator) for decorator in node.decorator_list})


def tests_in(module: Module) -> Iterator[tuple[str, Function]]:
    """The test methods of a module, with their names."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, Function) and item.name.startswith("test_"):
                    yield f"{module.name}.{node.name}.{item.name}", item


def silent_skips(module: Module) -> Iterator[str]:
    """Places where a test is skipped without a word why."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _attribute(node) in {"SkipTest", "skip", "skipTest", "skipIf", "skipUnless"}:
            reasons = node.args[1:] if _attribute(node) in {"skipIf", "skipUnless"} else node.args
            reasons = reasons + [keyword.value for keyword in node.keywords]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id == "SkipTest":
            reasons = []
        elif isinstance(node, ast.Assign) and any(_attribute(target) == "skip" for target in node.targets):
            reasons = [node.value]
        else:
            continue
        constants = [reason.value for reason in reasons if isinstance(reason, ast.Constant)]
        if not reasons or any(not isinstance(text, str) or len(text.split()) < 2 for text in constants):
            yield f"{module.name}:{node.lineno}"


def sleeps(module: Module) -> Iterator[str]:
    """Places where a module stops the whole process for a while."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
            yield f"{module.name}:{node.lineno}"
    if "time.sleep" in module.imports():
        yield module.name


class RulesTests(SynchronousTestCase):
    """The rules find what they are to find."""

    def found(self, rule: Callable[[Module], Iterator[str]], text: str) -> list[str]:
        return list(rule(Module("m", text)))

    def test_undocumented(self) -> None:
        """A public class, function or method without docstring is named; a private or described one is not."""
        text = '''
"""M."""
class IDoor(Interface):
    """A door."""
    def shut():
        """Close it."""
@implementer(IDoor)
class Door:
    def shut(self): ...
    def open(self): ...
    def _lock(self): ...
def f(): ...
def _g(): ...
'''
        module = Module("m", text)
        self.assertEqual(list(undocumented(module, described([module]))), ["m.Door", "m.Door.open", "m.f"])
        self.assertEqual(list(undocumented(Module("n", "x = 1"), {})), ["n"])

    def test_silent_skips(self) -> None:
        """A skip must say why, in more than one word."""
        for text in [
            "skip = True",
            "skip = ''",
            "raise SkipTest",
            "raise SkipTest('root')",
            "skipIf(x)",
            "skipIf(x, '')",
        ]:
            self.assertEqual(len(self.found(silent_skips, text)), 1, text)
        for text in ["skip = why()", "raise SkipTest('needs root')", "skipIf(x, 'needs root')", "skip = f'no {x}'"]:
            self.assertEqual(self.found(silent_skips, text), [], text)

    def test_sleeps(self) -> None:
        """C{time.sleep} is found under its own name and when it is imported."""
        self.assertEqual(len(self.found(sleeps, "import time\ntime.sleep(1)")), 1)
        self.assertEqual(len(self.found(sleeps, "from time import sleep")), 1)
        self.assertEqual(self.found(sleeps, "clock.sleep(1)"), [])

    def test_texts(self) -> None:
        """Notes to oneself and paths of one machine are told from innocent words."""
        self.assertTrue(NOTE.search("# TO" + "DO: more"))
        self.assertFalse(NOTE.search("the to-do list"))
        own = "/" + "root/.ssh/id"
        self.assertTrue(HOST_PATH.search(f'open("{own}")'))
        self.assertFalse(HOST_PATH.search(f"chroot{own}"))
        self.assertFalse(HOST_PATH.search(f"${{HOME}}{own}"))


class TreeTests(SynchronousTestCase):
    """The tree keeps the rules."""

    def setUp(self) -> None:
        self.product = modules(*PRODUCT)
        self.workshop = modules(*WORKSHOP)
        self.everything = self.product + self.workshop

    def test_seen(self) -> None:
        """The scan sees modules that are known to be there, and tests in them."""
        names = {module.name for module in self.everything}
        self.assertLessEqual({"rdvtwisted.values", "twisted.plugins.rdv_services", "tests.test_house_rules"}, names)
        (this,) = (module for module in self.workshop if module.name == "tests.test_house_rules")
        self.assertIn(f"{this.name}.TreeTests.test_seen", [name for name, _ in tests_in(this)])

    def test_docstrings(self) -> None:
        """All that is public says what it promises."""
        descriptions = described(self.product)
        self.assertIn("disconnect", descriptions["ILine"])
        self.assertEqual([name for module in self.product for name in undocumented(module, descriptions)], [])

    def test_test_docstrings(self) -> None:
        """Every test says in a sentence which behaviour it is about."""
        silent = [
            name for module in self.workshop for name, test in tests_in(module) if ast.get_docstring(test) is None
        ]
        self.assertEqual(silent, [])

    def test_names(self) -> None:
        """No module is named by an empty word."""
        self.assertEqual([module.name for module in self.everything if EMPTY_NAMES & set(module.name.split("."))], [])

    def test_length(self) -> None:
        """No module is too long to hold one noun only; a test may need more room for its cases."""
        bounded = [module for module in self.everything if not within(module.name, "tests")]
        lengths = {module.name: module.text.count("\n") for module in bounded}
        self.assertEqual({name: length for name, length in lengths.items() if length > LONGEST_MODULE}, {})

    def test_annotations_are_text(self) -> None:
        """Every module with functions defers its annotations, so that Python 3.10 need not evaluate them."""
        missing = [
            module.name
            for module in self.everything
            if any(isinstance(node, Function) for node in ast.walk(module.tree))
            and "__future__.annotations" not in module.imports()
        ]
        self.assertEqual(missing, [])

    def test_skips(self) -> None:
        """Every skipped test says why."""
        self.assertEqual([place for module in self.workshop for place in silent_skips(module)], [])

    def test_sleeps(self) -> None:
        """Nothing sleeps, but where real processes are waited for."""
        patient = [module for module in self.everything if not any(within(module.name, room) for room in REAL_TIME)]
        self.assertEqual([place for module in patient for place in sleeps(module)], [])

    def test_providers_are_verified(self) -> None:
        """For every interface of ours that a class implements, a test calls C{verifyObject}."""
        interfaces = {name for name in described(self.product) if re.match(r"I[A-Z]", name)}
        wanted = {
            interface
            for module in self.product
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
            for interface in implemented(node) & interfaces
        }
        verified = {
            _attribute(node.args[0])
            for module in self.workshop
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and _attribute(node) == "verifyObject" and node.args
        }
        self.assertEqual(wanted - verified, set())


class TextTests(SynchronousTestCase):
    """The rules for every file that is in the repository."""

    def setUp(self) -> None:
        # What is no text (an image of the documentation) matches none of the rules below.
        self.texts = {
            path: (CHECKOUT / path).read_text(encoding="utf-8", errors="replace")
            for path in tracked()
            if (CHECKOUT / path).is_file()
        }

    def places(self, pattern: re.Pattern[str]) -> list[str]:
        return [
            f"{path}:{number}"
            for path, text in self.texts.items()
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]

    def test_seen(self) -> None:
        """The listing has a file that is known to be there."""
        self.assertIn(Path("setup.cfg"), self.texts)

    def test_no_notes(self) -> None:
        """Nothing is left to do in a comment."""
        self.assertEqual(self.places(NOTE), [])

    def test_no_host_paths(self) -> None:
        """No file names a folder that exists on one developer's machine only."""
        self.assertEqual(self.places(HOST_PATH), [])
