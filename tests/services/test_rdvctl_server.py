"""What C{rdvctl} tells of a server that runs."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from rdvtwisted.adapters.control import session_document
from rdvtwisted.services.administrator import Administrator, Answer
from rdvtwisted.services.rdvctl_arguments import parser
from tests.adapters.administration import PENDING, SESSION


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
