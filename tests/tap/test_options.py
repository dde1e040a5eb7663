"""The command lines: what each option means, what it is without one, and every mistake in one line."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import rdvtwisted
from rdvtwisted.errors import AddressInUse, ConnectionLost
from rdvtwisted.scope import ALL, Scope
from rdvtwisted.services.boundary import USUAL_FILE, LocalAccess
from rdvtwisted.services.device import ConsentSettings, DeviceSettings, HookSettings
from rdvtwisted.services.master import MasterSettings
from rdvtwisted.services.resumption import RESUME_SECONDS
from rdvtwisted.values import Mode, Role
from tap import master_dev, onsite_dev, rdv_server
from tap.refusal import refusing

#: What every device's options are if nothing is said but who and where.
DEVICE = {
    "with-tls": 0,
    "debug": 0,
    "make-key": 0,
    "strict-peers": 0,
    "end-to-end": 0,
    "help-backends": 0,
    "username": "rpi1",
    "rdv-server": "rdv.example.org",
    "session-time": 86400.0,
    "hooks": None,
    "hook-time": 10.0,
    "silence": 60.0,
    "state-dir": None,
    "identity": None,
    "known-hosts": None,
    "known-peers": None,
    "ca": None,
    "report": None,
}
ONSITE = {
    **DEVICE,
    "interface": None,
    "access": None,
    "backends": None,
    "consent": "none",
    "consent-file": None,
    "consent-program": None,
    "consent-time": 120.0,
    "consent-window": 28800.0,
}
MASTER = {
    **DEVICE,
    "list-onsite": 0,
    "no-resume": 0,
    "no-dhcp": 0,
    "onsite": "rpi2",
    "tunnel-mode": "L3",
    "extremity": None,
    "backend": None,
    "wait": None,
}
WHO = ["-u", "rpi1", "-R", "rdv.example.org"]


class OptionsCase(SynchronousTestCase):
    """Parses command lines in an environment of its own."""

    options: type[usage.Options]

    def setUp(self) -> None:
        """Nothing in the environment, and nothing on the terminal."""
        self.environment: dict[str, str] = {}
        self.patch(os, "environ", self.environment)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def parse(self, *words: str) -> Any:
        """The options of a command line."""
        options = self.options()
        options.parseOptions(list(words))
        return options

    def assert_mistakes(self, *mistakes: tuple[list[str], str]) -> None:
        """
        Each command line is refused with this text; under twistd that is one
        line on standard error, and exit status 2.
        """
        for words, text in mistakes:
            error = self.assertRaises(usage.UsageError, self.parse, *words)
            self.assertEqual(str(error), text)
            self.err.truncate(0)
            self.err.seek(0)
            options = self.options()
            options.parent = usage.Options()
            end = self.assertRaises(SystemExit, options.parseOptions, words)
            self.assertEqual((end.code, self.err.getvalue()), (2, f"{self.options.command}: {text}\n"))


class DeviceOptionsTests(OptionsCase):
    """What both kinds of devices have, tried on an onsite."""

    options = onsite_dev.Options

    def test_defaults(self) -> None:
        """Who and where is all that has to be said."""
        self.assertEqual(dict(self.parse(*WHO)), ONSITE)

    def test_environment(self) -> None:
        """The old scripts' variables say it too; an option wins."""
        self.environment.update(
            ONSITEDEV_USERNAME="rpi1", RDV_SERVER_HOSTNAME="rdv.example.org", MASTERDEV_USERNAME="x"
        )
        self.assertEqual(dict(self.parse()), ONSITE)
        self.assertEqual(
            dict(self.parse("-u", "rpi9", "-R", "other")), {**ONSITE, "username": "rpi9", "rdv-server": "other"}
        )

    def test_everything(self) -> None:
        """Each option, in its long form."""
        self.assertEqual(
            dict(
                self.parse(
                    "--username=rpi1", "--rdv-server=[::1]:2222", "--with-tls", "--debug", "--strict-peers",
                    "--end-to-end",
                    "--session-time=90", "--silence=9", "--state-dir=s", "--identity=i",
                    "--known-hosts=h", "--known-peers=p", "--ca=c", "--report=r", "--interface=eth1",
                    "--access=a", "--backends=vtun, tls,", "--hooks=/h", "--hook-time=20", "--consent=ask",
                    "--consent-file=/f", "--consent-program=/p", "--consent-time=60", "--consent-window=3600",
                )
            ),
            {
                "with-tls": 1, "debug": 1, "make-key": 0, "strict-peers": 1, "help-backends": 0,
                "end-to-end": 1,
                "username": "rpi1", "rdv-server": "[::1]:2222", "session-time": 90.0, "silence": 9.0,
                "state-dir": "s",
                "identity": "i", "known-hosts": "h", "known-peers": "p", "ca": "c", "report": "r", "interface": "eth1",
                "access": "a", "backends": ("vtun", "tls"), "hooks": "/h", "hook-time": 20.0, "consent": "ask",
                "consent-file": "/f", "consent-program": "/p", "consent-time": 60.0, "consent-window": 3600.0,
            },
        )  # fmt: skip

    def test_short(self) -> None:
        """The short forms are those of the old scripts; so is --with-stunnel."""
        long = self.parse(*WHO, "--with-tls", "--debug", "--session-time=5", "--state-dir=s", "--interface=wlan0")
        self.assertEqual(dict(self.parse(*WHO, "-T", "-d", "-t", "5", "-s", "s", "-i", "wlan0")), dict(long))
        self.assertEqual(dict(self.parse(*WHO, "--with-stunnel")), {**ONSITE, "with-tls": True})

    def test_session_time(self) -> None:
        """A negative number of seconds is no limit, as old wrappers write it; less than a second is no session."""
        for text, value in (("-1", None), ("1", 1.0), ("1.5", 1.5)):
            self.assertEqual(self.parse(*WHO, "-t", text)["session-time"], value)
        for text in ("0", "0.9"):
            words = f"--session-time {text}: give a number of seconds, at least 1; a negative one means no limit"
            self.assert_mistakes(([*WHO, "-t", text], words))

    def test_hooks(self) -> None:
        """Where there are usually hooks there need be none; a directory that is named has to be there."""
        self.assertEqual(self.parse(*WHO).hooks(), HookSettings())
        named = self.parse(*WHO, "--hooks", "/h", "--hook-time", "5").hooks()
        self.assertEqual(named, HookSettings(Path("/h"), 5.0, required=True))

    def test_informs(self) -> None:
        """To tell the key nobody needs a server, to list backends not even an account."""
        self.assertEqual(dict(self.parse("-u", "rpi1", "--make-key")), {**ONSITE, "rdv-server": None, "make-key": 1})
        self.assertEqual(
            dict(self.parse("--help-backends")), {**ONSITE, "username": None, "rdv-server": None, "help-backends": 1}
        )

    def test_access(self) -> None:
        """What a session may reach is named any number of times; without, everything may be. A file may say more."""
        self.assertEqual(self.parse(*WHO).access(), LocalAccess(USUAL_FILE, False, ALL))
        options = self.parse(
            *WHO, "--allow", "192.168.1.10:tcp/80", "--allow=192.168.1.11", "--access", "/a/rules.toml"
        )
        scope = Scope.parse("192.168.1.10:tcp/80 192.168.1.11")
        self.assertEqual(options.access(), LocalAccess(Path("/a/rules.toml"), True, scope))
        error = self.assertRaises(usage.UsageError, self.parse, *WHO, "--allow", "web")
        self.assertIn("--allow: invalid destination 'web': use ADDRESS", str(error))
        text = "--allow: invalid destination '10.0.0.1:tcp/0': port 0 is none"
        self.assert_mistakes(([*WHO, "--allow", "10.0.0.1:tcp/0"], text))

    def test_consent(self) -> None:
        """The site is asked if that is said, or if there is something to ask."""
        self.assertEqual(self.parse(*WHO).consent(), ConsentSettings())
        self.assertEqual(self.parse(*WHO, "--consent", "ask").consent(), ConsentSettings(required=True))
        named = self.parse(*WHO, "--consent-program", "/p", "--consent-time", "30").consent()
        self.assertEqual(named, ConsentSettings(required=True, seconds=30.0, program=Path("/p")))
        named = self.parse(*WHO, "--consent-file", "/f", "--consent-window", "60").consent()
        self.assertEqual(named, ConsentSettings(required=True, window=60.0, file=Path("/f")))
        self.assert_mistakes(
            ([*WHO, "--consent", "maybe"], "--consent maybe: use none or ask"),
            (
                [*WHO, "--consent", "none", "--consent-file", "/f"],
                "--consent none: --consent-file and --consent-program are for --consent ask",
            ),
            ([*WHO, "--consent-time", "601"], "--consent-time 601: give a number of seconds from 1 to 600"),
            ([*WHO, "--consent-time", "x"], "--consent-time x: give a number of seconds from 1 to 600"),
            ([*WHO, "--hook-time", "0"], "--hook-time 0: give a number of seconds from 1 to 45"),
            ([*WHO, "--silence", "nan"], "--silence nan: give a number of seconds from 3 to 3600"),
            ([*WHO, "--silence", "-1"], "--silence -1: give a number of seconds from 3 to 3600"),
        )

    def test_mistakes(self) -> None:
        """What makes no sense, and what would."""
        id = "use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash"
        seconds = "give a number of seconds, at least 1; a negative one means no limit"
        self.assert_mistakes(
            ([], "name the account with --username or ONSITEDEV_USERNAME"),
            (["-u", "rpi1"], "name the server with --rdv-server or RDV_SERVER_HOSTNAME"),
            (["-u", "Rpi", "-R", "x"], f"invalid device id 'Rpi': {id}"),
            (["-u", "", "-R", "x"], f"invalid device id: {id}"),
            (["-u", "rpi1", "-R", "a b"], "invalid RDV server 'a b': use HOST, HOST:PORT or [IPV6]:PORT"),
            (["-u", "rpi1", "-R", "x:0"], "invalid RDV server 'x:0': the port must be from 1 to 65535"),
            (["--make-key"], "name the account with --username or ONSITEDEV_USERNAME"),
            ([*WHO, "-t", "soon"], f"--session-time soon: {seconds}"),
            ([*WHO, "-t", "nan"], f"--session-time nan: {seconds}"),
            ([*WHO, "-t", "inf"], f"--session-time inf: {seconds}"),
            ([*WHO, "--nonsense"], "option --nonsense not recognized"),
            ([*WHO, "-i"], "option -i requires argument"),
            ([*WHO, "extra"], "Wrong number of arguments."),
        )

    def test_empty_variable(self) -> None:
        """An empty variable counts as set, as it did."""
        self.environment.update(ONSITEDEV_USERNAME="", RDV_SERVER_HOSTNAME="x")
        self.assertIn("invalid device id", str(self.assertRaises(usage.UsageError, self.parse)))

    def test_settings(self) -> None:
        """The settings that follow: files lie in the state directory, the port is the door's."""
        state = Path("s").absolute()
        self.assertEqual(
            self.parse(*WHO, "-s", "s").settings(),
            DeviceSettings(
                role=Role.ONSITE,
                account="rpi1",
                host="rdv.example.org",
                port=22,
                tls=False,
                state=state,
                identity=state / "identity",
                known_hosts=state / "known_hosts",
                known_peers=state / "known_peers",
                authority=state / "server-ca.pem",
                strict_peers=False,
            ),
        )
        self.assertEqual(
            self.parse(
                *WHO, "-s", "s", "-T", "--identity=i", "--known-hosts=h", "--known-peers=p", "--ca=c", "--strict-peers"
            ).settings(),
            DeviceSettings(
                role=Role.ONSITE,
                account="rpi1",
                host="rdv.example.org",
                port=443,
                tls=True,
                state=state,
                identity=Path("i").absolute(),
                known_hosts=Path("h").absolute(),
                known_peers=Path("p").absolute(),
                authority=Path("c").absolute(),
                strict_peers=True,
            ),
        )
        self.assertEqual(self.parse("-u", "rpi1", "-R", "[::1]:99").settings().port, 99)

    def test_silence(self) -> None:
        """How long a silent server is believed in is a minute unless said otherwise, within bounds."""
        silences = [self.parse(*WHO, *words).settings().silence for words in ((), ("--silence", "7.5"))]
        self.assertEqual(silences, [60.0, 7.5])
        for text in ("2", "-1", "4000", "soon"):
            error = self.assertRaises(usage.UsageError, self.parse, *WHO, "--silence", text)
            self.assertIn(f"--silence {text}: give a number of seconds", str(error))

    def test_log_level(self) -> None:
        """-d makes the log tell more."""
        self.assertEqual([self.parse(*WHO).log_level, self.parse(*WHO, "-d").log_level], ["info", "debug"])


