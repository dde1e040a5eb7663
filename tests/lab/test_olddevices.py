"""Old devices, which nobody can change any more, on the product's server, among themselves and with new devices."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.deployment import DOORS, END_SECONDS, MASTER, START_SECONDS, Deployment, onsite_id
from tests.lab.oldworld import END_SECONDS as SCRIPT_SECONDS
from tests.lab.oldworld import OldDevice, start_stunnel
from tests.lab.private import built_for
from tests.lab.processes import eventually, tail
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles
from tests.lab.scene import BACK_SECONDS, Scene, SceneTestCase
from tests.lab.test_oldworld import FORWARDING, MASTER_CONVERSATION, ONSITE_CONVERSATION, PARAMETERS, conversation
from tests.lab.topology import CUSTOMER_LAN

OLD_ONSITE, OLD_MASTER, ONSITE = "rpi1200", "rpi1201", onsite_id()

UP_SECONDS = 30.0
"""How long an old script may take until its tunnel works: it types slowly, and its limits are generous."""

LOST_SECONDS = 20.0
"""How long it may take until a connection that has gone silent in a session is given up (design promise: 15)."""

GUEST = f"{CUSTOMER_LAN[200]}/{CUSTOMER_LAN.prefixlen}"
"""The address that the PC takes on a customer's LAN."""

_known: WeakKeyDictionary[Scene, tuple[OldDevice, OldDevice]] = WeakKeyDictionary()
"""The old devices of each scene: it takes seconds to register them."""


def _devices(scene: Scene) -> tuple[OldDevice, OldDevice]:
    """The old devices: an onsite at the second customer's, and a master on the same machine as the new one."""
    if scene not in _known:
        onsite = OldDevice(scene.lab, OLD_ONSITE, "onsite", "onsite2")
        master = OldDevice(scene.lab, OLD_MASTER, "master", "master")
        for device in (onsite, master):
            scene.deployment.rdvctl("device", "add", device.id, "--role", device.role, "--key", device.key)
        _known[scene] = onsite, master
    return _known[scene]


