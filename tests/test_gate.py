"""A scope as rules of a firewall."""

from __future__ import annotations

from ipaddress import IPv4Interface

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted import gate, routed
from rdvtwisted.plan import FirewallTable, Site
from rdvtwisted.scope import ALL, Scope


def rules(scope: str) -> list[str]:
    """The rules of the chain, without its first and last line."""
    return [line.strip() for line in gate.chain(Scope.parse(scope)).splitlines()[1:-1]]


#: What every chain ends with.
REFUSALS = ["meta l4proto tcp reject with tcp reset", "reject with icmp type admin-prohibited"]


class GateTests(SynchronousTestCase):
    """The text of the chain; what it does is seen in the lab."""

    def test_everything(self) -> None:
        """Who may go everywhere meets no rule at all, and the plan is what it always was."""
        self.assertEqual(gate.chain(ALL), "")
        self.assertNotIn(gate.CHAIN, _table(ALL))

    def test_nothing(self) -> None:
        """Who may go nowhere is refused."""
        self.assertEqual(rules(""), REFUSALS)

    def test_one(self) -> None:
        """A port of a machine is a rule; trouble with it may be told."""
        self.assertEqual(
            rules("192.168.1.10:tcp/80"),
            [
                "meta l4proto tcp ct original proto-dst 80 ct original ip daddr { 192.168.1.10 } return",
                "meta l4proto icmp ct state related ct original ip daddr { 192.168.1.10 } return",
                *REFUSALS,
            ],
        )

    def test_together(self) -> None:
        """Machines with the same ports share a rule, and neighbours a range."""
        everybody = "{ 10.0.0.0-10.0.1.0, 10.0.8.0-10.0.11.255 }"
        self.assertEqual(
            rules("10.0.0.0/24:tcp/80-89,443 10.0.1.0:tcp/80-89,443 10.0.1.0:icmp 10.0.9.9:other 10.0.8.0/22:udp"),
            [
                "meta l4proto tcp ct original proto-dst 80-89 ct original ip daddr { 10.0.0.0-10.0.1.0 } return",
                "meta l4proto tcp ct original proto-dst 443 ct original ip daddr { 10.0.0.0-10.0.1.0 } return",
                "meta l4proto icmp ct original ip daddr { 10.0.1.0 } return",
                "meta l4proto udp ct original ip daddr { 10.0.8.0-10.0.11.255 } return",
                "meta l4proto != { tcp, udp, icmp } ct original ip daddr { 10.0.9.9 } return",
                f"meta l4proto icmp ct state related ct original ip daddr {everybody} return",
                *REFUSALS,
            ],
        )

    def test_whole_machines(self) -> None:
        """Where every protocol is allowed there is one rule for all of them, before the others."""
        self.assertEqual(
            rules("10.0.0.1 10.0.0.3 10.0.0.2:tcp/80")[0], "ct original ip daddr { 10.0.0.1, 10.0.0.3 } return"
        )

    def test_both_ways(self) -> None:
        """The gate stands in the way of both directions, towards the device itself, and before what lets pass."""
        lines = [line.strip() for line in _table(Scope.parse("10.0.0.1")).splitlines()]
        jumps = [number for number, line in enumerate(lines) if line.endswith(f"jump {gate.CHAIN}")]
        self.assertEqual(len(jumps), 4)
        forward = lines.index("type filter hook forward priority filter; policy accept;")
        self.assertEqual(jumps[-2:], [forward + 1, forward + 2])


def _table(scope: Scope) -> str:
    plan = routed.onsite("rpi1100", "rdv-t", "eth0", IPv4Interface("192.168.128.1/30"), 1400, Site(), scope)
    [table] = [step for step in plan.steps if isinstance(step, FirewallTable)]
    return table.rules
