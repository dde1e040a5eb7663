"""What is read out of a stunnel's log."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tunnels.stunnel_report import complaint, encryption

START = "2026.11.21 06:46:27 LOG5[ui]: stunnel 5.68 on x86_64-pc-linux-gnu platform"
END = "2026.11.21 06:46:27 LOG5[0]: Connection closed/reset: 0 byte(s) sent to TLS, 0 byte(s) sent to socket"
FAILED = (
    "2026.11.21 06:46:27 LOG3[0]: SSL_connect: ../ssl/statem/statem_clnt.c:1889:"
    " error:0A000086:SSL routines::certificate verify failed"
)


class ComplaintTests(SynchronousTestCase):
    """One line for a user."""

    def test_refused(self) -> None:
        """The first error says more than what follows from it."""
        lines = [
            START,
            "2026.11.21 07:06:28 LOG3[0]: s_connect: connect 127.0.0.1:1: Connection refused (111)",
            "2026.11.21 07:06:28 LOG3[0]: No more addresses to connect",
            END,
        ]
        self.assertEqual(complaint(lines), "s_connect: connect 127.0.0.1:1: Connection refused (111)")

    def test_certificate(self) -> None:
        """What is wrong with a certificate is told with what to do about it."""
        for fault, cure in (
            ("certificate is not yet valid", "clock"),
            ("certificate has expired", "clock"),
            ("self-signed certificate in certificate chain", "authority"),
            ("unable to get local issuer certificate", "authority"),
        ):
            lines = [START, f"2026.11.21 06:46:27 LOG4[0]: CERT: Pre-verification error: {fault}", FAILED, END]
            said = complaint(lines)
            self.assertIn(f"the server's certificate is refused: {fault} (", said)
            self.assertIn(cure, said)
        unknown = complaint(["2026.11.21 06:46:27 LOG4[0]: CERT: Verification error: odd"])
        self.assertEqual(unknown, "the server's certificate is refused: odd")

    def test_openssl(self) -> None:
        """Of an error of OpenSSL the words are told, not the place in its source."""
        self.assertEqual(complaint([START, FAILED, END]), "SSL_connect: certificate verify failed")

    def test_configuration(self) -> None:
        """A configuration that it does not take is told too."""
        lines = ["[.] Reading configuration from file x.conf", "[!] x.conf:3: odd", "[!] Configuration failed"]
        self.assertEqual(complaint(lines), "x.conf:3: odd")

    def test_nothing(self) -> None:
        """When all was well there is nothing to tell."""
        self.assertEqual(complaint([START, END, "something else"]), "")
        self.assertEqual(complaint([]), "")


class EncryptionTests(SynchronousTestCase):
    """Key exchange and cipher."""

    def test_told(self) -> None:
        """Both are found."""
        lines = [
            "2026.11.21 06:59:13 LOG6[0]: TLSv1.3 ciphersuite: TLS_AES_256_GCM_SHA384 (256-bit encryption)",
            "2026.11.21 06:59:13 LOG6[0]: Peer temporary key: X25519, 253 bits",
        ]
        self.assertEqual(encryption(lines), ("X25519", "TLS_AES_256_GCM_SHA384"))

    def test_untold(self) -> None:
        """A stunnel that does not say leaves them empty."""
        self.assertEqual(encryption([START]), ("", ""))

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.text(max_size=60), max_size=6))
    def test_anything(self, lines: list[str]) -> None:
        """Whatever it says, nothing breaks."""
        complaint(lines)
        encryption(lines)
