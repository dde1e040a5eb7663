"""The configuration of a stock vtund client, as text."""

from __future__ import annotations

import math
import string

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue
from tunnels.vtun_client import KEYWORDS, PROGRAMS, VALUES, Command, VtunClient, check_secret, new_secret

bounded = settings(derandomize=True, max_examples=300, deadline=None)

SECRET = "k3eps-out_every+body=else!$%&*^@~."


class TextTests(SynchronousTestCase):
    """The file."""

    def test_least(self) -> None:
        """A client without commands, byte for byte."""
        text = """\
options {
    port 5000;
    timeout 20;
    ifconfig /sbin/ifconfig;
    route /sbin/route;
    ip /sbin/ip;
}
tundevrpi1100 {
    passwd k3eps-out_every+body=else!$%&*^@~.;
    persist no;
}
"""
        client = VtunClient("tundevrpi1100", SECRET)
        self.assertEqual(client.text, text)
        self.assertEqual(client.arguments("/run/x.conf"), ["-n", "-f", "/run/x.conf", "tundevrpi1100", "127.0.0.1"])

    def test_commands(self) -> None:
        """A client with a named interface and commands: inner blocks end with a semicolon, the outer one does not."""
        client = VtunClient(
            "tundevrpi1100",
            "s3cret",
            up=(
                Command("ifconfig", "%% 192.168.128.2 pointopoint 192.168.128.1 mtu 1450"),
                Command("ip", "rule add unicast iif eth0 table 1"),
                Command("/usr/sbin/brctl", "addif br0 %%", wait=True),
            ),
            down=(Command("/usr/bin/logger", r"-t vtun 'it is' down\; bye"),),
            interface="rdv0",
            port=15000,
            timeout=5,
        )
        self.assertEqual(
            client.text,
            r"""options {
    port 15000;
    timeout 5;
    ifconfig /sbin/ifconfig;
    route /sbin/route;
    ip /sbin/ip;
}
tundevrpi1100 {
    passwd s3cret;
    persist no;
    device rdv0;
    up {
        ifconfig "%% 192.168.128.2 pointopoint 192.168.128.1 mtu 1450";
        ip "rule add unicast iif eth0 table 1";
        program /usr/sbin/brctl "addif br0 %%" wait;
    };
    down {
        program /usr/bin/logger "-t vtun 'it is' down\; bye";
    };
}
""",
        )

    def test_secret_is_not_shown(self) -> None:
        """Whoever logs a client, or reads why one was refused, does not see its secret."""
        self.assertNotIn("k3eps", repr(VtunClient("tundevx", SECRET)))
        error = self.assertRaises(InvalidValue, VtunClient, "tundevx", "my secret")
        self.assertNotIn("my secret", str(error) + repr(vars(error)))


