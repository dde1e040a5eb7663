"""Imports point down only: the rooms of the code know what lies below them, and never one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.source import PRODUCT, Module, modules, within

VOCABULARY = tuple(f"rdvtwisted.{word}" for word in ("values", "errors", "requests", "events", "interfaces"))


@frozen
class Room:
    """A part of the code, and the rooms it may import from besides itself."""

    package: str
    below: tuple[str, ...] = ()


#: A module belongs to the room with the longest name that fits. What stands
#: directly in C{rdvtwisted} and is not vocabulary is the pure core.
ROOMS = [
    *(Room(word, ("rdvtwisted.values", "rdvtwisted.errors", "rdvtwisted.interfaces")) for word in VOCABULARY),
    Room("rdvtwisted", VOCABULARY),
    Room("rdvtwisted.testing", (*VOCABULARY, "rdvtwisted")),
    Room("rdvtwisted.adapters", (*VOCABULARY, "rdvtwisted")),
    *(
        Room(f"rdvtwisted.adapters.{name}", (*VOCABULARY, "rdvtwisted", "rdvtwisted.adapters"))
        for name in ("front", "network", "ssh", "store", "web")
    ),
    Room(
        "rdvtwisted.services",
        (
            *VOCABULARY,
            "rdvtwisted",
            "rdvtwisted.adapters",
            *(f"rdvtwisted.adapters.{name}" for name in ("front", "network", "ssh", "store", "web")),
        ),
    ),
    Room("tap", (*VOCABULARY, "rdvtwisted", "rdvtwisted.services")),
    Room("tunnels", VOCABULARY),
    # Not twisted.plugins itself: that is Twisted's, where plugins are looked for.
    *(Room(f"twisted.plugins.{name}", (*VOCABULARY, "tap", "tunnels")) for name in ("rdv_services", "rdv_tunnels")),
]

#: Whole of an import name, or its beginning, and the rooms that alone may use it.
RESERVED = {
    "pyroute2": ("rdvtwisted.adapters.network",),
    "sqlalchemy": ("rdvtwisted.adapters.store",),
    "twisted.conch": ("rdvtwisted.adapters.ssh",),
    "twisted.internet.reactor": ("tap", "rdvtwisted.services"),
}

#: Modules of the standard library with which one could reach a clock, a
#: descriptor, a thread or a process: not for the vocabulary and the pure core.
WORLDLY = frozenset(
    "asyncio concurrent fcntl http io logging multiprocessing os pathlib pty random sched select selectors shutil"
    " signal socket socketserver sqlite3 ssl subprocess tempfile termios threading time tty urllib".split()
)

#: All that the vocabulary and the pure core may use of Twisted; an L{IReactorTime} is handed to them.
PURE_TWISTED = (
    "twisted.internet.defer",
    "twisted.internet.interfaces",
    "twisted.logger",
    "twisted.plugin.IPlugin",
    "twisted.python.failure",
)

#: Builtins that read or write files and terminals.
WORLDLY_BUILTINS = frozenset(["open", "input", "print"])


def room_of(name: str) -> Room | None:
    """The room that a module, or what is imported from one, belongs to."""
    fitting = [room for room in ROOMS if within(name, room.package)]
    return max(fitting, key=lambda room: len(room.package), default=None)


def is_pure(room: Room) -> bool:
    """Whether a room may do nothing but compute."""
    return room.package == "rdvtwisted" or room.package in VOCABULARY


def _misplaced(module: Module, room: Room) -> Iterator[str]:
    for imported in module.imports():
        target = room_of(imported)
        allowed = target is None or target == room or target.package in room.below
        # Everybody may know the version.
        if not allowed and imported != "rdvtwisted.__version__":
            yield f"{module.name} imports {imported}, which is not below it"
        if within(imported, "tests") or within(imported, "benchmarks"):
            yield f"{module.name} imports {imported} from the workshop"
        for name, rooms in RESERVED.items():
            if within(imported, name) and room.package not in rooms:
                yield f"{module.name} imports {imported}, which is for {' and '.join(rooms)}"


def _impure(module: Module) -> Iterator[str]:
    for imported in module.imports():
        top = imported.partition(".")[0]
        foreign = top == "twisted" and not any(within(imported, name) for name in PURE_TWISTED)
        if top in WORLDLY or foreign:
            yield f"{module.name} is pure but imports {imported}"
    for name in sorted(module.names() & WORLDLY_BUILTINS):
        yield f"{module.name} is pure but uses {name}"


def objections(module: Module) -> Iterator[str]:
    """What is wrong with a module's imports, a sentence each."""
    room = room_of(module.name)
    if room is None:
        yield f"{module.name} is in no room"
        return
    yield from _misplaced(module, room)
    if is_pure(room):
        yield from _impure(module)


