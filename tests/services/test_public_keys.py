"""Public keys as administrators bring them."""

from __future__ import annotations

import os
from io import StringIO

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import InvalidValue
from rdvtwisted.services.public_keys import keys_of_file, public_key
from rdvtwisted.values import PublicKey
from tests.adapters.store.keys import key


def line_of(public: PublicKeyTypes) -> str:
    """The key as its .pub file has it."""
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


class LineTests(SynchronousTestCase):
    """One key on one line."""

    def assertRefused(self, reason: str, line: str) -> None:
        self.assertIn(reason, str(self.assertRaises(InvalidValue, public_key, line)))

    def test_kinds(self) -> None:
        """Keys of every kind that can log in are taken, with or without a comment."""
        for public in (
            Ed25519PrivateKey.generate().public_key(),
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            rsa.generate_private_key(65537, 2048).public_key(),
        ):
            line = line_of(public)
            self.assertEqual(public_key(f"{line} pi@raspberrypi\n"), PublicKey.from_line(line))

    def test_short_rsa(self) -> None:
        """An RSA key that is too short is refused, and the cure named."""
        line = line_of(rsa.generate_private_key(65537, 1024).public_key())
        self.assertRefused("an RSA key needs 2048 bits; make one with ssh-keygen -t ed25519", line)

    def test_other_kind(self) -> None:
        """A kind of key that no door takes is refused by its name."""
        blob = b"\0\0\0\x07ssh-dss" + b"\0" * 8
        line = PublicKey.from_blob(blob).line
        self.assertRefused("invalid public key 'ssh-dss': use one of ssh-ed25519, ", line)

    def test_cut_off(self) -> None:
        """A key that lost its end on the way is refused."""
        blob = key(1).blob[:-8]
        self.assertRefused("it is damaged; copy it again, all of it", PublicKey.from_blob(blob).line)

    def test_no_key(self) -> None:
        """What is no key at all is refused."""
        self.assertRefused("it should read: algorithm base64 [comment]", "hello")
        self.assertRefused("its second word is not base64", "ssh-ed25519 äAAAA")
        self.assertRefused("its second word is not base64", "ssh-ed25519 \ufffd\ufffdAAAA")

    def test_private_key(self) -> None:
        """A private key is refused before anything of it is shown."""
        private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        error = self.assertRaises(InvalidValue, public_key, private.decode("ascii"))
        self.assertEqual(
            str(error),
            "invalid public key: this is a private key; it stays on its device. Give the .pub file",
        )


class FileTests(SynchronousTestCase):
    """Keys in a file, or on standard input."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def read(self, data: bytes) -> list[PublicKey]:
        with open(self.path, "wb") as file:
            file.write(data)
        return keys_of_file(self.path, StringIO())

    def assertRefused(self, reason: str, data: bytes) -> None:
        error = self.assertRaises(InvalidValue, self.read, data)
        self.assertEqual(str(error), f"invalid key file {self.path!r}: {reason}")

    def test_lines(self) -> None:
        """A file has one key a line; empty lines and comments are passed over."""
        text = f"# from the bench\r\n{key(1).line} one\r\n\r\n  {key(2).line}"
        self.assertEqual(self.read(text.encode("ascii")), [key(1), key(2)])

    def test_standard_input(self) -> None:
        """A dash is standard input."""
        self.assertEqual(keys_of_file("-", StringIO(key(1).line)), [key(1)])

    def test_empty(self) -> None:
        """A file without a key is refused."""
        self.assertRefused("there is no key in it", b"# nothing\n\n")

    def test_not_text(self) -> None:
        """So is one that is no text."""
        self.assertRefused("it is not text", b"\xff\xfe\x00")

    def test_missing(self) -> None:
        """And one that is not there."""
        error = self.assertRaises(InvalidValue, keys_of_file, self.path, StringIO())
        self.assertEqual(str(error), f"invalid key file {self.path!r}: no such file or directory")

    def test_directory(self) -> None:
        """And a directory."""
        os.mkdir(self.path)
        error = self.assertRaises(InvalidValue, keys_of_file, self.path, StringIO())
        self.assertEqual(str(error), f"invalid key file {self.path!r}: is a directory")

    def test_private_key(self) -> None:
        """The private half, given by mistake, is refused without showing any of it."""
        private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        error = self.assertRaises(InvalidValue, self.read, private)
        self.assertIn("this is a private key", str(error))
        self.assertNotIn(private.splitlines()[1].decode("ascii")[:16], str(error))
