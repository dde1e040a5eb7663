"""What is kept: devices and access rules, events, the audit trail."""

from __future__ import annotations

from zope.interface import Attribute, Interface


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
    loss = Attribute("What was recorded and then taken away under this process, text; empty if nothing was seen to be.")

    def look():
        """See whether all that was recorded is still there; L{loss} tells, and an entry. It must not raise."""

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
