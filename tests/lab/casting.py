"""What the demo plays and who plays it, and the command line that says so."""

from __future__ import annotations

import argparse

from attrs import frozen

from tests.lab.deployment import DOORS

PAIRS = ("new-new", "new-old", "old-new", "old-old")
"""What kinds of devices onsite and master may be."""


@frozen
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
        onsite, master = ("vtun" if role in self.old else name for role, name in named.items())
        return onsite, master


def arguments() -> argparse.ArgumentParser:
    """The command line that L{main} understands."""
    parser = argparse.ArgumentParser(prog="script/demo", description="One session from end to end, on this machine.")
    parser.add_argument("--backend", help="tunnel backend of both devices (default: what they choose)")
    parser.add_argument("--onsite-backend", metavar="BACKEND", help="that of the onsite alone")
    parser.add_argument("--master-backend", metavar="BACKEND", help="that of the master alone")
    parser.add_argument(
        "--pair", choices=PAIRS, default=PAIRS[0], help="kinds of onsite and master; an old one's backend is vtun"
    )
    parser.add_argument("--mode", choices=("L3", "L2"), default="L3", help="routed or bridged (default: %(default)s)")
    parser.add_argument(
        "--door", choices=tuple(DOORS), default="ssh", help="how the devices get to the server (default: %(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON; all else goes to standard error"
    )
    parser.add_argument("--keep", action="store_true", help="leave lab, server and onsite device running")
    parser.add_argument("--prefix", default="rdvdemo", help="of the lab (default: %(default)s)")
    return parser


def casting(options: argparse.Namespace) -> Casting:
    """What the command line asks for."""
    onsite, master = options.pair.split("-")
    return Casting(
        mode=options.mode,
        door=options.door,
        # Whoever names a backend for both wants an onsite that has others, too: the master's word is enough.
        onsite=options.onsite_backend,
        master=options.master_backend or options.backend,
        old=frozenset(role for role, kind in (("onsite", onsite), ("master", master)) if kind == "old"),
    )
