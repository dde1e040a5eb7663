"""The inventory: one contract for its memory twin and its database, and what only a database does."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

from attrs import evolve
from sqlalchemy import URL
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from rdvtwisted.access import Effect, Policy, Rule
from rdvtwisted.accounts import LONGEST_LABEL, MOST_KEYS
from rdvtwisted.adapters.store import inventory
from rdvtwisted.adapters.store.inventory import FILE_NAME, SqlInventory, open_inventory
from rdvtwisted.config import InventorySettings, ServerSettings
from rdvtwisted.errors import ConfigError, InvalidValue, StateDirectoryError
from rdvtwisted.interfaces import IInventory
from rdvtwisted.scope import Destination
from rdvtwisted.testing.inventory import MemoryInventory
from rdvtwisted.values import Device, Mode, Role
from tests.adapters.store.keys import key, onsite
from tests.source import CHECKOUT

POLICY = (
    Policy()
    .with_group("lyon", ["rpi1", "rpi2"])
    .with_group("empty", [])
    .with_rule(
        Rule(
            Effect.ALLOW,
            "ann",
            "@lyon",
            (Mode.L3,),
            (Destination.parse("192.168.1.10:tcp/80,8000-8080"), Destination.parse("10.0.0.0/8")),
            1_909_159_200.25,
            "Zürich, upstairs",
        )
    )
    .with_rule(Rule(Effect.DENY, "*", "rpi2"))
)


class MemoryInventoryTests(SynchronousTestCase):
    """What every inventory does, on the twin in memory."""

    def make(self) -> MemoryInventory | SqlInventory:
        return MemoryInventory()

    def setUp(self) -> None:
        self.inventory = self.make()

    def assertRefused(self, line: str, does: Callable[..., object], *arguments: object) -> None:
        before = self.inventory.devices()
        self.assertEqual(str(self.assertRaises(InvalidValue, does, *arguments)), line)
        self.assertEqual(self.inventory.devices(), before)

    def test_interface(self) -> None:
        """It has every method of an inventory."""
        self.assertTrue(verifyObject(IInventory, self.inventory))

    def test_empty(self) -> None:
        """At first there is no device."""
        self.assertEqual(self.inventory.devices(), [])
        self.assertIsNone(self.inventory.device("rpi1100"))

    def test_add(self) -> None:
        """A device that was added is there as it was added, keys in their order."""
        device = Device("rpi1100", Role.MASTER, (key(2), key(1)), False, True, "Zürich, upstairs")
        self.inventory.add(device)
        self.assertEqual(self.inventory.device("rpi1100"), device)

    def test_order(self) -> None:
        """Devices are listed by id."""
        for id in ("rpi2", "rpi10", "rpi_1", "rpi-1"):
            self.inventory.add(onsite(id))
        self.assertEqual([device.id for device in self.inventory.devices()], ["rpi-1", "rpi10", "rpi2", "rpi_1"])

    def test_add_taken(self) -> None:
        """An id is given once."""
        self.inventory.add(onsite("rpi1100", 1))
        self.assertRefused(
            "invalid device id 'rpi1100': there is a device of this id already",
            self.inventory.add,
            onsite("rpi1100", 2),
        )

    def test_add_invalid_id(self) -> None:
        """An id that cannot be an account name is refused."""
        self.assertRefused(
            "invalid device id 'Rpi': use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash",
            self.inventory.add,
            onsite("Rpi"),
        )

    def test_label(self) -> None:
        """A label is one line that fits into a list."""
        for label in ("two\nlines", "x" * (LONGEST_LABEL + 1)):
            self.assertRefused(
                f"invalid label {label[:80]!r}: use one line of at most 200 characters",
                self.inventory.add,
                evolve(onsite("rpi1100"), label=label),
            )

    def test_key_of_another(self) -> None:
        """A key belongs to one device; the refusal names it."""
        self.inventory.add(onsite("rpi1", 1))
        self.inventory.add(onsite("rpi2", 2))
        line = f"invalid public key '{key(1).fingerprint}': it is the key of rpi1; make a new one"
        self.assertRefused(line, self.inventory.add, onsite("rpi3", 3, 1))
        self.assertRefused(line, self.inventory.replace, onsite("rpi2", 2, 1))

    def test_key_twice(self) -> None:
        """A device has a key once."""
        self.assertRefused(
            f"invalid public key '{key(1).fingerprint}': rpi1 has it already",
            self.inventory.add,
            onsite("rpi1", 1, 2, 1),
        )

    def test_too_many_keys(self) -> None:
        """A device has a bounded number of keys."""
        self.assertRefused(
            "invalid number of keys '17': a device has at most 16",
            self.inventory.add,
            onsite("rpi1", *range(MOST_KEYS + 1)),
        )

    def test_replace(self) -> None:
        """A device can be given other properties and keys; the old keys are free again."""
        self.inventory.add(onsite("rpi1", 1, 2))
        changed = Device("rpi1", Role.MASTER, (key(2), key(3)), False, True, "moved")
        self.inventory.replace(changed)
        self.assertEqual(self.inventory.devices(), [changed])
        self.inventory.add(onsite("rpi2", 1))
        self.assertEqual(self.inventory.device("rpi2"), onsite("rpi2", 1))

    def test_replace_absent(self) -> None:
        """What is not there cannot be replaced."""
        self.assertRefused(
            "invalid device id 'rpi1': there is no such device", self.inventory.replace, onsite("rpi1", 1)
        )

    def test_remove(self) -> None:
        """A removed device is gone, and its id and keys can be given anew."""
        self.inventory.add(onsite("rpi1", 1))
        self.inventory.remove("rpi1")
        self.assertIsNone(self.inventory.device("rpi1"))
        self.inventory.add(evolve(onsite("rpi1", 1), role=Role.MASTER))

    def test_remove_absent(self) -> None:
        """What is not there cannot be removed."""
        self.assertRefused("invalid device id 'rpi1': there is no such device", self.inventory.remove, "rpi1")

    def test_no_rules(self) -> None:
        """At first there is no access rule, so nobody has access."""
        self.assertEqual(self.inventory.policy(), Policy())

    def test_policy(self) -> None:
        """Access rules are there as they were stored, in place of the former; the same object until they change."""
        for number, id in enumerate(("ann", "rpi1", "rpi2")):
            self.inventory.add(onsite(id, number))
        self.inventory.replace_policy(POLICY)
        self.assertEqual(self.inventory.policy(), POLICY)
        self.assertIs(self.inventory.policy(), self.inventory.policy())
        self.inventory.replace_policy(POLICY.without_rules([1]))
        self.assertEqual(self.inventory.policy(), POLICY.without_rules([1]))
        self.inventory.replace_policy(Policy())
        self.assertEqual(self.inventory.policy(), Policy())

    def test_policy_of_strangers(self) -> None:
        """Rules and groups name devices that there are."""
        self.inventory.add(onsite("ann", 1))
        for policy in (
            Policy().with_rule(Rule(Effect.DENY, "ann", "rpi1")),
            Policy().with_group("lyon", ["ann", "rpi1"]),
        ):
            self.assertRefused(
                "invalid device id 'rpi1': there is no such device", self.inventory.replace_policy, policy
            )
            self.assertEqual(self.inventory.policy(), Policy())

    def test_policy_of_removed_device(self) -> None:
        """With a device go the rules that name it; the others stay, and can be changed."""
        for number, id in enumerate(("ann", "rpi1", "rpi2")):
            self.inventory.add(onsite(id, number))
        self.inventory.replace_policy(POLICY)
        self.inventory.remove("rpi2")
        self.assertEqual(self.inventory.policy(), POLICY.without_device("rpi2"))
        self.assertEqual([rule.number for rule in self.inventory.policy().rules], [1])


class SqlTestCase(SynchronousTestCase):
    """Has a state directory and opens inventories in it."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.path = os.path.join(self.directory, FILE_NAME)
        self.settings = ServerSettings(state_directory=self.directory)

    def open(self) -> SqlInventory:
        opened = open_inventory(self.settings)
        self.addCleanup(opened.close)
        return opened

    def sql(self, *statements: str) -> None:
        """Do to the file what this program would not."""
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


