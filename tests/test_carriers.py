"""How a session is carried: what both devices have, what the server can end, and in whose order."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.carriers import BRIDGED_MTU, Carrier, Choice, choose
from rdvtwisted.errors import GlueNotAvailable, NoCommonBackend
from rdvtwisted.testing.ends import MemoryServerTunnel
from rdvtwisted.values import Mode, Presence, Profile, PublicKey, Role

BOTH = frozenset(Mode)
TLS = Carrier("tls", BOTH, 1500, True, MemoryServerTunnel)
VTUN = Carrier("vtun", BOTH, 1450, False, MemoryServerTunnel)
STUNNEL = Carrier("stunnel", BOTH, 1500, False, MemoryServerTunnel, inside=True)
ROUTED = Carrier("routed", frozenset([Mode.L3]), 1400, True)
CARRIERS = {each.name: each for each in (TLS, VTUN, STUNNEL, ROUTED)}


def presence(role: Role, *backends: str, mode: Mode = Mode.L3) -> Presence:
    """A device that is here, and names these backends."""
    profile = Profile(mode=mode, backends=backends)
    return Presence(role.value, role, "192.0.2.1:4000", "ssh", 0.0, 0.0, profile, PublicKey("ssh-ed25519", b""))


class ChooseTests(SynchronousTestCase):
    """Two devices and their backends."""

    def choice(self, master: str, onsite: str, mode: Mode = Mode.L3, **server: Any) -> Choice:
        """What is chosen for these lists of names."""
        server.setdefault("glue", True)
        return choose(
            CARRIERS,
            presence(Role.MASTER, *master.split(), mode=mode),
            presence(Role.ONSITE, *onsite.split()),
            **server,
        )

    def chosen(self, master: str, onsite: str, mode: Mode = Mode.L3) -> tuple[str, str, str]:
        """The join, the onsite's backend, the master's."""
        choice = self.choice(master, onsite, mode)
        return choice.join, choice.of(Role.ONSITE).name, choice.of(Role.MASTER).name

    def test_relay_first(self) -> None:
        """What the server cannot read is preferred, wherever it stands in the lists."""
        self.assertEqual(self.chosen("vtun stunnel tls", "stunnel vtun tls"), ("relay", "tls", "tls"))

    def test_masters_order(self) -> None:
        """Among several such the master's order counts."""
        self.assertEqual(self.chosen("routed tls", "tls routed"), ("relay", "routed", "routed"))
        self.assertEqual(self.chosen("routed tls", "tls routed", Mode.L2), ("relay", "tls", "tls"))

    def test_same_glued(self) -> None:
        """A master that wants one kind of tunnel gets it on both sides, if the onsite has it."""
        self.assertEqual(self.chosen("vtun", "tls stunnel vtun"), ("glue", "vtun", "vtun"))
        self.assertEqual(self.chosen("stunnel", "tls stunnel vtun"), ("glue", "stunnel", "stunnel"))

    def test_old_devices(self) -> None:
        """A device that names nothing is an old one, and has vtun."""
        self.assertEqual(self.chosen("", ""), ("glue", "vtun", "vtun"))
        self.assertEqual(self.chosen("tls stunnel", ""), ("glue", "vtun", "tls"))
        self.assertEqual(self.chosen("", "stunnel tls"), ("glue", "stunnel", "vtun"))

    def test_no_older_than_needed(self) -> None:
        """A new device that has vtun, too, uses what is better with an old one; unless its operator wants vtun."""
        self.assertEqual(self.chosen("tls stunnel vtun", ""), ("glue", "vtun", "tls"))
        self.assertEqual(self.chosen("", "tls stunnel vtun"), ("glue", "tls", "vtun"))
        self.assertEqual(self.chosen("vtun tls", ""), ("glue", "vtun", "vtun"))
        self.assertEqual(self.chosen("vtun", "stunnel vtun"), ("glue", "vtun", "vtun"))

    def test_unlike(self) -> None:
        """Two that share nothing each have the first of their own that the server can end."""
        self.assertEqual(self.chosen("routed tls", "unknown stunnel"), ("glue", "stunnel", "tls"))
        self.assertEqual(self.choice("tls", "").backend, "vtun-tls")
        self.assertEqual(self.choice("tls", "tls").backend, "tls")

    def test_mtu(self) -> None:
        """Routed packets fit through both tunnels; bridged frames are those of the LAN."""
        self.assertEqual(self.choice("tls", "").mtu, 1450)
        self.assertEqual(self.choice("tls", "tls").mtu, 1500)
        self.assertEqual(self.choice("", "", Mode.L2).mtu, BRIDGED_MTU)

    def test_path(self) -> None:
        """An old device on either side lets no larger frames through in a bridged session than in a routed one."""
        for master, onsite, path in (
            ("tls", "", 1450),
            ("", "tls", 1450),
            ("vtun", "vtun", 1500),
            ("tls", "tls", 1500),
        ):
            self.assertEqual(self.choice(master, onsite, Mode.L2).path, path)

    def test_nothing(self) -> None:
        """Backends that nobody knows, or that cannot have the mode, are none."""
        self.assertRaises(NoCommonBackend, self.choice, "unknown", "tls")
        self.assertRaises(NoCommonBackend, self.choice, "routed", "routed", Mode.L2)

    def test_no_glue(self) -> None:
        """A server that cannot end tunnels says so, where that would help; relayed sessions do without."""
        self.assertRaises(GlueNotAvailable, self.choice, "tls", "vtun", glue=False)
        self.assertRaises(NoCommonBackend, self.choice, "routed", "vtun", glue=False)
        self.assertEqual(self.choice("tls", "tls", glue=False).join, "relay")
