"""The users of this machine, as the audit trail names them."""

from __future__ import annotations

import os
import pwd
import socket

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters import users


class _Transport:
    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket


class UserTests(SynchronousTestCase):
    """Who did it."""

    def setUp(self) -> None:
        self.uid = os.getuid()
        self.name = pwd.getpwuid(self.uid).pw_name

    def login(self, uid: int | None) -> None:
        """As whom the kernel says one logged in."""
        self.patch(users, "_login", lambda pid: uid)

    def test_this_process(self) -> None:
        """A process is its user's, whatever its environment says."""
        self.login(None)
        self.patch(os, "getuid", lambda: 54321)
        self.assertEqual(users.this_process({"SUDO_USER": "ann", "USER": "bob"}), "admin:54321 (uid 54321)")

    def test_sudo(self) -> None:
        """Whoever became root is named, as the kernel knows it, and else as sudo says."""
        self.patch(os, "getuid", lambda: 0)
        self.login(None)
        self.assertEqual(users.this_process({}), "admin:root (uid 0)")
        self.assertEqual(users.this_process({"SUDO_USER": "ann"}), "admin:root (uid 0, sudo of ann)")
        self.login(54321)
        self.assertEqual(users.this_process({"SUDO_USER": "ann"}), "admin:root (uid 0, logged in as 54321)")
        self.login(0)
        self.assertEqual(users.this_process({"SUDO_USER": "ann"}), "admin:root (uid 0)")

    def test_login(self) -> None:
        """The kernel is asked for it; it need not know."""
        found = users._login(os.getpid())
        self.assertTrue(found is None or found < 0xFFFFFFFF)
        self.assertIsNone(users._login(2**22 + 1))

    def test_peer(self) -> None:
        """The user at the other end of a UNIX socket cannot choose a name."""
        self.login(None)
        near, far = socket.socketpair(socket.AF_UNIX)
        with near, far:
            self.assertEqual(users.peer(_Transport(near)), f"admin:{self.name} (uid {self.uid})")

    def test_trusted(self) -> None:
        """Root and this process's own user are, nobody else is."""
        near, far = socket.socketpair(socket.AF_UNIX)
        with near, far:
            self.assertTrue(users.trusted(_Transport(near)))
            self.patch(users, "_credentials", lambda transport: (1, 54321))
            self.assertFalse(users.trusted(_Transport(near)))
            self.patch(os, "geteuid", lambda: 54321)
            self.assertTrue(users.trusted(_Transport(near)))

    def test_no_peer(self) -> None:
        """What is no UNIX socket has nobody at its other end whom the kernel knows."""
        self.assertEqual(users.peer(object()), "admin:unknown")
        with socket.socket(socket.AF_INET) as other:
            self.assertEqual(users.peer(_Transport(other)), "admin:unknown")