class OldDevicesTestCase(SceneTestCase):
    """A scene in which old devices may play."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    def setUp(self) -> None:
        """Know the old devices, and have them gone in the end."""
        super().setUp()
        self.old_onsite, self.old_master = _devices(self.scene)
        for device in (self.old_onsite, self.old_master):
            self.addCleanup(device.stop)

    def _tell(self) -> None:
        super()._tell()
        for device in (self.old_onsite, self.old_master):
            if device.process is not None:
                sys.stderr.write(f"\n{self.id()}: {device.id}, the end of its log:\n{tail(device.process.log, 80)}\n")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Show the logs if anything goes wrong."""
        try:
            yield
        except BaseException:
            self._tell()
            raise

    def start_onsite(self, *options: str, stunnel: bool = False, term: str = "xterm", forever: bool = False) -> None:
        """The old onsite is here and waits."""
        self.old_onsite.start(*options, stunnel=stunnel, term=term, forever=forever)
        self.old_onsite.wait_record("online")
        eventually(self.listed, END_SECONDS, "the old onsite to be listed")

    def listed(self) -> bool:
        """Whether the old onsite is here, and free."""
        device = self.scene.online().get(OLD_ONSITE)
        return device is not None and device["session"] is None

    def require_up(self, mode: str = "L3") -> None:
        """Both old devices have a session."""
        self.assertEqual(self.old_master.wait_record("up", UP_SECONDS)["mode"], mode)
        self.assertEqual(self.old_onsite.wait_record("up", UP_SECONDS)["mode"], mode)
        [session] = self.scene.sessions()
        self.assertEqual((session["master"], session["onsite"]), (OLD_MASTER, OLD_ONSITE))
        self.assertEqual((session["mode"], session["join"]), (mode, "glue"))

    def require_back(self) -> None:
        """The old onsite's next run waits for a master; until its last one has ended, it seems to do so, too."""
        self.old_onsite.wait_record("online")
        eventually(self.listed, END_SECONDS, "the old onsite to be listed")

    def require_ended(self, device: OldDevice, reason: str) -> None:
        """Its script ends in order, for this reason."""
        self.assertEqual(device.wait_record("ended", SCRIPT_SECONDS)["reason"], reason)

    def require_freed(self) -> None:
        """Soon nothing is left of the session on the server, and nobody is in one."""
        eventually(lambda: not self.scene.sessions(), END_SECONDS, "the session to be over")
        eventually(lambda: not self.scene.left("server"), END_SECONDS, "the server's network to be as before")
        self.assertEqual([id for id, each in self.scene.online().items() if each["session"]], [])

    def page(self, name: str, host: str = "web2") -> str:
        """A page of a customer's web server, as the PC sees it."""
        return self.lab.probe("pc", "get", f"http://{self.lab.addresses[host]}/{name}").strip()

    def require_reach(self, host: str, client: str | None = None) -> None:
        """The PC uses the web server of a customer, who sees it as C{client}, by default the onsite device."""
        self.eventually(self.reaches, END_SECONDS, "the customer's web server to answer")
        self.assertEqual(self.page("host"), host)
        self.assertEqual(self.page("client"), client or self.lab.addresses["onsite"])
        self.assertEqual(len(self.page("bytes/3000000")), 3_000_000)
        self.assertEqual(self.lab.probe("pc", "udp", self.web, "hello"), "hello")

    @contextmanager
    def guest(self) -> Iterator[None]:
        """
        The PC has an address of the customer's LAN, and packets of 1400 bytes, as people are told to have them where
        old devices bridge: their tunnels take no more than 1450.
        """
        self.lab.run("pc", ["ip", "address", "add", GUEST, "dev", "eth0"], check=True)
        self.lab.run("pc", ["ip", "link", "set", "eth0", "mtu", "1400"], check=True)
        try:
            yield
        finally:
            self.lab.run("pc", ["ip", "address", "del", GUEST, "dev", "eth0"], check=True)
            self.lab.run("pc", ["ip", "link", "set", "eth0", "mtu", "1500"], check=True)
            # Another customer's machines have the same addresses and other hardware.
            self.lab.run("pc", ["ip", "neigh", "flush", "dev", "eth0"], check=True)

    def second_port(self) -> str:
        """
        Give the old onsite a second interface on the LAN: in mode L2 an old device does not keep its connection
        through the one that it bridges. Its name.
        """
        onsite, router = (f"{self.lab.prefix}-{host}" for host in ("onsite2", "site-router2"))
        # The router's bridge has the lowest address of its ports: that of this one must not become it, for it goes.
        far = ["name", "lan9", "netns", router, "address", "fe:ff:ff:ff:ff:fe"]
        near = ["name", "eth1", "netns", onsite]
        subprocess.run(["ip", "link", "add", *near, "type", "veth", "peer", *far], check=True)
        self.addCleanup(self.lab.run, "onsite2", ["ip", "link", "del", "eth1"])
        self.lab.run("site-router2", ["ip", "link", "set", "lan9", "master", "br-lan", "up"], check=True)
        # Nor must anybody take it for the device's other port.
        self.lab.run("onsite2", ["sysctl", "-w", "net.ipv4.conf.all.arp_ignore=1"], check=True)
        self.addCleanup(self.lab.run, "onsite2", ["sysctl", "-w", "net.ipv4.conf.all.arp_ignore=0"])
        address = f"{CUSTOMER_LAN[11]}/{CUSTOMER_LAN.prefixlen}"
        self.lab.run("onsite2", ["ip", "address", "add", address, "dev", "eth1", "noprefixroute"], check=True)
        self.lab.run("onsite2", ["ip", "link", "set", "eth1", "up"], check=True)
        return "eth1"


