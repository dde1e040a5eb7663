"""What devices ask of the server, and how they reach it: doors, desks, tickets, streams."""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IReception(Interface):
    """What the SSH door asks of the server: who may come in, and where they are received."""

    def admit(account, key):
        """
        Look up an account for a connection that tries to log in.

        Called before the client has proved that it holds C{key}: never has an effect.

        @type account: L{str}
        @type key: L{rdvtwisted.values.PublicKey}
        @return: the L{rdvtwisted.values.Device} if it is enabled and has that key, else L{None}.
        """

    def arrive(device, key, line):
        """
        A device has proved that it holds C{key}.

        @type line: L{ILine}
        @return: the device's L{IDesk}, good for as long as the connection lives.
        """

    def refused(door, address, account, reason):
        """Somebody was refused at a door: for the log and the audit trail."""


class IDesk(Interface):
    """Serves one connection of one device: takes its shells' requests."""

    device = Attribute("The L{rdvtwisted.values.Device}.")

    def perform(request):
        """
        Do what a shell asks.

        @param request: one of L{rdvtwisted.requests}.
        @return: a Deferred of the answer that the request's class names; it
            fails with an L{rdvtwisted.errors.RDVError}, whose text is for the
            device. A waiting request's Deferred may be cancelled.
        """

    def interrupt():
        """Let a waiting request answer now, as if its time were over."""

    def heard():
        """Something came from the device at this moment: it is alive."""

    def measured(round_trip):
        """A liveness probe was answered after so many seconds."""

    def forward(host, port):
        """
        The device opens a C{direct-tcpip} channel to C{host}:C{port}.

        @return: a Deferred of an C{IProtocol} to connect to the channel.
        @raise rdvtwisted.errors.RequestRefused: the registration does not own such a target.
        """

    def leave(reason):
        """The connection, or its shell, has ended: end the session and the registration. Idempotent."""


class ILine(Interface):
    """What the server may ask of a device's connection."""

    address = Attribute("Host and port from which the device came, as text.")
    door = Attribute("C{'ssh'} or C{'tls'}.")

    def probe():
        """It is to be doubted that the device is still there: ask it now, and close the connection if it is not."""

    def disconnect(reason):
        """Close the connection; C{reason} (text) is told to the device."""


class ITicketOffice(Interface):
    """What the TLS door asks when a tunnel stream comes in."""

    def redeem(ticket, key):
        """
        Use up a ticket.

        @type ticket: L{str}
        @param key: the L{rdvtwisted.values.PublicKey} that the stream's client proved to hold.
        @return: an L{ITunnelSeat} to put the stream in.
        @raise rdvtwisted.errors.TicketRefused: it is unknown, used, too old, or another device's.
        """


class ITunnelSeat(Interface):
    """The place of one device's tunnel stream in a session."""

    inside = Attribute(
        "False if the stream is to be bare, its outer TLS ended; True if it stays inside the TLS of the door."
    )

    def occupy(stream):
        """
        The stream is ready to carry.

        @type stream: L{ITunnelStream}
        """


class ITunnelStream(Interface):
    """
    One device's tunnel stream at the server, past its ticket.

    A bare one has a socket, that nobody reads before somebody uses its
    C{fileno()}: the relay, which cannot read what it moves, or a tunnel's end.
    One inside the TLS of the door has a transport.
    """

    address = Attribute("Host and port from which it came, as text.")

    def fileno():
        """
        @return: the descriptor of a bare stream's socket, non-blocking; who uses it must let go of it before the
            stream is aborted or closed. -1 once that has happened.
        """

    def deliver(protocol):
        """
        Connect an C{IProtocol} to a stream inside TLS; what has come in already is delivered first.

        @raise RuntimeError: the stream is a bare one.
        """

    def close():
        """Close it in order, once all that was written has left. Idempotent."""

    def abort():
        """Close it at once. Idempotent."""
