"""The server's end of the control socket."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    IReactorUNIX,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from rdvtwisted.adapters.control import MAX_REQUEST, SECONDS, require_short
from rdvtwisted.adapters.users import peer, trusted
from rdvtwisted.errors import AddressInUse, RDVError, StateDirectoryError

#: Commands that may be connected at one time.
MAX_CONNECTIONS = 16
SOCKET_MODE = 0o600
#: Seconds between two looks whether the socket is still there, without which nobody could command any more.
LOOK_SECONDS = 5.0

#: What is answered to a line, by whom it was said; may raise an L{RDVError}.
Answer = Callable[[bytes, str], object]


class ControlProtocol(LineOnlyReceiver):
    """One command's connection: reads a line, answers it, closes; in time."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST
    transport: ITCPTransport
    _log = Logger()

    def __init__(self, answer: Answer, clock: IReactorTime, present: set[ControlProtocol]) -> None:
        self._answer = answer
        self._clock = clock
        self._present = present
        self._answered = False
        self._late: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Give it its time, unless too many are here."""
        self._present.add(self)
        self._late = self._clock.callLater(SECONDS, self.abort)
        if len(self._present) > MAX_CONNECTIONS:
            self._refuse(f"{MAX_CONNECTIONS} commands are being served already; try again")

    def lineReceived(self, line: bytes) -> None:
        """Answer the one request."""
        if self._answered:
            return
        # The socket's mode says so already; this holds also if somebody has changed that.
        if not trusted(self.transport):
            self._refuse("only root and the user that it runs as may ask it anything")
            return
        maybeDeferred(self._answer, line, peer(self.transport)).addCallbacks(self._succeed, self._fail)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse what is too long for a request."""
        self._refuse(f"the request is longer than {MAX_REQUEST} bytes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._present.discard(self)
        if self._late is not None and self._late.active():
            self._late.cancel()

    def abort(self) -> None:
        """Close it at once, whatever is still to be read or written."""
        self.transport.abortConnection()

    def _succeed(self, result: object) -> None:
        self._reply({"ok": True, "result": result})

    def _fail(self, failure: Failure) -> None:
        if failure.check(RDVError):
            self._refuse(failure.getErrorMessage())
        else:
            self._log.failure("A request at the control socket failed", failure)
            self._refuse("the server failed at it; its log says why")

    def _refuse(self, error: str) -> None:
        self._reply({"ok": False, "error": error})

    def _reply(self, document: Mapping[str, object]) -> None:
        if not self._answered:
            self._answered = True
            self.transport.write(json.dumps(document, default=str).encode("ascii") + b"\n")
            self.transport.loseConnection()


class ControlFactory(Factory):
    """Makes the connections of one control socket."""

    noisy = False

    def __init__(self, answer: Answer, clock: IReactorTime) -> None:
        """
        @param answer: what a request, a line, comes to; called with it and with who makes it.
        """
        self._answer = answer
        self._clock = clock
        self._present: set[ControlProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        """Serve one command."""
        return ControlProtocol(self._answer, self._clock, self._present)

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in list(self._present):
            connection.abort()


class ControlService(Service):
    """
    Listens at the control socket, for as long as it runs; makes it anew when somebody has removed it.

    @ivar path: of the socket, absolute.
    """

    _log = Logger()

    def __init__(
        self,
        listener: IReactorUNIX,
        clock: IReactorTime,
        path: str,
        answer: Answer,
        setting: str = "control.socket",
    ) -> None:
        """
        @param answer: as L{ControlFactory} has it.
        @param setting: what the path comes from, for who has to shorten it.
        """
        self.path = path
        self._setting = setting
        self._listener = listener
        self._factory = ControlFactory(answer, clock)
        self._port: IListeningPort | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._trouble = ""

    def check(self) -> None:
        """
        Make sure, as far as that can be known before, that L{startService} will not refuse.

        @raise RDVError: as L{startService} does.
        """
        _vacate(self.path, self._setting)
        directory = os.path.dirname(self.path)
        if not os.access(directory, os.W_OK | os.X_OK):
            reason = "permission denied" if os.path.isdir(directory) else "there is no such directory"
            raise _unusable(self.path, reason)

    def startService(self) -> None:
        """
        Listen.

        @raise AddressInUse: another server answers at the socket.
        @raise StateDirectoryError: something else is in its place, or it cannot be made.
        @raise ConfigError: its path is too long.
        """
        self._listen()
        super().startService()
        self._looking.start(LOOK_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """Close the socket and its connections; fires when it is gone."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        self._factory.abort()
        return self._close()

    def _listen(self) -> None:
        _vacate(self.path, self._setting)
        before = os.umask(0o077)  # bind() makes the socket and takes no mode
        try:
            self._port = self._listener.listenUNIX(self.path, self._factory, mode=SOCKET_MODE)
        except CannotListenError as error:
            raise _unusable(self.path, error.socketError) from None
        finally:
            os.umask(before)

    def _close(self) -> Deferred[None]:
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        with suppress(OSError):
            # A port removes its path, and stays open if it cannot.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SOCKET_MODE))
        closing = port.stopListening()
        return (closing if isinstance(closing, Deferred) else succeed(None)).addErrback(_not_removed)

    def _look(self) -> Deferred[None] | None:
        if self._port is not None and os.path.lexists(self.path):
            return None
        if not self._trouble:
            self._trouble = "removed"
            self._log.warn("Somebody has removed the control socket {path}: it is made anew", path=self.path)
        return self._close().addCallback(lambda _: self._listen_again())

    def _listen_again(self) -> None:
        if not self.running:
            return
        try:
            self._listen()
        except RDVError as error:
            if str(error) != self._trouble:
                self._log.error("{error}", error=str(error))
            self._trouble = str(error)
        else:
            self._trouble = ""


def _not_removed(failure: Failure) -> None:
    failure.trap(OSError)


def _vacate(path: str, setting: str) -> None:
    """Remove the socket of a server that was killed, after making sure that nobody answers there."""
    require_short(path, setting)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from None
    if not stat.S_ISSOCK(mode):
        raise _unusable(path, "something else is there; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens who has a full queue
        except OSError as error:
            raise _unusable(path, error) from None
    raise AddressInUse(f"another process answers at {path} already: stop that one first")


def _unusable(path: str, reason: object) -> StateDirectoryError:
    text = reason.strerror.lower() if isinstance(reason, OSError) and reason.strerror else reason
    return StateDirectoryError(f"cannot make the control socket {path}: {text}")
