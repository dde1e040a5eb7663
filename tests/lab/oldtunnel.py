"""The stock vtund client of an old device, configured as its scripts did."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab.olddialogue import LOCAL_PORT
from tests.lab.oldvtund import PROGRAM, options

END_SECONDS = 5.0
"""How long vtund may take to end once it is interrupted."""

PINGS = 10
TABLE, BRIDGE = "1", "br0"


class Tunnel:
    """
    The device's end of the tunnel.

    @param directory: where its configuration goes.
    @param masquerade: whether what comes out of the tunnel appears to come from this device: an onsite.
    """

    def __init__(
        self, directory: Path, id: str, mode: str, parameters: Mapping[str, str], extremity: str, masquerade: bool
    ) -> None:
        self._parameters = parameters
        self._extremity = extremity
        up, down = self._bridging() if mode == "L2" else self._routing(masquerade)
        own, server = parameters["tunnelling_dev_ip_address"], parameters["rdv_server_ip_address"]
        up = [f'ifconfig "%% {own} pointopoint {server} mtu 1450"', *up]
        path = directory / f"vtund-tundev{id}-client.conf"
        path.write_text(
            options(port=str(LOCAL_PORT), timeout="20")
            + f"tundev{id} {{\n  passwd {parameters['tunnel_secret']};\n  persist no;\n"
            + "".join(_block("up", up))
            + "".join(_block("down", down))
            + "}\n"
        )
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the tunnel
        argv = [PROGRAM, "-n", "-f", str(path), f"tundev{id}", "127.0.0.1"]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT)

    def _routing(self, masquerade: bool) -> tuple[list[str], list[str]]:
        def each(add: str, append: str) -> list[str]:
            hide = f'program /sbin/iptables "-t nat {append} POSTROUTING -o {self._extremity} -j MASQUERADE"'
            return [
                f'program /sbin/ip "route {add} table {TABLE} dev %% default via %A"',
                f'program /sbin/ip "rule {add} unicast iif {self._extremity} table {TABLE}"',
                *([hide] if masquerade else []),
            ]

        return [*each("add", "-A"), 'program /sbin/sysctl "net.ipv4.ip_forward=1"'], each("del", "-D")

    def _bridging(self) -> tuple[list[str], list[str]]:
        # The originals do not wait between these, and take the bridge away by reloading the kernel's module of all
        # bridges. Here they come in order, and this bridge goes alone.
        up = [f"addbr {BRIDGE}", f"addif {BRIDGE} {self._extremity}", f"addif {BRIDGE} %%"]
        down = [f"delif {BRIDGE} %%", f"delif {BRIDGE} {self._extremity}", f"delbr {BRIDGE}"]
        return (
            [*(f'program /sbin/brctl "{words}" wait' for words in up), f'program /sbin/ip "link set {BRIDGE} up" wait'],
            [
                f'program /sbin/ip "link set {BRIDGE} down" wait',
                *(f'program /sbin/brctl "{words}" wait' for words in down),
            ],
        )

    def answers(self) -> bool:
        """Whether the server answers through the tunnel: ten tries, which may be over in no time."""
        argv = ["ping", "-c", "1", "-w", "1", self._parameters["rdv_server_ip_address"]]
        return any(subprocess.run(argv, capture_output=True, check=False).returncode == 0 for _ in range(PINGS))

    def lives(self) -> bool:
        """Whether vtund runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Interrupt vtund."""
        if self.lives():
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def output(self) -> str:
        """What vtund has said, each line after a bar."""
        self._output.seek(0)
        return "".join(f"|{line}\n" for line in self._output.read().decode(errors="replace").splitlines())


def _block(name: str, lines: list[str]) -> Iterator[str]:
    yield f"  {name} {{\n"
    yield from (f"    {line};\n" for line in lines)
    yield "  };\n"
