"""How the server joins two tunnels: blindly, or by ending both."""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IRelay(Interface):
    """Joins two tunnel streams blindly."""

    def join(to_onsite, to_master):
        """
        Move bytes between two streams until one ends.

        @param to_onsite: the L{ITunnelStream} of the onsite.
        @param to_master: the L{ITunnelStream} of the master.
        @return: an L{IJoin}.
        """


class IJoin(Interface):
    """Two tunnels joined."""

    ended = Attribute("A Deferred that fires with L{None} once the join is over, whoever ended it.")

    def traffic():
        """
        @return: bytes carried so far, as a pair: towards the onsite, towards the master.
        """

    def stop():
        """End it and close both streams. Idempotent."""


class IGlue(Interface):
    """
    Joins two tunnels that end at the server: makes the network namespace of a
    session, with one packet device for each tunnel. Nothing outlives its process.
    """

    ended = Attribute(
        "A Deferred that fires with L{None} once it can open no more, whoever ended it. Sessions that are open"
        " then work on until their packet devices are closed."
    )

    def open(spec):
        """
        Make the namespace of a session. Its interfaces are up when the Deferred
        fires, so that the first packet written is taken.

        The devices are the caller's, to be closed by it. Without C{spec.headers}
        packets come and go bare, and C{supported()} is nothing. Cancelled: as if it had not been asked.

        @type spec: L{rdvtwisted.glue.GlueSpec}
        @return: a Deferred of two L{IPacketDevice}: the onsite's, the master's; fails with
            L{rdvtwisted.errors.NetworkError} (the session is open already, too many are, or the kernel
            refuses), L{rdvtwisted.errors.MissingPrivilege} or L{rdvtwisted.errors.MissingProgram}.
        """

    def confine(session, scope):
        """
        Let the packets of a routed session go where C{scope} says, and nowhere else, from one moment to the next;
        also those of connections that are open.

        @type scope: L{rdvtwisted.scope.Scope}
        @return: a Deferred that fires with L{None}; fails with
            L{rdvtwisted.errors.NetworkError} (there is no such session, it is a bridged one, or the kernel refuses).
        """

    def close(session):
        """
        Remove the namespace of a session with all that is in it: its packet
        devices are gone, and are still to be closed. That is quick then; to
        close one that is there has the caller wait for the kernel. None is no error.

        @param session: its id.
        @return: a Deferred that fires with L{None} when it is gone.
        """


class IServerTunnel(Interface):
    """
    One device's tunnel that ends at the server. Started once, closed once.

    The device's connection may come before L{start} or after it, and the
    device is let in when both have happened. Whoever cannot prove to be the
    device is refused without effect on it, and so is a second connection.
    """

    secret = Attribute("What the device shows to be let in, text; empty if the ticket of its stream is enough.")

    opened = Attribute(
        "A Deferred that fires with L{None} once the device is let in and packets flow; it never fires if the"
        " tunnel is over before."
    )

    closed = Attribute(
        "A Deferred that fires exactly once, when the tunnel is over and holds nothing any more: with"
        " L{None} after L{close} or an orderly goodbye of the device, else it fails with the"
        " L{rdvtwisted.errors.RDVError} that ended it."
    )

    def start(device):
        """
        The L{IPacketDevice} of the session's namespace is there, and its
        interface up; it belongs to the tunnel from now on, which closes it.
        Packets have their C{struct virtio_net_hdr} in front. After L{close} it is closed at once.
        """

    def accept():
        """
        The device opens a connection to the tunnel's port, inside its SSH connection.

        @return: an C{IProtocol} to be connected to it.
        @raise rdvtwisted.errors.RequestRefused: such connections are not for this kind of tunnel, or too many are
            here already.
        """

    def occupy(stream):
        """
        The device's L{ITunnelStream} is here; it belongs to the tunnel from
        now on. One that is not for this kind of tunnel, or comes too late, is aborted.
        """

    def traffic():
        """
        @return: bytes of packets so far, as a pair: from the device, to the device.
        """

    def close():
        """
        Say goodbye and close everything. Idempotent.

        @return: a Deferred that fires with L{None} when all is gone.
        """


class IServerSite(Interface):
    """What the server's end of a tunnel gets from the server it runs on."""

    reactor = Attribute("IReactorTime, IReactorFDSet.")
    identity = Attribute(
        "The server's key and self-signed certificate for tunnels: has C{key} and C{certificate}, both"
        " C{cryptography} objects, and C{public}, a L{rdvtwisted.values.PublicKey}."
    )
