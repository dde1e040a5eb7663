"""Runs C{rdvctl} in this process, on a state directory of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from io import StringIO
from typing import Any

from attrs import define, field

from rdvtwisted.adapters.store.inventory import FILE_NAME
from rdvtwisted.services.administrator import Terminal
from rdvtwisted.services.rdvctl import main

#: What the command takes for now, in seconds since the epoch.
NOW = 1100.0
#: Who gives it.
ACTOR = "admin:ann (uid 1000)"


@define
class Rdvctl:
    """The command, and what its last call has said."""

    directory: str
    environment: dict[str, str] = field(factory=dict)
    out: str = ""
    err: str = ""

    @property
    def database(self) -> str:
        """Path of the inventory."""
        return os.path.join(self.directory, FILE_NAME)

    def __call__(self, *arguments: str, stdin: str = "") -> int:
        """Call it with these arguments; the exit status."""
        out, err = StringIO(), StringIO()
        environment = {"RDV_SERVER_STATE_DIRECTORY": self.directory, **self.environment}
        status = main(arguments, Terminal(StringIO(stdin), out, err, environment, lambda: NOW, True, ACTOR))
        self.out, self.err = out.getvalue(), err.getvalue()
        return status

    def document(self, arguments: Sequence[str]) -> Any:
        """Call it with these arguments for JSON; what it printed, which must be just one document."""
        self("--json", *arguments)
        return json.loads(self.out)
