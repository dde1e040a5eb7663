"""
The SSH door: from an accepted connection to a device at its desk.

One L{SSHServer} serves all doors; L{SSHServer.factory} gives each door its
factory, be it for plain TCP or for connections that come out of TLS.
"""

from __future__ import annotations

from attrs import define, field
from twisted.conch.ssh import transport as conch
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.departure import departed
from rdvtwisted.adapters.ssh import algorithms
from rdvtwisted.adapters.ssh.allowance import Allowance
from rdvtwisted.adapters.ssh.authentication import Authentication
from rdvtwisted.adapters.ssh.denials import Denials
from rdvtwisted.adapters.ssh.hostkeys import HostKeys
from rdvtwisted.adapters.ssh.liveness import Liveness
from rdvtwisted.adapters.ssh.lodgers import Lodgers
from rdvtwisted.adapters.ssh.service import ServerConnection
from rdvtwisted.adapters.ssh.session import ShellOpener
from rdvtwisted.adapters.ssh.settings import ServerSettings
from rdvtwisted.adapters.ssh.signatures import public_key
from rdvtwisted.adapters.ssh.transport import SecureTransport
from rdvtwisted.adapters.ssh.wire import Reader, string
from rdvtwisted.interfaces import IDesk, ILine, IReception
from rdvtwisted.origin import address_text
from rdvtwisted.ration import Ration
from rdvtwisted.values import Device, PublicKey
from rdvtwisted.vestibule import Vestibule

#: Seconds after which a device's desk hears again that it is alive.
HEARD_SECONDS = 1.0
#: Seconds that a device has to answer when there is reason to doubt that it is still there.
DOUBT_SECONDS = 8.0
#: Lines in a minute on connections of one account that were ended here.
FAREWELLS = 5
#: Characters of an account's name that are logged.
LONGEST_ACCOUNT = 64


