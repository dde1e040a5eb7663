"""
Run in a host: the network of an onsite that lets a scope pass.

C{python -m tests.lab.gatekeeper DIRECTORY EXTREMITY ADDRESS SCOPE}; every line of its input is another scope, an
empty one the end. After each it says in a JSON line whether the machine is as before.
"""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from rdvtwisted import routed
from rdvtwisted.adapters.network.linux import LinuxNetwork
from rdvtwisted.plan import Plan
from rdvtwisted.scope import Scope
from tests.lab.rehearsal import MTU, OWNER, TUNNEL, snapshot


async def keep(reactor: Any, directory: str, extremity: str, address: str, scope: str) -> None:
    """Apply the plan, amend it as often as wanted, undo it."""
    network = LinuxNetwork(reactor, Path(directory))
    before = snapshot()
    site = await network.site()

    def plan(scope: str) -> Plan:
        return routed.onsite(OWNER, TUNNEL, extremity, IPv4Interface(address), MTU, site, Scope.parse(scope))

    def say() -> None:
        sys.stdout.write(json.dumps({"as before": snapshot() == before}) + "\n")
        sys.stdout.flush()

    await network.apply(plan(scope))
    say()
    while scope := sys.stdin.readline().strip():
        await network.amend(plan(scope))
        say()
    await network.undo(OWNER)
    say()
    network.close()


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(keep(reactor, *words)), sys.argv[1:])
