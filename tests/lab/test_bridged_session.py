"""Bridged sessions of real devices: the PC is on the customer's LAN, and the onsite stays on it whatever happens."""

from __future__ import annotations

import os
import signal

from tests.lab.deployment import END_SECONDS, onsite_id
from tests.lab.scene import BACK_SECONDS, GUEST, SceneTestCase
from tests.lab.website import PAGE

ONSITE = onsite_id()

BRIDGED = ("--tunnel-mode", "L2")


class BridgedSessionTests(SceneTestCase):
    """Sessions in mode L2."""

    def test_on_the_lan(self) -> None:
        """
        The master alone says which mode; then the PC is a machine of the LAN, for the others and for the onsite, and
        the LAN's router is its way to the Internet.
        """
        onsite, router = self.lab.addresses["onsite"], str(self.lab.address("site-router", "br-lan"))
        with self.guest():
            self.assertFalse(self.reaches())
            with self.session(*BRIDGED) as record:
                self.assertEqual(record["mode"], "L2")
                up = [each for each in self.deployment.records(ONSITE) if each["event"] == "up"]
                self.assertEqual(up[-1]["mode"], "L2")
                for host, address in (
                    ("pc", self.web), ("pc", onsite), ("pc", router), ("web", GUEST), ("onsite", GUEST),
                    ("site-router", GUEST), ("onsite", self.web),
                ):  # fmt: skip
                    self.assertTrue(self.lab.pings(host, address), f"{host} to {address}")
                self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/").encode(), PAGE)
                self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/client").strip(), GUEST)
                self.assertEqual(len(self.lab.probe("pc", "get", f"http://{self.web}/bytes/10000000")), 10_000_000)
                server = self.lab.addresses["server"]
                self.lab.run("pc", ["ip", "route", "add", server, "via", router], check=True)
                self.assertTrue(self.lab.pings("pc", server))
                self.lab.run("pc", ["ip", "route", "del", server], check=True)
                self.assertFalse(self.lab.pings("master", self.web))
            self.assertFalse(self.reaches())

    def test_onsite_killed(self) -> None:
        """An onsite that is killed in a session stays on its LAN and the Internet, is swept, and has another one."""
        with self.guest():
            master = self.open(*BRIDGED)
            self.deployment.wait_session()
            self.assertTrue(self.reaches())
            onsite = self.deployment.onsites[1]
            onsite.send(signal.SIGKILL)
            self.assertEqual(onsite.wait(END_SECONDS), -signal.SIGKILL)
            for address in (self.web, self.lab.addresses["server"]):
                self.assertTrue(self.lab.pings("onsite", address))
            self.assertTrue(self.lab.pings("web", self.lab.addresses["onsite"]))
            self.assertIn(master.wait(END_SECONDS), (3, 4), master.output())
            self.scene.require_clean()
            self.deployment.start_onsite()
            self.eventually(self.scene.free, BACK_SECONDS, f"{ONSITE} to be free")
            with self.session(*BRIDGED):
                self.assertTrue(self.reaches())

    def test_master_killed(self) -> None:
        """A master that is killed in a session has its extremity back at once."""
        with self.guest():
            master = self.open(*BRIDGED)
            self.deployment.wait_session()
            self.assertTrue(self.reaches())
            master.send(signal.SIGKILL)
            self.assertEqual(master.wait(END_SECONDS), -signal.SIGKILL)
            self.eventually(self.scene.free, BACK_SECONDS, f"{ONSITE} to be free")
            self.scene.require_clean()
            self.assertFalse(self.reaches())
            # Once the PC asks anew for the address that did not answer before, which it does each second.
            gateway = str(self.lab.address("master", "eth1"))
            self.eventually(lambda: self.lab.pings("pc", gateway), BACK_SECONDS, f"{gateway} to answer")

    def test_modes_in_turn(self) -> None:
        """Each session has the mode that its master wants."""
        for options, mode in (((), "L3"), (BRIDGED, "L2"), ((), "L3")):
            with self.session(*options) as record:
                self.assertEqual(record["mode"], mode)
                self.assertEqual(self.reaches(), mode == "L3")

    def test_refused(self) -> None:
        """Neither the master's own uplink nor the interface of the operator's own terminal is taken."""
        process = self.open(*BRIDGED, "--extremity", "eth0")
        self.assertEqual(process.wait(END_SECONDS), 1)
        self.assertIn("this device's own way to the server leads through it: use L3", process.output())
        self.patch(os, "environ", {**os.environ, "SSH_CONNECTION": "192.168.38.226 50000 192.168.38.225 22"})
        process = self.deployment.start_command("-o", ONSITE, "-m", "L2", "-e", "eth1")
        self.assertEqual(process.wait(END_SECONDS), 1)
        self.assertIn("your own terminal comes through it (SSH from 192.168.38.226)", process.output())
