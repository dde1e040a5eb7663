"""Waiting for a descriptor, without reading it."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

reactor: Any = global_reactor


@implementer(IReadDescriptor)
class Readable:
    """
    A descriptor of its own, closed once it is readable.

    @ivar ready: fires then: a FIFO has something to read, the process of a pidfd has ended.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.ready: Deferred[None] = Deferred(lambda _: self.connectionLost(None))
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        self.connectionLost(None)
        self.ready.callback(None)

    def connectionLost(self, reason: object) -> None:
        """Not wanted any more."""
        reactor.removeReader(self)
        os.close(self._descriptor)

    def logPrefix(self) -> str:
        return "test"
