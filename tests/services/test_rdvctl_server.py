"""What C{rdvctl} tells of a server that runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.control import session_document
from rdvtwisted.services.administrator import Administrator, Answer
from rdvtwisted.services.rdvctl_arguments import parser
from tests.adapters.administration import PENDING, SESSION
from tests.adapters.store.keys import key
from tests.services.rdvctl import Rdvctl


@frozen
class Asked:
    """An administrator, and what the server answers him."""

    answer: Any
    now: float = 1100.0

    def ask(self, verb: str) -> Any:
        """The answer, whatever it is that is asked."""
        return self.answer


class SessionsTests(SynchronousTestCase):
    """C{rdvctl sessions}."""

    def sessions(self, *documents: dict[str, object]) -> Answer:
        """What is told of these."""
        arguments = parser().parse_args(["sessions"])
        answer: Answer = arguments.command(cast(Administrator, Asked(list(documents))), arguments)
        return answer

    def test_waiting(self) -> None:
        """While the site is asked for its consent that is the session's state, in the table and for programs."""
        waiting = session_document(evolve(PENDING, waiting="consent"))
        answer = self.sessions(session_document(SESSION), waiting, session_document(PENDING))
        header, up, asked, pending = answer.text.splitlines()
        place = header.index("STATE")
        self.assertEqual(
            [line[place:].partition("  ")[0] for line in (up, asked, pending)], ["up", "waiting: consent", "pending"]
        )
        self.assertEqual([each["waiting"] for each in cast(Any, answer.document)], [None, "consent", None])

    def test_former_server(self) -> None:
        """A server that still runs an older program says less, and is understood."""
        document = session_document(PENDING)
        del document["waiting"]
        self.assertIn("pending", self.sessions(document).text)


class LongPathTests(SynchronousTestCase):
    """A state directory so deep that there can be no socket in it, where no server could run either."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="rdv-")
        self.addCleanup(shutil.rmtree, folder)
        self.folder = Path(folder)
        self.directory = self.folder / ("deep" * 30)
        self.directory.mkdir(mode=0o700)
        self.rdvctl = Rdvctl(str(self.directory))

    def test_refused(self) -> None:
        """Whatever would change or ask something is refused in one line that says what to do, and stores nothing."""
        line = (
            f"rdvctl: error: setting control.socket: {self.directory}/control.sock is longer than 107 bytes; name a"
            " shorter path, here and for the server: RDV_SERVER_CONTROL_SOCKET, or in the settings file\n"
        )
        for words in (
            ["device", "add", "rpi1", "--role", "onsite", "--key", key(1).line],
            ["access", "allow", "*", "*"],
            ["device", "list"],
            ["online"],
            ["status"],
        ):
            self.assertEqual((self.rdvctl(*words), self.rdvctl.out, self.rdvctl.err), (1, "", line))
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_shorter(self) -> None:
        """With a shorter path for the socket all is well."""
        self.rdvctl.environment["RDV_SERVER_CONTROL_SOCKET"] = str(self.folder / "s")
        words = ["device", "add", "rpi1", "--role", "onsite", "--key", key(1).line]
        self.assertEqual(self.rdvctl(*words), 0, self.rdvctl.err)

    def test_needs_no_server(self) -> None:
        """What has nothing to do with a server that runs works all the same."""
        self.assertEqual(self.rdvctl("sample-config"), 0)
