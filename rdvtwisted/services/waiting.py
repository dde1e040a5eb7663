"""Waiting for one of several events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_log = Logger()


def following(event: Deferred[T]) -> Deferred[T]:
    """
    A Deferred of its own that fires as C{event} does, so that cancelling it
    leaves C{event} alone. A failure is the follower's from then on.
    """
    follower: Deferred[T] = Deferred()

    def tell(result: Any) -> Any:
        if follower.called:
            return result
        _fire(follower, result)
        return None if isinstance(result, Failure) else result

    event.addBoth(tell)
    return follower


def first(events: Sequence[Deferred[T]]) -> Deferred[T]:
    """
    Fires as the first of C{events} does, result or failure; the others are
    cancelled then. Cancelling it cancels all of them.
    """

    waiting = list(events)

    def cancel(_: object = None) -> None:
        # Each once: what an event does when it is cancelled may come back here.
        while waiting:
            waiting.pop().cancel()

    winner: Deferred[T] = Deferred(cancel)

    def settle(result: Any) -> None:
        if not winner.called:
            _fire(winner, result)
            cancel()
        elif isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("Failed when nobody waited for it any more", failure=result)

    for event in events:
        event.addBoth(settle)
    return winner


def _fire(deferred: Deferred[T], result: Any) -> None:
    if isinstance(result, Failure):
        deferred.errback(result)
    else:
        deferred.callback(result)