class MasterOptionsTests(OptionsCase):
    """A master's own."""

    options = master_dev.Options

    def test_defaults(self) -> None:
        """Whom to connect to has to be said, too."""
        self.assertEqual(dict(self.parse(*WHO, "-o", "rpi2")), MASTER)

    def test_environment(self) -> None:
        """The account's variable is the master's own."""
        self.environment.update(
            MASTERDEV_USERNAME="rpi1", RDV_SERVER_HOSTNAME="rdv.example.org", ONSITEDEV_USERNAME="x"
        )
        self.assertEqual(dict(self.parse("-o", "rpi2")), MASTER)

    def test_everything(self) -> None:
        """Each option of its own, in both forms."""
        expected = {
            **MASTER, "list-onsite": 1, "tunnel-mode": "L2", "extremity": "usb0", "backend": "tls", "wait": 30.0,
            "session-time": 60.0, "no-dhcp": 1, "no-resume": 1,
        }  # fmt: skip
        for words in (
            (
                "--list-onsite --onsite=rpi2 --tunnel-mode=L2 --extremity=usb0 --backend=tls --wait=30"
                " --session-time=60 --no-dhcp --no-resume"
            ),
            "-l -o rpi2 -m L2 -e usb0 -b tls -w 30 -t 60 --no-dhcp --no-resume",
        ):
            self.assertEqual(dict(self.parse(*WHO, *words.split())), expected)

    def test_list(self) -> None:
        """A list needs no onsite."""
        self.assertEqual(dict(self.parse(*WHO, "-l")), {**MASTER, "onsite": None, "list-onsite": 1})

    def test_mistakes(self) -> None:
        """What makes no sense; one of the texts is that of the old script, to the byte."""
        self.assert_mistakes(
            (WHO, "Error: --onsite argument is mandatory if --list-onsite is not used"),
            (
                [*WHO, "-o", "No id"],
                "invalid device id 'No id': use 1 to 32 of a-z 0-9 _ -, not starting with a digit or dash",
            ),
            ([*WHO, "-o", "rpi2", "-m", "L4"], "--tunnel-mode L4: use L3 or L2"),
            (
                [*WHO, "-o", "rpi2", "--no-dhcp"],
                "--no-dhcp: only mode L2 carries DHCP; use it with --tunnel-mode L2",
            ),
            ([*WHO, "-o", "rpi2", "-w", "x"], "--wait x: give a number of seconds; a negative one means no limit"),
            (["-o", "rpi2"], "name the account with --username or MASTERDEV_USERNAME"),
        )

    def test_command(self) -> None:
        """rdv-master refuses bad usage with one line and status 2."""
        end = self.assertRaises(SystemExit, master_dev.main, WHO)
        text = "rdv-master: Error: --onsite argument is mandatory if --list-onsite is not used\n"
        self.assertEqual((end.code, self.err.getvalue(), self.out.getvalue()), (2, text, ""))

    def test_service(self) -> None:
        """The wishes that follow."""
        made: list[Any] = []
        self.patch(master_dev, "make_master", lambda settings, wishes, **more: made.append((wishes, more)))
        for words in (
            "-o rpi2",
            "-l",
            "-l -o rpi2 -m L2 -e usb0 -b tls -w 0 -t 60 --report r --no-dhcp --no-resume --hooks /h --hook-time 20",
        ):
            master_dev._master(self.parse(*WHO, *words.split()), terminal=True)
        plain = {"report": None, "terminal": True, "hooks": HookSettings()}
        self.assertEqual(
            made,
            [
                (MasterSettings(onsite="rpi2", session_seconds=86400.0, resume_seconds=RESUME_SECONDS), plain),
                (MasterSettings(list_onsite=True, session_seconds=86400.0, resume_seconds=RESUME_SECONDS), plain),
                (
                    MasterSettings(
                        onsite="rpi2",
                        list_onsite=True,
                        mode=Mode.L2,
                        extremity="usb0",
                        dhcp=False,
                        session_seconds=60.0,
                        wait_seconds=0.0,
                        backends=("tls",),
                    ),
                    {**plain, "report": Path("r").absolute(), "hooks": HookSettings(Path("/h"), 20.0, True)},
                ),
            ],
        )


