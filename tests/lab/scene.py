"""The scene of a session: server and devices run in a lab, and nothing happens until a test makes it happen."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import RDVError
from tests.lab import namespaces
from tests.lab.deployment import END_SECONDS, MASTER, SESSION_SECONDS, Deployment, onsite_id
from tests.lab.lab import Lab
from tests.lab.private import clear_abandoned
from tests.lab.processes import LabError, LabProcess, eventually, tail
from tests.lab.programs import PROGRAMS, obstacles
from tests.lab.topology import CUSTOMER_LAN

LOOKED_AT = ("server", "onsite", "onsite2", "master")
"""Whose network settings must always be as before."""

BACK_SECONDS = 10.0
"""How long it may take an onsite device to be listed again (design promise)."""

SITES = 2
"""Customers, with the same LAN; the second one's device runs only where a test starts it."""

GUEST = str(CUSTOMER_LAN[200])
"""The address that the PC takes in a customer's LAN, where it is bridged to it."""

_PREFIX = "rdvs"


class Scene:
    """
    A lab with two customers in which the server and the first onsite device
    run, made at first use and kept from test to test.

    @ivar lab: where it plays.
    @ivar deployment: who plays.
    """

    def __init__(self) -> None:
        clear_abandoned(_PREFIX)
        self.lab = Lab(f"{_PREFIX}{os.getpid()}", SITES)
        self.lab.up()
        try:
            self.lab.services()
            self.deployment = Deployment(self.lab)
            self.deployment.start_server()
            self.deployment.register(self.deployment.make_keys())
            self.deployment.start_onsite()
            self._before = {host: self.lab.snapshot(host) for host in LOOKED_AT}
        except BaseException:
            self.lab.down()
            raise

    # Who is here

    def online(self) -> dict[str, dict[str, object]]:
        """What the server says of each device that is here, by its id; nobody, if it does not run."""
        try:
            return {each["id"]: each for each in self.deployment.ask("online")}
        except RDVError:
            return {}

    def sessions(self) -> list[dict[str, object]]:
        """What the server says of each session that there is; none, if it does not run."""
        try:
            found: list[dict[str, object]] = self.deployment.ask("sessions")
        except RDVError:
            return []
        return found

    def free(self, site: int = 1) -> bool:
        """
        Whether the onsite device of a site is here, without a session, and knows it: a connection that has
        broken without a word may still be listed.
        """
        device = self.online().get(onsite_id(site))
        records = self.deployment.records(onsite_id(site))
        return device is not None and device["session"] is None and records[-1]["event"] == "online"

    # What is left

    def left(self, *hosts: str) -> list[str]:
        """What is there, or missing, on these hosts that was not when nothing had happened yet."""
        return [
            f"{host}: {change}"
            for host in hosts or LOOKED_AT
            for change in self._before[host].changes(self.lab.snapshot(host))
        ]

    def strangers(self, *only: str) -> list[str]:
        """Processes on these hosts, or on these only, that belong to none of the services."""
        known = [self.deployment.server, self.deployment.master, *self.deployment.onsites.values()]
        pids = {process.pid for process in known if process is not None}
        hosts = {number for number, host in namespaces.inodes(self.lab.prefix).items() if host in (only or LOOKED_AT)}
        return [
            f"process {each.pid}: {each.command}"
            for each in self.lab.members()
            if each.namespace in hosts and each.pid not in pids
        ]

    def require_clean(self, *hosts: str) -> None:
        """
        Nothing of a session is left, on these hosts or anywhere, in the time that its end may take.

        @raise LabError: with what is left.
        """
        found: list[str] = []

        def none() -> bool:
            found[:] = self.left(*hosts) + self.strangers(*hosts)
            return not found

        try:
            eventually(none, END_SECONDS, "everything to be as before")
        except LabError as error:
            raise LabError("\n".join((str(error), *found))) from None

    def require_rest(self) -> None:
        """Server and first onsite device run, that is free, and nothing of a session is left."""
        for process in (self.deployment.server, *self.deployment.onsites.values()):
            if process is None or process.poll() is not None:
                raise LabError("server and onsite device should run, and do not")
        if self.deployment.master is not None and self.deployment.master.poll() is None:
            raise LabError("a master is still at work")
        eventually(lambda: self.free() and not self.sessions(), BACK_SECONDS, f"{onsite_id()} to be free")
        self.require_clean()


