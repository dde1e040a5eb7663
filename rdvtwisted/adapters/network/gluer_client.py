"""
The server's side of the process that makes the network namespaces of sessions.

Not AMP, though Twisted's can pass descriptors: over a SOCK_SEQPACKET socket a
message is a message and its descriptors come with it, so the privileged side
needs neither reactor nor parser of its own, nor can it be fed half a request.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

import rdvtwisted
from rdvtwisted.adapters.network.tuntap import PacketDevice
from rdvtwisted.errors import ConfigError, MissingPrivilege, MissingProgram, NetworkError, RDVError
from rdvtwisted.glue import (
    LONGEST_MESSAGE,
    MASTER,
    ONSITE,
    Close,
    Confine,
    GlueRequest,
    GlueSpec,
    Open,
    request_to_bytes,
)
from rdvtwisted.interfaces import IGlue
from rdvtwisted.scope import Scope

#: Sessions at a time; each takes some hundred kB of the kernel's memory, and two descriptors of this process.
DEFAULT_LIMIT = 256
LIMITS = range(1, 4097)

#: Seconds until the process must be ready; it takes half of one.
START_PATIENCE = 20.0
#: Seconds for one answer; opening a session takes 0.05. C{nft} alone is given 15.
_ANSWER_PATIENCE = 30.0
#: Seconds until a process that does not end with its socket is killed; it removes 50 sessions a second.
_STOP_PATIENCE = 15.0
#: Seconds from the end of its socket to its own.
_REAP_PATIENCE = 3.0

#: Descriptors that come with a session, and how one is told (cmsg(3)).
_DEVICES = 2
_DESCRIPTOR = struct.Struct("i")

_MODULE = "rdvtwisted.adapters.network.gluer"
_KINDS: dict[str, type[RDVError]] = {kind.__name__: kind for kind in (MissingPrivilege, MissingProgram, NetworkError)}


@frozen
class GluerProcess:
    """The process, and the socket to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket


def start(limit: int = DEFAULT_LIMIT, identity: tuple[int, int] | None = None) -> GluerProcess:
    """
    Start the process, and wait until it has shown that it can do what it is for.

    It ends when the calling thread does, so this is for the process that
    stays: after it has gone into the background, and before it gives up its
    privileges, of which the other needs some where it may not have a user
    namespace.

    @param limit: how many sessions there may be at a time.
    @param identity: the user and the group that it runs as, see L{privileges.account}; L{None}: the same.
    @raise rdvtwisted.errors.MissingPrivilege: it may not make namespaces.
    @raise rdvtwisted.errors.MissingProgram: the kernel has no TUN, or there is no C{nft}.
    @raise rdvtwisted.errors.NetworkError: the kernel refuses something else, which is named.
    """
    gluer = launch(limit, identity)
    try:
        gluer.connection.settimeout(START_PATIENCE)
        outcome(gluer.connection.recv(LONGEST_MESSAGE))
        gluer.connection.setblocking(False)
    except (RDVError, OSError) as error:
        gluer.connection.close()
        gluer.process.kill()
        gluer.process.wait()
        if isinstance(error, RDVError):
            raise
        raise NetworkError(f"the process that makes network namespaces does not start: {error}") from None
    return gluer


def launch(limit: int, identity: tuple[int, int] | None = None) -> GluerProcess:
    """
    As L{start}, but does not wait: the first L{outcome} that it sends says whether it can do what it is for.
    """
    if limit not in LIMITS:
        raise ConfigError("limit", f"use {LIMITS.start} to {LIMITS.stop - 1} sessions")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [sys.executable, "-E", "-s", "-m", _MODULE, f"--limit={limit}"]
    if identity is not None:
        words += [f"--user={identity[0]}", f"--group={identity[1]}"]
    with its:
        # "-m" looks in the current directory first: where this package is, be it installed or a checkout.
        process = subprocess.Popen(
            words,
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            cwd=Path(rdvtwisted.__file__).parents[1],
            env={"LC_ALL": "C"},
        )
    return GluerProcess(process, ours)


def outcome(message: bytes) -> None:
    """
    Return if the message says that something is done.

    @raise RDVError: it says why not, or there is none.
    """
    if not message:
        raise NetworkError("the process that makes network namespaces has ended")
    try:
        answer: object = json.loads(message)
    except (ValueError, RecursionError):
        answer = None
    if answer == {"done": True}:
        return
    if not isinstance(answer, dict):
        raise NetworkError("the process that makes network namespaces says what nobody understands")
    raise _KINDS.get(str(answer.get("kind")), NetworkError)(str(answer.get("error")))


@define(eq=False)
class _Question:
    """A request, and who waits for its answer."""

    request: GlueRequest
    answered: Deferred[Any] = field(init=False)
    abandoned: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.answered = Deferred(self._abandon)

    def _abandon(self, _: Deferred[Any]) -> None:
        self.abandoned = True

    def done(self) -> None:
        """It has been done, or there is nothing to do."""
        if not self.abandoned:
            self.answered.callback(None)

    def refuse(self, error: RDVError) -> None:
        """There is no other answer than this."""
        if not self.abandoned:
            self.answered.errback(error)


