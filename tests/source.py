"""The project's own source, as data for the tests that hold it to its rules."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from attrs import field, frozen
from twisted.trial.unittest import SkipTest

#: Root of the checkout, or of the unpacked source distribution.
CHECKOUT = Path(__file__).resolve().parent.parent

#: Folders with what is installed.
PRODUCT = ("rdvtwisted", "tap", "tunnels", "twisted")

#: Folders with what is only in the checkout.
WORKSHOP = ("benchmarks", "tests")


@frozen(slots=False)
class Module:
    """One module of Python: its dotted name and its text."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def tree(self) -> ast.Module:
        """What the text means."""
        return ast.parse(self.text, self.name)

    def imports(self, nodes: list[ast.stmt] | None = None) -> Iterator[str]:
        """
        Dotted names of all that it imports, wherever the import stands. For
        C{from a import b} that is C{a.b}, since C{b} may be a module.

        @param nodes: look no further than these statements.
        """
        for node in ast.walk(self.tree) if nodes is None else nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                yield from (f"{origin}.{alias.name}" for alias in node.names)

    def names(self) -> set[str]:
        """All plain names that it uses: variables, functions, builtins."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}


def modules(*folders: str) -> list[Module]:
    """Every module below these folders of the checkout, by name; a package has the name of its folder."""
    found = []
    for folder in folders:
        for path in (CHECKOUT / folder).rglob("*.py"):
            parts = path.relative_to(CHECKOUT).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found.append(Module(".".join(parts), path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda module: module.name)


def tracked() -> list[Path]:
    """
    Every file that git knows, relative to the checkout.

    @raise SkipTest: this is no checkout, or there is no git.
    """
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        raise SkipTest("not a git checkout, or no git here")
    # The tests may be run by root in somebody else's checkout.
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listing.split("\0") if name]


def within(name: str, package: str) -> bool:
    """Whether C{name} is C{package} or something in it."""
    return name == package or name.startswith(package + ".")
