"""The commands themselves: what they refuse and how, with which exit status they end, and that nothing stays behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from pathlib import Path

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SkipTest

import rdvtwisted
from tests.interop.commands import CommandCase, Server, alive, reactor, without

#: A key that no server of these tests has.
FOREIGN_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICsFzfBwHNTS1eECb9ExIYGPJQ4sGpOwTl7iCJBnlaDN"


def _unwritable(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o500)
    return folder


class ServerRefusalTests(CommandCase):
    """C{twistd rdv-server} refuses before it goes into the background."""

    async def refused(self, line: str, *options: str, before: list[str] | None = None, status: int = 1) -> None:
        """In the foreground and in the background alike: one line, this status, no process and no file of it left."""
        for twistd in (["-n"], ["-l", "log"]):
            words = ["twistd", *twistd, "--pidfile=pid", "rdv-server", *self.places(self.folder / "state"), *options]
            self.assert_refused(await self.command(*words, before=before or []), status, f"rdv-server: {line}")
            self.assertFalse((self.folder / "pid").exists())

    async def test_port_in_use(self) -> None:
        """A port that another program has, at either door."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for door in ("ssh", "tls"):
                line = f"port {port} of 127.0.0.1 is in use by another program: stop that, or set {door}.port\n"
                await self.refused(line, f"--{door}-port={port}")

    async def test_low_port(self) -> None:
        """A port that needs a right."""
        if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
            raise SkipTest("here every port is free to everybody")
        line = "port 1 of 127.0.0.1 needs root or CAP_NET_BIND_SERVICE: grant one, or set ssh.port to 1024 or above\n"
        await self.refused(line, "-p", "1", before=without("net_bind_service"))

    async def test_state_directory(self) -> None:
        """A state directory that cannot be written, or cannot be."""
        path = _unwritable(self.folder / "others")
        await self.refused(
            f"cannot write to {path}: permission denied: run as its owner or as root\n",
            "-s", str(path), before=without("dac_override", "dac_read_search"),
        )  # fmt: skip
        await self.refused("cannot make /dev/null/x: not a directory\n", "-s", "/dev/null/x")

    async def test_settings(self) -> None:
        """Settings that do not exist, or cannot be, wherever they stand; in an option they are bad usage."""
        await self.refused(
            "setting ssh.prot: there is no such setting; did you mean ssh.port?\n", "--set", "ssh.prot=1", status=2
        )
        await self.refused("setting ssh.port: 'x' is not a whole number", "--ssh-port=x", status=2)
        (self.folder / "file").write_text("[ssh]\nprot = 1\n")
        await self.refused("setting ssh.prot: there is no such setting; did you mean ssh.port? (settings", "-c", "file")
        self.environment["RDV_SERVER_SSH_PROT"] = "1"
        await self.refused("setting RDV_SERVER_SSH_PROT: there is no such setting; did you mean RDV_SERVER_SSH_PORT?\n")

    async def test_options(self) -> None:
        """Options that do not exist, and what the log cannot be."""
        await self.refused("option --nonsense not recognized\n", "--nonsense", status=2)
        await self.refused("--set x: write SECTION.KEY=VALUE\n", "--set", "x", status=2)
        await self.refused(
            f"setting control.socket: /{'x' * 120}/s is longer than 107 bytes; name a shorter path\n",
            f"--set=control.socket=/{'x' * 120}/s",
            status=2,
        )
        result = await self.command("twistd", "-l", "gone/log", "rdv-server", *self.places(self.folder / "state"))
        self.assert_refused(
            result, 1, "rdv-server: setting --logfile: cannot write gone/log: No such file or directory\n"
        )

    async def test_two_servers(self) -> None:
        """A state directory that another server works with."""
        server = await self.server()
        await self.refused(
            f"another server is running with the state directory {server.state}: stop that one first\n",
            "-s", str(server.state),
        )  # fmt: skip