class ServerOptionsTests(OptionsCase):
    """The server's."""

    options = rdv_server.Options

    def test_defaults(self) -> None:
        """Nothing has to be said."""
        options = self.parse()
        self.assertEqual(
            (dict(options), options.overrides),
            (
                {
                    "config": None,
                    "state-dir": None,
                    "ssh-address": None,
                    "ssh-port": None,
                    "tls-address": None,
                    "tls-port": None,
                },
                {},
            ),
        )

    def test_everything(self) -> None:
        """Each option is a setting; every other setting can be named, several times; its own option wins."""
        options = self.parse(
            "-c", "file", "--set", "ssh.port=1", "-s", "s", "--ssh-address=127.0.0.1", "-p", "2222",
            "--tls-address=::1", "--tls-port=4433", "--set", "log.level=warn", "--set=tls.names=a=b",
        )  # fmt: skip
        self.assertEqual(options["config"], "file")
        self.assertEqual(
            options.overrides,
            {
                "state_directory": "s",
                "ssh.address": "127.0.0.1",
                "ssh.port": "2222",
                "tls.address": "::1",
                "tls.port": "4433",
                "log.level": "warn",
                "tls.names": "a=b",
            },
        )

    def test_mistakes(self) -> None:
        """What makes no sense."""
        self.assert_mistakes(
            (["--set", "ssh.port"], "--set ssh.port: write SECTION.KEY=VALUE"),
            (["--nonsense"], "option --nonsense not recognized"),
            (["extra"], "Wrong number of arguments."),
        )


