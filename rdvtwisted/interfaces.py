"""
The seams: what each room may ask of another.

Methods that return a Deferred say what it fires with. Nothing here imports
more than the vocabulary, so that each room, and a third party's tunnel
backend, needs only this page.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

# ---------------------------------------------------------------- the server


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


class IInventory(Interface):
    """The devices, their roles and keys, and who has access to whom. Synchronous: reads come from memory."""

    def device(id):
        """
        @return: the L{rdvtwisted.values.Device}, or L{None}.
        """

    def devices():
        """
        @return: a list of all L{rdvtwisted.values.Device}, by id.
        """

    def add(device):
        """
        @raise rdvtwisted.errors.InvalidValue: the id is taken, or a key is another device's.
        """

    def replace(device):
        """
        Store C{device} in place of the one with its id.

        @raise rdvtwisted.errors.InvalidValue: there is none, or a key is another device's.
        """

    def remove(id):
        """
        Forget a device, the access rules that name it, and its membership of groups.

        @raise rdvtwisted.errors.InvalidValue: there is none.
        """

    def policy():
        """
        @return: the L{rdvtwisted.access.Policy}; the same object as long as nothing in it is changed.
        """

    def replace_policy(policy):
        """
        Store C{policy} in place of the one that is there, all of it or nothing.

        @raise rdvtwisted.errors.InvalidValue: it names a device that is not there, and that the former did not name.
        """


class IEventSink(Interface):
    """Takes L{rdvtwisted.events}; must not raise."""

    def emit(event):
        """Take note of C{event}."""


class IAuditTrail(Interface):
    """The append-only record of who did what."""

    trouble = Attribute("Why nothing can be recorded at this moment, text; empty if all is well.")

    def record(deed):
        """
        Add an entry. It must not raise: what cannot be written now is kept, as far as there is room, and written
        later, with an entry that tells the gap.

        @type deed: L{rdvtwisted.audit.Deed}
        """

    def head():
        """
        @return: the L{rdvtwisted.audit.Mark} of the last entry, or L{None}.
        """

    def lines():
        """
        @return: an iterator of all entries' lines, L{bytes}, the oldest first.
        """


# --------------------------------------------------------------- the devices


class INetwork(Interface):
    """The network configuration of this machine; every call off the reactor's thread."""

    def apply(plan):
        """
        Carry out a plan, all of it or nothing. It is journalled first, so that
        a later L{sweep} can undo it whatever becomes of this process.

        @type plan: L{rdvtwisted.plan.Plan}
        @return: a Deferred that fires with L{None}; fails with
            L{rdvtwisted.errors.NetworkError} or L{rdvtwisted.errors.MissingPrivilege}.
        """

    def amend(plan):
        """
        Give the firewall tables of the plan that is applied under C{plan.owner} other rules, each in one step.

        @param plan: one that differs from the applied one in nothing but rules of firewall tables.
        @return: a Deferred that fires with L{None}; fails with
            L{rdvtwisted.errors.NetworkError} (what is applied is another plan, or the kernel refuses; the rules are
            as before then) or L{rdvtwisted.errors.MissingPrivilege}.
        """

    def undo(owner):
        """
        Undo what was applied under C{plan.owner}; what is gone already is no error.

        @return: a Deferred that fires with L{None}.
        """

    def sweep(owner):
        """
        Undo what an earlier process left behind under C{owner}, and under every
        name that begins with C{owner} and a dot.

        @return: a Deferred of a list of text lines, one for each thing removed.
        """

    def site():
        """
        What this machine is attached to.

        @return: a Deferred of a L{rdvtwisted.plan.Site}.
        """

    def make_interface(owner, name, mode):
        """
        Make a TUN (L3) or TAP (L2) interface of this name that another program
        is to open. It is journalled under C{owner}: L{undo} removes it, and L{sweep} does after a SIGKILL.

        @return: a Deferred that fires with L{None}; fails as L{apply} does.
        """

    def packet_device(name, mode):
        """
        Open a TUN (L3) or TAP (L2) device of this name, with
        IFF_NO_PI | IFF_VNET_HDR. It vanishes when it is closed or the process ends.

        @return: a Deferred of an L{IPacketDevice}.
        """


class IPacketDevice(Interface):
    """
    An open TUN or TAP device, non-blocking.

    A packet comes and goes with its C{struct virtio_net_hdr} (10 bytes,
    linux/virtio_net.h) in front.
    """

    name = Attribute("Name of the network interface.")

    def fileno():
        """The descriptor, to wait on."""

    def read_into(buffer):
        """
        Read one packet into a writable buffer of at least 65,600 bytes.

        @return: its length, or 0 when there is none now.
        @raise OSError: the device is gone.
        """

    def write(packet):
        """
        Hand one packet to the kernel.

        @return: L{True} if the kernel took it; L{False} if it dropped or refused it.
        @raise OSError: the device is gone.
        """

    def supported():
        """
        @return: the L{rdvtwisted.values.Offloads} that this kernel knows; all of
            them may be written at any time.
        """

    def set_offloads(offloads):
        """Say which large packets may be read from now on. Initially none."""

    def close():
        """Close it; the interface vanishes. Idempotent."""


class IPrograms(Interface):
    """Stock programs of this machine, which end with this process, however that ends."""

    def find(name):
        """
        @return: the absolute path of a program, looked for in C{PATH} and in the directories of the
            administrator's programs; L{None} if it is not installed.
        """

    def start(arguments, files, stdin=None):
        """
        Start a program in a directory of its own, which only its user can read and which goes when it has ended.

        @param arguments: its path and its arguments, text.
        @param files: text by file name; each is there, readable by its user alone, when the program starts.
        @param stdin: descriptor of its standard input, closed here afterwards; L{None} for an empty one.
        @return: an L{IProgram}.
        @raise rdvtwisted.errors.MissingProgram: it cannot be started.
        """


class IProgram(Interface):
    """A program that was started."""

    ended = Attribute(
        "A Deferred that fires exactly once, with a sentence such as C{'vtund ended with status 1'}, once it has"
        " ended, whoever ended it."
    )

    def output():
        """
        @return: the end of what it has said on both of its outputs, a list of lines: printable, each of bounded length.
        """

    def end():
        """
        Ask it to end, and make sure that it does. Idempotent.

        @return: a Deferred that fires with L{None} when it has ended.
        """


class ITunnelBackend(IPlugin):
    """A way to carry a device's packets; found as a plugin of Twisted, an instance in C{twisted/plugins}."""

    name = Attribute("Short name, as on command lines: C{[a-z0-9-]+}.")
    summary = Attribute("One sentence for lists.")
    modes = Attribute("A frozenset of the L{rdvtwisted.values.Mode} it can carry.")
    relay = Attribute("True if two devices that use it are joined blindly; False if the server must end it.")
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
            flow; fails with an L{rdvtwisted.errors.RDVError}.
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