@implementer(IGlue, IReadDescriptor)
class Glue:
    """Asks the process, one thing at a time; nobody waits for it but who asked."""

    _log = Logger()

    def __init__(self, gluer: GluerProcess, reactor: Any, adopt: Callable[..., Any] = PacketDevice.adopt) -> None:
        """
        @param gluer: what L{start} has started.
        @param reactor: IReactorFDSet and IReactorTime.
        @param adopt: makes a packet device of a descriptor, as L{PacketDevice.adopt} does.
        """
        self._process = gluer.process
        self._connection = gluer.connection
        self._reactor = reactor
        self._adopt = adopt
        self._waiting: deque[_Question] = deque()
        self._asked: _Question | None = None
        self._patience: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] | None = None
        self._over = False
        self.ended: Deferred[None] = Deferred()
        reactor.addReader(self)

    def open(self, spec: GlueSpec) -> Deferred[tuple[PacketDevice, PacketDevice]]:
        return self._ask(Open(spec))

    def confine(self, session: str, scope: Scope) -> Deferred[None]:
        return self._ask(Confine(session, scope))

    def close(self, session: str) -> Deferred[None]:
        # What is left of a session when the process has ended goes with its packet devices.
        return succeed(None) if self._over or self._stopped is not None else self._ask(Close(session))

    def stop(self) -> Deferred[None]:
        """
        End the process, once it has done what it is doing and has removed every session; what waits is
        refused. Idempotent.

        @return: a Deferred that fires with L{None} when it has ended.
        """
        if self._over:
            return succeed(None)
        if self._stopped is None:
            self._stopped = []
            self._be_patient(_STOP_PATIENCE)
            self._connection.shutdown(socket.SHUT_WR)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    # -- one question after the other

    def _ask(self, request: GlueRequest) -> Deferred[Any]:
        question = _Question(request)
        if self._over or self._stopped is not None:
            question.refuse(_ended())
        else:
            self._waiting.append(question)
            self._next()
        return question.answered

    def _next(self) -> None:
        while self._asked is None and self._waiting and self._stopped is None:
            question = self._waiting.popleft()
            if question.abandoned and isinstance(question.request, Open):
                continue
            self._asked = question
            self._be_patient(_ANSWER_PATIENCE)
            # There is always room for it: the one before has been answered. What else may be wrong, the end
            # of the socket says.
            with suppress(OSError):
                self._connection.send(request_to_bytes(question.request))

    def _answered(self, question: _Question, message: bytes, descriptors: Sequence[int]) -> None:
        try:
            outcome(message)
        except RDVError as error:
            _close(descriptors)
            question.refuse(error)
            return
        if isinstance(question.request, Open):
            self._opened(question, question.request.spec, descriptors)
        else:
            _close(descriptors)
            question.done()

    def _opened(self, question: _Question, spec: GlueSpec, descriptors: Sequence[int]) -> None:
        left = list(descriptors)
        devices: list[PacketDevice] = []
        try:
            if len(left) != _DEVICES:
                raise NetworkError(f"there came {len(left)} packet devices instead of {_DEVICES}")
            devices.extend(self._adopt(left.pop(0), name, headers=spec.headers) for name in (ONSITE, MASTER))
        except RDVError as error:
            question.refuse(error)
        else:
            if not question.abandoned:
                question.answered.callback((devices[0], devices[1]))
                return
        # It is open, and nobody has it.
        for device in devices:
            device.close()
        _close(left)
        self._waiting.appendleft(_Question(Close(spec.session)))

    # -- the socket

    def fileno(self) -> int:
        """The socket's descriptor, for the reactor."""
        return self._connection.fileno()

    def logPrefix(self) -> str:
        """A word for the log."""
        return "glue"

    def doRead(self) -> Exception | None:  # type: ignore[override]  # reactors take an exception, not a failure
        """Take the answer that has come."""
        try:
            # Not socket.recv_fds: before Python 3.12 it forgets the flags.
            message, ancillary, _, _ = self._connection.recvmsg(
                LONGEST_MESSAGE,
                socket.CMSG_LEN(_DEVICES * _DESCRIPTOR.size),
                socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return CONNECTION_LOST
        descriptors = [each for _, _, data in ancillary for (each,) in _DESCRIPTOR.iter_unpack(data)]
        if self._asked is None or not message:
            _close(descriptors)
            return CONNECTION_LOST
        question, self._asked = self._asked, None
        if self._stopped is None:
            self._be_patient(None)
        self._answered(question, message, descriptors)
        self._next()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The process has ended, or does not speak our language."""
        if self._over:
            return
        self._over = True
        self._be_patient(None)
        self._connection.close()
        status = self._reap()
        if self._stopped is None:
            self._log.error(
                "the process that makes network namespaces has ended (status {status}): until there is another one,"
                " there are no new sessions whose tunnels end here",
                status=status,
            )
        lost = [self._asked] if self._asked is not None else []
        lost += self._waiting
        self._asked = None
        self._waiting.clear()
        for question in lost:
            if isinstance(question.request, Close):
                question.done()
            else:
                question.refuse(_ended())
        self.ended.callback(None)
        for stopped in self._stopped or ():
            stopped.callback(None)

    def _reap(self) -> int | None:
        """Its exit status, or L{None} if it still runs and may not be killed."""
        for _ in range(2):
            try:
                return self._process.wait(_REAP_PATIENCE)
            except subprocess.TimeoutExpired:
                with suppress(PermissionError):
                    self._process.kill()
        return None

    def _be_patient(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if seconds is not None:
            self._patience = self._reactor.callLater(seconds, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        self._log.error("the process that makes network namespaces does not answer: giving it up")
        with suppress(PermissionError):
            self._process.kill()
        self._reactor.removeReader(self)
        self.connectionLost(Failure(CONNECTION_LOST))


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _ended() -> NetworkError:
    return NetworkError("the process that makes network namespaces has ended")