class OldPairTests(OldDevicesTestCase):
    """Old onsite, old master."""

    def routed_session(self, *, stunnel: bool = False, term: str = "xterm") -> None:
        """A whole session in mode L3, from the first prompt to C{logout}."""
        with self.telling():
            self.start_onsite(stunnel=stunnel, term=term)
            online = self.scene.online()[OLD_ONSITE]
            self.assertEqual((online["lan"], online["door"]), ("192.168.1.10/24", "tls" if stunnel else "ssh"))
            self.assertFalse(self.reaches())
            self.old_master.connect(OLD_ONSITE, stunnel=stunnel, term=term)
            self.require_up()
            self.assertEqual(self.old_master.wait_record("up")["lan"], "192.168.1.10/24")
            self.require_reach("web2")
            self.assertEqual(self.old_master.interrupt(), 0)
            self.require_ended(self.old_master, "signal")
            self.require_ended(self.old_onsite, "vtun")
            self.require_freed()
            self.assertFalse(self.reaches())
            self.require_conversation()

    def require_conversation(self) -> None:
        """
        Both terminals have shown what the reference has, to the byte, but for what is the server's choice: each
        device's block, port and secret.
        """
        for device, pattern in (
            (self.old_onsite, ONSITE_CONVERSATION.replace("rpi1100", OLD_ONSITE).replace("'onsite'", "'onsite2'")),
            (self.old_master, MASTER_CONVERSATION.replace("rpi1100", OLD_ONSITE).replace("rpi1101", OLD_MASTER)),
        ):
            shown = conversation(device.wait_record("ended")["transcript"])
            given = device.wait_record("parameters")
            number = int(given["tunnel_ip_network"].rpartition(".")[2])
            port = given["rdv_server_vtun_tcp_port"]
            values = {"id": device.id, "port": port, "number": number, "server": number + 1, "device": number + 2}
            expected = (pattern + PARAMETERS + FORWARDING).format(**values)
            if device is self.old_master:
                # The list says who is here; it may be others, too.
                shown = re.sub(rf"(?m)^{ONSITE}\n", "", shown)
                expected += f"show_remote_onsite_ip_config\n192.168.1.10/24\n{OLD_MASTER}$ "
            secret = given["tunnel_secret"]
            self.assertRegex(secret, r"\A[A-Za-z0-9_+=!$%&*^@~.-]{22,}\Z")
            self.assertEqual(shown.replace(secret, f"_{device.id}"), expected)

    def test_list(self) -> None:
        """C{-l} prints who is here, leaves without a word, and is forgotten."""
        with self.telling():
            self.start_onsite()
            process = self.old_master.start("-l")
            self.assertEqual(process.wait(UP_SECONDS), 0)
            [record] = [each for each in self.old_master.records() if each["event"] == "devices"][-1:]
            self.assertEqual(set(record["devices"]), {ONSITE, OLD_ONSITE})
            self.assertIn("Total: 2\n", process.output())
            eventually(lambda: OLD_MASTER not in self.scene.online(), END_SECONDS, "the master to be gone")

    def test_routed(self) -> None:
        """With a terminal called xterm, through port 22."""
        self.routed_session(term="xterm")

    def test_stunnel(self) -> None:
        """With a dumb terminal and stock stunnel on both devices, where nothing but port 443 is open."""
        for host in ("onsite2", "master"):
            self.addCleanup(start_stunnel(self.lab, host).stop)
        for router in ("site-router2", "support-router"):
            self.lab.allow_only(router, 443)
            self.addCleanup(self.lab.allow_all, router)
        self.routed_session(term="dumb", stunnel=True)

    def bridged_session(self, *, stunnel: bool = False, term: str = "xterm") -> None:
        """A session in mode L2: the master alone says so, and the PC is a machine of the customer's LAN."""
        port = self.second_port()
        with self.telling(), self.guest():
            self.start_onsite("--interface", port, stunnel=stunnel, term=term)
            self.assertFalse(self.reaches())
            self.old_master.connect(OLD_ONSITE, "--tunnel-mode", "L2", stunnel=stunnel, term=term)
            self.require_up("L2")
            self.require_reach("web2", GUEST.partition("/")[0])
            for host, address in (("web2", GUEST.partition("/")[0]), ("pc", self.lab.addresses["onsite2"])):
                self.assertTrue(self.lab.pings(host, address), f"{host} to {address}")
            self.assertEqual(self.old_master.interrupt(), 0)
            self.require_ended(self.old_onsite, "vtun")
            self.require_freed()
            self.assertFalse(self.reaches())

    def test_bridged(self) -> None:
        """With a terminal called xterm, through port 22."""
        self.bridged_session()

    def test_bridged_stunnel(self) -> None:
        """With a dumb terminal and stock stunnel on both devices."""
        for host in ("onsite2", "master"):
            self.addCleanup(start_stunnel(self.lab, host).stop)
        self.bridged_session(term="dumb", stunnel=True)