class SqlInventoryTests(MemoryInventoryTests):
    """What every inventory does, on SQLite."""

    def make(self) -> SqlInventory:
        opened = open_inventory(ServerSettings(state_directory=self.mktemp()))
        self.addCleanup(opened.close)
        return opened


class SharedTests(SqlTestCase):
    """Several processes use one inventory."""

    def test_kept(self) -> None:
        """What was stored is there for the next one who opens it."""
        device = Device("rpi1", Role.MASTER, (key(2), key(1)), False, True, "label")
        first = self.open()
        first.add(device)
        first.close()
        self.assertEqual(self.open().devices(), [device])

    def test_refresh(self) -> None:
        """A change by another is seen after a refresh, and not by surprise before."""
        server, command = self.open(), self.open()
        command.add(onsite("rpi1", 1))
        self.assertIsNone(server.device("rpi1"))
        self.assertTrue(server.refresh())
        self.assertEqual(server.device("rpi1"), onsite("rpi1", 1))
        self.assertFalse(server.refresh())

    def test_refresh_reads_only_what_changed(self) -> None:
        """Without a change nothing is read again: the devices stay the same objects."""
        opened = self.open()
        opened.add(onsite("rpi1", 1))
        before = opened.device("rpi1")
        opened.refresh()
        self.assertIs(opened.device("rpi1"), before)

    def test_change_upon_change(self) -> None:
        """Two who change one device at the same time both have their way: nobody works on what is outdated."""
        one, two = self.open(), self.open()
        one.add(onsite("rpi1", 1))
        two.update("rpi1", lambda device: evolve(device, keys=(*device.keys, key(2))))
        one.update("rpi1", lambda device: evolve(device, keys=(*device.keys, key(3))))
        two.refresh()
        self.assertEqual(two.device("rpi1"), onsite("rpi1", 1, 2, 3))

    def test_key_taken_by_other_process(self) -> None:
        """A key that another process has just given away is refused by its owner's name."""
        one, two = self.open(), self.open()
        one.add(onsite("rpi1", 1))
        error = self.assertRaises(InvalidValue, two.add, onsite("rpi2", 1))
        self.assertIn("it is the key of rpi1", str(error))

    def test_failed_change_changes_nothing(self) -> None:
        """When the change fails half-way, the old state stands, for oneself and for the others."""
        one, two = self.open(), self.open()
        one.add(onsite("rpi1", 1))

        def fail(device: Device) -> Device:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, one.update, "rpi1", fail)
        two.refresh()
        for each in (one, two):
            self.assertEqual(each.devices(), [onsite("rpi1", 1)])
        one.add(onsite("rpi2", 2))

    def test_processes(self) -> None:
        """Several processes that make the inventory and add devices at the same time lose none."""
        program = (
            "import sys\n"
            "from rdvtwisted.adapters.store.inventory import open_inventory\n"
            "from rdvtwisted.config import ServerSettings\n"
            "from tests.adapters.store.keys import onsite\n"
            "inventory = open_inventory(ServerSettings(state_directory=sys.argv[1]))\n"
            "for number in range(8):\n"
            "    inventory.add(onsite(f'rpi{sys.argv[2]}-{number}', int(sys.argv[2]) * 8 + number))\n"
        )
        children = [
            subprocess.Popen([sys.executable, "-c", program, os.path.abspath(self.directory), str(n)], cwd=CHECKOUT)
            for n in range(4)
        ]
        self.assertEqual([child.wait() for child in children], [0] * 4)
        self.assertEqual(len(self.open().devices()), 32)

    def test_disconnected(self) -> None:
        """Who has let go of the database still knows its devices, and holds no file; changes count from then on."""
        one, two = self.open(), self.open()
        one.add(onsite("rpi1", 1))
        one.disconnect()
        self.assertEqual(one.devices(), [onsite("rpi1", 1)])
        two.add(onsite("rpi2", 2))
        two.close()
        self.assertFalse(os.path.exists(f"{self.path}-wal"))
        one.connect()
        self.assertEqual(one.devices(), [onsite("rpi1", 1), onsite("rpi2", 2)])
        one.remove("rpi1")
        self.assertEqual(self.open().devices(), [onsite("rpi2", 2)])

    def test_locked(self) -> None:
        """Who keeps the database for too long gets it for himself, and the other one a clear line."""
        self.patch(inventory, "BUSY_SECONDS", 0)
        opened = self.open()
        opened.add(onsite("rpi1", 1))
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            error = self.assertRaises(StateDirectoryError, opened.add, onsite("rpi2", 2))
            self.assertIn("(database is locked): another process has kept it", str(error))
            opened.refresh()
            other.execute("ROLLBACK")
        opened.add(onsite("rpi2", 2))
        self.assertEqual(opened.devices(), [onsite("rpi1", 1), onsite("rpi2", 2)])


