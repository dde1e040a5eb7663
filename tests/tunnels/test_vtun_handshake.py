"""The handshake of vtun, byte for byte, and all that is no handshake."""

from __future__ import annotations

import sys

from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.errors import MissingProgram, ProtocolError
from rdvtwisted.values import Mode
from tunnels import vtun_handshake
from tunnels.vtun_handshake import (
    LONGEST_SESSION,
    MESSAGE,
    NotVtun,
    ServerHandshake,
    WrongSecret,
    WrongSession,
    accepted,
    answer,
    letters,
    message,
    refused,
    session_name,
)

bounded = settings(derandomize=True, max_examples=200, deadline=None)

COUNTING = bytes(range(16))
#: What a stock vtund 3.0.4 of Debian, with the secret C{_rpi1100}, answers to the challenge L{COUNTING}.
STOCK_HOST = b"HOST: tundevrpi1100\n" + bytes(30)
STOCK_CHAL = b"CHAL: <khhgdadajpcakdmfdobdcpjhpgonfadd>\n" + bytes(9)


def handshake(session: str = "tundevrpi1100", secret: str = "_rpi1100") -> ServerHandshake:
    """One with a challenge that is known beforehand."""
    return ServerHandshake(session, secret, lambda length: COUNTING[:length])


class WireTests(SynchronousTestCase):
    """What is on the wire."""

    def test_stock_client(self) -> None:
        """The messages that a stock client sent once let it in, whoever cuts them where."""
        for size in (1, 7, 50, 100):
            server = handshake()
            stream = STOCK_HOST + STOCK_CHAL
            reply = b"".join(server.receive(stream[at : at + size]) for at in range(0, len(stream), size))
            self.assertEqual(reply, b"OK CHAL: <aaabacadaeafagahaiajakalamanaoap>\n" + bytes(6))
            self.assertTrue(server.proved)

    def test_texts(self) -> None:
        """Each message of the server has 50 bytes: a line, and NULs."""
        self.assertEqual(handshake().greeting(), b"VTUN server ver 3.X rdvtwisted\n" + bytes(19))
        self.assertEqual(accepted(Mode.L3), b"OK FLAGS: <TuK>\n" + bytes(34))
        self.assertEqual(accepted(Mode.L2), b"OK FLAGS: <TeK>\n" + bytes(34))
        self.assertEqual(refused(), b"ERR\n" + bytes(46))
        self.assertEqual({len(text) for text in (STOCK_HOST, STOCK_CHAL, refused())}, {MESSAGE})
        self.assertEqual(session_name("rpi1100"), "tundevrpi1100")

    def test_answer(self) -> None:
        """Two blocks of Blowfish, under the MD5 digest of the secret, in letters with the high half first."""
        self.assertEqual(letters(answer(COUNTING, "_rpi1100")), "<khhgdadajpcakdmfdobdcpjhpgonfadd>")
        self.assertEqual(letters(b"\x0f\xf0\xa1"), "<appakb>")
        twice = answer(bytes(16), "secret")
        self.assertEqual(twice[:8], twice[8:])

    def test_longest_name(self) -> None:
        """A session's name may have 41 characters: a stock client cuts what is longer."""
        name = "n" * LONGEST_SESSION
        server = handshake(name)
        self.assertTrue(server.receive(message(f"HOST: {name}")).startswith(b"OK CHAL: "))
        self.assertRaises(ValueError, message, f"HOST: {name}{'n' * 2}")

    def test_carriage_return(self) -> None:
        """A line may end as on a terminal, or with the message; what stands behind its first NUL is nothing."""
        for line in (b"HOST: tundevrpi1100\r\n\0rest", b"HOST: tundevrpi1100\0"):
            self.assertTrue(handshake().receive(line.ljust(MESSAGE, b"x")).startswith(b"OK CHAL"))


