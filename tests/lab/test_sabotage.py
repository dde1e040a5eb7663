"""Somebody else changes the machine's network while a session is up: a firewall is reloaded, a daemon tidies up."""

from __future__ import annotations

from rdvtwisted.plan import PRIORITIES
from tests.lab.deployment import END_SECONDS
from tests.lab.scene import BACK_SECONDS, SceneTestCase

OTHERS = {
    "the firewall is reloaded": "nft flush ruleset",
    "the table is deleted": "nft delete table inet {table}",
    "the table is emptied": "nft flush table inet {table}",
    "foreign rules are tidied up": "ip rule del priority {priority}",
    "foreign routes are tidied up": "ip route flush table all proto static dev {interface}",
    "the address is taken away": "ip address flush dev {interface}",
    "the interface is set down": "ip link set {interface} down",
    "another MTU is set": "ip link set {interface} mtu 1280",
    "forwarding is switched off": "echo 0 > /proc/sys/net/ipv4/conf/{interface}/forwarding",
    "all of that": "nft flush ruleset; ip link set {interface} down; ip address flush dev {interface};"
    " ip rule del priority {priority}",
}
"""What somebody else does, by what it is for; in mode L3."""

BRIDGED = {
    "the firewall is reloaded": "nft flush ruleset",
    "the interfaces are set down": "cd /sys/class/net; for each in rdv*; do ip link set $each down; done",
    "filters are tidied up": "cd /sys/class/net; for each in rdv*; do tc qdisc del dev $each ingress; done; true",
    "the port is promiscuous no more": "ip link set {port} promisc off",
}
"""The same for L2."""


class SabotageTests(SceneTestCase):
    """On the devices of a session."""

    def names(self, host: str) -> dict[str, str]:
        """What this device's things are called."""
        links = [line.split(": ")[1] for line in self.lab.run(host, ["ip", "-o", "link"]).stdout.splitlines()]
        tables = self.lab.run(host, ["nft", "list", "tables"]).stdout.split()
        priorities = [line.split(":")[0] for line in self.lab.run(host, ["ip", "rule"]).stdout.splitlines()]
        return {
            "interface": next(name for name in links if name.startswith("rdv")),
            "port": {"onsite": "eth0", "master": "eth1"}[host],
            "table": next(iter(word for word in tables if word.startswith("rdv_")), ""),
            "priority": next(iter(number for number in priorities if int(number) in PRIORITIES), ""),
        }

    def put_back(self, host: str, others: dict[str, str]) -> None:
        """Whatever others do on a host, soon it is as before, and the session works."""
        names = self.names(host)
        for why, command in others.items():
            before = self.lab.snapshot(host)
            self.lab.run(host, ["sh", "-c", command.format(**names)], check=True)
            self.eventually(
                lambda before=before: before.changes(self.lab.snapshot(host)) == [],  # type: ignore[misc]
                END_SECONDS,
                f"{host}: {why}: all to be as before",
            )
            self.assertTrue(self.reaches(), f"{host}: {why}")

    def test_onsite(self) -> None:
        """What an onsite's session needs is put back, the session goes on, and the log says what it was."""
        with self.session():
            self.put_back("onsite", OTHERS)
        log = self.deployment.onsites[1].output()
        self.assertIn("Somebody else has changed this, and it is put back: firewall table inet rdv_", log)

    def test_master(self) -> None:
        """So is what a master's needs."""
        with self.session():
            self.put_back("master", OTHERS)

    def test_bridged(self) -> None:
        """In mode L2 as well."""
        with self.guest(), self.session("--tunnel-mode", "L2"):
            for host in ("onsite", "master"):
                self.put_back(host, BRIDGED)

    def test_interface_removed(self) -> None:
        """Without its interface a tunnel is over, for both; and the next session is as the first one."""
        for host in ("onsite", "master"):
            for backend in ("tls", "vtun", "stunnel"):
                master = self.open("--backend", backend)
                self.deployment.wait_session()
                self.assertTrue(self.reaches())
                self.lab.run(host, ["ip", "link", "del", self.names(host)["interface"]], check=True)
                self.assertIn(master.wait(END_SECONDS), (3, 4), f"{host}, {backend}: {master.output()}")
                self.scene.require_clean()
                self.eventually(self.scene.free, BACK_SECONDS, "the onsite to be free")
