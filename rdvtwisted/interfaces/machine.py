"""What a device asks of the machine that it runs on: its network, its packets, its programs."""

from __future__ import annotations

from zope.interface import Attribute, Interface


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

    def restore(owner):
        """
        Put back what somebody else has taken away or changed of what is applied under C{plan.owner}.

        @return: a Deferred of a list of text lines, one for each thing put back; fails as L{amend} does, when
            something can't be.
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

    def watch(changed, everything=False):
        """
        Call C{changed()} soon after links or addresses of this machine have changed; once if several come together.

        @param everything: also after routes, rules, settings of interfaces and firewall tables have.
        @return: what to call to end that; calling it again is no error.
        @raise rdvtwisted.errors.NetworkError: it cannot be done.
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

    def start(arguments, files, stdin=None, environment=None):
        """
        Start a program in a directory of its own, which only its user can read and which goes when it has ended.

        @param arguments: its path and its arguments, text.
        @param files: text by file name; each is there, readable by its user alone, when the program starts.
        @param stdin: descriptor of its standard input, closed here afterwards; L{None} for an empty one.
        @param environment: variables that it gets besides those that every program gets.
        @return: an L{IProgram}.
        @raise rdvtwisted.errors.MissingProgram: it cannot be started.
        """


class IProgram(Interface):
    """A program that was started."""

    ended = Attribute(
        "A Deferred that fires exactly once, with a sentence such as C{'vtund ended with status 1'}, once it has"
        " ended, whoever ended it."
    )

    status = Attribute("Its exit status once it has ended; L{None} before, and if a signal has ended it.")

    def output():
        """
        @return: the end of what it has said on both of its outputs, a list of lines: printable, each of bounded length.
        """

    def end():
        """
        Ask it to end, and make sure that it does. Idempotent.

        @return: a Deferred that fires with L{None} when it has ended.
        """
