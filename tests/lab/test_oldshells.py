"""The product's shells answer what the old ones do, to the byte, but for what is wrong with the old ones."""

from __future__ import annotations

import json
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.deployment import Deployment
from tests.lab.oldserver import OldServer, make_key
from tests.lab.private import built_for
from tests.lab.programs import OLD_PROGRAMS, PROGRAMS, obstacles

ONSITE, MASTER = "rpi1100", "rpi1101"

COMMON = r"""
get_role
get_role;abc
  get_role   with arguments
get_tunnel_mode
Get_Role
foo
foo bar  baz
?foo
help foo
!ls
/bin/sh
$(id)
get_role_
show
echo
echo   a  b   c
echo "quoted" 'text' \n %s
set_tunnelling_dev_lan_ip_address
set_tunnelling_dev_lan_ip_address 192.168.1.50/24
set_tunnelling_dev_lan_ip_address 192.168.1.50
set_tunnelling_dev_lan_ip_address 192.168.1.50/255.255.255.0
set_tunnelling_dev_lan_ip_address 192.168.1.50/0.0.0.255
set_tunnelling_dev_lan_ip_address 192.168.1.50/33
set_tunnelling_dev_lan_ip_address 192.168.1.50/255.0.255.0
set_tunnelling_dev_lan_ip_address 192.168.1.050/24
set_tunnelling_dev_lan_ip_address 192.168.1. 50/24
set_tunnelling_dev_lan_ip_address 192.168.1.50 /24
set_tunnelling_dev_lan_ip_address fe80::1/64
set_tunnelling_dev_lan_ip_address None
set_tunnelling_dev_dns_server_list
set_tunnelling_dev_dns_server_list 192.168.1.1   8.8.8.8
set_tunnelling_dev_dns_server_list 192.168.1.1 x
set_tunnelling_dev_dns_server_list 192.168.1.1, 8.8.8.8
set_tunnelling_dev_hostname 'shop\'s box'
set_tunnelling_dev_hostname shop's box
set_tunnelling_dev_hostname ''
set_tunnelling_dev_hostname '
set_tunnelling_dev_hostname
set_tunnelling_dev_hostname 'a\qb\x41\101\t'
set_tunnelling_dev_hostname 'a\x4'
set_tunnelling_dev_hostname 'abc\'
debug_mode off
debug_mode
debug_mode ON
debug_mode maybe
drop_vtun
drop_vtun now
""".strip("\n").split("\n")
"""What either role may type: all but empty lines, on which the old shells repeat themselves."""

ROLES = {
    ONSITE: r"""
set_tunnelling_dev_uplink_type lan
set_tunnelling_dev_uplink_type 3g
set_tunnelling_dev_uplink_type other
set_tunnelling_dev_uplink_type LAN
set_tunnelling_dev_uplink_type
set_tunnel_mode L2
show_online_onsite_devs
connect_to_onsite_dev rpi1100
show_remote_onsite_ip_config
get_tunnel_mode
""",
    MASTER: r"""
set_tunnelling_dev_uplink_type lan
wait_master_connection
show_online_onsite_devs
show_online_onsite_devs please
show_remote_onsite_ip_config
set_tunnel_mode L2
get_tunnel_mode
set_tunnel_mode L3
get_tunnel_mode
""",
}
"""What one role may type, and the other may not."""

ENDINGS = ("logout", "exit", "EOF", "logout now", "exit 3")

LAN = "set_tunnelling_dev_lan_ip_address 192.168.1.50/24"

FATAL = (
    (ONSITE, ["wait_master_connection"]),
    (ONSITE, ["set_tunnelling_dev_lan_ip_address None", "wait_master_connection"]),
    (ONSITE, ["get_vtun_parameters"]),
    (MASTER, [f"connect_to_onsite_dev {ONSITE}"]),
    (MASTER, [LAN, f"connect_to_onsite_dev {ONSITE}"]),
    (MASTER, [LAN, "connect_to_onsite_dev"]),
    (MASTER, [LAN, "set_tunnel_mode L5", f"connect_to_onsite_dev {ONSITE}"]),
)
"""What ends a shell: it was never meant to be asked."""

