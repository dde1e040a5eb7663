"""Access rules in the database: what is left of damaged ones, several processes, and databases of before there were."""

from __future__ import annotations

import os

from sqlalchemy import Connection
from twisted.logger import capturedLogs, formatEvent

from rdvtwisted.access import Effect, Policy, Rule
from rdvtwisted.adapters.store import rules
from rdvtwisted.adapters.store.inventory import SqlInventory
from rdvtwisted.values import Mode
from tests.adapters.store.keys import key, onsite
from tests.adapters.store.test_inventory import POLICY, SqlTestCase

#: What version 1 made.
VERSION_1 = (
    "CREATE TABLE rdv_schema (version INTEGER NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (version))",
    """CREATE TABLE devices (id VARCHAR(32) NOT NULL, role VARCHAR(16) NOT NULL, enabled INTEGER NOT NULL,
    legacy INTEGER NOT NULL, label VARCHAR(200) NOT NULL, PRIMARY KEY (id))""",
    """CREATE TABLE device_keys (line VARCHAR(4096) NOT NULL, device VARCHAR(32) NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (line), FOREIGN KEY(device) REFERENCES devices (id))""",
    "CREATE INDEX ix_device_keys_device ON device_keys (device)",
    "INSERT INTO rdv_schema VALUES (1, 7)",
    "INSERT INTO devices VALUES ('rpi1', 'onsite', 1, 0, '')",
    f"INSERT INTO device_keys VALUES ('{key(1).line}', 'rpi1', 0)",
)


class RulesTestCase(SqlTestCase):
    """Has three devices, and rules about them."""

    def setUp(self) -> None:
        super().setUp()
        opened = self.open()
        for number, id in enumerate(("ann", "rpi1", "rpi2")):
            opened.add(onsite(id, number))
        opened.replace_policy(POLICY)
        opened.close()


class SharedRulesTests(RulesTestCase):
    """Several processes use one set of rules."""

    def test_kept(self) -> None:
        """What was stored is there for the next one."""
        self.assertEqual(self.open().policy(), POLICY)

    def test_refresh(self) -> None:
        """A change by another is seen after a refresh; without a change the rules stay the same object."""
        server, command = self.open(), self.open()
        before = server.policy()
        command.add(onsite("rpi3", 3))
        server.refresh()
        self.assertIs(server.policy(), before)
        command.update_policy(lambda policy: policy.without_rules([2]))
        self.assertIs(server.policy(), before)
        self.assertTrue(server.refresh())
        self.assertEqual(server.policy(), POLICY.without_rules([2]))
        self.assertFalse(server.refresh())

    def test_change_upon_change(self) -> None:
        """Two who change the rules at the same time both have their way."""
        one, two = self.open(), self.open()
        two.update_policy(lambda policy: policy.with_rule(Rule(Effect.DENY, "*", "*")))
        one.update_policy(lambda policy: policy.with_rule(Rule(Effect.ALLOW, "*", "*")))
        found = [(rule.number, rule.effect.value) for rule in one.policy().rules]
        self.assertEqual(found[2:], [(3, "deny"), (4, "allow")])

    def test_failed_change_changes_nothing(self) -> None:
        """When a change fails half-way, the old rules stand, for oneself and for the others."""
        one, two = self.open(), self.open()

        def write_and_fail(connection: Connection, policy: Policy) -> None:
            write(connection, policy)
            raise ZeroDivisionError

        write = rules.write
        self.patch(rules, "write", write_and_fail)
        self.assertRaises(ZeroDivisionError, one.replace_policy, Policy())
        self.assertRaises(ZeroDivisionError, one.remove, "rpi2")
        two.refresh()
        self.assertEqual([one.policy(), two.policy()], [POLICY, POLICY])


