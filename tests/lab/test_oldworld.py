"""Old devices on an old server, without the product: what it is measured against works as it is known to."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.oldserver import RACES, OldServer
from tests.lab.oldworld import END_SECONDS, OldDevice, start_stunnel
from tests.lab.private import built_for
from tests.lab.processes import LabError, eventually
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles
from tests.lab.website import PAGE

ONSITE, MASTER = "rpi1100", "rpi1101"

CLEAN_SECONDS = 5.0


ESCAPE = re.compile(r"\r+\nssh> .*?(?=echo \.\.\.done)", re.DOTALL)
"""What ssh says by itself after C{~C}; what the script has typed was not answered yet when the next command came."""

FORWARDING = """\
echo Testing ssh escape shell
Testing ssh escape shell
{id}$ ~Cecho ...done
...done
{id}$ echo Adding ssh redirect escape shell "-L5000:127.0.0.1:{port}"
Adding ssh redirect escape shell "-L5000:127.0.0.1:{port}"
{id}$ ~Cecho ...done
...done
{id}$ """

PARAMETERS = """\
get_vtun_parameters
tunnel_ip_network: 192.168.128.{number}
tunnel_ip_prefix: /30
tunnel_ip_netmask: 255.255.255.252
tunnelling_dev_ip_address: 192.168.128.{device}
rdv_server_ip_address: 192.168.128.{server}
rdv_server_vtun_tcp_port: {port}
tunnel_secret: _{id}
{id}$ """

ONSITE_CONVERSATION = """
rpi1100$ get_role
onsite
rpi1100$ get_tunnel_mode
L3
rpi1100$ set_tunnelling_dev_lan_ip_address 192.168.1.10/24
rpi1100$ set_tunnelling_dev_dns_server_list 192.168.1.1
rpi1100$ set_tunnelling_dev_hostname 'onsite'
rpi1100$ set_tunnelling_dev_uplink_type lan
rpi1100$ wait_master_connection
ready
rpi1100$ get_tunnel_mode
L3
rpi1100$ """

MASTER_CONVERSATION = """
rpi1101$ show_online_onsite_devs
rpi1100
rpi1101$ set_tunnelling_dev_lan_ip_address 192.168.50.2/24
rpi1101$ set_tunnel_mode L3
rpi1101$ connect_to_onsite_dev rpi1100
rpi1101$ get_role
master
rpi1101$ get_tunnel_mode
L3
rpi1101$ """


def conversation(transcript: str) -> str:
    """What a terminal has shown between the first prompt and C{logout}, without what ssh says by itself."""
    text = ESCAPE.sub("~C", transcript.partition("$ ")[2]).partition("logout")[0]
    return text.replace("\r\n", "\n")


class OldWorldTests(SynchronousTestCase):
    """An old onsite and an old master on an old server."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    def setUp(self) -> None:
        """A lab with an old server, and two devices that it knows."""
        self.lab = built_for(self)
        self.lab.services()
        self.web = self.lab.addresses["web"]
        self.onsite = OldDevice(self.lab, ONSITE, "onsite", "onsite")
        self.master = OldDevice(self.lab, MASTER, "master", "master")

    def serve(self, wait_seconds: float = 60.0) -> OldServer:
        """The server, started."""
        server = OldServer(self.lab, wait_seconds)
        for device in (self.onsite, self.master):
            server.add(device.id, device.role, device.key)
        server.start()
        self.before = {host: self.lab.snapshot(host) for host in ("server", "onsite", "master")}
        return server

    def session(self, server: OldServer, *, stunnel: bool = False, term: str = "xterm") -> None:
        """
        The devices have a session. If a stock vtund has ended over a packet that came before its interface was up,
        as now and then it does in that world, they begin anew.
        """
        for left in reversed(range(RACES)):
            self.start_onsite(server, stunnel=stunnel, term=term)
            try:
                self.start_master(server, stunnel=stunnel, term=term)
            except LabError as error:
                if not left or "Connection closed by other side" not in str(error):
                    raise
                for device in (self.master, self.onsite):
                    device.stop()
                self.require_forgotten(server)
            else:
                return

    def start_onsite(self, server: OldServer, *, stunnel: bool = False, term: str = "xterm") -> None:
        """The onsite waits for a master."""
        self.onsite.start(stunnel=stunnel, term=term)
        self.onsite.wait_online()
        eventually(lambda: ONSITE in server.status()["bindings"], CLEAN_SECONDS, "the onsite to be registered")

    def start_master(self, server: OldServer, *, stunnel: bool = False, term: str = "xterm") -> None:
        """The master has a session with it."""
        self.master.connect(ONSITE, stunnel=stunnel, term=term)
        self.assertEqual(self.master.wait_record("up")["lan"], "192.168.1.10/24")
        self.assertEqual(self.onsite.wait_record("up")["mode"], "L3")
        eventually(lambda: server.status()["sessions"][0]["state"] == "up", CLEAN_SECONDS, "the session to be up")

    def reaches(self) -> bool:
        """Whether the PC reaches the customer's web server."""
        return self.lab.pings("pc", self.web)

    def require_forgotten(self, server: OldServer) -> None:
        """The server has forgotten both devices."""
        eventually(
            lambda: server.status() == {"bindings": {}, "sessions": []}, CLEAN_SECONDS, "the server to forget them"
        )

    def require_nothing_left(self, server: OldServer) -> None:
        """The server has forgotten both devices, and its network is as it was."""
        self.require_forgotten(server)
        for host in ("server", "onsite", "master"):
            changes = [line for line in self.before[host].changes(self.lab.snapshot(host)) if "nft" not in line]
            # What devices leave behind is known: forwarding stays on.
            changes = [line for line in changes if host == "server" or "sysctl" not in line]
            self.assertEqual(changes, [], host)

    def use(self) -> None:
        """The PC uses the customer's LAN, and seems to be the onsite there."""
        eventually(self.reaches, CLEAN_SECONDS, "the web server to answer the PC")
        self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/").encode(), PAGE)
        self.assertEqual(self.lab.probe("pc", "get", f"http://{self.web}/client").strip(), self.lab.addresses["onsite"])

    def test_session(self) -> None:
        """
        The PC reaches the customer's web server; when the operator presses Ctrl-C on the master, both scripts end
        with status 0, and nothing is left.
        """
        server = self.serve()
        self.assertFalse(self.reaches())
        self.session(server)
        self.use()
        self.assertEqual(self.master.interrupt(), 0)
        self.assertEqual(self.master.wait_record("ended")["reason"], "signal")
        self.assertEqual(self.onsite.wait_record("ended", END_SECONDS)["reason"], "vtun")
        self.assertEqual(self.onsite.process.wait(END_SECONDS), 0)
        self.assertFalse(self.reaches())
        self.require_nothing_left(server)

    def test_stunnel(self) -> None:
        """The same through stock stunnel on both devices and the server, with a dumb terminal, ended by the onsite."""
        for router in ("site-router", "support-router"):
            self.lab.allow_only(router, 443)
        for host in ("onsite", "master"):
            start_stunnel(self.lab, host)
        server = self.serve()
        self.session(server, stunnel=True, term="dumb")
        self.use()
        self.assertEqual(self.onsite.interrupt(), 0)
        self.assertEqual(self.master.wait_record("ended", END_SECONDS)["reason"], "vtun")
        self.assertEqual(self.master.process.wait(END_SECONDS), 0)
        self.require_nothing_left(server)

    def test_conversation(self) -> None:
        """What the devices read is what the reference has, to the byte, but for what ssh itself says."""
        server = self.serve()
        self.session(server)
        self.master.interrupt()
        master, onsite = (
            conversation(d.wait_record("ended", END_SECONDS)["transcript"]) for d in (self.master, self.onsite)
        )
        known = {"id": ONSITE, "port": 5000, "number": 0, "server": 1, "device": 2}
        self.assertEqual(onsite, (ONSITE_CONVERSATION + PARAMETERS + FORWARDING).format(**known))
        known = {"id": MASTER, "port": 5001, "number": 4, "server": 5, "device": 6}
        lan = "show_remote_onsite_ip_config\n192.168.1.10/24\nrpi1101$ "
        self.assertEqual(master, (MASTER_CONVERSATION + PARAMETERS + FORWARDING).format(**known) + lan)

    def waits(self) -> list[dict[str, object]]:
        """The onsite's records of waits in which no master came."""
        return [record for record in self.onsite.records() if record["event"] == "not_ready"]

    def test_not_ready(self) -> None:
        """A wait that is over is followed by the next one; the onsite stays registered."""
        server = self.serve(wait_seconds=0.5)
        self.start_onsite(server)
        eventually(lambda: len(self.waits()) > 1, END_SECONDS, "two waits to be over")
        self.assertIn(ONSITE, server.status()["bindings"])

    def test_by_hand(self) -> None:
        """Without any script, ssh and vtund from Debian do what the reference says."""
        server = self.serve()
        result = self.onsite.by_hand()
        self.assertEqual(result.returncode, 0, result)
        self.assertIn("3 packets transmitted, 3 received", result.stdout)
        self.require_nothing_left(server)

    def test_key_refused(self) -> None:
        """A device whose key is not that of its account ends with status 1, and says so."""
        server = self.serve()
        server.add(ONSITE, "onsite", self.master.key)
        process = self.onsite.start()
        self.assertIn("PublicKeyNotAccepted", self.onsite.wait_record("failed")["error"])
        self.assertEqual(process.wait(END_SECONDS), 1)
        self.assertEqual(server.status()["bindings"], {})

    def test_list(self) -> None:
        """C{-l} prints who is here; nobody, at first."""
        server = self.serve()
        process = self.master.start("-l")
        self.assertEqual(process.wait(END_SECONDS), 0)
        self.assertIn("No onsite device currently available\n", process.output())
        self.start_onsite(server)
        process = self.master.start("-l")
        self.assertEqual(process.wait(END_SECONDS), 0)
        self.assertIn(f"Currently available onsite devices:\n{ONSITE}\nTotal: 1\n", process.output())

    def test_connection_lost(self) -> None:
        """When the master's ssh is killed, its script and the onsite's end, and nothing is left."""
        server = self.serve()
        self.session(server)
        self.master.signal("ssh")
        self.assertEqual(self.master.process.wait(END_SECONDS), 0)
        self.assertIn(self.master.wait_record("ended")["reason"], ("ssh", "vtun"))
        self.assertEqual(self.onsite.wait_record("ended", END_SECONDS)["reason"], "vtun")
        self.assertEqual(self.onsite.process.wait(END_SECONDS), 0)
        self.require_nothing_left(server)
