"""The names of servers, looked up without holding anything up: neither other lookups, nor the end of the process."""

from __future__ import annotations

from collections.abc import Callable
from socket import getaddrinfo
from threading import Thread
from typing import Any

from twisted.internet._resolver import GAIResolver
from twisted.python.threadpool import ThreadPool

#: Lookups that go on at the same time. One that nobody waits for any more goes on until the system gives it up.
MOST_LOOKUPS = 8


class _Forsaken(Thread):
    """A thread that nobody waits for: the process ends without it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more, daemon=True)


class _Lookups(ThreadPool):
    """Threads in which names are looked up."""

    threadFactory = _Forsaken


def unhurried(reactor: Any, look_up: Callable[..., Any] = getaddrinfo) -> Any:
    """
    Let a reactor's process end while it looks a name up.

    The system's resolver (getaddrinfo(3)) cannot be interrupted. While no DNS server answers, it takes ten seconds a
    server and search domain, and a reactor that stops waits for that: Ctrl-C and SIGTERM would seem to do nothing for
    a minute or more.

    @return: the reactor. Once is enough; more often is the same.
    """
    pools: list[ThreadPool] = []

    def pool() -> ThreadPool:
        # Made when it is first needed: what has forked meanwhile has lost its threads.
        if not pools:
            pools.append(_Lookups(0, MOST_LOOKUPS, "rdv-names"))
            pools[0].start()
        return pools[0]

    reactor.installNameResolver(GAIResolver(reactor, pool, look_up))
    return reactor
