"""
What the demo plays and who plays it, and the command line that says so.

C{script/demo} has any Python look at its command line before it installs
anything, so this needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

DOORS = ("ssh", "tls")
"""By which doors devices may get to the server."""

OWN_BACKENDS = ("tls", "stunnel", "vtun")
"""The tunnel backends that come with the product."""

OLD_BACKEND = "vtun"
"""The only one that old devices have."""

PAIRS = ("new-new", "new-old", "old-new", "old-old")
"""What kinds of devices onsite and master may be."""


@dataclass(frozen=True)
class Casting:
    """
    What is played, and by whom.

    @ivar onsite: the only tunnel backend that the onsite offers; L{None} for all.
    @ivar master: the one that the master wants; L{None} for any.
    @ivar old: the roles that old devices play.
    """

    mode: str = "L3"
    door: str = "ssh"
    onsite: str | None = None
    master: str | None = None
    old: frozenset[str] = frozenset()

    @property
    def pair(self) -> str:
        """One of L{PAIRS}."""
        return "-".join("old" if role in self.old else "new" for role in ("onsite", "master"))

    def backends(self) -> tuple[str | None, str | None]:
        """Of onsite and master, as far as that is known beforehand."""
        named = {"onsite": self.onsite, "master": self.master}
        onsite, master = (OLD_BACKEND if role in self.old else name for role, name in named.items())
        return onsite, master


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """See the class; the exit status is 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def arguments() -> Parser:
    """The command line that L{read} understands."""
    parser = Parser(prog="script/demo", description="One session from end to end, on this machine.")
    parser.add_argument("--backend", help="tunnel backend of both devices (default: what they choose)")
    parser.add_argument("--onsite-backend", metavar="BACKEND", help="that of the onsite alone")
    parser.add_argument("--master-backend", metavar="BACKEND", help="that of the master alone")
    parser.add_argument(
        "--pair", choices=PAIRS, default=PAIRS[0], help="kinds of onsite and master; an old one's backend is vtun"
    )
    parser.add_argument("--mode", choices=("L3", "L2"), default="L3", help="routed or bridged (default: %(default)s)")
    parser.add_argument(
        "--door", choices=DOORS, default="ssh", help="how the devices get to the server (default: %(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON; all else goes to standard error"
    )
    parser.add_argument("--keep", action="store_true", help="leave lab, server and onsite device running")
    parser.add_argument("--prefix", default="rdvdemo", help="of the lab (default: %(default)s)")
    return parser


def installed() -> Sequence[str]:
    """The tunnel backends that devices will find; before the product is installed only its own can be known."""
    try:
        from rdvtwisted.adapters.backends import discover
    except ImportError:
        return OWN_BACKENDS
    return [backend.name for backend in discover().backends]


def objections(options: argparse.Namespace) -> Sequence[str]:
    """What cannot be played of what the command line asks for, a sentence each."""
    found = []
    known = installed()
    named = {option: getattr(options, f"{option}_backend" if option != "both" else "backend") for option in _OPTIONS}
    for option, name in named.items():
        if name is not None and name not in known:
            found.append(f"{_OPTIONS[option]} {name}: there is no such tunnel backend; use one of {', '.join(known)}")
    for role, kind in zip(("onsite", "master"), options.pair.split("-"), strict=True):
        found += [
            f"{_OPTIONS[option]} {named[option]}: an old {role} has {OLD_BACKEND} and nothing else"
            for option in (role, "both")
            if kind == "old" and named[option] not in (None, OLD_BACKEND)
        ]
    if None not in (named["both"], named["master"]) and named["both"] != named["master"]:
        found.append(f"--backend {named['both']}: --master-backend names another one for the master")
    return found


_OPTIONS = {"both": "--backend", "onsite": "--onsite-backend", "master": "--master-backend"}


def read(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, Casting]:
    """
    Take a command line apart.

    @raise SystemExit: it makes no sense, or asks for help.
    """
    parser = arguments()
    options = parser.parse_args(argv)
    for objection in objections(options):
        parser.error(objection)
    onsite, master = options.pair.split("-")
    return options, Casting(
        mode=options.mode,
        door=options.door,
        # Whoever names a backend for both wants an onsite that has others, too: the master's word is enough.
        onsite=options.onsite_backend,
        master=options.master_backend or options.backend,
        old=frozenset(role for role, kind in (("onsite", onsite), ("master", master)) if kind == "old"),
    )


if __name__ == "__main__":
    read()
    sys.exit(0)