class RefusalTests(SynchronousTestCase):
    """What vtund would not read, or would read as something else."""

    def test_sessions(self) -> None:
        """A session's name is a plain word, of 41 characters at most, that is none of vtund's own."""
        for name in ("", "a b", "a.b", "tundev{", "é", "n" * 42, "x\n", *KEYWORDS):
            self.assertRaises(InvalidValue, VtunClient, name, SECRET)
        for name in ("n" * 41, "tundev_a-b", "7", "Options"):
            self.assertIn(f"\n{name} {{\n", VtunClient(name, SECRET).text)

    def test_secrets(self) -> None:
        """A secret is a word of plain letters, neither a number nor a word of vtund's own."""
        for secret in ("", "123", "1:2", "a:1", "a b", "a;", 'a"', "a'b", "{", "a/b", "a\\b", "a#b", "a\n", "é", "١٢"):
            self.assertRaises(InvalidValue, check_secret, secret)
        for secret in ("_rpi1100", "1a", "YES", SECRET):
            self.assertEqual(check_secret(secret), secret)

    def test_values(self) -> None:
        """Each word that vtund reads as something else than a word is refused as secret and as interface."""
        self.assertLessEqual({"yes", "keep", "oldblowfish128ecb", "blowfish256ofb", "aes128cbc"}, VALUES)
        for word in VALUES:
            self.assertRaises(InvalidValue, check_secret, word)
            self.assertRaises(InvalidValue, VtunClient, "tundevx", SECRET, interface=word)

    def test_interfaces(self) -> None:
        """An interface has a name that the kernel takes as it stands."""
        for name in ("", "a/b", "tun%d", "12", "n" * 16, "a b", ".", "..", "tun"):
            self.assertRaises(InvalidValue, VtunClient, "tundevx", SECRET, interface=name)
        self.assertIn("device eth0.1_a-b;", VtunClient("tundevx", SECRET, interface="eth0.1_a-b").text)

    def test_numbers(self) -> None:
        """Ports and times are in range."""
        for port in (0, -1, 65_536):
            self.assertRaises(InvalidValue, VtunClient, "tundevx", SECRET, port=port)
        for timeout in (0, -1, 3601):
            self.assertRaises(InvalidValue, VtunClient, "tundevx", SECRET, timeout=timeout)

    def test_programs(self) -> None:
        """A program is known to vtund, or has an absolute path without anything special."""
        for program in ("", "logger", "bin/sh", "/", "/bin/", "/a b", '/a"', "//bin/sh", "/bin/sh;", "ppp", "/é"):
            self.assertRaises(InvalidValue, Command, program, "x")
        for program in ("/bin/sh", "/usr/local/bin/a_b-c.d", *PROGRAMS):
            self.assertIn(program, Command(program, "x").line)

    def test_long_strings(self) -> None:
        """A string has 254 bytes at most, with its quotes."""
        longest = "x" * 252
        self.assertIn(f'"{longest}"', Command("ip", longest).line)
        self.assertRaises(InvalidValue, Command, "ip", longest + "x")

    def test_arguments(self) -> None:
        """Arguments are refused that vtund would cut, merge, or overflow over."""
        for text in ('a"b', "a\nb", "a\tb", "\0", "é", "100%", "%s", "%", "a\\", "it's", "'a\\'", "%\\%", " " * 48):
            self.assertRaises(InvalidValue, Command, "/bin/echo", text)
        for text in ("", "%% %d %A %P %a %p %h", r"\% \' \\", "'a b' c'd e'", "a; b }", "# x", r"'a\'b %%'", " " * 47):
            self.assertEqual(Command("/bin/echo", text).line, f'program /bin/echo "{text}";')

    @bounded
    @given(st.text(st.sampled_from("ab %'\\\"d\n;}"), max_size=12))
    def test_any_arguments(self, text: str) -> None:
        """Arguments are refused, or make one line with one string, in which every quote and mark is in order."""
        try:
            line = Command("/bin/echo", text).line
        except InvalidValue as error:
            self.assertTrue(str(error).isprintable())
            return
        self.assertEqual((line.count('"'), line.count("\n")), (2, 0))
        at, quoted = 0, False
        while at < len(text):
            if text[at] == "'":
                quoted = not quoted
            elif text[at] in "%\\":
                at += 1
                self.assertTrue(text[at - 1] == "\\" or text[at] in "%dAPaph")
            at += 1
        self.assertEqual((at, quoted), (len(text), False))


class NewSecretTests(SynchronousTestCase):
    """Secrets made here."""

    def test_usable(self) -> None:
        """Each is new, can be used everywhere, and starts with a letter, so that it is no number."""
        made = {new_secret() for _ in range(500)}
        self.assertEqual(len(made), 500)
        for secret in made:
            self.assertTrue(check_secret(secret)[0].isalpha())
            self.assertTrue(secret.isalnum())

    def test_strength(self) -> None:
        """It is chosen among more than 2 to the power of 128, each character independently."""
        choices: list[str] = []

        def choose(letters: object) -> str:
            choices.append(str(letters))
            return str(letters)[-1]

        secret = new_secret(choose)
        self.assertGreater(sum(math.log2(len(set(letters))) for letters in choices), 128)
        self.assertEqual(len(secret), len(choices))
        self.assertEqual(sorted({len(letters) for letters in choices}), [52, 62])
        self.assertTrue(set(secret) <= set(string.ascii_letters + string.digits))

    def test_longer_than_words(self) -> None:
        """By its length it is no word of vtund's own."""
        self.assertGreater(len(new_secret()), max(map(len, VALUES)))
