"""A device's identity and the server's host keys in their files."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from rdvtwisted.adapters.ssh.hostkeys import HostKeys, host_keys
from rdvtwisted.adapters.ssh.identity import identity
from rdvtwisted.adapters.ssh.signatures import PrivateKey, public_key
from rdvtwisted.errors import StateDirectoryError
from tests.adapters.ssh.world import ECDSA, ED25519, RSA
from tests.interop.openssh import SSH


class IdentityTests(SynchronousTestCase):
    """L{identity}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "state" / "identity"

    def put(self, key: PrivateKey, format: PrivateFormat = PrivateFormat.OpenSSH, passphrase: bytes = b"") -> None:
        """A file from elsewhere."""
        self.path.parent.mkdir(parents=True)
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        self.path.write_bytes(key.private_bytes(Encoding.PEM, format, encryption))
        self.path.chmod(0o600)

    def refusal(self) -> str:
        """The one line about a file that cannot be used."""
        text = str(self.assertRaises(StateDirectoryError, identity, self.path, "rpi1100"))
        self.assertNotIn("\n", text)
        self.assertIn(str(self.path), text)
        return text

    def test_made_once(self) -> None:
        """The first start makes an ed25519 key that only its owner can read; every later start finds it."""
        first = identity(self.path, "rpi1100")
        self.assertEqual(first.public.algorithm, "ssh-ed25519")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.path.parent), ["identity"])
        self.assertEqual(identity(self.path, "rpi1100").public, first.public)

    def test_openssh_reads_it(self) -> None:
        """C{ssh-keygen} finds the same public key in the file."""
        if not SSH:
            raise SkipTest("needs the OpenSSH client")
        made = identity(self.path, "rpi1100")
        shown = subprocess.run(["ssh-keygen", "-y", "-f", self.path], check=True, capture_output=True, text=True)
        self.assertEqual(shown.stdout.strip(), made.public.line)

    def test_other_kinds(self) -> None:
        """RSA and ECDSA keys that a device has already are taken, in OpenSSH's format and in the older ones."""
        for key in (RSA, ECDSA, ED25519):
            for format in (PrivateFormat.OpenSSH, PrivateFormat.PKCS8):
                self.path = Path(self.mktemp()) / "identity"
                self.put(key, format)
                self.assertEqual(identity(self.path, "rpi1100").public, public_key(key))

    def test_open_to_others(self) -> None:
        """A key that somebody else can read is refused, and the line says how to close it."""
        self.put(ED25519)
        for mode in (0o640, 0o604, 0o660):
            self.path.chmod(mode)
            self.assertIn("chmod 600", self.refusal())

    def test_passphrase(self) -> None:
        """A key with a passphrase is refused, in either format, and the line says how to take it off."""
        for format in (PrivateFormat.OpenSSH, PrivateFormat.PKCS8):
            self.path = Path(self.mktemp()) / "identity"
            self.put(ED25519, format, b"secret")
            self.assertIn("ssh-keygen -p", self.refusal())

    def test_garbage(self) -> None:
        """What is no key is refused, and left alone."""
        for data in (b"", b"hello", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"):
            self.path = Path(self.mktemp())
            self.path.write_bytes(data)
            self.path.chmod(0o600)
            self.assertIn("no private key", self.refusal())
            self.assertEqual(self.path.read_bytes(), data)

    def test_impossible_places(self) -> None:
        """A folder instead of the file, or a file instead of the folder, ends in one line."""
        self.path.mkdir(parents=True)
        self.refusal()
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"")
        self.path = self.path / "identity"
        self.refusal()

    def test_certificate(self) -> None:
        """The certificate is made from the same key, names the device, and does not expire within living memory."""
        for key in (ED25519, ECDSA, RSA):
            self.path = Path(self.mktemp()) / "identity"
            self.put(key)
            who = identity(self.path, "rpi1100")
            (name,) = who.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            self.assertEqual(name.value, "rpi1100")
            self.assertEqual(who.certificate.public_key(), load_ssh_public_key(who.public.line.encode()))
            who.certificate.verify_directly_issued_by(who.certificate)
            self.assertEqual(who.certificate.not_valid_before_utc.year, 2000)
            self.assertEqual(who.certificate.not_valid_after_utc.year, 9999)

    def test_no_secret_shown(self) -> None:
        """What an identity says of itself holds no private key."""
        self.assertNotIn("PRIVATE", repr(identity(self.path, "rpi1100")))


class HostKeysTests(SynchronousTestCase):
    """L{host_keys}."""

    def test_made_once(self) -> None:
        """The first start makes three keys, readable by their owner alone; later starts find them."""
        folder = Path(self.mktemp())
        first = host_keys(folder)
        self.assertEqual([key.algorithm for key in first.public], ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
        self.assertEqual({stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}, {0o600})
        self.assertEqual(host_keys(folder).public, first.public)
        self.assertIsInstance(first, HostKeys)

    def test_damaged(self) -> None:
        """A key that cannot be read stops the start: clients would meet another server."""
        folder = Path(self.mktemp())
        host_keys(folder)
        (folder / "ssh_host_ed25519_key").write_bytes(b"")
        self.assertRaises(StateDirectoryError, host_keys, folder)
