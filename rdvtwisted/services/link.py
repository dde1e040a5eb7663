"""A device's link to its server: one SSH connection with one shell, where one thing is asked at a time."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from rdvtwisted import oldserver
from rdvtwisted.adapters.segments import endpoint
from rdvtwisted.adapters.ssh.client import Target, connect
from rdvtwisted.adapters.ssh.identity import Identity
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.remote import RemoteShell
from rdvtwisted.adapters.ssh.settings import ClientSettings
from rdvtwisted.adapters.uplink import Authority, tls_endpoint
from rdvtwisted.errors import ConnectionLost, FellSilent, KeyRejected, RDVError
from rdvtwisted.requests import (
    EndSession,
    GetReturnTime,
    GetVtunParameters,
    Publish,
    WaitForMaster,
    WaitForSessionChange,
)
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.shell.printout import printable
from rdvtwisted.shell.questions import Asked, GetRole
from rdvtwisted.shell.reply import Reply
from rdvtwisted.values import EndReason, PublicKey, Role

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

    @ivar way: the settings by which it has come here: they name the server and the door.
    @ivar authority: of that server's TLS door.
    @ivar small: its TCP segments are small ones, so that those of its tunnels should be.
    """

    _log = Logger()

    _dialogue: Dialogue
    _clock: IReactorTime
    _ssh: SSHLink
    way: DeviceSettings | None = None
    authority: Authority | None = None
    small: bool = False
    _shell: RemoteShell | None = field(default=None, init=False)
    _waiting: deque[_Asking] = field(factory=deque, init=False)
    _current: _Asking | None = field(default=None, init=False)
    _limit: IDelayedCall | None = field(default=None, init=False)
    _error: RDVError | None = field(default=None, init=False)
    _interruptible: bool = field(default=True, init=False)
    _old: bool = field(default=False, init=False)
    _given_up: bool = field(default=False, init=False)
    _left: Deferred[None] | None = field(default=None, init=False)
    _mourners: list[Deferred[RDVError]] = field(factory=list, init=False)

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

    @property
    def old(self) -> bool:
        """
        The server is an old one: it knows no tunnel backends, nor the states of sessions. Known once a profile with
        backends has been published.
        """
        return self._old

    @property
    def server_key(self) -> PublicKey:
        """The host key by which the server has proved who it is."""
        return self._ssh.server_key

    def forward(self, port: int) -> IStreamClientEndpoint:
        """An endpoint for a TCP port of 127.0.0.1 at the server, through this connection."""
        return self._ssh.endpoint("127.0.0.1", port)

    @property
    def local_host(self) -> str | None:
        """This machine's address that the connection comes from, as text; C{None} if that is not known."""
        return self._ssh.local_host

    def give_up(self, error: RDVError) -> None:
        """The connection is of no use any more, for a reason that it cannot notice itself."""
        self._given_up = self._error is None
        self._fail(error)

    @property
    def given_up(self) -> bool:
        """It has ended because of something at this machine, and not at the server: L{give_up} was first."""
        return self._given_up

    def gone(self) -> Deferred[RDVError]:
        """
        @return: a Deferred that fires with L{error} once there is one. May be cancelled.
        """
        waiting: Deferred[RDVError] = Deferred(self._mourners.remove)
        self._mourners.append(waiting)
        self._mourn()
        return waiting

    async def role(self) -> Role:
        """The role that the server has this device down for."""
        role: Role = await self.ask(GetRole())
        return role

    async def end_session(self, reason: EndReason, session: str = "") -> None:
        """
        Tell the server that this device's session is over, if the server can still be told. An old one cannot: it
        learns it by the end of the tunnel. Never fails.

        @param session: its id, lest a later one is taken for it; empty if it is not known.
        """
        if self._old:
            return
        telling = self.ask(EndSession(reason, session))
        telling.addTimeout(LEAVE_SECONDS, self._clock)
        try:
            await telling
        except Exception as error:  # noqa: BLE001 - who cannot be told is told by the loss of the connection
            self._log.debug("The end of the session could not be told: {error}", error=error)

    async def close(self) -> None:
        """Leave the server. Never fails, and takes L{LEAVE_SECONDS} at most; twice that for an old one."""
        can_log_out = self._old and self._error is None and self._current is None
        self._error = self._error or ConnectionLost("the link was closed")
        if can_log_out:
            await self._log_out()
        self._stop_waiting()
        leaving = self._ssh.disconnect()
        leaving.addTimeout(LEAVE_SECONDS, self._clock)
        try:
            await leaving
        except Exception as error:  # noqa: BLE001 - who leaves does not mind how
            self._log.debug("Left without a goodbye: {error}", error=error)

    async def _log_out(self) -> None:
        """
        End the shell of an old server, and wait until it has ended: a shell that learns of its end too late would
        end the registration of the same device's next connection.
        """
        assert self._shell is not None
        self._left = Deferred()
        self._left.addTimeout(LEAVE_SECONDS, self._clock)
        self._shell.write(b"logout\n")
        try:
            await self._left
        except defer.TimeoutError:
            self._log.debug("The server has not ended its shell")

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
            if reply.unknown_syntax and not (current is not None and isinstance(current.asked, GetReturnTime)):
                # It knows less than we do: an old server. What came late a new one need not know either.
                self._interruptible = False
                self._old = self._old or (current is not None and isinstance(current.asked, Publish))
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
        if self._left is not None and not self._left.called:
            self._left.callback(None)
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
        old = isinstance(asking.asked, GetVtunParameters)
        self._be_patient((oldserver.PATIENCE_SECONDS if old else PATIENCE_SECONDS) + _waiting_seconds(asking.asked))
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
        self._limit = self._clock.callLater(seconds, lambda: self._fail(FellSilent(text)))

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
        self._mourn()

    def _mourn(self) -> None:
        """Tell those who wait for the end, if this is it."""
        if self._error is not None:
            mourners, self._mourners = self._mourners, []
            for waiting in mourners:
                waiting.callback(self._error)

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


async def open_link(
    settings: DeviceSettings, who: Identity, authority: Authority, reactor: Any, small: bool = False
) -> Link:
    """
    Connect to the server that the settings name, make sure that it is the known one, log in, and open a shell.

    @param small: with small TCP segments.
    @raise ConnectionLost: it cannot be reached, or does not answer; L{FellSilent}, if it accepts the connection.
    @raise KeyRejected: it does not know this device's key.
    @raise ServerKeyChanged: it is not the known one.
    """
    plain = endpoint(reactor, settings.host, settings.port, small)
    pinned = settings.pinned_port or settings.port
    target = Target(settings.host, pinned, settings.account, who.key, KnownHosts(settings.known_hosts))
    authority.read()
    try:
        through = tls_endpoint(authority, plain) if settings.tls else plain
        ssh = await connect(through, target, reactor, ClientSettings.noticing(settings.silence))
    except KeyRejected as error:
        raise KeyRejected(
            f"{error}. Register it: rdvctl device add {settings.account} --role {settings.role}"
            f" --key '{who.public.line}'"
        ) from None
    except ConnectionLost:
        if authority.refusal is not None:
            raise authority.refusal from None
        raise
    link = Link(Dialogue(settings.account, settings.role), reactor, ssh, settings, authority, small)
    try:
        authority.proved()
        await link.open()
    except BaseException:
        await link.close()
        raise
    return link
