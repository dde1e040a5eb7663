"""A device and a server, both ours, from login to goodbye."""

from __future__ import annotations

from zope.interface.verify import verifyObject

from rdvtwisted.interfaces import IDesk, ILine, IReception
from rdvtwisted.requests import Readiness, WaitForMaster
from tests.adapters.ssh.world import DEVICE, ECDSA, ED25519, RSA, Listener, World


class PairTests(World):
    """Everything in order."""

    def test_interfaces(self) -> None:
        """What stands in for the server's other rooms, and what they get from us, is what they agreed on."""
        self.log_in()
        self.assertTrue(verifyObject(IReception, self.reception))
        self.assertTrue(verifyObject(IDesk, self.desk))
        self.assertTrue(verifyObject(ILine, self.desk.line))

    def test_each_kind_of_key(self) -> None:
        """A device logs in with an ed25519, an ECDSA or an RSA key."""
        for key in (ED25519, ECDSA, RSA):
            link = self.log_in(key)
            self.assertEqual(self.desk.device, DEVICE)
            self.result(link.disconnect())

    def test_best_algorithms(self) -> None:
        """Between our own ends the key exchange withstands quantum computers, and AES-GCM protects the packets."""
        link = self.log_in()
        self.assertEqual(link.key_exchange, "mlkem768x25519-sha256")
        self.assertEqual(link.cipher, "aes128-gcm@openssh.com")

    def test_shell(self) -> None:
        """A device talks to its shell; answers and errors come separately, and at the end its exit status."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"get_role\nset_tunnelling_dev_dns_server_list x\n")
        self.pump()
        self.assertEqual(listener.out, b"rpi1100$ onsite\nrpi1100$ rpi1100$ ")
        self.assertEqual(listener.err, b"Invalid DNS list: x\n")
        shell.write(b"exit\n")
        self.pump()
        self.assertEqual(listener.end, (0, ""))

    def test_wait_and_interrupt(self) -> None:
        """A device waits for a master, and can be interrupted."""
        link = self.log_in()
        listener = Listener()
        shell = self.result(link.open_shell(listener))
        shell.write(b"wait_master_connection\n")
        self.pump()
        ((request, answer),) = self.desk.requests
        self.assertEqual(request, WaitForMaster())
        shell.write(b"\x03")
        self.pump()
        self.assertEqual(self.desk.interrupts, 1)
        answer.callback(Readiness.NOT_READY)
        self.pump()
        self.assertIn(b"not_ready", listener.out + listener.err)