class MixedPairTests(OldDevicesTestCase):
    """An old device with a new one."""

    def new_master(self, mode: str) -> dict[str, object]:
        """Have the new master open a session with the old onsite; its record."""
        self.deployment.start_master(mode, options=("--onsite", OLD_ONSITE))
        record = self.deployment.wait_session()
        self.assertEqual((record["join"], record["mode"]), ("glue", mode))
        self.assertEqual(self.old_onsite.wait_record("up", UP_SECONDS)["mode"], mode)
        return record

    def end_new_master(self) -> None:
        """The new master's operator ends the session, and the old onsite notices."""
        self.assertEqual(self.deployment.end_session(), 0)
        self.assertEqual(self.ended(MASTER)["reason"], "operator")
        self.require_ended(self.old_onsite, "vtun")
        self.require_freed()
        self.assertFalse(self.reaches())

    def test_old_onsite(self) -> None:
        """An old onsite and a new master in mode L3."""
        with self.telling():
            self.start_onsite()
            self.new_master("L3")
            self.require_reach("web2")
            self.end_new_master()

    def test_old_onsite_bridged(self) -> None:
        """An old onsite and a new master in mode L2."""
        port = self.second_port()
        with self.telling(), self.guest():
            self.start_onsite("--interface", port)
            self.new_master("L2")
            self.require_reach("web2", GUEST.partition("/")[0])
            self.end_new_master()

    def old_master_session(self, mode: str) -> None:
        """The old master has a session with the new onsite."""
        self._seen = len(self.deployment.records(ONSITE))
        with self.telling():
            self.old_master.connect(ONSITE, "--tunnel-mode", mode)
            self.assertEqual(self.old_master.wait_record("up", UP_SECONDS)["mode"], mode)
            self.assertEqual(self.old_master.wait_record("up")["lan"], "192.168.1.10/24")
            self.require_reach("web", GUEST.partition("/")[0] if mode == "L2" else None)
            self.assertEqual(self.old_master.interrupt(), 0)
            self.require_ended(self.old_master, "signal")
            self.ended(ONSITE)
            self.require_freed()
            self.assertFalse(self.reaches())
            eventually(self.scene.free, BACK_SECONDS, "the new onsite to be free")

    def test_old_master(self) -> None:
        """A new onsite and an old master in mode L3."""
        self.old_master_session("L3")

    def test_old_master_bridged(self) -> None:
        """A new onsite and an old master in mode L2."""
        with self.guest():
            self.old_master_session("L2")

    def test_by_turns(self) -> None:
        """An old onsite serves an old and a new master one after the other."""
        with self.telling():
            self.start_onsite(forever=True)
            for _ in range(2):
                self.old_master.connect(OLD_ONSITE)
                self.require_up()
                self.require_reach("web2")
                self.old_onsite.mark()
                self.assertEqual(self.old_master.interrupt(), 0)
                self.require_back()
                self.new_master("L3")
                self.require_reach("web2")
                self.old_onsite.mark()
                self.assertEqual(self.deployment.end_session(), 0)
                self.require_back()


class EndTests(OldDevicesTestCase):
    """How sessions of old devices end."""

    def ends_by(self, act: Callable[[], object], within: float = END_SECONDS, master: str | None = "vtun") -> None:
        """
        After an act the server holds nothing of the session in five seconds, and the onsite, whose script is started
        again and again, is listed anew in ten.
        """
        with self.telling():
            self.start_onsite(forever=True)
            process = self.old_master.connect(OLD_ONSITE)
            self.require_up()
            before = self.scene.online()[OLD_ONSITE]["since"]
            self.assertTrue(self.reaches())
            self.old_onsite.mark()
            began = time.monotonic()
            act()
            eventually(lambda: not self.scene.sessions(), within, "the session to be over")
            self.require_freed()

            def back() -> bool:
                device = self.scene.online().get(OLD_ONSITE)
                return (
                    device is not None
                    and device["session"] is None
                    and float(str(device["since"])) > float(str(before))
                )

            eventually(back, within - END_SECONDS + BACK_SECONDS + began - time.monotonic(), "the onsite to be listed")
            self.assertFalse(self.reaches())
            if master is not None:
                self.require_ended(self.old_master, master)
                self.assertEqual(process.wait(SCRIPT_SECONDS), 0)

    def test_master_interrupted(self) -> None:
        """The operator presses Ctrl-C."""
        self.ends_by(self.old_master.interrupt, SCRIPT_SECONDS, "signal")

    def test_onsite_interrupted(self) -> None:
        """The onsite's script is told to end."""
        self.ends_by(lambda: self.old_onsite.signal("script", signal.SIGINT), SCRIPT_SECONDS)

    def test_master_ssh_killed(self) -> None:
        """The master's ssh client is killed; its script sees either of its tunnel and its connection end first."""
        self.ends_by(lambda: self.old_master.signal("ssh"), master=None)
        self.assertIn(self.old_master.wait_record("ended", SCRIPT_SECONDS)["reason"], ("ssh", "vtun"))

    def test_onsite_ssh_killed(self) -> None:
        """The onsite's ssh client is killed."""
        self.ends_by(lambda: self.old_onsite.signal("ssh"))

    def test_master_killed(self) -> None:
        """The master's script is killed, and with it its terminal goes."""
        self.ends_by(lambda: self.old_master.signal("script"), master=None)

    def test_onsite_killed(self) -> None:
        """The onsite's script is killed."""
        self.ends_by(lambda: self.old_onsite.signal("script"))

    def test_administrator(self) -> None:
        """The administrator ends it."""
        self.ends_by(lambda: self.deployment.rdvctl("end", OLD_ONSITE))

    def test_cable(self) -> None:
        """The onsite's cable is pulled; nobody says goodbye."""
        with self.telling():
            self.start_onsite()
            process = self.old_master.connect(OLD_ONSITE)
            self.require_up()
            self.lab.cut("onsite2")
            try:
                eventually(lambda: not self.scene.sessions(), LOST_SECONDS, "the session to be given up")
                self.require_freed()
                self.require_ended(self.old_master, "vtun")
                self.assertEqual(process.wait(SCRIPT_SECONDS), 0)
            finally:
                self.old_onsite.stop()
                self.lab.mend("onsite2")

    def test_ten(self) -> None:
        """Ten sessions in a row; after the last one the server has no more files open than after the first."""
        server = self.deployment.server
        assert server is not None
        directory = f"/proc/{server.pid}/fd"
        counts = []
        with self.telling():
            self.start_onsite(forever=True)
            for _ in range(10):
                self.old_onsite.mark()
                self.old_master.connect(OLD_ONSITE)
                self.require_up()
                self.eventually(self.reaches, END_SECONDS, "the customer's web server to answer")
                self.old_onsite.mark()
                self.assertEqual(self.old_master.interrupt(), 0)
                self.require_freed()
                self.require_back()
                eventually(lambda: OLD_MASTER not in self.scene.online(), END_SECONDS, "the master to be gone")
                counts.append(len(os.listdir(directory)))
        # Whoever looks at the server's state is a connection, too, for a moment.
        eventually(lambda: len(os.listdir(directory)) <= min(counts), END_SECONDS, f"no more files than {counts}")


