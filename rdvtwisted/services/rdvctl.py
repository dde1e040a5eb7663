"""The administrator's command: C{rdvctl}."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from rdvtwisted.adapters.store.settings import read_settings
from rdvtwisted.errors import RDVError
from rdvtwisted.services.administrator import Administrator, Terminal, UsageError
from rdvtwisted.services.printing import printed
from rdvtwisted.services.rdvctl_arguments import parser

#: Exit status of a command that was not done, unless its error has another, and of a command line without sense.
NOT_DONE = 1
MISUSED = UsageError.exit_status


def main(argv: Sequence[str] | None = None, terminal: Terminal | None = None) -> int:
    """
    Do one command.

    @param argv: its arguments; C{None} for those of this process.
    @param terminal: where it was given; C{None} for that of this process.
    @return: the exit status: 0 done, 1 not done, 2 the command line makes no sense.
    """
    terminal = terminal or Terminal.here()
    # Of what it prints itself argparse does not tell whether it could.
    help = StringIO()
    try:
        with redirect_stdout(help), redirect_stderr(terminal.stderr):
            arguments = parser().parse_args(argv)
    except SystemExit as end:
        return MISUSED if end.code else _printed(terminal, [help.getvalue()], 0)
    overrides = {} if arguments.state_dir is None else {"state_directory": arguments.state_dir}
    notes: list[str] = []
    try:
        settings = read_settings(arguments.config, terminal.environment, overrides, root=terminal.root)
        answer = arguments.command(Administrator(settings, terminal, notes), arguments)
    except RDVError as error:
        _warn(terminal, notes)
        terminal.stderr.write(f"rdvctl: error: {error}\n")
        return error.exit_status
    _warn(terminal, notes)
    text = json.dumps(answer.document, indent=2) if arguments.json else answer.text
    return _printed(terminal, [text + "\n"] if answer.lines is None else answer.lines, answer.exit_status)


def _printed(terminal: Terminal, lines: Iterable[str], exit_status: int) -> int:
    """Say it; the exit status, which is another one if that cannot be done."""
    try:
        problem = printed(terminal.stdout, lines)
    except RDVError as error:
        # From what is read while it is written.
        problem = str(error)
    if problem:
        terminal.stderr.write(f"rdvctl: error: {problem}\n")
        return NOT_DONE
    return exit_status


def _warn(terminal: Terminal, notes: Sequence[str]) -> None:
    for note in notes:
        terminal.stderr.write(f"rdvctl: warning: {note}\n")
