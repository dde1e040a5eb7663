"""Whether the other end of a connection has gone before its turn came: then nothing need be computed for it."""

from __future__ import annotations

import select

#: What the kernel tells of a connection whose other end has closed or reset it, whatever of it is still to be read
#: (poll(2)).
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


def departed(transport: object) -> bool:
    """
    Whether the other end of a TCP connection, or of TLS over one, sends no more.

    Its last bytes may not have been read yet. Nobody closes only one direction
    while the keys are exchanged, so nobody waits for an answer any more. One
    system call; of a transport without a socket it is not known, hence False.
    """
    under = getattr(transport, "transport", None) or transport
    fileno = getattr(under, "fileno", None)
    descriptor = -1 if fileno is None else fileno()
    if descriptor < 0:
        return False
    poller = select.poll()
    poller.register(descriptor, select.POLLRDHUP)
    return any(events & _GONE for _, events in poller.poll(0))
