"""One thread for calls that block, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from rdvtwisted.errors import NetworkError

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

        @return: a Deferred of what it returns; fails with what it raises, and with L{NetworkError} if this machine
            has no room for a thread now.
        """
        if self._pool is None:
            self._pool = ThreadPool(minthreads=0, maxthreads=1, name="rdv-network")
            self._pool.start()
            self._trigger = self._reactor.addSystemEventTrigger("after", "shutdown", self._end)
        try:
            return deferToThreadPool(self._reactor, self._pool, call, *arguments)
        except RuntimeError as error:
            # One that has never run cannot be waited for in the end.
            self._pool.threads = [thread for thread in self._pool.threads if thread.ident is not None]
            return fail(NetworkError(f"the network cannot be looked at: {error}"))

    def stop(self) -> None:
        """Wait for the calls under way, then end the thread. Idempotent; a later call starts it anew."""
        if self._pool is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
