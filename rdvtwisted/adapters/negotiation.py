"""
What a TLS peer may negotiate once its connection is made: little, as OpenSSL grants all that it is asked for.

It answers each request for new keys (KeyUpdate, RFC 8446, section 4.6.3), and for a peer that asks and does not read
the answers wait in memory. No flow control knows of them: they are no data of anybody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from OpenSSL import SSL

#: Steps that a connection may take in a row beyond its handshake; one more is granted for so many seconds. New keys
#: that are asked for and answered are two, and TLS needs them once in 2^24 records (RFC 8446, section 5.5).
SPARE_STEPS = 200
STEP_SECONDS = 5.0


class MeasuredConnection(SSL.Connection):
    """
    One end of one TLS connection, in memory, that tells when its peer negotiates without end.

    This costs nothing but while there is something to negotiate.

    @ivar on_excess: called once when it does; in the middle of OpenSSL's work, so that this connection may not be
        used in there.
    """

    def __init__(self, context: SSL.Context, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        @param context: one that L{measure} was told of; or whose info callback calls L{observe}.
        @param seconds: the time, by a clock that nobody sets.
        """
        super().__init__(context, None)
        self.on_excess: Callable[[], None] | None = None
        self._seconds = seconds
        self._made_at: float | None = None
        self._steps = 0

    def observe(self, where: int) -> None:
        """OpenSSL has come so far: SSL_CTX_set_info_callback(3)."""
        if self._made_at is None:
            if where & SSL.SSL_CB_HANDSHAKE_DONE:
                self._made_at = self._seconds()
            return
        if not where & SSL.SSL_CB_EXIT:
            return
        self._steps += 1
        if self._steps > SPARE_STEPS + (self._seconds() - self._made_at) / STEP_SECONDS:
            excess, self.on_excess = self.on_excess, None
            if excess is not None:
                excess()


def measure(context: SSL.Context) -> None:
    """Have all connections of this context, each a L{MeasuredConnection}, observe how far they come."""
    context.set_info_callback(_observe)


def _observe(connection: SSL.Connection, where: int, _code: int) -> None:
    cast(MeasuredConnection, connection).observe(where)