class DamageTests(SqlTestCase):
    """A damaged row costs what it holds and no more, and is named in one line."""

    def setUp(self) -> None:
        super().setUp()
        inventory = self.open()
        inventory.add(onsite("rpi1", 1, 11))
        inventory.add(onsite("rpi2", 2))
        inventory.close()

    def assertProblem(self, problem: str, devices: list[Device], *statements: str) -> SqlInventory:
        self.sql(*statements)
        with capturedLogs() as events:
            opened = self.open()
        self.assertEqual(opened.problems, (problem,))
        self.assertEqual([formatEvent(event) for event in events], [f"Inventory: {problem}"])
        self.assertEqual(opened.devices(), devices)
        return opened

    def test_role(self) -> None:
        """A device of an unknown role is left out; the others work."""
        opened = self.assertProblem(
            "device 'rpi1' is left out: its record is damaged: 'king' is not a valid Role",
            [onsite("rpi2", 2)],
            "UPDATE devices SET role = 'king' WHERE id = 'rpi1'",
        )
        self.assertIsNone(opened.device("rpi1"))

    def test_flag(self) -> None:
        """A device of which it is not clear whether it is enabled is left out."""
        self.assertProblem(
            "device 'rpi1' is left out: its record is damaged: invalid enabled 'maybe': it is 0 or 1",
            [onsite("rpi2", 2)],
            "UPDATE devices SET enabled = 'maybe' WHERE id = 'rpi1'",
        )

    def test_label(self) -> None:
        """A label that is not UTF-8 keeps nobody out."""
        self.sql("UPDATE devices SET label = CAST(x'ff41' AS TEXT) WHERE id = 'rpi1'")
        opened = self.open()
        self.assertEqual(opened.devices(), [evolve(onsite("rpi1", 1, 11), label="\ufffdA"), onsite("rpi2", 2)])

    def test_label_of_bytes(self) -> None:
        """A label that is no text at all is left out with its device."""
        self.assertProblem(
            "device 'rpi1' is left out: its record is damaged: its label is not text",
            [onsite("rpi2", 2)],
            "UPDATE devices SET label = x'ff41' WHERE id = 'rpi1'",
        )

    def test_id(self) -> None:
        """A device whose id cannot be an account is left out."""
        self.assertProblem(
            "device 'Rpi 9' is left out: its record is damaged: invalid device id 'Rpi 9':"
            " use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash",
            [onsite("rpi1", 1, 11), onsite("rpi2", 2)],
            "INSERT INTO devices (id, role, enabled, legacy, label) VALUES ('Rpi 9', 'onsite', 1, 0, '')",
        )

    def test_key(self) -> None:
        """A damaged key costs its device that key only."""
        self.assertProblem(
            "a key of device 'rpi1' is left out: invalid public key 'ssh-ed25519 AAA!': its second word is not base64",
            [onsite("rpi1", 11), onsite("rpi2", 2)],
            f"UPDATE device_keys SET line = 'ssh-ed25519 AAA!' WHERE line = '{key(1).line}'",
        )

    def test_keys_of_nobody(self) -> None:
        """Keys without a device let nobody in."""
        self.assertProblem(
            "keys of device 'rpi1' are left out: there is no such device",
            [onsite("rpi2", 2)],
            "DELETE FROM devices WHERE id = 'rpi1'",
        )

    def test_repair(self) -> None:
        """A damaged device stands in the way of a new one of its id until it is removed."""
        self.sql("UPDATE devices SET role = 'king' WHERE id = 'rpi1'")
        opened = self.open()
        error = self.assertRaises(InvalidValue, opened.add, onsite("rpi1", 1))
        self.assertEqual(str(error), "invalid device 'rpi1': a damaged record is in its way: remove that device first")
        opened.remove("rpi1")
        opened.add(onsite("rpi1", 1))
        opened.refresh()
        self.assertEqual(opened.devices(), [onsite("rpi1", 1), onsite("rpi2", 2)])

    def test_told_once(self) -> None:
        """The line is written once, not at each reading."""
        self.sql("UPDATE devices SET role = 'king' WHERE id = 'rpi1'")
        opened, other = self.open(), self.open()
        with capturedLogs() as events:
            other.add(onsite("rpi3", 3))
            self.assertTrue(opened.refresh())
        self.assertEqual(events, [])