COMMANDS = {id: [*COMMON, *lines.strip("\n").split("\n")] for id, lines in ROLES.items()}

_OWN = re.compile(r"Connection to \S+ closed\.\r*\n")
"""What ssh says by itself."""


class ShellTests(SynchronousTestCase):
    """The same is typed at both."""

    skip = obstacles([*PROGRAMS, *OLD_PROGRAMS])

    def setUp(self) -> None:
        """A lab with one key for all accounts of the old server, and one for each of ours."""
        self.lab = built_for(self)
        self.keys = {id: make_key(self.lab.directory / id) for id in ROLES}

    def start_old(self) -> OldServer:
        """The old server runs."""
        server = OldServer(self.lab)
        for id, role in ((ONSITE, "onsite"), (MASTER, "master")):
            server.add(id, role, self.keys[id])
        server.start()
        return server

    def start_new(self) -> None:
        """Ours runs."""
        deployment = Deployment(self.lab)
        deployment.start_server()
        deployment.register({id: " ".join(key.split()[:2]) for id, key in self.keys.items()})

    def ssh(self, id: str, *options: str) -> list[str]:
        """The client's command line."""
        files = ["-F", "none", "-i", str(self.lab.directory / id), "-oUserKnownHostsFile=/dev/null"]
        words = ["-oStrictHostKeyChecking=no", "-oLogLevel=ERROR", "-oIdentityAgent=none"]
        return ["ssh", *files, *words, *options, f"{id}@{self.lab.addresses['server']}"]

    def typed(self, id: str, commands: list[str], term: str = "xterm") -> list[tuple[str, str]]:
        """What a terminal shows of commands, with each of them."""
        task = {"id": id, "argv": self.ssh(id), "commands": commands}
        argv = [sys.executable, "-Bm", "tests.lab.olddialogue"]
        result = self.lab.run("onsite", argv, 60, input=json.dumps(task), env={"TERM": term}, check=True)
        return [(c, _OWN.sub("", answer)) for c, answer in zip(commands, json.loads(result.stdout), strict=True)]

    def piped(self, id: str, commands: list[str]) -> tuple[list[str], list[str], int]:
        """The same without a terminal: lines of either stream, and the exit status."""
        text = "".join(f"{command}\n" for command in commands)
        result = self.lab.run("onsite", self.ssh(id, "-T"), 60, input=text)
        return result.stdout.split("\n"), result.stderr.split("\n"), result.returncode

    def everything(self) -> dict[str, object]:
        """All that can be typed, and what comes of it."""
        found: dict[str, object] = {}
        for id, commands in COMMANDS.items():
            found[f"{id} xterm"] = self.typed(id, commands)
            found[f"{id} dumb"] = self.typed(id, commands, "dumb")
            found[f"{id} piped"] = self.piped(id, commands)
        for ending in ENDINGS:
            found[f"{ending} typed"] = self.typed(ONSITE, [ending])
            found[f"{ending} piped"] = self.piped(ONSITE, [ending])
        return found

    def ends(self) -> list[tuple[list[str], list[str], int]]:
        """What comes of the commands that end a shell."""
        return [self.piped(id, [*commands, "echo still here"]) for id, commands in FATAL]

    def test_same(self) -> None:
        """
        With and without a terminal, of either kind, as onsite and as master, all answers are the same; what was
        fatal is fatal.
        """
        self.maxDiff = None
        server = self.start_old()
        old, old_ends = self.everything(), self.ends()
        server.stop()
        self.start_new()
        new, new_ends = self.everything(), self.ends()
        for what, expected in old.items():
            self.assertEqual(new[what], expected, what)
        for (id, commands), (expected, _, _), (output, errors, status) in zip(FATAL, old_ends, new_ends, strict=True):
            self.assertEqual((output, status), (expected, 1), (id, commands))
            # One clear line instead of the original's traceback; before it, what was wrong with an address.
            self.assertEqual([line[:7] for line in errors[-2:]], ["Error: ", ""], (id, commands))
