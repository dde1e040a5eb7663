"""Old devices in a lab, as tests start and watch them, and stunnel beside them as their system runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.olddevice import STUNNEL_PORT
from tests.lab.oldserver import TLS_PORT, make_key
from tests.lab.processes import LabError, LabProcess, eventually, tail

END_SECONDS = 10.0
"""How long a script may take to end: it looks once a second, and gives vtund and ssh time."""

EXTREMITY = "eth1"
"""Where the engineer's PC is plugged in at the lab's master."""

_STUNNEL = """\
foreground = yes
pid =
syslog = no
[rdv_remote]
client = yes
accept = 127.0.0.1:{port}
connect = {server}:{tls_port}
"""

_TIDY = """\
sysctl -qw net.ipv4.ip_forward=0
while ip rule del table 1; do :; done
nft delete table ip nat
ip link del br0
"""
"""Takes away all that an old device may leave behind."""

_BY_HAND = """\
cd {directory}
rm -f typed shown
mkfifo typed
ssh -T -F none -i identity -oUserKnownHostsFile=/dev/null -oStrictHostKeyChecking=no -oLogLevel=ERROR \\
    -L5000:127.0.0.1:5000 {id}@{server} <typed >shown &
ssh=$!
exec 3>typed
echo 'set_tunnelling_dev_lan_ip_address 192.168.1.10/24' >&3
echo 'get_vtun_parameters' >&3
until grep -q tunnel_secret shown; do kill -0 $ssh; sleep 0.1; done
value() {{ sed -n "s/.*$1: //p" shown; }}
[ "$(value rdv_server_vtun_tcp_port)" = 5000 ]
cat >vtund.conf <<END
options {{ port 5000; timeout 20; ifconfig /sbin/ifconfig; }}
tundev{id} {{
  passwd $(value tunnel_secret);
  persist no;
  up {{ ifconfig "%% $(value tunnelling_dev_ip_address) pointopoint $(value rdv_server_ip_address) mtu 1450"; }};
}}
END
vtund -n -f vtund.conf tundev{id} 127.0.0.1 2>vtund.log &
vtund=$!
for second in $(seq 10); do ping -c 1 -w 1 "$(value rdv_server_ip_address)" >ping.log && break; done
ping -c 3 -i 0.2 -w 5 "$(value rdv_server_ip_address)"
echo logout >&3
exec 3>&-
wait $ssh
wait $vtund || :
! ip link show dev tun0 2>/dev/null
"""


class OldDevice:
    """
    A device of the old world in a host of the lab.

    @param role: C{onsite} or C{master}.
    @ivar key: its public key, as a line of OpenSSH.
    @ivar process: the script's latest run; L{None} before the first.
    """

    def __init__(self, lab: Lab, id: str, role: str, host: str, key: str = "ed25519") -> None:
        self.lab = lab
        self.id = id
        self.role = role
        self.host = host
        self.directory = lab.directory / "olddevices" / id
        self.directory.mkdir(parents=True)
        self.key = make_key(self.directory / "identity", key)
        self.process: LabProcess | None = None
        self._report = self.directory / "reports"
        self._seen = 0

    def start(self, *options: str, stunnel: bool = False, term: str = "xterm", forever: bool = False) -> LabProcess:
        """
        Start its script; does not wait for it.

        @param stunnel: through this host's stunnel, which L{start_stunnel} starts.
        @param term: what its terminal is called.
        @param forever: start it again two seconds after its end, again and again, as at boot; the process is that
            of the loop then.
        """
        self.mark()
        where = ["--rdv-server", self.lab.addresses["server"], *(["--with-stunnel"] if stunnel else [])]
        files = ["--identity", str(self.directory / "identity"), "--report", str(self._report)]
        argv = [sys.executable, "-Bm", "tests.lab.olddevice", self.role, "--username", self.id, *where, *files]
        loop = ["sh", "-c", 'while :; do "$@"; sleep 2; done', "sh"] if forever else []
        self.process = self.lab.start(self.host, [*loop, *argv, *options], {"TERM": term})
        return self.process

    def connect(self, onsite: str, *options: str, stunnel: bool = False, term: str = "xterm") -> LabProcess:
        """Start a master's script with an onsite device to reach, for the engineer's PC of the lab."""
        words = ("--onsite", onsite, "--extremity", EXTREMITY)
        return self.start(*words, *options, stunnel=stunnel, term=term)

    def mark(self) -> None:
        """From now on, only what it reports later counts as its latest run."""
        self._seen = len(self.records())

    def records(self) -> list[dict[str, Any]]:
        """What it has reported so far, in all its runs."""
        try:
            lines = self._report.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_record(self, event: str, timeout: float = 20.0) -> dict[str, Any]:
        """
        What it reports of an event in its latest run, once it does.

        @raise LabError: it has failed or ended instead, or time is up; with its log.
        """
        process = self.process
        assert process is not None
        found: list[dict[str, Any]] = []

        def look() -> bool:
            ended = process.poll()
            found[:] = [record for record in self.records()[self._seen :] if record["event"] == event]
            if not found and ended is not None:
                raise LabError(f"{self.id} ended with status {ended} instead of {event!r}\n{tail(process.log, 80)}")
            return bool(found)

        try:
            eventually(look, timeout, f"waiting for {self.id} to report {event!r}")
        except LabError as error:
            raise LabError(f"{error}\n{tail(process.log, 80)}") from None
        return found[-1]

    def wait_online(self) -> None:
        """It waits for a master, or is about to."""
        self.wait_record("online")

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit status."""
        assert self.process is not None
        self.process.send(signal.SIGINT)
        return self.process.wait(END_SECONDS)

    def stop(self) -> None:
        """Have neither script nor loop run any more, whatever state they are in, and tidy up."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_SECONDS)
        self.process = None
        # Forwarding, and an empty table of iptables, are what every old device leaves; rules, one that is killed.
        self.lab.run(self.host, ["sh"], input=_TIDY)

    def signal(self, which: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal its C{script} or its C{ssh} client, by default so that it has no time for a word."""
        running = [record for record in self.records() if record["event"] == "connected"]
        os.kill(running[-1][which], number)

    def by_hand(self) -> subprocess.CompletedProcess[str]:
        """
        What comes of somebody typing, instead of the script: C{ssh -L}, the shell's commands, C{vtund}, C{ping}, and
        C{logout}. Exit status 0 if all of it works, and vtund ends with ssh; needs a server on which nobody else is.
        """
        words = {"directory": self.directory, "id": self.id, "server": self.lab.addresses["server"]}
        return self.lab.run(self.host, ["sh", "-eu"], 60, input=_BY_HAND.format(**words))


def start_stunnel(lab: Lab, host: str) -> LabProcess:
    """Run stunnel on a device as its system does from boot, for scripts with C{-T}."""
    path = Path(lab.directory, f"stunnel-{host}.conf")
    path.write_text(_STUNNEL.format(port=STUNNEL_PORT, server=lab.addresses["server"], tls_port=TLS_PORT))
    process = lab.start(host, ["stunnel4", str(path)])
    process.wait_listening(STUNNEL_PORT)
    return process