class OpeningTests(SqlTestCase):
    """What can be wrong with the place where the inventory is."""

    def assertUnusable(self, line: str) -> None:
        self.assertEqual(str(self.assertRaises(StateDirectoryError, open_inventory, self.settings)), line)

    def test_modes(self) -> None:
        """Nobody but its owner can enter the directory or read the files, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        self.open().add(onsite("rpi1", 1))
        self.assertEqual(stat.S_IMODE(os.stat(self.directory).st_mode), 0o700)
        files = os.listdir(self.directory)
        self.assertIn(FILE_NAME + "-wal", files)
        for name in files:
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.directory, name)).st_mode), 0o600, name)

    def test_loose_file(self) -> None:
        """A database that others could read, perhaps restored from a backup, is closed to them."""
        self.open().close()
        os.chmod(self.path, 0o644)
        self.open()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_directory_open_to_others(self) -> None:
        """A directory that is open to others is refused, and left as it is: it may not be meant for us."""
        os.mkdir(self.directory, 0o755)
        self.assertUnusable(
            f"the state directory {self.directory} is open to others (mode 0755): name one of its own,"
            f" or, if it is for nothing else, chmod 700 {self.directory}"
        )
        self.assertEqual(os.listdir(self.directory), [])

    def test_not_a_directory(self) -> None:
        """A file in place of the directory is refused."""
        with open(self.directory, "w"):
            pass
        self.assertUnusable(f"{self.directory} is not a directory: name another state directory")

    def test_cannot_be_made(self) -> None:
        """A directory below a file cannot be made."""
        with open(self.directory, "w"):
            pass
        self.settings = ServerSettings(state_directory=os.path.join(self.directory, "deeper"))
        self.assertUnusable(f"cannot make {self.directory}/deeper: not a directory")

    def test_symlink(self) -> None:
        """A database that is a symbolic link is not followed: it may lead anywhere."""
        os.mkdir(self.directory, 0o700)
        os.symlink("/dev/null", self.path)
        self.assertUnusable(f"cannot open {self.path}: too many levels of symbolic links")

    def test_missing(self) -> None:
        """Who only wants to look is told that there is nothing yet, and nothing is made."""
        error = self.assertRaises(StateDirectoryError, open_inventory, self.settings, create=False)
        self.assertEqual(
            str(error),
            f"there is no inventory in {self.directory} yet: add a device, start the server, or name another"
            " state directory",
        )
        self.assertFalse(os.path.exists(self.directory))

    def test_not_a_database(self) -> None:
        """A file that is no database is refused, and left as it is."""
        os.mkdir(self.directory, 0o700)
        with open(self.path, "w") as file:
            file.write("hello" * 1000)
        self.assertUnusable(
            f"the inventory {self.path} cannot be used (file is not a database):"
            " restore it from a backup, or move it away and add the devices anew"
        )
        with open(self.path) as file:
            self.assertEqual(file.read(), "hello" * 1000)

    def test_newer_tables(self) -> None:
        """Tables of a newer version are not touched."""
        self.open().close()
        self.sql("UPDATE rdv_schema SET version = 3")
        self.assertUnusable(
            f"the inventory {self.path} has tables of version 3, this program knows 2: use the rdvtwisted that made it"
        )

    def test_no_version(self) -> None:
        """Neither are tables that do not say their version."""
        self.open().close()
        self.sql("DELETE FROM rdv_schema")
        self.assertUnusable(
            f"the inventory {self.path} has tables of version none, this program knows 2:"
            " use the rdvtwisted that made it"
        )

    def test_damaged_while_in_use(self) -> None:
        """A database that breaks while it is used is reported, and the devices known so far stay."""
        opened = self.open()
        opened.add(onsite("rpi1", 1))
        self.sql("DROP TABLE device_keys")
        error = self.assertRaises(StateDirectoryError, opened.refresh)
        self.assertEqual(str(error), f"the inventory {self.path} cannot be used (no such table: device_keys)")
        self.assertEqual(opened.devices(), [onsite("rpi1", 1)])

    def test_url(self) -> None:
        """A URL names another database."""
        os.mkdir(self.directory, 0o700)
        elsewhere = os.path.abspath(os.path.join(self.directory, "elsewhere.db"))
        self.settings = ServerSettings(inventory=InventorySettings(url=f"sqlite:///{elsewhere}"))
        self.open().add(onsite("rpi1", 1))
        opened = SqlInventory(URL.create("sqlite", database=elsewhere))
        self.addCleanup(opened.close)
        self.assertEqual(opened.devices(), [onsite("rpi1", 1)])

    def test_bad_url(self) -> None:
        """A URL that is none, or needs what is not there, is refused without showing its password."""
        for url, line in (
            ("::", "it is not the URL of a database"),
            ("nosuch://a:secret@b/c", "the driver for nosuch://a:***@b/c is missing: "),
        ):
            settings = ServerSettings(inventory=InventorySettings(url=url))
            error = self.assertRaises(ConfigError, open_inventory, settings)
            self.assertIn(f"setting inventory.url: {line}", str(error))