class RefusalTests(SynchronousTestCase):
    """Who does not get in."""

    def named(self) -> ServerHandshake:
        server = handshake()
        server.receive(STOCK_HOST)
        return server

    def test_other_protocols(self) -> None:
        """Who speaks something else is refused at its first wrong byte, with what it said."""
        for text in (
            b"G",
            b"GET / HTTP/1.0\r\n\r\n",
            b"SSH-2.0-x\r\n",
            b"HOST tun",
            b"\0",
            b"\xff" * 65_535,
            b"CHAL: <",
        ):
            self.assertRaises(NotVtun, handshake().receive, text)
        error = self.assertRaises(NotVtun, handshake().receive, b"GET /\x1b[2J " + b"a" * 100)
        self.assertEqual(str(error), "not a vtun client: it said 'GET /?[2J aaaaaa'")

    def test_bad_lines(self) -> None:
        """A message that begins well but is none is refused."""
        for text in (b"HOST: \n", b"HOST: a b\n", b"HOST: \xc3\xa9\n", b"HOST: tundevrpi1100\nx"):
            self.assertRaises(NotVtun, handshake().receive, text.ljust(MESSAGE, b"\0"))
        for text in (b"CHAL: <>\n", b"CHAL: <" + b"q" * 32 + b">\n", b"CHAL: <" + b"A" * 32 + b">\n", STOCK_HOST):
            self.assertRaises(NotVtun, self.named().receive, text.ljust(MESSAGE, b"\0"))
        self.assertRaises(NotVtun, self.named().receive, b"CHAL: " + b"<" * 44)

    def test_wrong_session(self) -> None:
        """Only the session that is here can be asked for."""
        for name in ("tundevrpi1101", "tundevrpi110", "tundevrpi11000", "TUNDEVRPI1100", "t"):
            error = self.assertRaises(WrongSession, handshake().receive, message(f"HOST: {name}"))
            self.assertEqual(error.said, name)

    def test_wrong_secret(self) -> None:
        """The answer must be right to the last bit; the challenge itself is none, nor is it XORed with the secret."""
        right = answer(COUNTING, "_rpi1100")
        xored = bytes(a ^ b for a, b in zip(COUNTING, b"_rpi1100" * 2, strict=True))
        for given_answer in (answer(COUNTING, "_rpi1101"), COUNTING, xored, right[:-1] + bytes([right[-1] ^ 1])):
            server = self.named()
            self.assertRaises(WrongSecret, server.receive, message(f"CHAL: {letters(given_answer)}"))
            self.assertFalse(server.proved)

    def test_out_of_turn(self) -> None:
        """A client that goes on before it was let in is refused."""
        server = self.named()
        self.assertRaises(NotVtun, server.receive, STOCK_CHAL + b"\x20\x00")
        server = self.named()
        server.receive(STOCK_CHAL)
        self.assertRaises(NotVtun, server.receive, b"\x20\x00")

    def test_challenges_differ(self) -> None:
        """Each connection has its own challenge, of 16 bytes."""
        wanted: list[int] = []

        def random(length: int) -> bytes:
            wanted.append(length)
            return bytes([len(wanted)]) * length

        replies = [ServerHandshake("s", "x", random).receive(message("HOST: s")) for _ in range(2)]
        self.assertEqual(wanted, [16, 16])
        self.assertNotEqual(*replies)

    def test_no_blowfish(self) -> None:
        """On a machine whose OpenSSL has lost Blowfish, the user reads what to do."""

        def lost(*_: object) -> None:
            raise UnsupportedAlgorithm("gone")

        self.patch(vtun_handshake, "Cipher", lost)
        error = self.assertRaises(MissingProgram, handshake)
        self.assertIn("enable its legacy provider", str(error))

    def test_no_secret_kept(self) -> None:
        """What is kept for the length of a connection does not hold the secret."""
        server = handshake(secret="correct-horse")
        kept = [value for value in vars(server).values() if isinstance(value, bytes | str)]
        self.assertGreater(len(kept), 2)
        self.assertFalse([value for value in kept if "horse" in str(value)])


class AnythingTests(SynchronousTestCase):
    """Whatever comes in."""

    @bounded
    @given(st.lists(st.one_of(st.binary(max_size=120), st.sampled_from([STOCK_HOST, STOCK_HOST[:20], b"HOST: "]))))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """No bytes do more than be refused, none gets in without the right answer, less than a message is kept."""
        server = handshake()
        try:
            for piece in pieces:
                self.assertIn(len(server.receive(piece)), (0, MESSAGE))
                self.assertLess(sys.getsizeof(server._begun), 200)
        except ProtocolError as error:
            self.assertLess(len(str(error)), 120)
            self.assertTrue(str(error).isprintable())
        self.assertFalse(server.proved)
