"""Which tunnel backends are installed, and what became of those that should be."""

from __future__ import annotations

import re
from types import ModuleType

from attrs import frozen
from twisted import plugins
from twisted.python.modules import PythonModule, getModule
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from rdvtwisted.interfaces import ITunnelBackend

#: Backends that come with rdvtwisted, in order of preference.
OWN = ("tls", "stunnel", "vtun")

_MISSING = "{name} is missing: is rdvtwisted installed completely?"
_NAME = re.compile(r"[a-z0-9-]{1,32}")


@frozen
class Discovery:
    """
    What was found.

    @ivar backends: usable or not, our own first, then by name.
    @ivar problems: one line for each backend that was expected and is not
        there, or that cannot be one, and for each drop-in that cannot be imported.
    """

    backends: tuple[ITunnelBackend, ...]
    problems: tuple[str, ...] = ()


def discover(package: ModuleType = plugins) -> Discovery:
    """
    Find every installed tunnel backend.

    Each drop-in is imported, and Twisted's cache of what is in them left
    alone: C{getPlugins} logs a traceback for each that is broken, and then
    says nothing of it to its caller.

    @param package: the plugin package to look into.
    """
    found: dict[str, ITunnelBackend] = {}
    problems = []
    for module in getModule(package.__name__).iterModules():
        try:
            backends = _backends_in(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (somebody else's module: anything may come)
            words = " ".join(f"{type(error).__name__}: {error}".split())
            problems.append(f"the drop-in {module.filePath.path} cannot be imported: {words}")
            continue
        for backend in backends:
            problem = _unfit(backend)
            if problem is None and found.get(backend.name, backend) is not backend:
                problem = f"two backends call themselves {backend.name}: the second one is left out"
            if problem is None:
                found[backend.name] = backend
            else:
                problems.append(problem)
    problems += [_MISSING.format(name=name) for name in OWN if name not in found]
    order = {name: place for place, name in enumerate(OWN)}
    names = sorted(found, key=lambda name: (order.get(name, len(OWN)), name))
    return Discovery(tuple(found[name] for name in names), tuple(problems))


def _backends_in(module: PythonModule) -> list[ITunnelBackend]:
    return [plugin for plugin in vars(module.load()).values() if ITunnelBackend.providedBy(plugin)]


def joins(backend: ITunnelBackend, *, door: bool = True) -> tuple[str, ...]:
    """
    How a server may join two tunnels of a backend: by C{"relay"}, by C{"glue"}, by both or by none.

    @param door: the server has a TLS door, without which there are no streams.
    """
    streams = backend.relay or backend.inside
    possible = (("relay", backend.relay and door), ("glue", backend.glue and (door or not streams)))
    return tuple(name for name, can in possible if can)


def _unfit(backend: ITunnelBackend) -> str | None:
    """Why this cannot be a backend, if so."""
    name = getattr(backend, "name", None)
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return f"a backend calls itself {name!r}: a name has 1 to 32 of a-z 0-9 -"
    try:
        verifyObject(ITunnelBackend, backend)
    except Invalid as error:
        return f"{name} is no tunnel backend: {' '.join(str(error).split())}"
    return None
