"""The server's own certificate authority."""

from __future__ import annotations

import os
import stat
import tempfile
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.front import secretfile
from rdvtwisted.adapters.front.authority import AUTHORITY_FILE, SERVER_FILE, Authority, server_name
from rdvtwisted.errors import InvalidValue, StateDirectoryError

#: 2024-01-01
NOW = 1_704_067_200
DAY = 86_400


class AuthorityTestCase(SynchronousTestCase):
    """A state directory and a clock."""

    def setUp(self) -> None:
        """Make them."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name, "tls")
        self.clock = Clock()
        self.clock.rightNow = NOW

    def open(self, *names: str) -> Authority:
        """The authority as a process finds it."""
        return Authority.open(self.directory, names or ("rdv.example.com", "192.0.2.1", "2001:db8::1"), self.clock)


class FirstStartTests(AuthorityTestCase):
    """What is made at the first start."""

    def test_files(self) -> None:
        """Directory and files are for their owner alone, whatever the umask; nothing else is left there."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.open().credentials()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.directory.iterdir()}
        self.assertEqual(modes, {AUTHORITY_FILE: 0o600, SERVER_FILE: 0o600})
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_no_clock(self) -> None:
        """On a machine whose clock has not been set yet nothing is made that had ended long ago once it is set."""
        for seconds, day in ((100.0, "1970-01-01"), (1_262_304_000.0, "2010-01-01")):
            self.clock.rightNow = seconds
            error = self.assertRaises(StateDirectoryError, self.open)
            self.assertEqual(
                str(error),
                f"the clock of this machine says {day}, too early for a certificate authority to be made:"
                " set it right first",
            )
            self.assertEqual(list(self.directory.iterdir()), [])
        self.clock.rightNow = NOW
        self.open().credentials()

    def test_authority(self) -> None:
        """The authority is good for 30 years, also for clocks behind, and signs servers' certificates alone."""
        authority = self.open()
        certificate = authority.certificate
        now = datetime.fromtimestamp(NOW, timezone.utc)
        self.assertEqual(certificate.not_valid_before_utc.year, 2000)
        self.assertGreater(certificate.not_valid_after_utc, now + timedelta(days=30 * 365))
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        self.assertEqual((constraints.ca, constraints.path_length), (True, 0))
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertIsInstance(key.curve, ec.SECP256R1)
        self.assertEqual(x509.load_der_x509_certificate(authority.der), certificate)
        self.assertEqual(x509.load_pem_x509_certificate(authority.pem.encode("ascii")), certificate)
        self.assertRegex(authority.fingerprint, "^SHA256:[0-9a-f]{64}$")

    def test_server(self) -> None:
        """The server's certificate is for its names, 397 days, clocks that are behind, and signed by the authority."""
        credentials = self.open().credentials()
        certificate = credentials.certificate
        certificate.verify_directly_issued_by(credentials.authority)
        now = datetime.fromtimestamp(NOW, timezone.utc)
        self.assertEqual(certificate.not_valid_before_utc.year, 2000)
        self.assertEqual(certificate.not_valid_after_utc, now + timedelta(days=397))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["rdv.example.com"])
        self.assertEqual(
            names.get_values_for_type(x509.IPAddress), [ip_address("192.0.2.1"), ip_address("2001:db8::1")]
        )
        self.assertEqual(certificate.public_key(), credentials.key.public_key())

    def test_names(self) -> None:
        """A name that is none is refused in one line, and so is having none."""
        for name in ("", "a b", "-x", "x_y", "*.example.com", "https://x", "ä.example", "x" * 64, "a..b"):
            self.assertRaises(InvalidValue, self.open, name)
        self.assertRaises(InvalidValue, Authority.open, self.directory, (), self.clock)
        self.assertEqual(server_name("RDV.Example.com").value, "rdv.example.com")

    def test_race(self) -> None:
        """Of two processes that start at the same time one makes the authority, and both use it."""
        secretfile.prepare(self.directory)
        path = self.directory / AUTHORITY_FILE
        self.assertEqual(secretfile.create(path, b"first"), b"first")
        self.assertEqual(secretfile.create(path, b"second"), b"first")
        self.assertEqual([path.name for path in self.directory.iterdir()], [AUTHORITY_FILE])


