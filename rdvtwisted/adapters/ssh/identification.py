"""The line by which each end says that it speaks SSH (RFC 4253, section 4.2)."""

from __future__ import annotations

from rdvtwisted.errors import ProtocolError

OURS = b"SSH-2.0-rdvtwisted"
#: Bytes of the longest identification, and of all other lines that a server may say before it.
LONGEST = 255
LONGEST_PREAMBLE = 8192
#: SSH 2, and servers that speak version 1 as well.
_VERSIONS = (b"2.0", b"1.99")


def take(inbox: bytearray, from_server: bool) -> bytes | None:
    """
    Take the peer's identification out of C{inbox}, with what stands before it.

    @param from_server: whether other lines may come first; a client must not say any.
    @return: the line without its end, or L{None} if it is not complete yet.
    @raise ProtocolError: the peer does not speak SSH 2.
    """
    begin = 0
    while (end := inbox.find(b"\n", begin)) >= 0:
        if inbox.startswith(b"SSH-", begin) or not from_server:
            line = bytes(inbox[begin:end]).rstrip(b"\r")
            _check(line)
            del inbox[: end + 1]
            return line
        begin = end + 1
        if begin > LONGEST_PREAMBLE:
            raise ProtocolError("it talks too long before it says that it speaks SSH")
    if len(inbox) - begin > LONGEST:
        raise ProtocolError("it does not speak SSH")
    return None


def _check(line: bytes) -> None:
    words = line.split(b"-", 2)
    if words[0] != b"SSH" or len(words) < 3 or len(line) > LONGEST:
        raise ProtocolError("it does not speak SSH")
    if words[1] not in _VERSIONS:
        raise ProtocolError("it speaks another version of SSH than 2")
