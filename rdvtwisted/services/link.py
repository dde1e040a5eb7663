"""A device's link to its server: one SSH connection with one shell, where one thing is asked at a time."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh.client import Target, connect
from rdvtwisted.adapters.ssh.identity import Identity
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.remote import RemoteShell
from rdvtwisted.adapters.ssh.settings import ClientSettings
from rdvtwisted.adapters.uplink import Authority, tls_endpoint
from rdvtwisted.errors import ConnectionLost, KeyRejected, RDVError
from rdvtwisted.requests import EndSession, WaitForMaster, WaitForSessionChange
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.questions import Asked, GetRole
from rdvtwisted.shell.reply import Reply
from rdvtwisted.values import EndReason, Role

#: Seconds that the server has for an answer, beyond the time for which it was asked to wait.
PATIENCE_SECONDS = 7.0
#: Seconds that the first prompt may take, as old scripts grant it.
GREETING_SECONDS = 40.0
#: Seconds that leaving may take; who leaves does not wait for a server that is gone.
LEAVE_SECONDS = 2.0


#: Lines of an answer that nobody but the device may know.
_SECRETS = re.compile(r"^(\s*\w*(?:ticket|secret|password)\w*\s*:).*", re.IGNORECASE | re.MULTILINE)


@define(eq=False)
class _Asking:
    """One question, waiting for its turn or for its answer."""

    asked: Asked | None
    answer: Deferred[Any]


@define(eq=False)
class Link:
    """
    The connection of one device to its server.

    Questions wait for their turn. The answer to a question that is cancelled
    is dropped; one that waits is interrupted first, unless the server is an
    old one, which Ctrl-C would end.
    """

    _log = Logger()

    _dialogue: Dialogue
    _clock: IReactorTime
    _ssh: SSHLink
    _shell: RemoteShell | None = field(default=None, init=False)
    _waiting: deque[_Asking] = field(factory=deque, init=False)
    _current: _Asking | None = field(default=None, init=False)
    _limit: IDelayedCall | None = field(default=None, init=False)
    _error: RDVError | None = field(default=None, init=False)
    _interruptible: bool = field(default=True, init=False)

    async def open(self) -> None:
        """
        Open the shell, and wait until it is ready for questions.

        @raise ConnectionLost: there is none.
        """
        self._ssh.closed.addErrback(self._lost)
        greeting: Deferred[None] = Deferred()
        self._current = _Asking(None, greeting)
        self._be_patient(GREETING_SECONDS)
        # Without a shell there is no greeting either: whatever goes wrong, that is where it is told.
        self._ssh.open_shell(self).addCallbacks(self._opened, self._lost)
        await greeting

    def ask(self, asked: Asked) -> Deferred[Any]:
        """
        Ask the server.

        @return: a Deferred of what the question's class says. It fails with
            L{RequestRefused} or L{ProtocolError}, and with L{ConnectionLost} if
            no answer can come any more.
        """
        asking = _Asking(asked, Deferred(lambda _: self._abandon(asking)))
        self._waiting.append(asking)
        self._next()
        return asking.answer

    @property
    def error(self) -> RDVError | None:
        """Why nothing can be asked any more; C{None} as long as something can."""
        return self._error

    async def role(self) -> Role:
        """The role that the server has this device down for."""
        role: Role = await self.ask(GetRole())
        return role

    async def end_session(self, reason: EndReason) -> None:
        """Tell the server that this device's session is over, if the server can still be told. Never fails."""
        telling = self.ask(EndSession(reason))
        telling.addTimeout(LEAVE_SECONDS, self._clock)
        try:
            await telling
        except Exception as error:  # noqa: BLE001 - who cannot be told is told by the loss of the connection
            self._log.debug("The end of the session could not be told: {error}", error=error)

    async def close(self) -> None:
        """Leave the server. Never fails, and takes L{LEAVE_SECONDS} at most."""
        self._error = self._error or ConnectionLost("the link was closed")
        self._stop_waiting()
        leaving = self._ssh.disconnect()
        leaving.addTimeout(LEAVE_SECONDS, self._clock)
        try:
            await leaving
        except Exception as error:  # noqa: BLE001 - who leaves does not mind how
            self._log.debug("Left without a goodbye: {error}", error=error)

    # ShellListener

    def output(self, data: bytes) -> None:
        """The server's shell says something."""
        try:
            replies = self._dialogue.receive(data)
        except RDVError as error:
            self._fail(error)
            return
        for reply in replies:
            self._log.debug("Server: {reply}", reply=_without_secrets(reply))
            current, self._current = self._current, None
            self._stop_limit()
            if reply.unknown_syntax:
                # It knows less than we do: an old server.
                self._interruptible = False
            if current is not None and not current.answer.called:
                try:
                    value = None if current.asked is None else reply.value
                except RDVError as error:
                    current.answer.errback(error)
                else:
                    current.answer.callback(value)
        self._next()

    def error_output(self, data: bytes) -> None:
        """The server's shell complains."""
        try:
            self._dialogue.receive_error(data)
        except RDVError as error:
            self._fail(error)

    def ended(self, status: int | None, reason: str) -> None:
        """The server has closed the shell; its last words say why."""
        # When the whole connection is gone it says so itself, and better.
        if not reason:
            self._fail(self._dialogue.closed())

    # Inside

    def _opened(self, shell: RemoteShell) -> None:
        self._shell = shell

    def _next(self) -> None:
        if self._error is not None:
            waiting, self._waiting = self._waiting, deque()
            for asking in waiting:
                asking.answer.errback(self._error)
            return
        if self._current is not None or not self._waiting or self._shell is None:
            return
        asking = self._current = self._waiting.popleft()
        assert asking.asked is not None
        try:
            line = self._dialogue.ask(asking.asked)
        except RDVError as error:
            self._current = None
            asking.answer.errback(error)
            self._next()
            return
        self._log.debug("Device: {line}", line=line.decode("ascii").strip())
        self._be_patient(PATIENCE_SECONDS + _waiting_seconds(asking.asked))
        self._shell.write(line)

    def _abandon(self, asking: _Asking) -> None:
        """Nobody wants this answer any more; when it comes it is dropped."""
        if asking in self._waiting:
            self._waiting.remove(asking)
        elif (
            asking is self._current
            and self._shell is not None
            and self._interruptible
            and _waiting_seconds(asking.asked)
        ):
            self._be_patient(PATIENCE_SECONDS)
            self._shell.write(self._dialogue.interrupt())

    def _be_patient(self, seconds: float) -> None:
        self._stop_limit()
        text = f"the server has not answered for {seconds:g} s"
        self._limit = self._clock.callLater(seconds, lambda: self._fail(ConnectionLost(text)))

    def _stop_limit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _stop_waiting(self) -> None:
        """Fail whatever waits for an answer, with the error that is there."""
        self._stop_limit()
        current, self._current = self._current, None
        if current is not None and not current.answer.called:
            current.answer.errback(self._error)
        self._next()

    def _lost(self, failure: Failure) -> None:
        error = failure.value
        self._fail(error if isinstance(error, RDVError) else ConnectionLost(failure.getErrorMessage()))

    def _fail(self, error: RDVError) -> None:
        if self._error is not None:
            return
        self._error = error
        self._stop_waiting()
        self._ssh.disconnect("giving up")


