"""The inventory in an SQL database: a file of SQLite in the state directory, or what a URL names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, create_engine, event, insert, inspect, make_url, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from twisted.logger import Logger
from zope.interface import implementer

from rdvtwisted import accounts
from rdvtwisted.access import Policy
from rdvtwisted.adapters.store import directory, rules, tables
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import ConfigError, InvalidValue, StateDirectoryError
from rdvtwisted.interfaces import IInventory
from rdvtwisted.values import Device

FILE_NAME = "inventory.db"
#: Seconds that a change waits for another process to finish its own.
BUSY_SECONDS = 5
#: What SQLite says (the key, a part of it), and what helps.
_CURES = {
    "locked": f"another process has kept it for more than {BUSY_SECONDS} s; try again",
    "not a database": "restore it from a backup, or move it away and add the devices anew",
    "malformed": "restore it from a backup, or move it away and add the devices anew",
    "readonly": "run as its owner or as root",
    "unable to open": "run as its owner or as root",
    "full": "make room on the disk",
}


@implementer(IInventory)
class SqlInventory:
    """
    The devices and the access rules, in a database that several processes may use at the same time.

    Reads come from a picture in memory; L{refresh} renews it if somebody else has changed the database. A change
    is made under the database's lock, on what the database holds at that moment.

    @ivar problems: one line for each row that cannot be used, as of the last reading.
    """

    _log = Logger()

    def __init__(self, url: URL) -> None:
        self.problems: tuple[str, ...] = ()
        self._devices: dict[str, Device] = {}
        self._policy = Policy()
        self._seen: object = None
        self._sqlite = url.get_backend_name() == "sqlite"
        self._where = url.database if self._sqlite else url.render_as_string(hide_password=True)
        try:
            self._engine = create_engine(url, poolclass=NullPool)
        except (ImportError, NoSuchModuleError) as error:
            raise ConfigError("inventory.url", f"the driver for {self._where} is missing: {error}") from None
        if self._sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        with self._trouble():
            self._connection = self._engine.connect()
        try:
            with self._trouble():
                self._check_schema()
            self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database. Idempotent."""
        self._connection.close()
        self._engine.dispose()

    def disconnect(self) -> None:
        """
        Let go of the database's files until L{connect}; devices are still read from memory.

        Before a fork there is no way round it: SQLite's locks stay with the
        parent, and when that ends, other processes remove the write-ahead log
        under the child.
        """
        self._connection.close()
        self._seen = None

    def connect(self) -> None:
        """
        Use the database again after L{disconnect}.

        @raise StateDirectoryError: it cannot be used.
        """
        with self._trouble():
            self._connection = self._engine.connect()
        self.refresh()

    # IInventory

    def device(self, id: str) -> Device | None:
        """The device of this id, or C{None}."""
        return self._devices.get(id)

    def devices(self) -> list[Device]:
        """All devices, by id."""
        return [self._devices[id] for id in sorted(self._devices)]

    def add(self, device: Device) -> None:
        """Store a new device; see L{IInventory}."""
        with self._changing(device.id) as devices:
            if device.id in devices:
                raise accounts.taken(device.id)
            accounts.check(device, devices.values())
            tables.write(self._connection, device)
            devices[device.id] = device

    def replace(self, device: Device) -> None:
        """Store C{device} in place of the one with its id; see L{IInventory}."""
        self.update(device.id, lambda _: device)

    def remove(self, id: str) -> None:
        """Forget a device, also one whose record is damaged; see L{IInventory}."""
        with self._changing(id) as devices:
            if tables.erase(self._connection, id) == 0:
                raise accounts.absent(id)
            devices.pop(id, None)
            self._store(self._policy.without_device(id))

    def policy(self) -> Policy:
        """The access rules; see L{IInventory}."""
        return self._policy

    def replace_policy(self, policy: Policy) -> None:
        """Store the access rules; see L{IInventory}."""
        self.update_policy(lambda _: policy)

    # Beyond it

    def update(self, id: str, change: Callable[[Device], Device]) -> Device:
        """
        Store what C{change} makes of a device as it is now, with nobody else's change between.

        @return: the device as stored; its id is the same.
        @raise InvalidValue: there is none, or a key is another device's.
        """
        with self._changing(id) as devices:
            old = devices.get(id)
            if old is None:
                raise accounts.absent(id)
            device = change(old)
            accounts.check(device, devices.values())
            tables.erase(self._connection, id)
            tables.write(self._connection, device)
            devices[id] = device
        return device

    def update_policy(self, change: Callable[[Policy], Policy]) -> Policy:
        """
        Store what C{change} makes of the access rules as they are now, with nobody else's change between.

        @return: the rules as stored.
        """
        with self._changing() as devices:
            self._store(accounts.check_policy(change(self._policy), self._policy, devices))
        return self._policy

    def refresh(self) -> bool:
        """
        Read the database again if it has changed. Its error leaves devices and access rules as they were.

        @return: whether any of them is different now.
        @raise StateDirectoryError: the database cannot be used.
        """
        with self._trouble(), self._connection.begin():
            return self._read()

    def _read(self) -> bool:
        version = self._version()
        if version == self._seen:
            return False
        before = self._devices, self._policy
        self._devices, problems = tables.read(self._connection)
        policy, more = rules.read(self._connection)
        problems += more
        if policy != self._policy:
            self._policy = policy
        self._seen = version
        for problem in problems:
            if problem not in self.problems:
                self._log.error("Inventory: {problem}", problem=problem)
        self.problems = tuple(problems)
        return (self._devices, self._policy) != before

    def _version(self) -> object:
        """Something that differs once another connection has changed the database."""
        if self._sqlite:
            return self._connection.exec_driver_sql("PRAGMA data_version").scalar_one()
        return self._connection.execute(select(tables.SCHEMA.c.revision)).scalar_one()

    def _store(self, policy: Policy) -> None:
        if policy != self._policy:
            rules.write(self._connection, policy)
            self._policy = policy

    @contextmanager
    def _changing(self, id: str = "") -> Iterator[dict[str, Device]]:
        """
        All of the block happens, for every process at one moment, or nothing; its devices are the latest.

        @param id: the device that is changed, if there is one.
        """
        policy = self._policy
        try:
            with self._trouble(), self._connection.begin():
                self._connection.execute(update(tables.SCHEMA).values(revision=tables.SCHEMA.c.revision + 1))
                self._read()
                devices, policy = dict(self._devices), self._policy
                yield devices
        except BaseException as error:
            self._seen, self._policy = None, policy  # what was seen may have been rolled back
            if isinstance(error.__cause__, IntegrityError):  # what is in the way is damaged, or it had been seen
                raise InvalidValue("device", id, "a damaged record is in its way: remove that device first") from None
            raise
        self._devices = devices

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            cure = next((": " + cure for part, cure in _CURES.items() if part in reason), "")
            raise StateDirectoryError(f"the inventory {self._where} cannot be used ({reason}){cure}") from error

    def _check_schema(self) -> None:
        with self._connection.begin():
            if not inspect(self._connection).has_table(tables.SCHEMA.name):
                tables.METADATA.create_all(self._connection)
                self._connection.execute(insert(tables.SCHEMA).values(version=tables.SCHEMA_VERSION, revision=0))
            versions = self._connection.execute(select(tables.SCHEMA.c.version)).scalars().all()
            if len(versions) == 1 and versions[0] in tables.COMPLETED_VERSIONS:
                versions = self._complete()
        if versions != [tables.SCHEMA_VERSION]:
            found = ", ".join(map(str, versions)) or "none"
            raise StateDirectoryError(
                f"the inventory {self._where} has tables of version {found}, this program knows"
                f" {tables.SCHEMA_VERSION}: use the rdvtwisted that made it"
            )

    def _complete(self) -> Sequence[int]:
        """Add the tables that an older version did not have, unless another process has just done so."""
        # This takes the lock; what has been seen without it may be no more.
        self._connection.execute(update(tables.SCHEMA).values(revision=tables.SCHEMA.c.revision + 1))
        versions = self._connection.execute(select(tables.SCHEMA.c.version)).scalars().all()
        if versions != [tables.SCHEMA_VERSION]:
            tables.METADATA.create_all(self._connection)
            self._connection.execute(update(tables.SCHEMA).values(version=tables.SCHEMA_VERSION))
        return [tables.SCHEMA_VERSION]


