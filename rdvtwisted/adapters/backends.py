"""Which tunnel backends are installed, and what became of those that should be."""

from __future__ import annotations

import re

from attrs import frozen
from twisted import plugins
from twisted.plugin import getPlugins

from rdvtwisted.interfaces import ITunnelBackend

#: Backends that come with rdvtwisted, in order of preference. A drop-in that fails to import is skipped by
#: Twisted with a line in the log, and looks like one that was never installed.
OWN = ("tls",)

_MISSING = (
    "{name} is missing: is rdvtwisted installed completely? An old twisted/plugins/dropin.cache may hide it: remove that"
)
_NAME = re.compile(r"[a-z0-9-]{1,32}")


@frozen
class Discovery:
    """
    What was found.

    @ivar backends: usable or not, our own first, then by name.
    @ivar problems: one line for each backend that was expected and is not there, or that cannot be one.
    """

    backends: tuple[ITunnelBackend, ...]
    problems: tuple[str, ...] = ()


def discover(package: object = plugins) -> Discovery:
    """
    Find every installed tunnel backend.

    @param package: the plugin package to look into.
    """
    found: dict[str, ITunnelBackend] = {}
    problems = []
    for backend in getPlugins(ITunnelBackend, package):
        name = backend.name
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            problems.append(f"a backend calls itself {name!r}: a name has 1 to 32 of a-z 0-9 -")
        elif name in found:
            problems.append(f"two backends call themselves {name}: the second one is left out")
        else:
            found[name] = backend
    problems += [_MISSING.format(name=name) for name in OWN if name not in found]
    order = {name: place for place, name in enumerate(OWN)}
    names = sorted(found, key=lambda name: (order.get(name, len(OWN)), name))
    return Discovery(tuple(found[name] for name in names), tuple(problems))
