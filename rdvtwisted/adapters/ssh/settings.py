"""Limits of SSH connections, each named for what it bounds."""

from __future__ import annotations

from attrs import frozen


@frozen
class LineSettings:
    """What holds for a connection at either end."""

    #: Seconds of silence after which the other end is asked whether it is there, and seconds it has to answer.
    keepalive_idle: float = 45.0
    keepalive_answer: float = 15.0
    #: Bytes, both directions together, and hours, after which new keys are exchanged. As a packet has at
    #: least 32 bytes, this bounds packets, too: far below 2**32, where sequence numbers begin to repeat.
    rekey_bytes: int = 1 << 30
    rekey_hours: float = 8.0
    #: Seconds that a key exchange may take.
    exchange_seconds: float = 30.0


@frozen
class ServerSettings(LineSettings):
    """What holds at the server's doors."""

    #: Seconds from accept to successful authentication.
    login_seconds: float = 30.0
    #: Failed requests after which a connection is closed.
    authentication_attempts: int = 6
    #: Connections that are not logged in: all together, and from one address.
    strangers: int = 256
    strangers_per_address: int = 8
    #: Channels that one connection may have at a time.
    session_channels: int = 4
    forward_channels: int = 16
    #: Connections that are logged in: of one account, whose oldest has to go then, and all together.
    connections_per_account: int = 8
    connections: int = 16384
    #: Requests a second that the shells of one connection may make in the long run, and in a row; those beyond wait.
    requests_per_second: float = 20.0
    requests_burst: int = 100
    #: Offer SHA-1 in key exchange, MAC and host key signature. SHA-1 signatures
    #: of users are accepted of accounts marked legacy only, whatever this says.
    legacy_algorithms: bool = False


@frozen
class ClientSettings(LineSettings):
    """What holds at a device; C{*_seconds} bound each stage of getting a connection."""

    #: The server asks first: if both asked after the same silence, each round of keepalives would be two.
    keepalive_idle: float = 50.0
    keepalive_answer: float = 10.0
    #: From nothing to a transport connection.
    connect_seconds: float = 20.0
    #: From asking for authentication to being let in.
    login_seconds: float = 20.0
    #: From asking for a channel or a shell to having it.
    open_seconds: float = 20.0

    @classmethod
    def noticing(cls, silence: float) -> ClientSettings:
        """The usual settings, but for this: so many seconds of silence, in whatever stage, and it is taken for gone."""
        answer, usual = silence / 6, cls()
        return cls(
            keepalive_idle=silence - answer,
            keepalive_answer=answer,
            connect_seconds=min(usual.connect_seconds, silence),
            login_seconds=min(usual.login_seconds, silence),
            open_seconds=min(usual.open_seconds, silence),
            exchange_seconds=min(usual.exchange_seconds, silence),
        )