class DamagedRulesTests(RulesTestCase):
    """Damage never permits more than there was; it is named in one line and harms nobody else."""

    def reopened(self, *statements: str) -> SqlInventory:
        """The inventory after something was done to the file."""
        self.sql(*statements)
        return self.open()

    def rules_of(self, opened: SqlInventory) -> list[tuple[int, str, str, str]]:
        """The rules that are there, in short."""
        return [(rule.number, rule.effect.value, rule.master, rule.onsite) for rule in opened.policy().rules]

    def test_allow(self) -> None:
        """An allow that is damaged allows nothing."""
        for change in (
            "master = 'Ann'",
            "onsite = '@paris'",
            "modes = 'L4'",
            "modes = ''",
            "modes = x'00'",
            "destinations = 'web'",
            "destinations = x'ff'",
            "until = 'tomorrow'",
            "until = -1",
            "comment = 'two' || char(10) || 'lines'",
            "comment = x'41'",
        ):
            with capturedLogs() as events:
                opened = self.reopened(f"UPDATE access_rules SET {change} WHERE number = 1")
            self.assertEqual(self.rules_of(opened), [(2, "deny", "*", "rpi2")], change)
            [line] = [formatEvent(event) for event in events]
            self.assertIn("access rule 1 is damaged, and denies what it may have denied: ", line)
            opened.update_policy(lambda _: POLICY)
            opened.close()

    def test_deny(self) -> None:
        """A deny that is damaged denies all that it can have meant."""
        for change, master, place in (
            ("destinations = 'web'", "*", "rpi2"),
            ("until = 'tomorrow'", "*", "rpi2"),
            ("modes = 'L4'", "*", "rpi2"),
            ("onsite = 'Rpi2'", "*", "*"),
            ("master = '@paris'", "*", "rpi2"),
            ("master = x'41'", "*", "rpi2"),
            ("effect = 'forbid'", "*", "rpi2"),
        ):
            opened = self.reopened(f"UPDATE access_rules SET {change} WHERE number = 2")
            left = [(1, "allow", "ann", "@lyon"), (2, "deny", master, place)]
            self.assertEqual(self.rules_of(opened), left, change)
            self.assertIsNone(opened.policy().decide("ann", "rpi2", Mode.L3, 0.0))
            opened.update_policy(lambda _: POLICY)
            opened.close()

    def test_group(self) -> None:
        """A group whose name is damaged is not there: a deny that names it denies all, an allow nothing."""
        opened = self.reopened(
            "UPDATE access_groups SET name = 'L yon' WHERE name = 'lyon'",
            "UPDATE access_members SET name = 'L yon' WHERE name = 'lyon'",
        )
        self.assertEqual(self.rules_of(opened), [(2, "deny", "*", "rpi2")])
        self.assertEqual(opened.policy().groups, {"empty": ()})

    def test_member(self) -> None:
        """A damaged member of a group is left out, the others stay."""
        opened = self.reopened("UPDATE access_members SET device = 'R2' WHERE device = 'rpi2'")
        self.assertEqual(opened.policy().groups, {"lyon": ("rpi1",), "empty": ()})
        self.assertEqual(len(opened.problems), 1)

    def test_number(self) -> None:
        """With a number that cannot be, nobody has access until it is mended: what it stood for is not known."""
        opened = self.reopened("UPDATE access_rules SET number = -1 WHERE number = 2")
        self.assertEqual(opened.policy(), Policy())
        self.assertIn("nobody has access", opened.problems[-1])

    def test_damaged_device(self) -> None:
        """A damaged device does not keep the rules that name it from being changed."""
        opened = self.reopened("UPDATE devices SET role = 'king' WHERE id = 'rpi2'")
        opened.update_policy(lambda policy: policy.without_rules([1]))
        self.assertEqual(self.rules_of(opened), [(2, "deny", "*", "rpi2")])


class OlderTests(SqlTestCase):
    """A database of before there were rules."""

    def test_completed(self) -> None:
        """It gets what it lacks, keeps what it has, and nobody has access until there is a rule."""
        os.mkdir(self.directory, 0o700)
        self.sql(*VERSION_1)
        opened = self.open()
        self.assertEqual(opened.devices(), [onsite("rpi1", 1)])
        self.assertEqual(opened.policy(), Policy())
        opened.add(onsite("ann", 0))
        opened.add(onsite("rpi2", 2))
        opened.replace_policy(POLICY)
        opened.close()
        self.assertEqual(self.open().policy(), POLICY)
