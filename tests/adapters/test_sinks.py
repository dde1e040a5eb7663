"""One event, several sinks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rdvtwisted.adapters.sinks import Sinks
from rdvtwisted.events import DeviceLeft, Event
from rdvtwisted.interfaces import IEventSink
from rdvtwisted.values import Role


@implementer(IEventSink)
class _Sink:
    """Remembers events, or fails at them."""

    def __init__(self, fails: bool = False) -> None:
        self.events: list[Event] = []
        self.fails = fails

    def emit(self, event: Event) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.events.append(event)


class SinksTests(SynchronousTestCase):
    """All sinks get all events."""

    def test_provides(self) -> None:
        """It takes events, as each of its sinks does."""
        verifyObject(IEventSink, Sinks((_Sink(),)))

    def test_all(self) -> None:
        """A sink that fails keeps nothing from the others, nor from whoever emits; its failure is logged."""
        first, last = _Sink(), _Sink()
        event = DeviceLeft("rpi1100", Role.ONSITE, "goodbye")
        Sinks((first, _Sink(fails=True), last)).emit(event)
        self.assertEqual((first.events, last.events), ([event], [event]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
