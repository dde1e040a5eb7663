"""How a tunnel ends: once, for one reason, and over only when nothing of it is held any more."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.errors import RDVError, TunnelFailed
from tunnels.packets import CLOSED


class Ending:
    """
    The end of one tunnel.

    @ivar begun: whether the tunnel ends, or is over.
    @ivar error: what ended it; L{None} if that was in order.
    @ivar closed: a Deferred that fires once it is over, as that of L{rdvtwisted.interfaces.IDeviceTunnel}.
    """

    _log = Logger()

    def __init__(self, release: Callable[[str | None], Coroutine[Deferred[Any], Any, None]]) -> None:
        """
        @param release: called once; gives everything back, and takes leave with this word of an other end that is
            there to hear it.
        """
        self._release = release
        self._over = False
        self._waiting: list[Deferred[None]] = []
        self.begun = False
        self.error: RDVError | None = None
        self.closed: Deferred[None] = Deferred()

    def begin(self, error: RDVError | None, word: str | None = None) -> None:
        """It ends; only the first end counts."""
        if self.begun:
            return
        self.begun = True
        self.error = error
        releasing = Deferred.fromCoroutine(self._release(word))
        releasing.addErrback(lambda failure: self._log.failure("A tunnel could not be released", failure))
        releasing.addCallback(self._finish)

    def _finish(self, result: object) -> None:
        self._over = True
        waiting, self._waiting = self._waiting, []
        for gone in waiting:
            gone.callback(None)
        if self.error is None:
            self.closed.callback(None)
        else:
            self.closed.errback(self.error)

    def close(self) -> Deferred[None]:
        """
        Somebody has it ended.

        @return: a Deferred that fires with L{None} when it is over.
        """
        if self._over:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._waiting.append(gone)
        self.begin(None, CLOSED)
        return gone

    def in_our_words(self, error: BaseException | None, what: str) -> RDVError:
        """
        An error for a user; one that nobody foresaw goes to the log too.

        @param what: what went wrong, if the error is not one of ours.
        """
        if isinstance(error, RDVError):
            return error
        if not isinstance(error, OSError):
            self._log.failure("Unforeseen error in a tunnel", Failure(error))
        return TunnelFailed(f"{what}: {error}")
