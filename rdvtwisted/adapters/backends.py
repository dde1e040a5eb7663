"""Which tunnel backends are installed, and what became of those that should be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

from attrs import frozen
from twisted import plugins
from twisted.plugin import getCache, getPlugins
from twisted.python.modules import getModule
from zope.interface import Invalid
from zope.interface.verify import verifyObject

from rdvtwisted.interfaces import ITunnelBackend

#: Backends that come with rdvtwisted, in order of preference.
OWN = ("tls", "stunnel", "vtun")

_MISSING = "{name} is missing: is rdvtwisted installed completely, or hidden by an old twisted/plugins/dropin.cache?"
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

    @param package: the plugin package to look into.
    """
    found: dict[str, ITunnelBackend] = {}
    problems = []
    for backend in getPlugins(ITunnelBackend, package):
        problem = _unfit(backend)
        if problem is None and backend.name in found:
            problem = f"two backends call themselves {backend.name}: the second one is left out"
        if problem is None:
            found[backend.name] = backend
        else:
            problems.append(problem)
    problems += _broken(package)
    problems += [_MISSING.format(name=name) for name in OWN if name not in found]
    order = {name: place for place, name in enumerate(OWN)}
    names = sorted(found, key=lambda name: (order.get(name, len(OWN)), name))
    return Discovery(tuple(found[name] for name in names), tuple(problems))


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


def _broken(package: ModuleType) -> Iterator[str]:
    """
    Drop-ins that fail to import. Twisted skips them with a traceback in the
    log, so that what they hold looks like something never installed.
    """
    cache = getCache(package)
    for module in getModule(package.__name__).iterModules():
        dropin = cache.get(module.name.rpartition(".")[2])
        if dropin is None or any(ITunnelBackend in plugin.provided for plugin in dropin.plugins):
            try:
                module.load()
            except Exception as error:  # noqa: BLE001 (it is somebody else's module: anything may come)
                yield f"the drop-in {module.name} cannot be imported: {type(error).__name__}: {error}"
