"""What a tunnel backend is, for whoever writes one, and the devices' ends of tunnels."""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface


class ITunnelBackend(IPlugin):
    """A way to carry a device's packets; found as a plugin of Twisted, an instance in C{twisted/plugins}."""

    name = Attribute("Short name, as on command lines: C{[a-z0-9-]+}.")
    summary = Attribute("One sentence for lists.")
    needs = Attribute("What a device must have to use it, a tuple of texts for lists; L{missing} says what it lacks.")
    modes = Attribute("A frozenset of the L{rdvtwisted.values.Mode} it can carry.")
    relay = Attribute(
        "True if two devices that use it are joined blindly, each of which proves its key to the other; False if the"
        " server must end it."
    )
    glue = Attribute("True if the server can end it, see L{server_end}.")
    inside = Attribute("True if its streams stay inside the TLS of the server's door, see L{ITunnelSeat}.")
    mtu = Attribute("MTU that the tunnel interface gets, in bytes.")

    def missing():
        """
        @return: a list of L{rdvtwisted.values.Missing}: what the device end
            needs and this machine lacks; empty when it can be used.
        """

    def device_end(parameters, site):
        """
        @type parameters: L{rdvtwisted.values.TunnelParameters}
        @type site: L{ITunnelSite}
        @return: an L{IDeviceTunnel}, not yet started.
        """

    def server_end(terms, site):
        """
        The server's end of one device's tunnel; of a backend that has one.

        @type terms: L{rdvtwisted.values.TunnelTerms}
        @type site: L{IServerSite}
        @return: an L{IServerTunnel}, not yet started.
        @raise rdvtwisted.errors.RDVError: this server lacks what it needs.
        """


class ITunnelSite(Interface):
    """What a tunnel backend gets from the device it runs on."""

    device = Attribute("The device's own id.")
    role = Attribute("The device's own L{rdvtwisted.values.Role}.")
    reactor = Attribute("IReactorTime, IReactorTCP, IReactorFDSet.")
    network = Attribute("The L{INetwork}.")
    interface = Attribute("The name that the tunnel interface is to have.")
    identity = Attribute(
        "The device's private key and its self-signed certificate: has C{key} and C{certificate}, both"
        " C{cryptography} objects, and C{public}, a L{rdvtwisted.values.PublicKey}."
    )
    door = Attribute("An C{IStreamClientEndpoint} for the server's TLS door, plain TCP.")
    door_address = Attribute("Host and port of that door, a pair, for programs that connect there themselves.")
    authority = Attribute("The server's certificate authority, DER; its TLS certificate must be signed by it.")
    programs = Attribute("The L{IPrograms} of this machine.")
    owner = Attribute("The name under which L{INetwork.make_interface} journals what the tunnel makes.")

    def forward(port):
        """
        @return: an C{IStreamClientEndpoint} for a TCP port of 127.0.0.1 at the
            server, through the device's SSH connection.
        """


class IDeviceTunnel(Interface):
    """One device's tunnel of one session. Started once, closed once."""

    closed = Attribute(
        "A Deferred that fires exactly once, when the tunnel is over and holds nothing any more: with"
        " L{None} after L{close} or an orderly goodbye of the other end, else it fails with the"
        " L{rdvtwisted.errors.RDVError} that ended it."
    )

    def attach():
        """
        Make the network interface, carrying nothing yet; the device then
        gives it addresses and routes.

        @return: a Deferred of the interface's name.
        """

    def carry():
        """
        Connect to the other end, make sure that it is who it should be, and carry packets.

        @return: a Deferred of a L{rdvtwisted.values.TunnelReport} once packets
            flow; fails with an L{rdvtwisted.errors.RDVError}. In a relayed
            session C{proved} of the report is the key C{parameters.peer_key},
            which the other device has proved to hold in this very tunnel:
            without that the device ends the session.
        """

    def report():
        """
        @return: the L{rdvtwisted.values.TunnelReport} of this moment.
        """

    def close():
        """
        Say goodbye, close everything, remove the interface. Idempotent, also before L{attach}.

        @return: a Deferred that fires with L{None} when all is gone.
        """
