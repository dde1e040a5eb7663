"""
The server's settings: where they come from, which win, and how a mistake is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from itertools import pairwise

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.config import SETTINGS, ServerSettings, TLSSettings, load, placed, sample
from rdvtwisted.errors import ConfigError


class PrecedenceTests(SynchronousTestCase):
    """Options win over the environment, that over the file, that over the defaults."""

    def test_defaults(self) -> None:
        """Without anything said, both doors are at their well-known ports."""
        settings = load("", {}, {})
        self.assertEqual(settings, ServerSettings())
        self.assertEqual((settings.ssh.port, settings.tls.port), (22, 443))
        self.assertEqual(settings.session.pool, IPv4Network("192.168.128.0/17"))

    def test_file(self) -> None:
        """A file changes what it names and leaves the rest."""
        text = '[ssh]\nport = 2222\nlegacy_algorithms = true\n[tls]\nnames = ["rdv.example.org", "192.0.2.1"]\n'
        settings = load(text, {}, {})
        expected = ServerSettings(tls=TLSSettings(names=("rdv.example.org", "192.0.2.1")))
        expected = evolve(expected, ssh=evolve(expected.ssh, port=2222, legacy_algorithms=True))
        self.assertEqual(settings, expected)

    def test_options_before_environment_before_file(self) -> None:
        """Each source overrides the one below it, setting by setting."""
        text = "[ssh]\nport = 1\nlogin_seconds = 1\nkeepalive_idle = 1\n"
        environment = {"RDV_SERVER_SSH_PORT": "2", "RDV_SERVER_SSH_LOGIN_SECONDS": "2", "PATH": "/bin"}
        ssh = load(text, environment, {"ssh.port": "3"}).ssh
        self.assertEqual((ssh.port, ssh.login_seconds, ssh.keepalive_idle), (3, 2.0, 1.0))

    def test_every_setting_has_a_variable(self) -> None:
        """Each setting can be given in the environment, as RDV_SERVER_SECTION_KEY; no two share a name."""
        variables = {setting.variable for setting in SETTINGS.values()}
        self.assertEqual(len(variables), len(SETTINGS))
        self.assertIn("RDV_SERVER_SSH_MAX_UNAUTHENTICATED_PER_ADDRESS", variables)
        self.assertIn("RDV_SERVER_STATE_DIRECTORY", variables)

    def test_texts(self) -> None:
        """The environment and options write lists with commas and switches as people do."""
        environment = {
            "RDV_SERVER_TLS_NAMES": "rdv.example.org, 2001:db8::1",
            "RDV_SERVER_TLS_ENABLED": "No",
            "RDV_SERVER_TLS_ADDRESS": "::1",
        }
        tls = load("", environment, {"tls.minimum_version": "1.2"}).tls
        self.assertEqual(tls, TLSSettings(False, "::1", 443, ("rdv.example.org", "2001:db8::1"), "1.2"))

    def test_variable_of_the_devices(self) -> None:
        """RDV_SERVER_HOSTNAME, which names the server to the devices' programs, does not disturb the server."""
        self.assertEqual(load("", {"RDV_SERVER_HOSTNAME": "rdv.example.org"}, {}), ServerSettings())

    def test_any_free_port(self) -> None:
        """Port 0 can be asked for on both doors at once."""
        settings = load("[ssh]\nport = 0\n[tls]\nport = 0\n", {}, {})
        self.assertEqual((settings.ssh.port, settings.tls.port), (0, 0))


