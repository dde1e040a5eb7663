"""What the command line of C{rdvctl} is made of: how words are put in order, and what all commands have."""

from __future__ import annotations

import re
from argparse import (
    PARSER,
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
    _SubParsersAction,
)
from collections.abc import Callable, Sequence
from typing import Any

from rdvtwisted.services.administrator import Administrator, Answer

#: What a command does; its arguments have it as C{command}.
Command = Callable[[Administrator, Namespace], Answer]


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


def common_options(default: object, flag: object) -> ArgumentParser:
    """The options that all commands have, with these defaults, C{flag} that of those without a value."""
    options = ArgumentParser(add_help=False)
    options.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help="settings file of the server [/etc/rdvtwisted/server.toml, if there]",
    )
    options.add_argument(
        "--state-dir",
        metavar="DIR",
        default=default,
        help="state directory of the server [$RDV_SERVER_STATE_DIRECTORY, or /var/lib/rdvtwisted/server for root,"
        " or ~/.local/state/rdvtwisted/server]",
    )
    options.add_argument("--json", action="store_true", default=flag, help="print one JSON document instead of text")
    return options


def add_group(commands: _SubParsersAction[ArgumentParser], name: str, help: str) -> _SubParsersAction[ArgumentParser]:
    """
    Add a command that has commands of its own.

    @return: what these are to be added to.
    """
    group = commands.add_parser(name, help=help, description=help, formatter_class=RawDescriptionHelpFormatter)
    return group.add_subparsers(metavar="COMMAND", required=True)


def add_command(
    commands: _SubParsersAction[ArgumentParser], name: str, command: Command, help: str, *lines: str
) -> ArgumentParser:
    """
    Add a command that does something.

    @param lines: examples of it.
    @return: what its arguments are to be added to.
    """
    added = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=examples(*lines),
        formatter_class=RawDescriptionHelpFormatter,
        # Without a default of their own they leave alone what stood before the command's name.
        parents=[common_options(SUPPRESS, SUPPRESS)],
    )
    added.set_defaults(command=command)
    return added


def examples(*lines: str) -> str:
    """How the help on a command ends."""
    return "\n".join(("examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines), ""))


def whole_number(text: str) -> int:
    """
    A number of things that an argument gives.

    @raise ArgumentTypeError: it is none, or more than can be counted.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 to 999999999")
    return int(text)