class EveryCommandTests(OptionsCase):
    """What all three have."""

    def test_version(self) -> None:
        """--version tells our version, and not Twisted's."""
        for module in (rdv_server, onsite_dev, master_dev):
            self.options = module.Options
            self.out.truncate(0)
            self.out.seek(0)
            self.assertEqual(self.assertRaises(SystemExit, self.parse, "--version").code, 0)
            self.assertEqual(self.out.getvalue(), f"rdvtwisted {rdvtwisted.__version__}\n")

    def test_help(self) -> None:
        """--help describes every option."""
        for module in (rdv_server, onsite_dev, master_dev):
            options = module.Options()
            text = str(options)
            for name in options.docs:
                self.assertIn(f"--{name}", text)
                self.assertTrue(options.docs[name], name)

    def test_refusal(self) -> None:
        """An error is one line on standard error, and its exit status; anything else is no refusal."""

        def fail(error: Exception) -> None:
            with refusing("rdv-server"):
                raise error

        for error, status in ((AddressInUse("port 22 is in use"), 1), (ConnectionLost("gone"), 3)):
            self.err.truncate(0)
            self.err.seek(0)
            end = self.assertRaises(SystemExit, fail, error)
            self.assertEqual((end.code, self.err.getvalue()), (status, f"rdv-server: {error}\n"))
        self.assertRaises(ZeroDivisionError, fail, ZeroDivisionError())
