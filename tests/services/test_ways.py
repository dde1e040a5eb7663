"""Which door and server a device comes through, and by what it knows them."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from rdvtwisted.adapters.uplink import Authority
from rdvtwisted.errors import ConnectionLost, FellSilent, KeyRejected, RDVError
from rdvtwisted.requests import Readiness
from rdvtwisted.services import ways as module
from rdvtwisted.services.device import DeviceSettings
from rdvtwisted.services.ladder import ACCOUNT, CONNECTION, MACHINE, SERVICE, Ladder
from rdvtwisted.services.ways import aloud, by_first, by_ladder, connect_with
from tests.services.neighbours import AUTHORITY, SITE, DeviceCase
from tests.services.test_onsite import OnsiteCase


class FirstTests(DeviceCase):
    """A master, whose operator waits."""

    def setUp(self) -> None:
        super().setUp()
        self.tried: list[str] = []
        self.errors: dict[str, Exception] = {}
        ways = evolve(self.equipment.settings, others=(("b", 22),)).ways()
        self.suspicion = self.equipment.suspicion
        self.connect = by_first(self.try_way, ways, self.suspicion)
        self.holes: list[str] = []

    async def try_way(self, way: DeviceSettings) -> Any:
        """One way."""
        self.tried.append(way.place)
        if way.place in self.errors:
            error = self.errors[way.place]
            self.suspicion.heed(error)
            raise error
        if way.place in self.holes and not self.suspicion.holds:
            error = FellSilent(way.place)
            self.suspicion.heed(error)
            raise error
        return way

    def outcome(self) -> Deferred[Any]:
        """Connect."""
        return Deferred.fromCoroutine(self.connect())  # type: ignore[arg-type]

    def test_first(self) -> None:
        """If the first way works, no other is tried."""
        self.successResultOf(self.outcome())
        self.assertEqual(self.tried, ["SSH to rdv.example.org:22"])

    def test_next(self) -> None:
        """If a way does not lead there, the next is tried at once."""
        self.errors = {place: ConnectionLost(place) for place in ("SSH to rdv.example.org:22", "SSH to b:22")}
        self.assertEqual(self.successResultOf(self.outcome()).place, "TLS to rdv.example.org:443")
        self.assertEqual(len(self.tried), 3)

    def test_none(self) -> None:
        """If none works, the operator reads what is wrong with the first, which is the one that was asked for."""
        places = ("SSH to rdv.example.org:22", "SSH to b:22", "TLS to rdv.example.org:443")
        self.errors = {place: ConnectionLost(place) for place in places}
        error = self.failureResultOf(self.outcome(), ConnectionLost)
        self.assertEqual(str(error.value), "SSH to rdv.example.org:22")

    def test_hole(self) -> None:
        """A way through which nothing has come is tried once more at once, and works if that was for large packets."""
        self.holes = ["SSH to rdv.example.org:22"]
        self.assertEqual(self.successResultOf(self.outcome()).place, "SSH to rdv.example.org:22")
        self.assertEqual(self.tried, ["SSH to rdv.example.org:22"] * 2)

    def test_silent(self) -> None:
        """A server that is silent anyhow is not waited for again and again: just once more, in all."""
        places = ("SSH to rdv.example.org:22", "SSH to b:22", "TLS to rdv.example.org:443")
        self.errors = {place: FellSilent(place) for place in places}
        self.failureResultOf(self.outcome(), FellSilent)
        self.assertEqual(self.tried, [places[0], *places])
        self.tried.clear()
        self.failureResultOf(self.outcome(), FellSilent)
        self.assertEqual(self.tried, list(places))

    def test_told(self) -> None:
        """The operator reads what is tried; when a session that was lost is sought again, not once more."""
        told: list[str] = []
        self.connect = by_first(
            aloud(self.try_way, told.append), self.equipment.settings.ways(), self.equipment.suspicion
        )
        self.errors = {"SSH to rdv.example.org:22": ConnectionLost("no route")}
        for _ in range(2):
            self.successResultOf(self.outcome())
        self.assertEqual(told, ["Connecting by SSH to rdv.example.org:22", "Connecting by TLS to rdv.example.org:443"])

    def test_refused(self) -> None:
        """A server that is there and says no is not gone round."""
        self.errors = {"SSH to rdv.example.org:22": KeyRejected("no")}
        self.failureResultOf(self.outcome(), KeyRejected)
        self.assertEqual(len(self.tried), 1)


class _Link:
    """A connection."""

    local_host = None

    def __init__(self) -> None:
        self.over: Deferred[RDVError] = Deferred()

    def gone(self) -> Deferred[RDVError]:
        return self.over


class AuthorityTests(DeviceCase):
    """By what authority the TLS door of each way is known."""

    def authority(self, way: DeviceSettings) -> Authority:
        """That of one way."""
        found: list[Authority] = []

        async def open_link(
            settings: DeviceSettings, who: Any, authority: Authority, reactor: Any, small: bool
        ) -> _Link:
            found.append(authority)
            return _Link()

        self.patch(module, "open_link", open_link)
        self.successResultOf(Deferred.fromCoroutine(connect_with(self.equipment)(way)))  # type: ignore[arg-type]
        return found[0]

    def test_own(self) -> None:
        """A way that the operator has chosen, and any by SSH, goes by the usual file."""
        ssh, _ = self.equipment.settings.ways()
        self.assertIs(self.authority(ssh), self.equipment.authority)
        self.change(tls=True, port=443)
        chosen, _ = self.equipment.settings.ways()
        self.assertEqual(chosen.place, "TLS to rdv.example.org:443")
        self.assertIs(self.authority(chosen), self.equipment.authority)

    def test_unproven(self) -> None:
        """Who was to come by SSH, and has not learnt the authority inside it, does not take the first for the right."""
        _, tls = self.equipment.settings.ways()
        self.assertIsNone(self.authority(tls).path)
        self.equipment.authority.accept(AUTHORITY)
        self.assertIs(self.authority(tls), self.equipment.authority)

    def test_other_server(self) -> None:
        """Another server has an authority of its own."""
        self.change(others=(("b", None),))
        path = self.authority(self.equipment.settings.ways()[1]).path
        self.assertEqual(path and path.name, "server-ca-b.pem")


class SegmentsTests(DeviceCase):
    """Whether the TCP segments of a connection are to be small ones."""

    def setUp(self) -> None:
        super().setUp()
        self.small: list[bool] = []
        self.link = _Link()
        self.error: RDVError | None = None

        async def open_link(
            settings: DeviceSettings, who: Any, authority: Authority, reactor: Any, small: bool
        ) -> _Link:
            self.small.append(small)
            if self.error is not None:
                raise self.error
            return self.link

        self.patch(module, "open_link", open_link)

    def connect(self) -> Deferred[Any]:
        """Make a connection."""
        return Deferred.fromCoroutine(connect_with(self.equipment)(self.equipment.settings))  # type: ignore[arg-type]

    def test_not_made(self) -> None:
        """The connection after one that has stood still before it was made is one with small segments."""
        self.error = FellSilent("the key exchange took longer than 30 s")
        self.failureResultOf(self.connect(), FellSilent)
        self.failureResultOf(self.connect(), FellSilent)
        self.assertEqual(self.small, [False, True])

    def test_lost(self) -> None:
        """So is the one after a connection that has been there, and has fallen silent."""
        self.successResultOf(self.connect())
        self.link.over.callback(FellSilent("nothing was heard of rdv.example.org for 60 s"))
        self.link = _Link()
        self.successResultOf(self.connect())
        self.assertEqual(self.small, [False, True])

    def test_usual(self) -> None:
        """A connection that is refused, or ends, says nothing about the path."""
        self.error = ConnectionLost("connection refused")
        self.failureResultOf(self.connect(), ConnectionLost)
        self.error = None
        self.successResultOf(self.connect())
        self.link.over.callback(ConnectionLost("the connection was lost"))
        self.link = _Link()
        self.successResultOf(self.connect())
        self.assertEqual(self.small, [False, False, False])


class _Ladder:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.failed = self.told.append

    def worked(self) -> None:
        self.told.append("worked")


class OnsiteTests(OnsiteCase):
    """An onsite tells its ladder how far it gets."""

    def setUp(self) -> None:
        super().setUp()
        self.ladder = _Ladder()
        self.service.ladder = self.ladder  # type: ignore[assignment]

    def test_connection(self) -> None:
        """There is no connection; then there is one, which breaks later."""
        self.fail_next(ConnectionLost("no route"), KeyRejected("unknown key"))
        self.start()
        self.pass_time(0.5)
        self.assertEqual(self.ladder.told, [CONNECTION, ACCOUNT])
        self.pass_time(1.0)
        self.here.answer(Readiness.NOT_READY)
        self.assertEqual(self.ladder.told[2:], ["worked"])
        self.here.lose(ConnectionLost("cut"))
        self.pump()
        self.assertEqual(self.ladder.told[3:], [SERVICE])

    def test_machine(self) -> None:
        """What is wrong with this machine is told apart."""
        site = self.network.site
        self.network.site = lambda: fail(ConnectionLost("netlink says nothing"))
        self.start()
        self.assertEqual(self.ladder.told, [MACHINE])
        self.network.site = site
        self.network.move(evolve(SITE, interface=None))
        self.pass_time(0.5)
        self.assertEqual(self.ladder.told[1:], [MACHINE])

    def test_way(self) -> None:
        """Each try goes by the way that the ladder says."""
        ladder, tried = Ladder(self.equipment.settings.ways(), Clock()), []

        async def connect(way: DeviceSettings) -> Any:
            tried.append(way.place)
            raise ConnectionLost("no route")

        go = by_ladder(connect, ladder)
        for _ in range(2):
            self.failureResultOf(Deferred.fromCoroutine(go()), ConnectionLost)  # type: ignore[arg-type]
            ladder._index = 1
        self.assertEqual(tried, ["SSH to rdv.example.org:22", "TLS to rdv.example.org:443"])
