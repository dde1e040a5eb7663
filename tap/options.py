"""Options of a command, whose mistakes are one line."""

from __future__ import annotations

import sys
from typing import Any

from twisted.python import usage

import rdvtwisted
from tap.refusal import BAD_USAGE, refuse


class CommandOptions(usage.Options):
    """Options of one of C{twistd}'s commands; subclasses name it."""

    command: str

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"rdvtwisted {rdvtwisted.__version__}")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Parse the command's own options.

        @raise usage.UsageError: they make no sense; C{twistd}, which would
            print the help of all its commands, is ended instead.
        """
        # Its parent are the options of twistd, when it is twistd that runs the command.
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            refuse(self.command, str(error), BAD_USAGE)