class _Kept:
    """The scene of this process, if there is one."""

    scene: Scene | None = None

    @classmethod
    def take(cls) -> Scene:
        if cls.scene is None:
            cls.scene = Scene()
        return cls.scene

    @classmethod
    def drop(cls) -> None:
        scene, cls.scene = cls.scene, None
        if scene is not None:
            scene.lab.down()


atexit.register(_Kept.drop)


class SceneTestCase(SynchronousTestCase):
    """A test that finds a scene at rest, and must leave it at rest."""

    skip = obstacles([*PROGRAMS, "ping"])

    scene: Scene

    def setUp(self) -> None:
        """Take the scene that the test before has left, or a new one."""
        self.scene = _Kept.take()
        self.lab, self.deployment = self.scene.lab, self.scene.deployment
        self.web = self.lab.addresses["web"]
        self.addCleanup(self._leave)

    def _leave(self) -> None:
        try:
            self.scene.require_rest()
        except (LabError, RDVError, OSError):
            self._tell()
            _Kept.drop()
            raise

    def _tell(self) -> None:
        """Show the end of what each service has said: the logs go with the scene."""
        for host, log in self.deployment.logs():
            sys.stderr.write(f"\n{self.id()}: {host}, the end of its log:\n{tail(log, 40)}\n")

    # Acts

    @contextmanager
    def session(self, *options: str, site: int = 1) -> Iterator[dict[str, object]]:
        """A session that is up for both devices, until the operator ends it; the master's record of it."""
        self.open(*options, site=site)
        try:
            record = self.deployment.wait_session()
            onsite = self.deployment.onsites[site]
            self.deployment.wait_record(onsite, onsite_id(site), "up", SESSION_SECONDS, after=self._seen)
            yield record
        except BaseException:
            self._tell()
            raise
        finally:
            status = self.deployment.end_session()
        self.assertEqual(status, 0)
        self.require_over("operator", site=site)

    @contextmanager
    def guest(self) -> Iterator[None]:
        """The PC has an address of the customer's LAN."""
        address = f"{GUEST}/{CUSTOMER_LAN.prefixlen}"
        self.lab.run("pc", ["ip", "address", "add", address, "dev", "eth0"], check=True)
        try:
            yield
        finally:
            self.lab.run("pc", ["ip", "address", "del", address, "dev", "eth0"], check=True)

    def open(self, *options: str, site: int = 1) -> LabProcess:
        """Have the master open a session; does not wait for it."""
        self._seen = len(self.deployment.records(onsite_id(site)))
        return self.deployment.start_master(site=site, options=options)

    def ended(self, id: str, within: float = END_SECONDS) -> dict[str, object]:
        """The record of how the session that was opened last has ended for a device."""
        process = self.deployment.master if id == MASTER else self.deployment.onsites[1 if id == onsite_id() else 2]
        assert process is not None
        found: list[dict[str, object]] = []

        def look() -> bool:
            seen = 0 if id == MASTER else self._seen
            found[:] = [record for record in self.deployment.records(id)[seen:] if record["event"] == "ended"]
            return bool(found)

        eventually(look, within, f"waiting for {id} to report the end of the session")
        return found[-1]

    def require_over(self, reason: str, onsite_reason: str | None = None, site: int = 1) -> None:
        """Both devices know why the session is over, and the onsite is free for another."""
        self.assertEqual(self.ended(MASTER)["reason"], reason)
        self.assertEqual(self.ended(onsite_id(site))["reason"], onsite_reason or reason)
        eventually(lambda: self.scene.free(site), BACK_SECONDS, f"{onsite_id(site)} to be free")

    def eventually(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """As L{eventually}, and shows the logs if it does not come true."""
        try:
            eventually(condition, timeout, what)
        except LabError:
            self._tell()
            raise

    def reaches(self) -> bool:
        """Whether the engineer's PC gets an answer of the customer's web server."""
        return self.lab.pings("pc", self.web)
