"""How the words of a command line are put in order."""

from __future__ import annotations

from argparse import PARSER, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any


class Parser(ArgumentParser):
    """
    Takes options also between the arguments of a command.

    Of itself argparse gives an argument that may be left out its default before it has seen what follows an option.
    """

    _within = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Namespace, list[str]]:
        """As C{argparse} has it; what follows the name of a command is for that command to parse."""
        names_command = any(action.nargs == PARSER for action in self._get_positional_actions())
        if self._within or names_command:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            # Calls this method again.
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False
