"""One thread for calls that block, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class Worker:
    """
    A thread of its own, so that a slow name lookup in the reactor's pool never
    delays the network, and so that calls never overtake each other. It is made
    at the first call and ends with the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: IReactorFromThreads and IReactorCore.
        """
        self._reactor = reactor
        self._pool: ThreadPool | None = None

    def run(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Call in the thread.

        @return: a Deferred of what it returns; fails with what it raises.
        """
        if self._pool is None:
            self._pool = ThreadPool(minthreads=0, maxthreads=1, name="rdv-network")
            self._pool.start()
            self._trigger = self._reactor.addSystemEventTrigger("after", "shutdown", self._end)
        return deferToThreadPool(self._reactor, self._pool, call, *arguments)

    def stop(self) -> None:
        """Wait for the calls under way, then end the thread. Idempotent; a later call starts it anew."""
        if self._pool is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