class KeptTests(AuthorityTestCase):
    """What later starts find."""

    def test_kept(self) -> None:
        """A restart changes nothing."""
        first = self.open()
        shown = first.credentials().certificate
        second = self.open()
        self.assertEqual(second.certificate, first.certificate)
        self.assertEqual(second.credentials().certificate, shown)

    def test_two_thirds(self) -> None:
        """The server's certificate is renewed when less than a third of its life is left; the authority stays."""
        authority = self.open()
        first = authority.credentials().certificate
        self.clock.advance(264 * DAY)
        self.assertEqual(authority.credentials().certificate, first)
        self.clock.advance(1 * DAY)
        second = authority.credentials()
        self.assertNotEqual(second.certificate, first)
        second.certificate.verify_directly_issued_by(authority.certificate)
        self.assertEqual(self.open().credentials().certificate, second.certificate)
        self.assertEqual(self.open().certificate, authority.certificate)

    def test_new_names(self) -> None:
        """Other names mean a new certificate; the same ones in another order do not."""
        first = self.open("a.example", "b.example").credentials().certificate
        self.assertEqual(self.open("b.example", "A.example", "a.example").credentials().certificate, first)
        self.assertNotEqual(self.open("a.example").credentials().certificate, first)

    def test_renew(self) -> None:
        """The administrator may renew at any time; a running server finds the new one with its next look."""
        running, administrator = self.open(), self.open()
        first = running.credentials()
        renewed = administrator.renew()
        self.assertNotEqual(renewed.key.private_numbers(), first.key.private_numbers())
        self.assertEqual(running.credentials().certificate, renewed.certificate)

    def test_clock_was_ahead(self) -> None:
        """A certificate that was made with a clock far ahead is renewed once the clock is right."""
        authority = self.open()
        self.clock.rightNow += 100 * DAY
        ahead = authority.renew()
        self.clock.rightNow -= 100 * DAY
        self.assertNotEqual(authority.credentials().certificate, ahead.certificate)

    def test_never_beyond_the_authority(self) -> None:
        """The server's certificate ends with the authority's at the latest; later nothing starts."""
        authority = self.open()
        self.clock.advance(30 * 365 * DAY - 100 * DAY)
        self.assertEqual(
            authority.credentials().certificate.not_valid_after_utc, authority.certificate.not_valid_after_utc
        )
        self.clock.advance(200 * DAY)
        self.assertIn("is the clock right?", str(self.assertRaises(StateDirectoryError, self.open)))

    def test_other_authority(self) -> None:
        """A server certificate of another authority, as from a mixed-up backup, is replaced."""
        other = Authority.open(self.directory.with_name("other"), ["rdv.example.com"], self.clock).renew()
        authority = self.open("rdv.example.com")
        (self.directory.with_name("other") / SERVER_FILE).replace(self.directory / SERVER_FILE)
        self.assertNotEqual(authority.credentials().certificate, other.certificate)
        authority.credentials().certificate.verify_directly_issued_by(authority.certificate)


class UnusableTests(AuthorityTestCase):
    """Each problem with the files is one clear line that names the file."""

    def fails(self, path: Path, words: str) -> None:
        """Opening, and asking for credentials, fails with such words."""
        error = self.assertRaises(StateDirectoryError, lambda: self.open().credentials())
        self.assertIn(str(path), str(error))
        self.assertIn(words, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)

    def test_open_to_others(self) -> None:
        """A directory or file that others may read, even only their group, is refused with the cure."""
        self.open().credentials()
        for path, mode in (
            (self.directory, 0o750),
            (self.directory / AUTHORITY_FILE, 0o640),
            (self.directory / SERVER_FILE, 0o604),
        ):
            before = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode)
            self.fails(path, f"chmod {before:o}")
            path.chmod(before)
        self.open().credentials()

    def test_damaged(self) -> None:
        """Files that are empty, cut, binary or huge are damaged."""
        self.open().credentials()
        for name in (SERVER_FILE, AUTHORITY_FILE):
            path = self.directory / name
            held = path.read_bytes()
            for content in (
                b"",
                held[:100],
                held[: len(held) // 2],
                bytes(range(256)),
                bytes(secretfile.SIZE_LIMIT + 1),
            ):
                path.write_bytes(content)
                self.fails(path, "is damaged")
            path.write_bytes(held)

    def test_mixed_up(self) -> None:
        """A key with another key's certificate is damaged, and so is a key of another kind."""
        self.open()
        path = self.directory / AUTHORITY_FILE
        certificate = path.read_bytes().partition(b"-----BEGIN CERT")
        for key in (ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            path.write_bytes(pem + certificate[1] + certificate[2])
            self.fails(path, "do not belong together")

    def test_no_parent(self) -> None:
        """A directory that cannot be made is named."""
        self.directory = self.directory / "missing" / "deeper"
        self.fails(self.directory, "No such file")

    def test_not_a_directory(self) -> None:
        """A file in the directory's place is named."""
        self.directory.write_bytes(b"")
        self.fails(self.directory, "File exists")

    def test_directory_in_place_of_file(self) -> None:
        """A directory in a file's place is named."""
        secretfile.prepare(self.directory)
        (self.directory / AUTHORITY_FILE).mkdir()
        self.fails(self.directory / AUTHORITY_FILE, "directory")

    def test_full(self) -> None:
        """When the disk is full the old certificate stays, and nothing half-written."""
        authority = self.open()
        first = authority.credentials().certificate

        def fsync(_: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fsync)
        error = self.assertRaises(StateDirectoryError, authority.renew)
        self.assertIn("No space left", str(error))
        self.assertEqual(authority.credentials().certificate, first)
        self.assertEqual({path.name for path in self.directory.iterdir()}, {AUTHORITY_FILE, SERVER_FILE})

    def test_anothers(self) -> None:
        """A file of another user is refused."""
        self.open()
        self.patch(os, "geteuid", lambda: os.getuid() + 4711)
        if os.getuid() == 0:
            os.chown(self.directory, 4712, 4712)
        self.fails(self.directory, "belongs to another user")
