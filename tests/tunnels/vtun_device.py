"""A vtun client with packets in memory, and the port at which it finds a server's end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from rdvtwisted.errors import ConnectionLost, RequestRefused, TunnelFailed
from rdvtwisted.testing.tunnels import PLAIN
from tunnels.vtun_frames import CLOSE, ECHO_REPLY, ECHO_REQUEST, FrameReader, pack_header
from tunnels.vtun_handshake import MESSAGE, answer, letters, message

reactor: Any = global_reactor

_FROM_LETTERS = bytes.maketrans(b"abcdefghijklmnop", b"0123456789abcdef")


class Port(Factory):
    """A port of 127.0.0.1 that leads to a server's end, as a device's channel through its SSH connection does."""

    noisy = False

    def __init__(self, accept: Callable[[], Any]) -> None:
        self._accept = accept
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def number(self) -> int:
        """The number of the port."""
        return int(self._port.getHost().port)

    def buildProtocol(self, address: object) -> Any:
        """Somebody connects."""
        try:
            return self._accept()
        except RequestRefused:
            return None

    def close(self) -> Any:
        """Close the port."""
        return self._port.stopListening()


class VtunDevice(Protocol):
    """Speaks vtun as a stock client does, whose interface is up at once."""

    transport: Any

    def __init__(self, port: int, session: str, secret: str) -> None:
        """
        @param port: of 127.0.0.1.
        """
        self._port = port
        self._session = session
        self._secret = secret
        self._connected: Deferred[None] = Deferred()
        self._gone: Deferred[None] = Deferred()
        self._said = b""
        self._frames: FrameReader | None = None
        #: What has come, see L{rdvtwisted.testing.server_tunnels.Caller}.
        self.written: list[bytes] = []
        self._awaited: list[tuple[int, Deferred[list[bytes]]]] = []

    def connect(self) -> Deferred[None]:
        """Come; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        TCP4ClientEndpoint(reactor, "127.0.0.1", self._port).connect(factory).addErrback(self._connected.errback)
        return self._connected

    def inject(self, packet: bytes) -> None:
        """Send a packet; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        bare = packet[len(PLAIN) :]
        self.transport.write(pack_header(len(bare)) + bare)

    def when_written(self, count: int) -> Deferred[list[bytes]]:
        """Wait for packets; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        waiting: Deferred[list[bytes]] = Deferred()
        self._awaited.append((count, waiting))
        self._tell()
        return waiting

    def _tell(self) -> None:
        for count, waiting in self._awaited[:]:
            if count <= len(self.written):
                self._awaited.remove((count, waiting))
                waiting.callback(list(self.written))

    def leave(self) -> None:
        """Say goodbye; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        self.transport.write(pack_header(CLOSE))
        self.transport.loseConnection()

    def cut(self) -> None:
        """Hang up; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        if self.transport is not None:
            self.transport.abortConnection()

    def gone(self) -> Deferred[None]:
        """Wait for the end; see L{rdvtwisted.testing.server_tunnels.Caller}."""
        return self._gone

    def dataReceived(self, data: bytes) -> None:
        """The server said something."""
        if self._frames is None:
            self._said += data
            while len(self._said) >= MESSAGE and self._frames is None:
                text, self._said = self._said[:MESSAGE].rstrip(b"\0\n"), self._said[MESSAGE:]
                self._heard(text)
            data, self._said = (self._said, b"") if self._frames is not None else (b"", self._said)
        if self._frames is not None:
            packets: list[memoryview] = []
            signals = self._frames.feed(data, packets)
            self.written += [PLAIN + packet for packet in packets]
            self._tell()
            if signals & ECHO_REQUEST:
                self.transport.write(pack_header(ECHO_REPLY))
            if signals & CLOSE:
                self.transport.loseConnection()

    def _heard(self, text: bytes) -> None:
        if text.startswith(b"VTUN server"):
            self.transport.write(message(f"HOST: {self._session}"))
        elif text.startswith(b"OK CHAL: <"):
            challenge = bytes.fromhex(text[10:42].translate(_FROM_LETTERS).decode())
            self.transport.write(message(f"CHAL: {letters(answer(challenge, self._secret))}"))
        elif text.startswith(b"OK FLAGS: <T"):
            self._frames = FrameReader()
            self._connected.callback(None)
        else:
            self._connected.errback(TunnelFailed(f"the server said {text!r}"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if not self._connected.called:
            self._connected.errback(ConnectionLost("the server hung up"))
        self._gone.callback(None)
