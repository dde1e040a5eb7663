"""A device's way to the SSH door."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from attrs import frozen
from twisted.conch.ssh import transport as conch
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from rdvtwisted.adapters.ssh import algorithms, hybrid
from rdvtwisted.adapters.ssh.connection import Connection
from rdvtwisted.adapters.ssh.knownhosts import KnownHosts, written
from rdvtwisted.adapters.ssh.link import SSHLink
from rdvtwisted.adapters.ssh.liveness import Liveness
from rdvtwisted.adapters.ssh.login import Login
from rdvtwisted.adapters.ssh.settings import ClientSettings
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key, verify
from rdvtwisted.adapters.ssh.transport import SecureTransport
from rdvtwisted.adapters.ssh.wire import Reader, string
from rdvtwisted.errors import ConnectionLost, FellSilent, InvalidValue, KeyRejected, ProtocolError, RDVError
from rdvtwisted.values import PublicKey

_T = TypeVar("_T")

#: Extensions that a server may tell of (RFC 8308); more are not looked at.
MOST_EXTENSIONS = 32


@frozen
class Target:
    """
    Whom to connect to, and as whom.

    @ivar host: the name by which the server is known, whatever way leads to it.
    @ivar port: likewise.
    @ivar account: the device's id.
    """

    host: str
    port: int
    account: str
    key: PrivateKey
    known_hosts: KnownHosts


class ClientTransport(SecureTransport, conch.SSHClientTransport):
    """The device's end of a connection."""

    exchange_message = conch.MSG_KEX_DH_GEX_GROUP
    settings: ClientSettings

    server_key: PublicKey
    exchange_name = ""
    cipher_name = ""
    round_trip: float | None = None
    channels: Connection
    #: This end's address.
    origin: IAddress
    _asked_for_service = False
    _initial: bytes
    _parting = False
    _failure: RDVError | None = None
    _hybrid: hybrid.HybridExchange | None = None
    _login_limit: IDelayedCall | None = None
    _liveness: Liveness | None = None

    def __init__(self, target: Target, settings: ClientSettings, clock: IReactorTime) -> None:
        super().__init__(settings, clock, algorithms.offer())
        self.target = target
        self.name = written(target.host, target.port)
        #: Fires with an L{SSHLink} once we are logged in.
        self.ready: Deferred[SSHLink] = Deferred()
        #: See L{SSHLink.closed}.
        self.closed: Deferred[None] = Deferred()
        pinned = [key.algorithm for key in target.known_hosts.pinned(target.host, target.port)]
        # A server with several keys is to show the one that we know.
        kinds = sorted(algorithms.SIGNATURES, key=lambda kind: kind not in pinned)
        self.supportedPublicKeys = [name.encode() for name in algorithms.signatures(kinds)]
        self.accepted_signatures: frozenset[str] = frozenset()

    # From the transport

    def connectionMade(self) -> None:
        """The connection is there."""
        self.origin = self.transport.getHost()  # a connection that is lost does not know it any more
        super().connectionMade()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is over."""
        told = self.end_reason
        super().connectionLost(reason)
        if self._liveness is not None:
            self._liveness.stop()
        if self._login_limit is not None and self._login_limit.active():
            self._login_limit.cancel()
        why = f": {told}" if told else "" if self.gotVersion else " before an SSH server answered"
        error = self._failure or ConnectionLost(f"the connection to {self.name} was lost{why}")
        if not self.ready.called:
            self.ready.errback(error)
        elif self._parting:
            self.closed.callback(None)
        else:
            self.closed.errback(error)

    def tell(self, reason: str) -> None:
        """Whoever asked for the connection is told by an error, and tells the user."""

    def give_up(self, error: RDVError) -> None:
        """End the connection because of C{error}, which whoever asked for it gets."""
        self._failure = self._failure or error
        self.sendDisconnect(conch.DISCONNECT_BY_APPLICATION, "this client gives up")

    def overdue(self, reason: str) -> None:
        """A key exchange, or what has to come before it, does not come to its end."""
        self._failure = self._failure or FellSilent(f"the connection to {self.name} was lost: {reason}")
        super().overdue(reason)
        self.transport.abortConnection()

    def _fell_silent(self, text: str) -> None:
        self.give_up(FellSilent(text))
        self.transport.abortConnection()

    def disconnect(self, reason: str) -> Deferred[None]:
        """See L{SSHLink.disconnect}."""
        if self.closed.called:
            return succeed(None)
        self._parting = True
        self.sendDisconnect(conch.DISCONNECT_BY_APPLICATION, reason)
        gone: Deferred[None] = Deferred()
        self.closed.addBoth(self._pass_on, gone)
        return gone

    @staticmethod
    def _pass_on(result: Any, gone: Deferred[None]) -> Any:
        gone.callback(None)
        return result

    # Key exchange

    def ssh_KEXINIT(self, packet: bytes) -> None:
        """The algorithms can be chosen: send our part of the exchange."""
        self.begin_exchange(packet)
        if conch.SSHTransportBase.ssh_KEXINIT(self, packet) is None:
            return
        if self.kexAlg == algorithms.HYBRID:
            self._hybrid = hybrid.HybridExchange()
            self._initial = self._hybrid.initial
        else:
            self._hybrid = None
            self.ecPriv = self._generateECPrivateKey()
            self._initial = self._encodeECPublicKey(self.ecPriv.public_key())
        self.send(conch.MSG_KEX_DH_GEX_REQUEST_OLD, string(self._initial))

    def ssh_KEX_DH_GEX_GROUP(self, packet: bytes) -> None:
        """
        The server's part of the exchange: its host key, its public value, and its signature of both.

        The key is compared with the known ones only once the signature has
        shown that the server holds it: what is pinned at first use is its own.
        """
        reader = Reader(packet)
        blob, reply, signature = reader.string(), reader.string(), reader.string()
        try:
            key = PublicKey.from_blob(blob)
        except InvalidValue:
            raise ProtocolError("it shows a host key that is none") from None
        if self._hybrid is not None:
            secret = self._hybrid.secret(reply)
        else:
            secret = self._generateECSharedSecret(self.ecPriv, reply)
        digest = hashlib.new(algorithms.EXCHANGE_HASHES[self.kexAlg])
        for part in (
            self.ourVersionString,
            self.otherVersionString,
            self.ourKexInitPayload,
            self.otherKexInitPayload,
            blob,
            self._initial,
            reply,
        ):
            digest.update(string(part))
        digest.update(secret)
        if not verify(key, self.keyAlg.decode(), signature, digest.digest()):
            raise ProtocolError("it does not hold the host key that it shows")
        if self._accept(key):
            self._keySetup(secret, digest.digest())

    def _accept(self, key: PublicKey) -> bool:
        if self.sessionID is not None:
            if key != self.server_key:
                raise ProtocolError("it shows another host key than before")
            return True
        try:
            self.target.known_hosts.check(self.target.host, self.target.port, key)
        except RDVError as error:
            self.give_up(error)
            return False
        self.server_key = key
        return True

    def secured(self) -> None:
        """New keys are in use; when they are the first ones, ask to log in."""
        self._hybrid, self._initial = None, b""
        self.exchange_name = self.kexAlg.decode()
        self.cipher_name = self.nextEncryptions.outCipType.decode()
        if self._asked_for_service:
            return
        self._asked_for_service = True
        self.send(conch.MSG_SERVICE_REQUEST, string(Login.name))
        seconds = self.settings.login_seconds
        self._login_limit = self.clock.callLater(
            seconds, self._fell_silent, f"{self.name} did not let us log in within {seconds:g} s"
        )

    # Logging in

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """What the server can do (RFC 8308): which signatures it accepts."""
        reader = Reader(packet)
        for _ in range(min(reader.uint32(), MOST_EXTENSIONS)):
            name, value = reader.string(), reader.text()
            if name == b"server-sig-algs":
                self.accepted_signatures = frozenset(value.split(","))

    def ssh_SERVICE_ACCEPT(self, packet: bytes) -> None:
        """The server takes requests to log in."""
        if self.service is not None or not self._asked_for_service:
            raise ProtocolError("it accepts what was not asked for")
        self.setService(Login(self.target.account, self.target.key))

    def turned_down(self) -> None:
        """The server does not accept our key."""
        shown = public_key(self.target.key)
        self.give_up(KeyRejected(f"{self.name} does not accept the key {shown} for {self.target.account}"))

    def let_in(self) -> None:
        """The server has accepted our key."""
        if self._login_limit is not None:
            self._login_limit.cancel()
        self.welcome()
        self.channels = Connection()
        self.setService(self.channels)
        settings = self.settings
        self._liveness = Liveness(
            self.clock, settings.keepalive_idle, settings.keepalive_answer, self._probe, self._silent
        )
        self.ready.callback(SSHLink(self))

    # Once logged in

    def heard(self) -> None:
        """A message has come."""
        if self._liveness is not None:
            self._liveness.heard()

    def _probe(self) -> None:
        asked_at = self.clock.seconds()

        def answered(granted: bool) -> None:
            # Servers refuse this request, and are alive all the same.
            self.round_trip = self.clock.seconds() - asked_at

        self.channels.ask(b"keepalive@openssh.com", answered)

    def _silent(self) -> None:
        seconds = self.settings.keepalive_idle + self.settings.keepalive_answer
        self._fell_silent(f"nothing was heard of {self.name} for {seconds:g} s")

    def limit(self, opening: Deferred[_T], what: str) -> Deferred[_T]:
        """Let C{opening} fail if it takes too long: with L{FellSilent}, saying C{what}."""
        seconds = self.settings.open_seconds

        def too_late(result: _T | Failure, timeout: float) -> _T:
            raise FellSilent(f"{what} within {timeout:g} s")

        return opening.addTimeout(seconds, self.clock, too_late)


class _OneConnection(Factory):
    """Gives an endpoint the one connection that it is to make."""

    noisy = False

    def __init__(self, line: ClientTransport) -> None:
        self._line = line

    def buildProtocol(self, addr: IAddress | None) -> ClientTransport:
        return self._line


def _obstacle(failure: Failure) -> str:
    """Why there is no connection, in one line."""
    if isinstance(failure.value, ConnectError) and isinstance(failure.value.args[0], Failure):
        # Of a socket that epoll reports as closed, as after an ICMP error, Twisted does not ask why.
        return "the connection was rejected"
    return failure.getErrorMessage()


def connect(
    endpoint: IStreamClientEndpoint, target: Target, clock: IReactorTime, settings: ClientSettings | None = None
) -> Deferred[SSHLink]:
    """
    Connect to a server through C{endpoint}, make sure that it is the known one, and log in.

    Every stage has a limit in time. Cancelling gives up.

    @return: a Deferred of the L{SSHLink}. It fails with L{ConnectionLost} (L{FellSilent}, if a transport connection
        was there), L{KeyRejected}, L{rdvtwisted.errors.ServerKeyChanged}, or
        L{rdvtwisted.errors.StateDirectoryError} if the file of known hosts cannot be used.
    """
    settings = settings or ClientSettings()
    try:
        line = ClientTransport(target, settings, clock)
    except RDVError:
        return fail(Failure())
    made = endpoint.connect(_OneConnection(line))

    def cancel(link: Deferred[SSHLink]) -> None:
        # An endpoint that is cancelled may fail with another error.
        link.errback(CancelledError())
        made.cancel()
        if line.transport is not None:
            line.transport.abortConnection()

    link: Deferred[SSHLink] = Deferred(cancel)

    def too_late(result: object, timeout: float) -> None:
        raise ConnectionLost(f"{line.name} could not be reached within {timeout:g} s")

    def unreachable(failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, (RDVError, CancelledError)):
            error = ConnectionLost(f"{line.name} could not be reached: {_obstacle(failure)}")
        if not line.ready.called:
            line.ready.errback(error)

    made.addTimeout(settings.connect_seconds, clock, too_late).addErrback(unreachable)

    def ready(result: SSHLink | Failure) -> None:
        if not link.called:
            link.callback(result)

    line.ready.addBoth(ready)
    return link
