"""C{rdvctl backends}: what an administrator learns of tunnel backends, of a server that runs or one that does not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.backends import Discovery
from rdvtwisted.adapters.network import gluer_client
from rdvtwisted.errors import MissingPrivilege
from rdvtwisted.services import rdvctl_backends
from rdvtwisted.services.administrator import Administrator
from rdvtwisted.values import Missing
from tests.services.neighbours import Backend
from tests.services.rdvctl import Rdvctl

LACK = Missing("the program pigeond", "apt-get install pigeons")


def blind(name: str = "blind") -> Backend:
    """One that is relayed, and nothing else."""
    return Backend(name)


def ended(name: str = "ended") -> Backend:
    """One that the server ends, inside SSH, and that this machine could not use as a device."""
    backend = Backend(name, lacking=[LACK], needs=("CAP_NET_ADMIN", "pigeond"))
    backend.relay, backend.glue = False, True
    return backend


class BackendsTests(SynchronousTestCase):
    """The command."""

    def setUp(self) -> None:
        """A state directory; namespaces can be made, and the server does not run."""
        folder = tempfile.mkdtemp(prefix="rdv-")
        self.addCleanup(shutil.rmtree, folder)
        self.rdvctl = Rdvctl(folder)
        self.closed: list[str] = []
        self.start_gluer(lambda limit: SimpleNamespace(
            connection=SimpleNamespace(close=lambda: self.closed.append("socket")),
            process=SimpleNamespace(wait=lambda: self.closed.append("process")),
        ))  # fmt: skip
        self.find(blind(), ended())

    def start_gluer(self, start: Callable[[int], Any]) -> None:
        """What happens when the process that makes namespaces is started."""
        self.patch(gluer_client, "start", start)

    def find(self, *backends: Backend, problems: tuple[str, ...] = ()) -> None:
        """These tunnel backends are installed."""
        self.patch(rdvctl_backends, "discover", lambda: Discovery(backends, problems))

    def running(self, **status: object) -> None:
        """A server runs, and says this of itself."""
        self.patch(Administrator, "ask", lambda _, verb: {"status": status}[verb])

    def usable(self, document: Any) -> dict[str, list[str]]:
        """The ways in which the server can join tunnels, by backend."""
        return {each["name"]: each["usable"] for each in document["backends"]}

    def test_table(self) -> None:
        """Each backend in a line, and below what a device on this machine would lack."""
        self.assertEqual(self.rdvctl("backends"), 0)
        self.assertEqual(
            self.rdvctl.out,
            "BACKEND  MODES  JOIN   USABLE HERE  A DEVICE NEEDS          WHAT IT IS\n"
            "blind    L3     relay  relay        -                       For tests.\n"
            "ended    L3     glue   glue         CAP_NET_ADMIN, pigeond  For tests.\n"
            "As a device this machine could not use ended, for want of the program pigeond: apt-get install pigeons.\n",
        )
        self.assertEqual(self.closed, ["socket", "process"])

    def test_document(self) -> None:
        """The same for programs."""
        document = self.rdvctl.document(["backends"])
        self.assertEqual(
            {name: value for name, value in document.items() if name != "backends"},
            {"server_running": False, "door": True, "glue": "available", "problems": []},
        )
        self.assertEqual(
            document["backends"][1],
            {
                "name": "ended",
                "summary": "For tests.",
                "modes": ["L3"],
                "joins": ["glue"],
                "usable": ["glue"],
                "mtu": 1500,
                "needs": ["CAP_NET_ADMIN", "pigeond"],
                "missing_on_device": [{"what": "the program pigeond", "cure": "apt-get install pigeons"}],
            },
        )

    def test_no_glue(self) -> None:
        """Where no namespaces can be made it says why, and its exit status tells that something cannot be used."""

        def refuse(_: int) -> None:
            raise MissingPrivilege("may not make network namespaces: run as root")

        self.start_gluer(refuse)
        self.assertEqual(self.rdvctl("backends"), 1)
        self.assertIn("ended    L3     glue   no           CAP_NET_ADMIN, pigeond  For tests.\n", self.rdvctl.out)
        self.assertIn(
            "This server cannot end tunnels (glue): may not make network namespaces: run as root.\n", self.rdvctl.out
        )
        self.find(blind())
        self.assertEqual(self.rdvctl("backends"), 0)

    def test_switched_off(self) -> None:
        """A setting that forbids something is named, and nothing is tried."""
        self.rdvctl.environment["RDV_SERVER_SESSION_GLUE"] = "false"
        self.rdvctl.environment["RDV_SERVER_TLS_ENABLED"] = "false"
        self.assertEqual(self.rdvctl("backends"), 1)
        self.assertIn(
            "This server cannot end tunnels (glue): it is switched off (setting session.glue).\n", self.rdvctl.out
        )
        self.assertIn(
            "This server has no TLS door, by which streams would come (setting tls.enabled).\n", self.rdvctl.out
        )
        self.assertEqual(self.usable(self.rdvctl.document(["backends"])), {"blind": [], "ended": []})
        self.assertEqual(self.closed, [])

    def test_running(self) -> None:
        """A server that runs knows best, and nothing is tried."""
        self.running(glue="available", tls_port=443)
        document = self.rdvctl.document(["backends"])
        self.assertEqual(
            (document["server_running"], self.usable(document)), (True, {"blind": ["relay"], "ended": ["glue"]})
        )
        self.running(glue="the process that makes network namespaces has ended")
        self.assertEqual(self.rdvctl("backends"), 1)
        self.assertIn("has ended.\n", self.rdvctl.out)
        self.assertEqual(self.usable(self.rdvctl.document(["backends"])), {"blind": [], "ended": []})
        self.assertEqual(self.closed, [])

    def test_problems(self) -> None:
        """What is installed and is none is a warning; without any there is a word."""
        self.find(problems=("the drop-in x cannot be imported: it is broken",))
        self.assertEqual(self.rdvctl("backends"), 1)
        self.assertEqual(self.rdvctl.out, "There is no tunnel backend.\n")
        self.assertEqual(self.rdvctl.err, "rdvctl: warning: the drop-in x cannot be imported: it is broken\n")