class MistakeTests(SynchronousTestCase):
    """A mistake is refused in one line that names the setting as it was written."""

    def assertMistake(
        self, line: str, text: str = "", environment: Mapping[str, str] | None = None, **options: str
    ) -> None:
        overrides = {name.replace("__", "."): value for name, value in options.items()}
        error = self.assertRaises(ConfigError, load, text, environment or {}, overrides)
        self.assertEqual(str(error), f"setting {line}")

    def test_unknown_key(self) -> None:
        """An unknown key is refused, and the nearest known one suggested."""
        self.assertMistake("ssh.prot: there is no such setting; did you mean ssh.port?", "[ssh]\nprot = 1")

    def test_unknown_section(self) -> None:
        """So is an unknown section, also an empty one."""
        self.assertMistake("sessions: there is no such setting; did you mean session?", "[sessions]")

    def test_key_outside_its_section(self) -> None:
        """A key that stands in front of all sections is told where it belongs."""
        self.assertMistake("pool: there is no such setting; did you mean session.pool?", 'pool = "10.0.0.0/8"')

    def test_nothing_near(self) -> None:
        """Nothing is suggested for what resembles nothing."""
        self.assertMistake("ssh.zzzzzzzz: there is no such setting", "[ssh]\nzzzzzzzz = 1")

    def test_unknown_variable(self) -> None:
        """A misspelt variable with the server's prefix is refused rather than ignored."""
        self.assertMistake(
            "RDV_SERVER_SSH_PRT: there is no such setting; did you mean RDV_SERVER_SSH_PORT?",
            environment={"RDV_SERVER_SSH_PRT": "22"},
        )

    def test_unknown_option(self) -> None:
        """An unknown option is refused."""
        self.assertMistake("tls.prt: there is no such setting; did you mean tls.port?", tls__prt="1")

    def test_not_a_section(self) -> None:
        """A value in place of a section is refused."""
        self.assertMistake("ssh: it is a section: write [ssh], and its settings below", "ssh = 22")

    def test_not_toml(self) -> None:
        """A file that is not TOML is refused, with the place of the fault."""
        error = self.assertRaises(ConfigError, load, "[ssh]\nport: 22\n", {}, {})
        self.assertIn("setting file: it is not TOML: ", str(error))
        self.assertIn("line 2", str(error))

    def test_number_of_too_many_digits(self) -> None:
        """A number too long to read is refused as well."""
        error = self.assertRaises(ConfigError, load, "[ssh]\nport = " + "9" * 5000, {}, {})
        self.assertIn("setting file: it is not TOML: ", str(error))

    @settings(derandomize=True, max_examples=300, deadline=None)
    @given(
        st.text(max_size=120)
        | st.lists(
            st.sampled_from(["[ssh]", "[[ssh]]", "[tls]", "\n", "port", ".", "=", "1", "[", "{", "'", "names"]),
            max_size=30,
        ).map("".join)
        | st.tuples(st.sampled_from(sorted(SETTINGS)), st.text(max_size=40)).map(" = ".join)
    )
    def test_any_text(self, text: str) -> None:
        """Whatever stands in a file, it is settings, or one line about the first mistake."""
        try:
            self.assertIsInstance(load(text, {}, {}), ServerSettings)
        except ConfigError as error:
            self.assertNotIn("\n", str(error))
            self.assertLess(len(str(error)), 400)

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=60))
    def test_any_option(self, name: str, value: str) -> None:
        """Nor does any text of an option or variable do otherwise."""
        for environment, options in (({}, {name: value}), ({SETTINGS[name].variable: value}, {})):
            try:
                load("", environment, options)
            except ConfigError as error:
                self.assertNotIn("\n", str(error))
                self.assertLess(len(str(error)), 400)

    def test_too_deep(self) -> None:
        """A file that goes deeper than anybody reads is refused as well."""
        for text in ("a = " + "[" * 5000, "a = " + "{b=" * 5000):
            error = self.assertRaises(ConfigError, load, text, {}, {})
            self.assertLess(len(str(error)), 400)

    def test_each_kind(self) -> None:
        """Each kind of setting says what it takes."""
        for line, text in (
            ("ssh.port: 65536 is not a whole number from 0 to 65535", "[ssh]\nport = 65536"),
            ("ssh.port: '22' is not a whole number from 0 to 65535", '[ssh]\nport = "22"'),
            ("ssh.port: True is not a whole number from 0 to 65535", "[ssh]\nport = true"),
            ("ssh.login_seconds: 0 is not a number of seconds above 0 and up to 86400", "[ssh]\nlogin_seconds = 0"),
            ("ssh.login_seconds: nan is not a number of seconds above 0 and up to 86400", "[ssh]\nlogin_seconds = nan"),
            ("ssh.legacy_algorithms: 1 is not true or false", "[ssh]\nlegacy_algorithms = 1"),
            ("ssh.address: 'rdv' is not an IPv4 or IPv6 address, or empty for all", '[ssh]\naddress = "rdv"'),
            ("tls.names: 'a' is not a list of DNS names or IP addresses", '[tls]\nnames = "a"'),
            ("tls.names: ['a b'] is not a list of DNS names or IP addresses", '[tls]\nnames = ["a b"]'),
            ("tls.minimum_version: '1.1' is not one of 1.2, 1.3", '[tls]\nminimum_version = "1.1"'),
            (
                "session.pool: '10.0.0.1/8' is not an IPv4 network such as 192.168.128.0/17",
                '[session]\npool = "10.0.0.1/8"',
            ),
            ("control.socket: 'a\\nb' is not a text on one line", '[control]\nsocket = "a\\nb"'),
        ):
            self.assertMistake(line, text)

    def test_text_that_does_not_read(self) -> None:
        """A variable or option whose text does not read as a value is named."""
        self.assertMistake(
            "RDV_SERVER_TLS_ENABLED: 'maybe' is not true or false", environment={"RDV_SERVER_TLS_ENABLED": "maybe"}
        )
        self.assertMistake("ssh.port: '22x' is not a whole number from 0 to 65535", ssh__port="22x")

    def test_password_stays_hidden(self) -> None:
        """A database's URL, which may hold a password, is never shown, neither in an error nor with the settings."""
        error = self.assertRaises(ConfigError, load, "", {}, {"inventory.url": "postgresql://rdv:secret\n@db/rdv"})
        self.assertEqual(str(error), "setting inventory.url: its value is not a text on one line")
        self.assertNotIn("secret", repr(load("", {}, {"inventory.url": "postgresql://rdv:secret@db/rdv"})))

    def test_pool_too_small(self) -> None:
        """A pool that holds no block is refused."""
        self.assertMistake(
            "session.prefix: a block of /24 does not fit into the pool 10.0.0.0/28",
            '[session]\npool = "10.0.0.0/28"\nprefix = 24',
        )

    def test_pool_elsewhere(self) -> None:
        """A pool whose addresses no device would take is refused."""
        self.assertMistake(
            "session.pool: devices refuse addresses of 8.0.0.0/8; take a part of 10.0.0.0/8, 100.64.0.0/10,"
            " 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15",
            '[session]\npool = "8.0.0.0/8"',
        )

    def test_limit_for_one_above_limit_for_all(self) -> None:
        """No address can have more connections than all together."""
        self.assertMistake(
            "ssh.max_unauthenticated_per_address: it is above ssh.max_unauthenticated, 4",
            "[ssh]\nmax_unauthenticated = 4",
        )
        self.assertMistake(
            "tls.max_unauthenticated_per_address: it is above tls.max_unauthenticated, 4",
            "[tls]\nmax_unauthenticated = 4",
        )
        self.assertMistake(
            "ssh.max_connections_per_device: it is above ssh.max_connections, 4", "[ssh]\nmax_connections = 4"
        )

    def test_both_doors_at_one_port(self) -> None:
        """Two doors cannot share a port, unless they have different addresses or one is closed."""
        self.assertMistake("tls.port: 443 is the port of the SSH door already", "[ssh]\nport = 443")
        load('[ssh]\nport = 443\naddress = "192.0.2.1"', {}, {})
        load("[ssh]\nport = 443\n[tls]\nenabled = false", {}, {})