class BackgroundTests(CommandCase):
    """C{twistd rdv-server} as a daemon."""

    async def begin(self, *options: str) -> int:
        """A server in the background that answers: its process id."""
        result = await self.command(
            "twistd", "--pidfile=pid", "-l", "log", "rdv-server", *self.places(self.folder / "server"), *options
        )
        self.assertEqual((result.status, result.out, result.err), (0, b"", b""))
        pid = int((self.folder / "pid").read_text())
        self.addCleanup(self.kill, pid)
        self.assertTrue(alive(pid))
        # twistd returns before its daemon's reactor runs, and until then SIGTERM just kills it.
        status = await self.command("rdvctl", "--state-dir", str(self.folder / "server"), "status")
        self.assertIn(f"pid:        {pid}\n", status.out.decode())
        return pid

    async def kill(self, pid: int) -> None:
        """End it, if the test has not."""
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            await self.until_gone(pid)

    async def end(self, pid: int) -> None:
        """Ask it to end; nothing of it is left."""
        os.kill(pid, signal.SIGTERM)
        await self.until_gone(pid)
        self.assertFalse((self.folder / "pid").exists())
        self.assertFalse((self.folder / "server" / "control.sock").exists())
        names = {path.name for path in (self.folder / "server").iterdir()}
        self.assertEqual({name for name in names if name.startswith("inventory")}, {"inventory.db"})

    async def test_life(self) -> None:
        """It serves, answers its administrator, takes note of each change of the inventory, and ends by SIGTERM."""
        pid = await self.begin()
        state = str(self.folder / "server")
        log = (self.folder / "log").read_text()
        self.assertEqual(log.count("RDV server "), 1)
        for count in (1, 2, 3):
            key = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 42}{'ABC'[count - 1]}"
            added = await self.command(
                "rdvctl", "--state-dir", state, "device", "add", f"rpi{count}", "--role", "onsite", "--key", key
            )
            self.assertEqual((added.status, added.err), (0, b""))
            status = await self.command("rdvctl", "--state-dir", state, "status")
            self.assertIn(f"devices:    {count}\n", status.out.decode())
            self.assertIn(f"pid:        {pid}\n", status.out.decode())
        await self.end(pid)
        log = (self.folder / "log").read_text()
        self.assertIn("Server Shut Down.", log)
        self.assertNotIn("Traceback", log)
        self.assertNotIn("Unhandled", log)

    async def test_log_level(self) -> None:
        """The setting log.level says what is logged."""
        pid = await self.begin("--set", "log.level=warn")
        await self.end(pid)
        self.assertEqual((self.folder / "log").read_text(), "")