@implementer(ILine)
class ServerTransport(SecureTransport, conch.SSHServerTransport):
    """A connection at a door; once logged in, a device's line."""

    exchange_message = conch.MSG_KEX_DH_GEX_REQUEST_OLD
    settings: ServerSettings

    #: What the client says its account is, and why it was last refused.
    account: str | None = None
    refusal = ""
    desk: IDesk | None = None
    _liveness: Liveness | None = None
    _ended_here = False
    _told_at = 0.0

    def __init__(self, server: SSHServer, door: str) -> None:
        super().__init__(server.settings, server.clock, algorithms.offer(server.legacy))
        self.supportedPublicKeys = list(server.host_key_algorithms)
        self.server = server
        self.reception = server.reception
        self.door = door
        self.address = ""
        self._login_limit: IDelayedCall | None = None

    # From the transport

    def connectionMade(self) -> None:
        """Somebody has come; the time to log in begins to run."""
        self.address = address_text(self.transport.getPeer())
        self.server.lines.add(self)
        seconds = self.settings.login_seconds
        self._login_limit = self.clock.callLater(
            seconds,
            self.sendDisconnect,
            conch.DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE,
            f"it did not log in within {seconds:g} s",
        )
        if departed(self.transport):
            self.put_out()
        else:
            super().connectionMade()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The device, or the stranger, is gone."""
        super().connectionLost(reason)
        if self._liveness is not None:
            self._liveness.stop()
        if self._login_limit is not None:
            self._end_of_login()
            if self._ended_here or self.refusal:
                self._report_refusal()
        self.leave(self.end_reason)
        self.server.lodgers.leave(self.account or "", self)
        self.server.gone(self)

    def sendDisconnect(self, reason: int, desc: bytes | str) -> None:
        """Take leave. What ends here before login is reported once, when the connection is gone."""
        self._ended_here = True
        super().sendDisconnect(reason, desc)

    def tell(self, reason: str) -> None:
        """One line about a device, unless it has had many lately; a stranger's comes with its refusal."""
        if not self.logged_in:
            return
        line, untold = self.server.farewells.take(self.account or "")
        if untold:
            self.log.info("{count} more SSH connections of {device} were ended", count=untold, device=self.account)
        if line:
            super().tell(reason)

    def put_out(self) -> None:
        """Others have come, and this one had the most time to log in; or it has gone itself: cut it off."""
        self.closing = True
        self.transport.abortConnection()

    def begin_exchange(self, packet: bytes) -> None:
        """The client begins a key exchange; the first one brings it nearer to being in."""
        super().begin_exchange(packet)
        self.server.vestibule.advance(self)

    def ssh_KEX_DH_GEX_REQUEST_OLD(self, packet: bytes) -> None:
        """The client's part of an exchange; ours, and our signature, are for those only who are still there."""
        if departed(self.transport):
            self.put_out()
        else:
            super().ssh_KEX_DH_GEX_REQUEST_OLD(packet)

    def secured(self) -> None:
        """So does the end of it."""
        super().secured()
        self.server.vestibule.advance(self)

    def _end_of_login(self) -> None:
        call, self._login_limit = self._login_limit, None
        if call is not None:
            if call.active():
                call.cancel()
            self.server.vestibule.leave(self)

    def _report_refusal(self) -> None:
        account = (self.account or "")[:LONGEST_ACCOUNT]
        reason = ": ".join(filter(None, (self.end_reason if self._ended_here else "", self.refusal)))
        self.reception.refused(self.door, self.address, account, reason)

    def introduce(self) -> None:
        """
        Our part of the exchange is done, which costs more than all the rest: it is not to have been in vain.

        Say which signatures of users are accepted: that is not the same as which ones we make (RFC 8308).
        """
        self.server.vestibule.advance(self)
        names = algorithms.signatures(algorithms.SIGNATURES, self.server.legacy)
        self.sendExtInfo([(b"server-sig-algs", ",".join(names).encode())])

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """Nothing that a client can say here matters to us."""

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        """A client begins to log in; that is the only service to be asked for, and only once."""
        name = Reader(packet).string()
        if name != Authentication.name or self.service is not None:
            self.sendDisconnect(conch.DISCONNECT_SERVICE_NOT_AVAILABLE, "there is no such service")
            return
        self.send(conch.MSG_SERVICE_ACCEPT, string(name))
        self.setService(Authentication(self.settings.authentication_attempts))

    def lodge(self, device: Device) -> bool:
        """The client has proved that it is C{device}. False if there is no room for it, as it is told."""
        if self.server.lodgers.enter(device.id, self):
            return True
        self.sendDisconnect(conch.DISCONNECT_TOO_MANY_CONNECTIONS, "the server has no room for more devices")
        return False

    def admitted(self, device: Device, key: PublicKey) -> None:
        """The client, for which there is room, has learnt that it has proved to be C{device}."""
        self._end_of_login()
        self.server.vestibule.regulars.welcome(getattr(self.transport.getPeer(), "host", ""))
        self.refusal = ""
        self.welcome()
        settings = self.settings
        self._liveness = Liveness(
            self.clock, settings.keepalive_idle, settings.keepalive_answer, self._probe, self._silent
        )
        desk: IDesk = self.reception.arrive(device, key, self)
        self.desk = desk
        allowance = Allowance(settings.requests_burst, settings.requests_per_second)
        self.setService(ServerConnection(desk, self.server.open_shell, allowance, self.server.denials))
        self._probe()

    # Liveness

    def heard(self) -> None:
        """A message has come."""
        if self._liveness is None or self.desk is None:
            return
        self._liveness.heard()
        now = self.clock.seconds()
        if now - self._told_at >= HEARD_SECONDS:
            self._told_at = now
            self.desk.heard()

    def _probe(self) -> None:
        asked_at = self.clock.seconds()

        def answered(granted: bool) -> None:
            # OpenSSH refuses this request, and is alive all the same.
            if self.desk is not None:
                self.desk.measured(self.clock.seconds() - asked_at)

        self.service.ask(b"keepalive@openssh.com", answered)

    def _silent(self) -> None:
        assert self._liveness is not None
        self.sendDisconnect(
            conch.DISCONNECT_CONNECTION_LOST, f"nothing was heard of it for {self._liveness.quiet:.0f} s"
        )
        self.transport.abortConnection()

    # ILine

    def probe(self) -> None:
        """Ask for a sign of life now; the connection ends if there is none in L{DOUBT_SECONDS}."""
        if self._liveness is not None:
            self._liveness.ask(DOUBT_SECONDS)

    def disconnect(self, reason: str) -> None:
        """Close the connection; C{reason} is told to the device."""
        self.sendDisconnect(conch.DISCONNECT_BY_APPLICATION, reason)

    def leave(self, reason: str) -> None:
        """The device leaves its desk; once."""
        desk, self.desk = self.desk, None
        if desk is not None:
            desk.leave(reason)