def open_inventory(settings: ServerSettings, *, create: bool = True) -> SqlInventory:
    """
    The inventory that C{settings} name (with their places filled in).

    @param create: make what is missing; otherwise that is an error.
    @raise StateDirectoryError: the state directory or the database cannot be used, or is missing.
    @raise ConfigError: the URL cannot be used.
    """
    if settings.inventory.url:
        try:
            return SqlInventory(make_url(settings.inventory.url))
        except ArgumentError:
            raise ConfigError("inventory.url", "it is not the URL of a database") from None
    home = settings.state_directory
    path = os.path.join(home, FILE_NAME)
    if not create and not _exists(path):
        raise StateDirectoryError(
            f"there is no inventory in {home} yet: add a device, start the server, or name another state directory"
        )
    directory.prepare(home)
    with directory.alone(home):
        directory.private_file(path)
        return SqlInventory(URL.create("sqlite", database=path))


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateDirectoryError(f"cannot open {path}: {reason}: run as its owner or as root") from None
    return True


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver's own notion of transactions would begin them at the first change, after what was read for it.
    connection.isolation_level = None
    # Damaged text is found when a row is read; it must not keep the other rows from being read.
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Readers and a writer do not wait for each other. Asked first, for changing it needs the file for oneself.
    if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