class MasterCommandTests(CommandCase):
    """C{rdv-master}, and C{twistd master-dev}."""

    async def assert_list(self, server: Server, *, tls: bool) -> None:
        """Nobody is online, which is no failure."""
        options = self.device(server, "rpi1", tls=tls)
        result = await self.command("rdv-master", *options, "-l")
        self.assertEqual(
            (result.out, result.err, result.status), (b"No onsite device currently available\n...done\n", b"", 0)
        )

    async def test_list(self) -> None:
        """From a new key to a list, at both doors; under twistd, too."""
        server = await self.server()
        made = await self.command("rdv-master", *self.device(server, "rpi1"), "--make-key")
        self.assertEqual((made.status, made.err, made.out.count(b"\n")), (0, b"", 3))
        for tls in (False, True):
            refused = await self.command("rdv-master", *self.device(server, "rpi1", tls=tls), "-l")
            self.assertEqual(refused.out, b"...done\n")
            self.assertRegex(
                refused.err.decode(),
                r"^rdv-master: \[127\.0\.0\.1\]:\d+ does not accept the key ssh-ed25519 SHA256:\S+ for rpi1\."
                r" Register it: rdvctl device add rpi1 --role master --key 'ssh-ed25519 \S+'\n$",
            )
            self.assertEqual(refused.status, 3)
        await self.register(server, "rpi1", "master")
        await self.assert_list(server, tls=False)
        await self.assert_list(server, tls=True)
        result = await self.command(
            "twistd", "-n", "--pidfile=", "-l", "log", "master-dev", *self.device(server, "rpi1"), "-l"
        )
        self.assertEqual((result.status, result.out, result.err), (0, b"", b""))
        self.assertIn("No onsite device currently available", (self.folder / "log").read_text())
        # A refusal is one line in the server's log.
        lines = [line for line in server.child.out.decode().splitlines() if "efused" in line]
        self.assertEqual(len(lines), 2, lines)

    async def test_strange_server(self) -> None:
        """A server that is not the one that was pinned, or given: status 3, and nothing is sent to it."""
        server = await self.server()
        await self.register(server, "rpi1", "master")
        await self.assert_list(server, tls=False)
        await self.assert_list(server, tls=True)
        known = self.folder / "rpi1" / "known_hosts"
        kept = known.read_text()
        known.write_text(re.sub(r"ssh-ed25519 \S+|ecdsa\S+ \S+|ssh-rsa \S+", FOREIGN_KEY, known.read_text()))
        result = await self.command("rdv-master", *self.device(server, "rpi1"), "-l")
        self.assert_ended(result, 3, f"rdv-master: the host key of [127.0.0.1]:{server.ssh_port} has changed: pinned ")
        known.write_text(kept)
        other = self.folder / "other.pem"
        shutil.copy(self.folder / "rpi1" / "server-ca.pem", other)
        own = self.folder / "own"
        await self.another_authority(own)
        for option in (["--ca", str(own / "authority.crt")], ["--ca", str(self.folder / "none" / "ca.pem")]):
            result = await self.command("rdv-master", *self.device(server, "rpi1", tls=True), "-l", *option)
            if "none" in option[1]:
                self.assert_ended(result, 1, f"rdv-master: cannot write {option[1]}: No such file or directory")
            else:
                self.assert_ended(
                    result, 3, "rdv-master: the server's certificate authority has changed: pinned SHA256:"
                )
        self.assertEqual(other.read_bytes(), (self.folder / "rpi1" / "server-ca.pem").read_bytes())

    async def another_authority(self, folder: Path) -> None:
        """The certificate of an authority that is another server's."""
        folder.mkdir()
        child = self.start(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                str(folder / "key"),
                "-out",
                str(folder / "authority.crt"),
                "-subj",
                "/CN=other",
            ]
        )
        self.assertEqual((await child.done).status, 0)

    def assert_ended(self, result: object, status: int, line: str) -> None:
        """It connected in vain: this status, one line on standard error, and the last word on standard output."""
        text = result.err.decode()
        self.assertTrue(text.startswith(line), text)
        self.assertEqual((text.count("\n"), result.out, result.status), (1, b"...done\n", status), text)

    async def test_wrong_role(self) -> None:
        """An onsite's account: status 1, in the words that wrappers know; twistd's own status is the same."""
        server = await self.server()
        await self.register(server, "rpi2", "onsite")
        options = [*self.device(server, "rpi2"), "-l"]
        line = "Tundev shell returns a role that does not match this script (master)"
        self.assert_ended(await self.command("rdv-master", *options), 1, f"rdv-master: {line}\n")
        result = await self.command("twistd", "-n", "--pidfile=", "-l", "log", "master-dev", *options)
        self.assertEqual((result.status, result.out, result.err), (1, b"", b""))
        self.assertIn(line, (self.folder / "log").read_text())

    async def test_no_server(self) -> None:
        """Nobody listens there: status 3, also under twistd."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            options = ["-u", "rpi1", "-R", f"127.0.0.1:{port}", "-s", "state"]
            await self.command("rdv-master", *options, "--make-key")
            line = f"rdv-master: [127.0.0.1]:{port} could not be reached: "
            self.assert_ended(await self.command("rdv-master", *options, "-l"), 3, line)
            result = await self.command("twistd", "-n", "--pidfile=pid", "-l", "log", "master-dev", *options, "-l")
            self.assertEqual(result.status, 3)
            self.assertFalse((self.folder / "pid").exists())

    async def test_interrupted(self) -> None:
        """Each signal that asks for the end is the operator's end: status 0, under twistd too."""
        arrivals: list[Protocol] = []

        class Silent(Protocol):
            """A server that says nothing."""

            def connectionMade(self) -> None:
                arrivals.append(self)

        port = reactor.listenTCP(0, Factory.forProtocol(Silent), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        options = ["-u", "rpi1", "-R", f"127.0.0.1:{port.getHost().port}", "-s", "state", "-l"]
        await self.command("rdv-master", *options, "--make-key")
        twistd = ["twistd", "-n", "--pidfile=", "-l", "log", "master-dev"]
        for program, number in (
            (["rdv-master"], signal.SIGINT),
            (["rdv-master"], signal.SIGHUP),
            (twistd, signal.SIGINT),
            (twistd, signal.SIGTERM),
        ):
            arrivals.clear()
            child = self.spawn(*program, *options)
            while not arrivals:
                await self.pause()
            self.interrupt(child, number)
            result = await child.done
            self.assertEqual((result.status, result.err), (0, b""))
            words = b"Stopped by the operator\n...done\n"
            self.assertEqual(result.out, b"" if program is twistd else words)

    async def test_nobody_reads(self) -> None:
        """Who has seen enough of a list may close the pipe."""
        server = await self.server()
        await self.register(server, "rpi1", "master")
        child = self.spawn("rdv-master", *self.device(server, "rpi1"), "-l")
        child.transport.closeStdout()
        result = await child.done
        self.assertEqual((result.status, result.err), (0, b""))

    async def test_debug(self) -> None:
        """-d shows the conversation with the server's shell, on standard error or in twistd's log."""
        server = await self.server()
        await self.register(server, "rpi1", "master")
        options = [*self.device(server, "rpi1"), "-l"]
        result = await self.command("rdv-master", *options, "-d")
        self.assertIn("Device: get_role", result.err.decode())
        self.assertIn("Server: master", result.err.decode())
        for flag, expected in (([], False), (["-d"], True)):
            await self.command("twistd", "-n", "--pidfile=", "-l", "log", "master-dev", *options, *flag)
            self.assertEqual("Device: get_role" in (self.folder / "log").read_text(), expected)

    async def test_usage(self) -> None:
        """Bad usage is status 2, of rdv-master and of twistd's commands; nothing has been made then."""
        who = ["-u", "rpi1", "-R", "127.0.0.1"]
        mandatory = "Error: --onsite argument is mandatory if --list-onsite is not used\n"
        for options, line in ((who, mandatory), ([*who, "--nonsense"], "option --nonsense not recognized\n")):
            self.assert_refused(await self.command("rdv-master", *options), 2, f"rdv-master: {line}")
            self.assert_refused(await self.command("twistd", "-n", "master-dev", *options), 2, f"master-dev: {line}")
        line = "invalid tunnel backend 'nope': use one of tls, stunnel, vtun\n"
        who += ["-s", "new"]
        for words, name in (
            (["rdv-master", *who, "-o", "rpi2", "-b", "nope"], "rdv-master"),
            (["twistd", "-n", "master-dev", *who, "-o", "rpi2", "-b", "nope"], "master-dev"),
            (["twistd", "-n", "onsite-dev", *who, "-b", "tls,nope"], "onsite-dev"),
        ):
            self.assert_refused(await self.command(*words), 2, f"{name}: {line}")
            self.assertFalse((self.folder / "new").exists())

    async def test_informs(self) -> None:
        """--help-backends and --version need nothing, and are no failure."""
        for words in (["rdv-master"], ["twistd", "-n", "master-dev"], ["twistd", "-n", "onsite-dev"]):
            result = await self.command(*words, "--help-backends")
            self.assertEqual((result.status, result.err), (0, b""))
            self.assertRegex(result.out.decode(), r"(?m)^tls +L2, L3 +\S")
        result = await self.command("rdv-master", "--version")
        self.assertEqual((result.status, result.out.decode()), (0, f"rdvtwisted {rdvtwisted.__version__}\n"))


class PrivilegeTests(CommandCase):
    """Who may not configure the network cannot be a device."""

    async def test_missing(self) -> None:
        """One line, status 1, before anybody is connected to or goes into the background."""
        before = without("net_admin")
        line = "configuring the network needs CAP_NET_ADMIN: run this as root, for example with sudo\n"
        device = ["-u", "rpi1", "-R", "127.0.0.1:1", "-s", "state"]
        await self.command("rdv-master", *device, "--make-key")
        result = await self.command("rdv-master", *device, "-o", "rpi2", before=before)
        self.assert_refused(result, 1, f"rdv-master: {line}")
        for twistd in (["-n", "--pidfile="], ["--pidfile=pid", "-l", "log"]):
            result = await self.command("twistd", *twistd, "onsite-dev", *device, before=before)
            self.assert_refused(result, 1, f"onsite-dev: {line}")
            self.assertFalse((self.folder / "pid").exists())

    async def test_state_directory(self) -> None:
        """A state directory that cannot be written."""
        path = _unwritable(self.folder / "others")
        for program, name in ((["rdv-master", "-l"], "rdv-master"), (["twistd", "-n", "onsite-dev"], "onsite-dev")):
            words = [*program, "-u", "rpi1", "-R", "127.0.0.1:1", "-s", str(path)]
            result = await self.command(*words, before=without("dac_override", "dac_read_search"))
            line = f"{name}: cannot write in the state directory {path}: choose another with --state-dir\n"
            self.assert_refused(result, 1, line)


class NetworkTests(CommandCase):
    """Commands that configure a network: one that is their own, as are its journals."""

    async def enter(self) -> list[str]:
        """A network with one interface; what to put before a command so that it runs there."""
        if os.geteuid() != 0:
            raise SkipTest("making network namespaces needs root")
        script = (
            "mount -t tmpfs tmpfs /run && ip link set lo up && ip link add lan0 type veth peer name far0"
            " && ip address add 192.0.2.1/24 dev lan0 && ip link set far0 up && ip link set lan0 up"
            " && ip route add default via 192.0.2.254 && echo ready && exec sleep 1000"
        )
        holder = self.start(["unshare", "--net", "--mount", "sh", "-c", script])
        await self.until_said(holder, b"ready")
        return ["nsenter", "-t", str(holder.transport.pid), "-n", "-m", f"--wd={self.folder}"]

    async def test_unknown_onsite(self) -> None:
        """With --wait 0 an onsite that is not there is status 1."""
        here = await self.enter()
        server = await self.server(before=here)
        await self.register(server, "rpi1", "master", before=here)
        result = await self.command(
            "rdv-master", *self.device(server, "rpi1"), "-o", "rpi9", "--wait", "0", before=here
        )
        first = f"Connecting by SSH to 127.0.0.1:{server.ssh_port}\n".encode()
        self.assertEqual(result.out, first + b"Connecting to onsite rpi9\n...done\n")
        self.assertEqual(result.err, b"rdv-master: OnsiteDeviceIsNotRegistered: rpi9 is not online\n")
        self.assertEqual(result.status, 1)

    async def test_onsite(self) -> None:
        """
        An onsite that nobody has registered says so once and keeps trying; once it is registered it is online, and
        listed; SIGTERM ends it, and no process, socket or file of it is left.
        """
        here = await self.enter()
        server = await self.server(before=here)
        await self.register(server, "rpi1", "master", before=here)
        options = self.device(server, "rpi2", tls=True)
        child = self.spawn("twistd", "-n", "--pidfile=pid", "onsite-dev", *options, before=here)
        await self.until_said(child, b"Register it: rdvctl device add rpi2 --role onsite")
        await self.register(server, "rpi2", "onsite", before=here)
        await self.until_said(child, b"Online. A master will reach 192.0.2.1/24 on lan0")
        # The key is told when it is made, and again with the one refusal.
        self.assertEqual(child.out.count(b"does not accept the key"), 1)
        # It says so when it has published itself, and is listed once it waits for a master.
        for _ in range(5):
            result = await self.command("rdv-master", *self.device(server, "rpi1"), "-l", before=here)
            if result.out != b"No onsite device currently available\n...done\n":
                break
        self.assertEqual(result.out, b"Currently available onsite devices:\nrpi2\nTotal: 1\n...done\n", child.out)
        self.assertEqual(child.out.count(b"Online."), 1, child.out)
        self.interrupt(child, signal.SIGTERM)
        result = await child.done
        self.assertFalse((self.folder / "pid").exists())
        self.assertNotIn(b"Traceback", result.out)
        await self.until_said(server.child, b"rpi2 (onsite) left")

    async def test_onsite_in_background(self) -> None:
        """As a daemon it does the same, and stops in order."""
        here = await self.enter()
        server = await self.server(before=here)
        await self.register(server, "rpi2", "onsite", before=here)
        result = await self.command(
            "twistd", "--pidfile=pid", "-l", "log", "onsite-dev", *self.device(server, "rpi2"), before=here
        )
        self.assertEqual((result.status, result.err), (0, b""))
        pid = int((self.folder / "pid").read_text())
        self.addCleanup(self.kill, pid)
        await self.until_said(server.child, b"rpi2 (onsite) arrived")
        os.kill(pid, signal.SIGTERM)
        await self.until_gone(pid)
        self.assertFalse((self.folder / "pid").exists())
        self.assertNotIn("Traceback", (self.folder / "log").read_text())
        await self.until_said(server.child, b"rpi2 (onsite) left: ")

    def kill(self, pid: int) -> None:
        """End it, if the test has not."""
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
