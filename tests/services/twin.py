"""A device's connection in memory; at its other end is the server's own shell, and the test is the server's desk."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from rdvtwisted.adapters.ssh.remote import ShellListener
from rdvtwisted.errors import ConnectionLost, RDVError
from rdvtwisted.requests import Readiness, Request, WaitForSessionChange
from rdvtwisted.services.link import Link
from rdvtwisted.shell.dialogue import Dialogue
from rdvtwisted.shell.printout import Stream
from rdvtwisted.shell.shell import Action, Interrupt, Shell
from rdvtwisted.values import Role, SessionView

DEVICE = "rpi1100"


@define(eq=False)
class SSHTwin:
    """
    What L{Link} uses of an C{SSHLink}, and of the shell on it.

    Bytes are under way until the test moves them: L{to_server}, L{to_device}, or L{pump} for all.

    @ivar asked: what the shell has asked its desk for, with the Deferreds that the test answers.
    @ivar interrupts: how often the desk was told to answer now.
    @ivar partings: the reasons that the device took leave with.
    @ivar answers: what the desk answers at once, by the requests' classes; an L{RDVError} is a refusal.
    @ivar obliging: the desk answers a wait when it is told to, as a real one does.
    @ivar stuck: the server does not close when the device takes leave.
    @ivar opening: set before the shell is opened, it makes the shell's opening wait.
    """

    role: Role
    asked: list[tuple[Request, Deferred[Any]]] = field(factory=list)
    answers: dict[type, Any] = field(factory=dict)
    obliging: bool = False
    interrupts: int = 0
    partings: list[str] = field(factory=list)
    stuck: bool = False
    opening: Deferred[Any] | None = None
    closed: Deferred[None] = field(factory=Deferred)
    typed: bytearray = field(factory=bytearray)
    said: list[tuple[Stream, bytes]] = field(factory=list)
    _shell: Shell = field(init=False)
    _listener: ShellListener | None = None
    _over: bool = False
    _losing: bool = False

    def __attrs_post_init__(self) -> None:
        self._shell = Shell(DEVICE, self.role, terminal=False)

    # SSHLink

    def open_shell(self, listener: ShellListener) -> Deferred[Any]:
        """A shell; its prompt is under way."""
        if self.closed.called:
            return fail(ConnectionLost("the server opened no shell: the connection was lost"))
        self._listener = listener
        self._shell.start()
        self._collect([])
        if self.opening is not None:
            return self.opening
        return succeed(self)

    def disconnect(self, reason: str = "goodbye") -> Deferred[None]:
        """Take leave; the server closes at once, unless it is stuck."""
        self.partings.append(reason)
        if self.closed.called:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self.closed.addBoth(self._pass_on, gone)
        if not (self.stuck or self._losing):
            self.end(None, reason)
            self.closed.callback(None)
        return gone

    @staticmethod
    def _pass_on(result: Any, gone: Deferred[None]) -> Any:
        gone.callback(None)
        return result

    # RemoteShell

    def write(self, data: bytes) -> None:
        """The device types."""
        self.typed += data

    # The test

    def lose(self, error: RDVError) -> None:
        """The connection breaks: first the shell learns it, as on a real one, then who waits for the connection."""
        self._losing = True
        self.end(None, "the connection was lost")
        if self.partings:
            self.closed.callback(None)
        else:
            self.closed.errback(error)

    def answer(self, value: Any) -> None:
        """The desk answers what it was asked last."""
        self.asked[-1][1].callback(value)
        self.pump()

    def refuse(self, error: RDVError) -> None:
        """The desk refuses what it was asked last."""
        self.asked[-1][1].errback(error)
        self.pump()

    def pump(self) -> None:
        """Move all that is under way."""
        while self.typed or self.said:
            self.to_server()
            self.to_device()

    def to_server(self) -> None:
        """What the device has typed arrives."""
        typed, self.typed = bytes(self.typed), bytearray()
        if typed:
            self._collect(self._shell.receive(typed))

    def to_device(self) -> None:
        """What the shell has said arrives, and its end after it."""
        said, self.said = self.said, []
        assert self._listener is not None
        for stream, data in said:
            if stream is Stream.STDERR:
                self._listener.error_output(data)
            else:
                self._listener.output(data)
        if self._shell.exit_status is not None:
            self.end(self._shell.exit_status, "")

    def say(self, data: bytes) -> None:
        """The server says something that no shell of ours would."""
        assert self._listener is not None
        self._listener.output(data)

    def complain(self, data: bytes) -> None:
        """The server complains of something that no shell of ours would."""
        assert self._listener is not None
        self._listener.error_output(data)

    def end(self, status: int | None, reason: str) -> None:
        """The shell is over, without a word of its own."""
        if self._listener is not None and not self._over:
            self._over = True
            self._listener.ended(status, reason)

    def _interrupt(self) -> None:
        self.interrupts += 1
        request, answer = self.asked[-1]
        if self.obliging and not answer.called:
            waited = isinstance(request, WaitForSessionChange)
            answer.callback(SessionView(state=request.state) if waited else Readiness.NOT_READY)

    def _perform(self, request: Request) -> None:
        shell = self._shell
        answer: Deferred[Any] = Deferred()
        self.asked.append((request, answer))
        answer.addCallbacks(
            lambda value: self._collect(shell.answer(value)),
            lambda failure: self._collect(shell.fail(failure.value)),
        )
        if type(request) in self.answers:
            value = self.answers[type(request)]
            answer.errback(value) if isinstance(value, RDVError) else answer.callback(value)

    def _collect(self, actions: list[Action]) -> None:
        shell = self._shell
        while True:
            for action in actions:
                if isinstance(action, Interrupt):
                    self._interrupt()
                else:
                    self._perform(action)
            output = shell.take_output()
            if not output:
                return
            self.said += output
            actions = shell.resume()


def opened(role: Role, clock: Clock, ssh: SSHTwin | None = None) -> tuple[SSHTwin, Link]:
    """A connection, new if not given, and a link on it that is ready for questions."""
    ssh = ssh or SSHTwin(role)
    link = Link(Dialogue(DEVICE, role), clock, ssh)
    opening = Deferred.fromCoroutine(link.open())
    ssh.pump()
    assert opening.called
    return ssh, link
