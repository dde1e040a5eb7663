"""A lab that is up: its hosts are run in, looked at, unplugged, and taken down without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from pathlib import Path
from types import TracebackType

from tests.lab import namespaces, processes
from tests.lab.processes import LabError, LabProcess, Member, Record
from tests.lab.snapshot import SCRIPT, Snapshot
from tests.lab.topology import CUSTOMER_LAN, Port, Topology, outgoing_rules, site_suffix
from tests.lab.website import PORTS as WEB_PORTS

_HERE = Path(__file__).parent

_HEEDFUL = ("env", "--default-signal=HUP,INT,QUIT,TERM")
"""Before a program's command line: it heeds these signals, even if this process was told not to, by nohup or a job."""


class Lab:
    """
    Hosts in namespaces of this machine, joined by cables, as L{Topology} says.

    Needs root. Everything is found again by another process, and after a crash,
    by C{prefix} alone. Calls block; one at a time.

    @ivar topology: what is where.
    @ivar addresses: the uplink address of each host, by its name.
    """

    def __init__(
        self,
        prefix: str = "rdvlab",
        sites: int = 1,
        lan: IPv4Network | str | Sequence[IPv4Network | str] = CUSTOMER_LAN,
        engineers: int = 1,
    ) -> None:
        """
        @param lan: the customers' LAN, the same for all sites, or one for each.
        @param engineers: how many there are, each with a master and a PC.
        """
        if isinstance(lan, (str, IPv4Network)):
            lan = [lan] * sites
        if len(lan) != sites:
            raise ValueError(f"{len(lan)} LANs for {sites} sites")
        self.prefix = prefix
        self.topology = Topology(prefix, tuple(IPv4Network(network) for network in lan), engineers)
        self._numbers = count(1)
        self._started: list[LabProcess] = []

    @classmethod
    def load(cls, prefix: str = "rdvlab") -> Lab | None:
        """The lab of this prefix that somebody has built, or L{None} if there is none, or not a whole one."""
        try:
            state = json.loads((namespaces.run_directory(prefix) / "lab.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        lab = cls(prefix, len(state["lans"]), state["lans"], state["engineers"])
        whole = state["up"] and set(namespaces.inodes(prefix).values()) == set(lab.topology.hosts)
        return lab if whole else None

    @property
    def directory(self) -> Path:
        """Where the lab's files are; it goes when the lab goes."""
        return namespaces.run_directory(self.prefix)

    @property
    def addresses(self) -> dict[str, str]:
        return {host: str(self.topology.address(host)) for host in self.topology.hosts if host != "inet"}

    # Life

    def up(self) -> Lab:
        """
        Build the lab, having swept what there was of this prefix.

        @raise LabError: if it cannot be built; nothing of it is left then.
        """
        self.down()
        try:
            self._build()
        except BaseException:
            self.down()
            raise
        return self

    def down(self, grace: float = processes.GRACE) -> None:
        """Take the lab away with all that runs in it, however much of it there is; C{grace} as L{processes.end}."""
        for _ in range(2):  # the second look is for what was just being started
            processes.end(self.members(), grace)
        for process in self._started:
            process.wait(timeout=5)
        self._started.clear()
        namespaces.sweep(self.prefix)

    def __enter__(self) -> Lab:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    def _build(self) -> None:
        """Five steps, each of them for all hosts at once: namespaces, machines, cables, addresses, carriers."""
        topology, hosts = self.topology, list(self.topology.hosts)
        self.directory.mkdir(mode=0o700)
        (self.directory / "processes").mkdir()
        (self.directory / "logs").mkdir()
        self._save(up=False)
        for host in hosts:
            namespaces.write_files(topology.namespace(host), topology.files(host))
        namespaces.command(["ip", "-batch", "-"], "".join(f"netns add {topology.namespace(host)}\n" for host in hosts))
        namespaces.hold(self.prefix, hosts)
        namespaces.commands(
            (namespaces.furnishing(self.prefix, host), topology.machine_script(host, str(self.directory)))
            for host in hosts
        )
        namespaces.command(["ip", "-batch", "-"], topology.cable_batch())
        namespaces.commands(
            (namespaces.entering(self.prefix, host, ["sh", "-e"]), self._address_script(host)) for host in hosts
        )
        namespaces.commands(
            (
                namespaces.entering(self.prefix, host, ["sh", "-e"]),
                _carrier_script(port.name for port in topology.ports(host)),
            )
            for host in hosts
        )
        self._save(up=True)

    def _address_script(self, host: str) -> str:
        """The shell text that addresses a host, and makes a router of one that has rules."""
        script = f"ip -batch - <<'END'\n{self.topology.address_batch(host)}END\n"
        rules = self.topology.hosts[host].firewall
        if rules:
            script += f"nft -f - <<'END'\n{rules}END\n"
        if "ct state" in rules:
            script += "echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose\n"
        return script

    def _save(self, up: bool) -> None:
        """Write the state file, whole or not at all."""
        state = {
            "prefix": self.prefix,
            "lans": [str(lan) for lan in self.topology.lans],
            "engineers": self.topology.engineers,
            "up": up,
            "owner": {"pid": os.getpid(), "start": processes.start_time(os.getpid())},
        }
        draft = self.directory / "lab.json.new"
        draft.write_text(json.dumps(state) + "\n")
        draft.replace(self.directory / "lab.json")

    # Running things

    def command_line(self, host: str, argv: Sequence[str], directory: str | None = None) -> list[str]:
        """
        The command line that becomes C{argv} in a host when it is run by root.

        @param directory: the working directory; by default this process's.
        """
        if host not in self.topology.hosts:
            raise LabError(f"no host {host!r} in the lab; there are: {', '.join(self.topology.hosts)}")
        return namespaces.entering(self.prefix, host, argv, directory or os.getcwd())

    def run(
        self,
        host: str,
        argv: Sequence[str],
        timeout: float = 30.0,
        *,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a program in a host until it ends, with its output as text.

        @param env: variables to add to this process's environment.
        @param check: raise L{LabError} unless its exit status is 0.
        @raise LabError: if it takes longer than C{timeout} seconds; it is killed then.
        """
        command = self.command_line(host, argv)
        try:
            result = subprocess.run(
                command,
                input=input or "",
                env=namespaces.environment(self.prefix, env),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"in {host}, {' '.join(argv)} takes more than {timeout:g} s") from None
        if check and result.returncode:
            raise LabError(f"in {host}, {' '.join(argv)} exits with {result.returncode}: {result.stderr.strip()}")
        return result

    def start(
        self, host: str, argv: Sequence[str], env: Mapping[str, str] | None = None, log: Path | str | None = None
    ) -> LabProcess:
        """
        Start a program in a host, in a session of its own; it ends with the lab.

        @param env: variables to add to this process's environment.
        @param log: the file to append its output to; by default one in L{directory}, which goes with the lab.
        """
        command = [*_HEEDFUL, *self.command_line(host, argv)]
        name = Path(argv[0]).name
        path = Path(log) if log is not None else self.directory / "logs" / f"{next(self._numbers)}-{host}-{name}.log"
        with path.open("ab") as output:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=namespaces.environment(self.prefix, {"PYTHONUNBUFFERED": "1", **(env or {})}),
                start_new_session=True,
            )
        start = processes.start_time(popen.pid)
        assert start is not None  # it is our child and nobody has waited for it
        record = Record(popen.pid, start, host, " ".join(argv)).save(self.directory / "processes")
        process = LabProcess(host, popen, path, record)
        self._started.append(process)
        return process

    def services(self) -> list[LabProcess]:
        """Start the web server, UDP echo and TCP sink on every site's C{web}, and return when they answer."""
        hosts = [f"web{site_suffix(number)}" for number in range(1, len(self.topology.lans) + 1)]
        started = [self.start(host, [sys.executable, "-B", str(_HERE / "website.py")]) for host in hosts]
        for process in started:
            process.wait_listening(*WEB_PORTS)
        return started

    def capture(self, host: str, interface: str, path: Path | str) -> LabProcess:
        """
        Write what passes an interface to a pcap file, from the moment this returns
        until L{LabProcess.stop} with SIGINT. Only what is for the host itself or
        passes through it: the interface is not made promiscuous.
        """
        process = self.start(
            host,
            ["tcpdump", "-n", "-p", "-U", "--immediate-mode", "-Z", "root", "-i", interface, "-w", str(path)],
        )
        process.wait_output("listening on")
        return process

    # Looking

    def probe(self, host: str, *question: str) -> str:
        """What C{probe.py} finds out in a host, such as C{"udp", "192.168.1.20"}; empty without an answer."""
        return self.run(host, [sys.executable, "-B", str(_HERE / "probe.py"), *question], timeout=60).stdout

    def pings(self, host: str, address: str) -> bool:
        """Whether a host gets an answer to one ping within half a second; here, no packet is lost by chance."""
        return self.run(host, ["ping", "-c", "1", "-W", "0.5", address]).returncode == 0

    def snapshot(self, host: str) -> Snapshot:
        """The network configuration of a host at this moment."""
        return Snapshot.parse(self.run(host, ["sh", "-e"], input=SCRIPT, check=True).stdout)

    def members(self) -> list[Member]:
        """Every process of this lab that runs."""
        records = Record.load_all(self.directory / "processes")
        return processes.members(namespaces.inodes(self.prefix), self.prefix, records)

    def leftovers(self) -> list[str]:
        """What there is of this lab on this machine, in words; empty when it is down."""
        found = [f"file {path}" for path in namespaces.traces(self.prefix)]
        found += [f"namespace {self.prefix}-{host}" for host in namespaces.inodes(self.prefix).values()]
        found += [f"process {member.pid} {member.command}" for member in self.members()]
        return found

    # Meddling

    def cut(self, host: str, interface: str = "eth0") -> None:
        """
        Pull the cable in an interface: it loses its carrier and keeps its settings.
        (The other end is switched off, which is all that a veth pair can do.)
        """
        far = self.topology.opposite(host, interface)
        self._ip(far, [f"link set {far.name} down"])
        self.run(host, ["sh", "-e"], input=_carrier_script([interface], present=False), check=True)

    def mend(self, host: str, interface: str = "eth0") -> None:
        """Plug the cable in again that L{cut} pulled; both ends are as they were."""
        far = self.topology.opposite(host, interface)
        self._ip(far, self.topology.raise_port(far))
        for end, name in ((host, interface), (far.host, far.name)):
            self.run(end, ["sh", "-e"], input=_carrier_script([name]), check=True)

    def plug(self, host: str, interface: str, address: IPv4Interface, far: str, bridge: str) -> None:
        """
        Give a host one more interface in a LAN that it is in already, apart
        from the first one: nothing is sent by it for want of a route, and each
        answers for its own address only.

        @param far: the host, C{bridge}: the bridge there, that the cable leads to.
        """
        name = f"{host}-{interface}"
        # A bridge has the lowest address of its ports; this one's must not become it.
        peer = f"peer name {name} netns {self.topology.namespace(far)} address fe:ff:ff:ff:ff:fe"
        cable = f"link add name {interface} netns {self.topology.namespace(host)} type veth {peer}\n"
        namespaces.command(["ip", "-batch", "-"], cable)
        self._ip(Port(far, name), [f"link set {name} master {bridge}", f"link set {name} up"])
        self.run(host, ["sysctl", "-w", "net.ipv4.conf.all.arp_ignore=1"], check=True)
        self._ip(
            Port(host, interface),
            [f"address add {address} dev {interface} noprefixroute", f"link set {interface} up"],
        )
        for end, port in ((host, interface), (far, name)):
            self.run(end, ["sh", "-e"], input=_carrier_script([port]), check=True)

    def _ip(self, port: Port, lines: Iterable[str]) -> None:
        """Have C{ip} do several things where a port is."""
        self.run(port.host, ["ip", "-batch", "-"], input="\n".join(lines) + "\n", check=True)

    def flush_nat(self, router: str) -> None:
        """Let a router forget every connection; those that exist are dropped from now on, without a word."""
        self.run(router, [sys.executable, "-B", str(_HERE / "conntrack.py")], check=True)

    def allow_only(self, router: str, *tcp_ports: int) -> None:
        """Let nothing out of a router but these TCP ports (none: nothing at all)."""
        self.run(router, ["nft", "-f", "-"], input=outgoing_rules(frozenset(tcp_ports)), check=True)

    def allow_all(self, router: str) -> None:
        """Undo L{allow_only}."""
        self.run(router, ["nft", "-f", "-"], input=outgoing_rules(None), check=True)

    def lose(self, router: str, share: float) -> None:
        """Have a router drop this share of what it forwards, by chance; 0 for nothing."""
        rules = "table ip lossy {}\ndelete table ip lossy\n"
        if share:
            rules += "table ip lossy { chain forward { type filter hook forward priority -300; "
            rules += f"numgen random mod 1000 < {round(1000 * share)} drop; }}\n}}\n"
        self.run(router, ["nft", "-f", "-"], input=rules, check=True)

    def swallow(self, router: str, longest: int | None) -> None:
        """
        Have a router drop, and tell nobody, what it forwards of more than so many bytes; L{None} for nothing.

        From now on the cables that end there carry TCP's segments one by one, as real ones do: else what a host
        sends would come here as packets of up to 64 KiB, whatever the size of its segments.
        """
        for port in self.topology.ports(router):
            far = self.topology.opposite(router, port.name)
            self._ip(far, [f"link set {far.name} gso_max_segs 1"])
        rules = "table ip hole {}\ndelete table ip hole\n"
        if longest is not None:
            rules += "table ip hole { chain forward { type filter hook forward priority -300; "
            rules += f"ip length > {longest} drop; }}\n}}\n"
        self.run(router, ["nft", "-f", "-"], input=rules, check=True)

    def address(self, host: str, interface: str = "eth0") -> IPv4Address:
        """
        The address of one interface of a host.

        @raise LookupError: if it has none.
        """
        address = self.topology.address(host, interface)
        if address is None:
            raise LookupError(f"{interface} of {host} has no address")
        return address


def _carrier_script(interfaces: Iterable[str], present: bool = True) -> str:
    """
    The shell text that waits until the kernel has noticed that interfaces have a
    carrier, or have lost it, which may take it a second (net/core/link_watch.c).
    """
    operator = "=" if present else "!="
    return "".join(
        f"for look in $(seq 500); do [ $(cat {state}) {operator} up ] && break; sleep 0.01; done\n"
        for state in (f"/sys/class/net/{name}/operstate" for name in interfaces)
    )
