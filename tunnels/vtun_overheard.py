"""What who passes on the bytes of a stock vtund client's connection understands of them, without any I/O."""

from __future__ import annotations

import re
import struct

from rdvtwisted.errors import ProtocolError
from rdvtwisted.values import Mode
from tunnels.packets import printable
from tunnels.vtun_frames import ECHO_REPLY, HEADER, pack_header
from tunnels.vtun_handshake import MESSAGE

#: What the client says before its first packet: its session's name, its answer to the challenge, an echo request.
PREAMBLE = 2 * MESSAGE + HEADER
#: A packet that no kernel takes, since it is too short to be one. A server of our own sends nothing to a client's
#: interface that may not be up yet; any packet out of it shows that it is.
HERE = pack_header(1) + b"\0"

_WELCOME = (b"VTUN server", b"OK CHAL:", b"OK FLAGS:")
#: What a server of our own says of itself, in its greeting.
_OURS = b"rdvtwisted"
#: What of the flags that the server dictates says whether it has a TUN or a TAP device.
_FLAGS = re.compile(rb"OK FLAGS: <[^>ue]{0,16}([ue])")
_MODES = {b"u": Mode.L3, b"e": Mode.L2}
_HEADER = struct.Struct("!H")
_LENGTH = 0x0FFF
_SIGNALS = 0xF000


class Overheard:
    """
    The server's side of a connection, until packets flow.

    @ivar ours: the server is one of our own, whose interface is up before a client is let in.
    """

    def __init__(self, mode: Mode) -> None:
        """
        @param mode: what the tunnel should be.
        """
        self.ours = False
        self._mode = mode
        self._messages = 0
        self._begun = b""
        self._skip = 0

    def hear(self, data: bytes) -> bool:
        """
        The server's next bytes, cut anywhere.

        @return: the server has answered the client's echo request: both ends carry packets, nothing more is to be
            heard.
        @raise ProtocolError: it refuses the client, dictates another mode, or is no vtun server.
        """
        data = self._begun + data
        while self._messages < len(_WELCOME):
            if not data.startswith(_WELCOME[self._messages][: len(data)]):
                raise self._refusal(data)
            if len(data) < MESSAGE:
                self._begun = data
                return False
            self._understand(data[:MESSAGE])
            data = data[MESSAGE:]
        return self._find_answer(data)

    def _refusal(self, data: bytes) -> ProtocolError:
        if self._messages and data.startswith(b"ERR"[: len(data)]):
            return ProtocolError(
                "the server does not let the vtun client in: it knows another secret, or no such tunnel"
            )
        return ProtocolError(f"what answers at the server is no vtun server: it said {printable(data, 16)!r}")

    def _understand(self, message: bytes) -> None:
        if self._messages == 0:
            self.ours = _OURS in message
        elif self._messages == len(_WELCOME) - 1:
            flags = _FLAGS.match(message)
            dictated = None if flags is None else _MODES.get(flags[1])
            if dictated not in (None, self._mode):
                raise ProtocolError(
                    f"the server's tunnel is one of mode {dictated}, though it said {self._mode}: an old server tells"
                    " no onsite what a master wants, so use L3 there"
                )
        self._messages += 1

    def _find_answer(self, data: bytes) -> bool:
        start = self._skip
        while start + HEADER <= len(data):
            (header,) = _HEADER.unpack_from(data, start)
            if header == ECHO_REPLY:
                return True
            start += HEADER + (0 if header & _SIGNALS else header & _LENGTH)
        self._begun = data[start:]
        self._skip = max(0, start - len(data))
        return False
