"""The device end of a C{stunnel} tunnel: drives a stock stunnel4, which does the TLS to the server's door."""

from __future__ import annotations

import socket
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed

from rdvtwisted.errors import InvalidValue, MissingProgram, RDVError, TunnelFailed
from rdvtwisted.interfaces import IProgram, ITunnelSite
from rdvtwisted.values import TunnelReport
from tunnels.conversation import Conversation, explain
from tunnels.door import present
from tunnels.plain import PlainConnection
from tunnels.stream import StreamTunnel
from tunnels.stunnel import PROGRAMS
from tunnels.stunnel_report import complaint, encryption

#: The server's name by which its door knows a tunnel; stunnel 5.68 knows no ALPN.
DOOR_NAME = "rdv-tunnel"
#: Seconds until the server must have accepted the TCP connection: less than its answer to the
#: ticket may take, so that stunnel tells what was wrong.
CONNECT_LIMIT = 8
#: Seconds that stunnel waits for the server's close_notify.
CLOSE_LIMIT = 1
#: Bytes that may wait to be taken by stunnel: bounds how long a small packet waits behind large ones here.
UNSENT_LIMIT = 64 * 1024

CONFIGURATION_FILE = "stunnel.conf"
_AUTHORITY_FILE = "authority.pem"
_IDENTITY_FILE = "identity.pem"

#: Without a service of its own stunnel serves its standard input and output: here both are the same socket.
_ON_STDIN = 'exec "$0" "$@" >&0'

#: Ways to end that say nothing: by itself, and by this end.
_UNREMARKABLE = ("status 0", "SIGTERM")

_CONFIGURATION = """\
foreground = yes
syslog = no
debug = info
client = yes
connect = {host}:{port}
sni = {name}
sslVersionMin = TLSv1.3
verifyChain = yes
CAfile = {authority}
cert = {identity}
key = {identity}
socket = r:TCP_NODELAY=1
TIMEOUTconnect = {connect}
TIMEOUTclose = {close}
"""


def files(site: ITunnelSite) -> dict[str, str]:
    """
    What stunnel reads, text by file name.

    The authority signs nothing but the server, so that no name is compared.

    @raise InvalidValue: the address of the door, or the authority, is none.
    """
    host, port = site.door_address
    if not host or not host.isprintable() or any(letter.isspace() for letter in host):
        raise InvalidValue("server address", host, "use a DNS name or an IP address")
    try:
        authority = x509.load_der_x509_certificate(site.authority)
    except ValueError:
        raise InvalidValue("certificate authority", "", "it is not a DER certificate") from None
    identity = site.identity
    private = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    own = private + identity.certificate.public_bytes(Encoding.PEM)
    return {
        CONFIGURATION_FILE: _CONFIGURATION.format(
            host=host,
            port=port,
            name=DOOR_NAME,
            authority=_AUTHORITY_FILE,
            identity=_IDENTITY_FILE,
            connect=CONNECT_LIMIT,
            close=CLOSE_LIMIT,
        ),
        _AUTHORITY_FILE: authority.public_bytes(Encoding.PEM).decode("ascii"),
        _IDENTITY_FILE: own.decode("ascii"),
    }


class StunnelTunnel(StreamTunnel):
    """A tunnel whose frames a stock stunnel4 carries."""

    _socket: socket.socket | None = None
    _program: IProgram | None = None
    _plain: PlainConnection | None = None
    _blamed: RDVError | None = None
    #: The sentence that says how the program ended, once it has.
    _manner = ""

    async def connect(self) -> tuple[socket.socket, Any]:
        """Start stunnel and show the ticket through it; see L{StreamTunnel}."""
        site = self._site
        arguments = [self._find("sh"), "-c", _ON_STDIN, self._find(*PROGRAMS), CONFIGURATION_FILE]
        read = files(site)
        near, far = socket.socketpair()
        self._socket = near
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_LIMIT)
        self._program = program = site.programs.start(arguments, read, stdin=far.detach())
        program.ended.addCallback(self._ended)
        self._plain = plain = PlainConnection(near)
        connection: Any = plain
        try:
            await present(site.reactor, Conversation(site.reactor, near, connection), self._parameters.ticket)
        except SSL.Error as error:
            raise TunnelFailed(f"stunnel4 broke off: {explain(error)}") from None
        return near, connection

    def _find(self, *names: str) -> str:
        for name in names:
            path: str | None = self._site.programs.find(name)
            if path is not None:
                return path
        raise MissingProgram(f"{names[0]} is not installed: apt-get install {names[0]}")

    def _ended(self, sentence: str) -> None:
        # The sentence names the shell that stunnel was started by.
        self._manner = f"stunnel4 {sentence.partition(' ')[2]}"

    def hang_up(self, orderly: bool) -> Deferred[None]:
        """End stunnel; see L{StreamTunnel}. Nothing is left to be sent when the other end has hung up."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()
        return succeed(None) if self._program is None else self._program.end()

    async def blame(self, error: RDVError) -> RDVError:
        """What stunnel says, if it was stunnel that ended the tunnel; see L{StreamTunnel}."""
        program, plain = self._program, self._plain
        if error is self._blamed or program is None or plain is None or not plain.ended:
            return error
        gone: Deferred[None] = Deferred()
        program.ended.addCallback(lambda _: None if gone.called else gone.callback(None))
        program.end()
        await gone
        words = complaint(program.output())
        if words:
            error = TunnelFailed(f"the tunnel to {self._peer} broke, as stunnel4 says: {words}")
        elif not self._manner.endswith(_UNREMARKABLE):
            error = TunnelFailed(f"the tunnel to {self._peer} broke: {self._manner}")
        self._blamed = error
        return error

    def report(self) -> TunnelReport:
        """What is known now; see L{StreamTunnel}."""
        if self._program is not None and not self._report.cipher:
            self.describe(*encryption(self._program.output()))
        return super().report()