class DoorFactory(SSHFactory):
    """Makes the connections of one door."""

    noisy = False

    def __init__(self, server: SSHServer, door: str) -> None:
        self.server = server
        self.door = door
        self.publicKeys = server.public_keys
        self.privateKeys = server.private_keys
        self.primes = None

    def buildProtocol(self, addr: IAddress | None) -> ServerTransport | None:  # type: ignore[override]
        """A connection for whoever comes from C{addr}, or L{None} if too many strangers are here already."""
        host = getattr(addr, "host", "")
        line = ServerTransport(self.server, self.door)
        if not self.server.vestibule.enter(line, self.door, host, line.put_out):
            return None
        line.factory = self
        return line


@define(eq=False)
class SSHServer:
    """
    What all doors have in common.

    @ivar open_shell: makes the shell of one session channel.
    @ivar clock: gives the time and calls back; the reactor.
    @ivar vestibule: those who have not logged in yet.
    @ivar lodgers: those who have.
    @ivar denials: what those were refused.
    @ivar farewells: for each account, the lines on connections that were ended here.
    @ivar lines: the connections that are here, logged in or not.
    """

    host_keys: HostKeys
    reception: IReception
    open_shell: ShellOpener
    clock: IReactorTime
    settings: ServerSettings = field(factory=ServerSettings)
    vestibule: Vestibule = field(init=False)
    lodgers: Lodgers = field(init=False)
    denials: Denials = field(init=False)
    farewells: Ration = field(init=False)
    lines: set[ServerTransport] = field(factory=set, init=False)
    private_keys: dict[bytes, Key] = field(factory=dict, init=False)
    public_keys: dict[bytes, Key] = field(factory=dict, init=False)
    legacy: bool = field(init=False)
    host_key_algorithms: tuple[bytes, ...] = field(init=False)
    _all_gone: list[Deferred[None]] = field(factory=list, init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        self.lodgers = Lodgers(self.settings.connections, self.settings.connections_per_account)
        self.denials = Denials(self.clock)
        self.farewells = Ration(self.clock.seconds, FAREWELLS)
        self.vestibule = Vestibule(
            self.settings.strangers,
            self.settings.strangers_per_address,
            "too many connections have not logged in",
            self.clock,
            self.reception.refused,
        )
        for private in self.host_keys.keys:
            kind = public_key(private).algorithm.encode()
            self.private_keys[kind] = Key(private)
            self.public_keys[kind] = Key(private).public()
        self.accept_legacy(self.settings.legacy_algorithms)

    def accept_legacy(self, accept: bool) -> None:
        """Say whether whoever comes from now on is offered the algorithms that only old clients need."""
        self.legacy = accept
        kinds = [kind.decode() for kind in self.private_keys]
        self.host_key_algorithms = tuple(name.encode() for name in algorithms.signatures(kinds, accept))

    def factory(self, door: str) -> DoorFactory:
        """The factory of one door: C{'ssh'} or C{'tls'}."""
        return DoorFactory(self, door)

    def close(self, reason: str) -> Deferred[None]:
        """
        Tell every device that the server ends, and close its connection.

        @return: a Deferred that fires when none is left.
        """
        if not self.lines:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._all_gone.append(gone)
        for line in list(self.lines):
            line.disconnect(reason)
        return gone

    def gone(self, line: ServerTransport) -> None:
        """A connection is no longer here."""
        self.lines.discard(line)
        if not self.lines:
            waiting, self._all_gone = self._all_gone, []
            for deferred in waiting:
                deferred.callback(None)