class SampleTests(SynchronousTestCase):
    """The sample file shows every setting as it is without a file."""

    def test_parses_to_defaults(self) -> None:
        """The sample, used as it is, changes nothing."""
        self.assertEqual(load(sample(), {}, {}), ServerSettings())

    def test_has_every_setting_once(self) -> None:
        """It has each setting, under its section, below a sentence on it."""
        lines = sample().splitlines()
        section, seen = "", []
        for above, line in pairwise(lines):
            if line.startswith("["):
                section = line.strip("[]") + "."
            elif " = " in line and not line.startswith("#"):
                self.assertTrue(above.startswith("# "), line)
                seen.append(section + line.split(" = ")[0])
        self.assertEqual(seen, list(SETTINGS))

    def test_width(self) -> None:
        """It can be read in a terminal."""
        self.assertEqual([line for line in sample().splitlines() if len(line) > 120], [])


class PlaceTests(SynchronousTestCase):
    """What is not set is put where the user who runs the server expects it."""

    def test_root(self) -> None:
        """Root's server keeps its state in /var/lib."""
        settings = placed(ServerSettings(), {"HOME": "/root"}, root=True)
        self.assertEqual(settings.state_directory, "/var/lib/rdvtwisted/server")
        self.assertEqual(settings.control.socket, "/var/lib/rdvtwisted/server/control.sock")

    def test_user(self) -> None:
        """Anybody else's keeps it below the home directory, or where XDG_STATE_HOME says."""
        for environment, directory in (
            ({"HOME": "/home/ann"}, "/home/ann/.local/state/rdvtwisted/server"),
            ({"HOME": "/home/ann", "XDG_STATE_HOME": "/state"}, "/state/rdvtwisted/server"),
            ({"HOME": "/home/ann", "XDG_STATE_HOME": "state"}, "/home/ann/.local/state/rdvtwisted/server"),
        ):
            self.assertEqual(placed(ServerSettings(), environment, root=False).state_directory, directory)

    def test_nowhere(self) -> None:
        """Without a home directory the setting must be given."""
        error = self.assertRaises(ConfigError, placed, ServerSettings(), {}, False)
        self.assertEqual(
            str(error), "setting state_directory: it is not set, and there is no home directory to put it in"
        )

    def test_set(self) -> None:
        """What is set stays."""
        settings = load('state_directory = "/srv/rdv"\n[control]\nsocket = "/run/rdv.sock"', {}, {})
        self.assertEqual(placed(settings, {}, root=True), settings)
