"""
The blind relay: joins two tunnel streams inside the kernel.

Bytes go socket, pipe, socket by C{splice(2)}; no byte of a session ever
comes into this process, which could not decrypt it anyway. Linux only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.front.pipes import Pipe, PipePool
from rdvtwisted.adapters.front.stream import TunnelStream
from rdvtwisted.interfaces import IJoin, IRelay

#: Bytes that one flow may move before the other sessions have their turn.
TURN_LIMIT = 1024 * 1024
#: A read of fewer bytes than this has most likely emptied the socket; asking once more would cost a
#: system call for nothing. Should there be more after all, the reactor comes back at once.
SHORT_READ = 32 * 1024

_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class _Waits(Enum):
    """What a flow waits for."""

    SOURCE = "bytes from its source"
    TARGET = "room at its target"
    NOTHING = "nothing any more: its source has ended and all is delivered"


class _Flow:
    """One direction of a join. Holds a pipe only while bytes are inside."""

    __slots__ = ("_inside", "_pipe", "_pipes", "_source", "_target", "carried", "waits")

    def __init__(self, pipes: PipePool, source: int, target: int) -> None:
        self._pipes = pipes
        self._source = source
        self._target = target
        self._pipe: Pipe | None = None
        #: Bytes in the pipe.
        self._inside = 0
        #: Bytes delivered to the target so far.
        self.carried = 0
        self.waits = _Waits.SOURCE

    def pump(self) -> None:
        """
        Move what can be moved in one turn, then set L{waits}.

        @raise OSError: one of the sockets is broken, or there are no descriptors left for a pipe.
        """
        moved = 0
        pipe = self._pipe or self._pipes.borrow()
        self._pipe = pipe
        while moved < TURN_LIMIT:
            last = False
            if not self._inside:
                try:
                    self._inside = os.splice(self._source, pipe.inlet, pipe.size, flags=_SPLICE_FLAGS)
                except BlockingIOError:
                    self.waits = _Waits.SOURCE
                    break
                if not self._inside:
                    self.waits = _Waits.NOTHING
                    break
                last = self._inside < SHORT_READ
            try:
                count = os.splice(pipe.outlet, self._target, self._inside, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                count = 0
            self._inside -= count
            self.carried += count
            moved += count
            if self._inside:
                self.waits = _Waits.TARGET
                if not count:
                    return
            else:
                self.waits = _Waits.SOURCE
                if last:
                    break
        if not self._inside:
            self._pipe = None
            self._pipes.give_back(pipe)

    def drop(self) -> None:
        """Let go of a pipe that still holds bytes."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


@implementer(IReadWriteDescriptor)
class _End:
    """One of the two sockets in the reactor's eyes: the source of one flow and the target of the other."""

    __slots__ = ("_descriptor", "_join", "incoming", "outgoing", "stream")

    def __init__(self, join: Join, stream: TunnelStream, outgoing: _Flow, incoming: _Flow) -> None:
        self._join = join
        self._descriptor = stream.fileno()
        self.stream = stream
        self.outgoing = outgoing
        self.incoming = incoming

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """What the reactor writes before log lines of this socket."""
        return "relay"

    def doRead(self) -> None:
        """There are bytes, or an end, to read."""
        self._join.turn(self.outgoing)

    def doWrite(self) -> None:
        """There is room to write."""
        self._join.turn(self.incoming)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken."""
        self._join.broken(reason.value)


@implementer(IJoin)
class Join:
    """Two tunnel streams, joined; made by L{Relay.join}."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, pipes: PipePool, onsite: TunnelStream, master: TunnelStream) -> None:
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        self._over = False
        self._to_onsite = _Flow(pipes, master.fileno(), onsite.fileno())
        self._to_master = _Flow(pipes, onsite.fileno(), master.fileno())
        self._ends = (
            _End(self, onsite, outgoing=self._to_master, incoming=self._to_onsite),
            _End(self, master, outgoing=self._to_onsite, incoming=self._to_master),
        )
        if not (onsite.open and master.open):
            self.stop()
            return
        for end in self._ends:
            end.stream.on_abort = self.stop
            reactor.addReader(end)

    def traffic(self) -> tuple[int, int]:
        """Bytes delivered so far: to the onsite, to the master."""
        return self._to_onsite.carried, self._to_master.carried

    def stop(self) -> None:
        """End it and close both streams at once. Idempotent."""
        self._end(TunnelStream.abort)

    def turn(self, flow: _Flow) -> None:
        """One of its sockets is ready for C{flow}."""
        if self._over:
            return
        before = flow.waits
        try:
            flow.pump()
            if flow.waits is not before:
                self._watch(flow)
        except OSError as error:
            self.broken(error)

    def broken(self, error: BaseException | None) -> None:
        """One of its sockets is of no use any more."""
        if not self._over:
            self._log.debug("a relayed stream broke: {error}", error=str(error))
            self.stop()

    def _watch(self, flow: _Flow) -> None:
        """Wait for what C{flow} waits for now; pass its end on."""
        source, target = self._ends if flow is self._to_master else self._ends[::-1]
        if flow.waits is _Waits.SOURCE:
            self._reactor.removeWriter(target)
            self._reactor.addReader(source)
            return
        self._reactor.removeReader(source)
        if flow.waits is _Waits.TARGET:
            self._reactor.addWriter(target)
            return
        self._reactor.removeWriter(target)
        target.stream.finish()
        if self._to_onsite.waits is self._to_master.waits:
            self._end(TunnelStream.close)

    def _end(self, close: Callable[[TunnelStream], None]) -> None:
        """Let go of the sockets before they are closed, since the next connection gets their numbers."""
        if self._over:
            return
        self._over = True
        for end in self._ends:
            self._reactor.removeReader(end)
            self._reactor.removeWriter(end)
            end.stream.on_abort = None
        self._to_onsite.drop()
        self._to_master.drop()
        for end in self._ends:
            close(end.stream)
        self.ended.callback(None)


@implementer(IRelay)
class Relay:
    """
    Joins tunnel streams of this machine's sockets.

    An idle session costs two sockets and no pipe, buffer or timer. A session
    at full speed holds the process for no longer than L{TURN_LIMIT} bytes
    each way. Where one side does not take its bytes, the other side's are
    left in its socket, and so held back at their sender.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._pipes = PipePool()

    def join(self, to_onsite: TunnelStream, to_master: TunnelStream) -> Join:
        """Move bytes between the two streams until one breaks or both have ended."""
        return Join(self._reactor, self._pipes, to_onsite, to_master)

    def close(self) -> None:
        """Close the spare pipes; to be called when the server stops, after its sessions."""
        self._pipes.close()