class AgedTests(SynchronousTestCase):
    """Devices whose OpenSSH is as old as their scripts."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    AGED = (
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "HostKeyAlgorithms=ssh-rsa",
        "PubkeyAcceptedAlgorithms=ssh-rsa",
        "Ciphers=aes128-ctr",
        "MACs=hmac-sha1",
    )
    """What OpenSSH 5.5 (2010) has in common with today's, as options of today's."""

    def test_aged(self) -> None:
        """With RSA keys, and SHA-1 wherever it was used, they have a session on a server that is set to allow it."""
        lab = built_for(self)
        lab.services()
        deployment = Deployment(lab)
        config = lab.directory / "server.toml"
        config.write_text("[ssh]\nlegacy_algorithms = true\n")
        options = ["--state-dir", str(deployment.state("server")), "--config", str(config)]
        server = deployment.twistd("server", "rdv-server", *options)
        server.wait_listening(*DOORS.values(), timeout=START_SECONDS)
        onsite = OldDevice(lab, OLD_ONSITE, "onsite", "onsite", "rsa")
        master = OldDevice(lab, OLD_MASTER, "master", "master", "rsa")
        for device in (onsite, master):
            words = ["--role", device.role, "--key", device.key, "--legacy"]
            deployment.rdvctl("device", "add", device.id, *words)
        deployment.rdvctl("access", "allow", "*", "*")
        aged = [word for option in self.AGED for word in ("--ssh-option", option)]
        onsite.start(*aged)
        onsite.wait_record("online")
        eventually(lambda: deployment.ask("online"), END_SECONDS, "the onsite to be listed")
        master.connect(onsite.id, *aged)
        master.wait_record("up", UP_SECONDS)
        onsite.wait_record("up", UP_SECONDS)
        eventually(lambda: lab.pings("pc", lab.addresses["web"]), END_SECONDS, "the web server to answer the PC")
        self.assertEqual(master.interrupt(), 0)
        self.assertEqual(onsite.wait_record("ended", SCRIPT_SECONDS)["reason"], "vtun")


class StockProgramsTests(OldDevicesTestCase):
    """Nobody's script but a user's hands: ssh, and vtund, from Debian."""

    def test_by_hand(self) -> None:
        """
        Somebody types what the reference says into C{ssh -L}, starts vtund, and gets answers of the server's end
        of the tunnel; once ssh ends, so does vtund.
        """
        with self.telling():
            result = self.old_onsite.by_hand()
            self.assertEqual(result.returncode, 0, result)
            self.assertIn("3 packets transmitted, 3 received", result.stdout)
        self.require_freed()