def _without_secrets(reply: Reply) -> str:
    """What an answer says, for the log."""
    text = "\n".join(filter(None, (reply.output, reply.errors)))
    return "\n".join(map(printable, _SECRETS.sub(r"\1 (not logged)", text).split("\n")))


def _waiting_seconds(asked: Asked | None) -> float:
    """For how long a question asks the server to wait; 0 for one that is answered at once."""
    return asked.seconds if isinstance(asked, (WaitForMaster, WaitForSessionChange)) else 0.0


async def open_link(settings: DeviceSettings, who: Identity, authority: Authority, reactor: Any) -> Link:
    """
    Connect to the server that the settings name, make sure that it is the known one, log in, and open a shell.

    @raise ConnectionLost: it cannot be reached, or does not answer.
    @raise KeyRejected: it does not know this device's key.
    @raise ServerKeyChanged: it is not the known one.
    """
    endpoint = HostnameEndpoint(reactor, settings.host, settings.port)
    target = Target(settings.host, settings.port, settings.account, who.key, KnownHosts(settings.known_hosts))
    authority.read()
    try:
        way = tls_endpoint(authority, endpoint) if settings.tls else endpoint
        ssh = await connect(way, target, reactor, ClientSettings.noticing(settings.silence))
    except KeyRejected as error:
        raise KeyRejected(
            f"{error}. Register it: rdvctl device add {settings.account} --role {settings.role}"
            f" --key '{who.public.line}'"
        ) from None
    except ConnectionLost:
        if authority.refusal is not None:
            raise authority.refusal from None
        raise
    link = Link(Dialogue(settings.account, settings.role), reactor, ssh)
    try:
        await link.open()
    except BaseException:
        await link.close()
        raise
    return link