def cycle(found: Iterable[Module]) -> list[str]:
    """The first ring of modules that need one another while they are imported; empty if there is none."""
    known = {module.name: module for module in found}
    needs = {
        name: {
            target
            for imported in module.imports(module.tree.body)
            for target in (imported, imported.rpartition(".")[0])
            if target in known and target != name
        }
        for name, module in known.items()
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


class RulesTests(SynchronousTestCase):
    """The rules object to what they should object to."""

    def objections(self, name: str, text: str) -> list[str]:
        return list(objections(Module(name, text)))

    def test_down(self) -> None:
        """A room may import from those below it, and the version from the top."""
        self.assertEqual(
            self.objections("rdvtwisted.adapters.ssh.door", "from rdvtwisted.registry import Registry"), []
        )
        self.assertEqual(self.objections("tunnels.tls", "from rdvtwisted.values import Mode, Role"), [])
        self.assertEqual(self.objections("rdvtwisted.adapters.ssh.door", "from rdvtwisted import __version__"), [])

    def test_up(self) -> None:
        """The core may not import an adapter, nor an adapter a service, nor the vocabulary the core."""
        for name, text in [
            ("rdvtwisted.registry", "from rdvtwisted.adapters.ssh import door"),
            ("rdvtwisted.adapters.front.tls", "import rdvtwisted.services.server"),
            ("rdvtwisted.values", "import rdvtwisted.registry"),
            ("rdvtwisted.services.server", "from tap import rdv_server"),
        ]:
            self.assertEqual(len(self.objections(name, text)), 1, (name, text))

    def test_sideways(self) -> None:
        """Adapters and tunnel backends do not know one another."""
        for name, text in [
            ("rdvtwisted.adapters.ssh.door", "from rdvtwisted.adapters.network.linux import LinuxNetwork"),
            ("rdvtwisted.adapters.store.table", "from rdvtwisted.adapters import ssh"),
            ("tunnels.tls", "from rdvtwisted.registry import Registry"),
            ("tunnels.tls", "from rdvtwisted.testing import network"),
            ("rdvtwisted.services.onsite", "from tunnels.tls import TLSBackend"),
        ]:
            self.assertEqual(len(self.objections(name, text)), 1, (name, text))

    def test_reserved(self) -> None:
        """Conch, pyroute2, SQLAlchemy and the global reactor each have their place."""
        for name, text in [
            ("rdvtwisted.adapters.front.tls", "from twisted.conch.ssh import keys"),
            ("rdvtwisted.services.server", "import pyroute2"),
            ("rdvtwisted.adapters.ssh.inventory", "from sqlalchemy import select"),
            ("tunnels.tls", "from twisted.internet import reactor"),
            ("rdvtwisted.adapters.ssh.door", "def f():\n    from twisted.internet import reactor"),
        ]:
            self.assertEqual(len(self.objections(name, text)), 1, (name, text))
        self.assertEqual(self.objections("tap.rdv_server", "from twisted.internet import reactor"), [])
        self.assertEqual(self.objections("rdvtwisted.adapters.ssh.keys", "from twisted.conch.ssh import keys"), [])

    def test_pure(self) -> None:
        """The core reaches no clock, socket, file, thread or terminal by itself, and opens nothing."""
        for text in [
            "import time",
            "import os.path",
            "from socket import socket",
            "from twisted.internet import endpoints",
            "from twisted.python.filepath import FilePath",
            "def load(path):\n    return open(path).read()",
        ]:
            self.assertEqual(len(self.objections("rdvtwisted.config", text)), 1, text)
        self.assertEqual(
            self.objections("rdvtwisted.session", "from twisted.internet.interfaces import IReactorTime"), []
        )

    def test_cycle(self) -> None:
        """Modules that need one another at import time are found; an import inside a function is none."""
        one = Module("rdvtwisted.one", "from rdvtwisted import two")
        self.assertIn("rdvtwisted.one", cycle([one, Module("rdvtwisted.two", "import rdvtwisted.one")]))
        self.assertEqual(cycle([one, Module("rdvtwisted.two", "def f():\n    import rdvtwisted.one")]), [])


class TreeTests(SynchronousTestCase):
    """The tree keeps the rules."""

    def setUp(self) -> None:
        self.modules = modules(*PRODUCT)

    def test_seen(self) -> None:
        """The scan sees modules that are known to be there, and what they import."""
        known = {module.name: module for module in self.modules}
        self.assertLessEqual({*VOCABULARY, "rdvtwisted.registry", "tap", "twisted.plugins.rdv_services"}, set(known))
        self.assertIn("rdvtwisted.errors.InvalidValue", set(known["rdvtwisted.values"].imports()))

    def test_layers(self) -> None:
        """No module imports from a room that is not below its own."""
        self.assertEqual([objection for module in self.modules for objection in objections(module)], [])

    def test_no_cycle(self) -> None:
        """No modules need one another while they are imported."""
        self.assertEqual(cycle(self.modules), [])
