"""The command of those at the site, C{rdv-onsite}: agree to sessions, refuse them, end them, see how things are."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import rdvtwisted
from rdvtwisted.adapters.consent import SOCKET
from rdvtwisted.adapters.control_client import ControlClient, ServerNotRunning
from rdvtwisted.consent import MOST_WINDOW_SECONDS
from rdvtwisted.errors import InvalidValue, RDVError
from rdvtwisted.services.console import duration
from rdvtwisted.services.device import default_state_directory
from rdvtwisted.services.printing import printed
from rdvtwisted.values import Role

#: Exit status of a command that was not done, and of a command line that makes no sense.
NOT_DONE = 1
MISUSED = 2

_SPAN = re.compile(r"([0-9]{1,7})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def span(text: str) -> float:
    """
    Seconds of a time such as C{90}, C{90s}, C{30m}, C{2h} or C{1d}.

    @raise InvalidValue: it is none, nothing, or more than a site can agree to.
    """
    found = _SPAN.fullmatch(text)
    seconds = 0.0 if found is None else float(int(found[1]) * _UNITS[found[2]])
    if not 0 < seconds <= MOST_WINDOW_SECONDS:
        raise InvalidValue("time", text, f"use 90s, 30m, 2h, 1d, at most {MOST_WINDOW_SECONDS / _UNITS['d']:.0f}d")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdv-onsite", description="Agree to a session of the onsite device of this machine, refuse it, or end it."
    )
    parser.add_argument("-s", "--state-dir", metavar="DIR", help="the device's state directory, if it is not the usual")
    parser.add_argument("--version", action="version", version=f"rdv-onsite {rdvtwisted.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    grant = verbs.add_parser("grant", help="agree to the session that waits, or to all of a window of time")
    grant.add_argument("--for", dest="span", metavar="TIME", help="agree for so long: 90s, 30m, 2h, 1d")
    grant.add_argument("session", nargs="?", metavar="SESSION", help="to this one, by its id, and to no other")
    verbs.add_parser("refuse", help="do not agree to the session that waits, and close the window")
    verbs.add_parser("end", help="end the session that runs, and close the window")
    status = verbs.add_parser("status", help="tell whether a session waits or runs, and what was agreed to")
    status.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def describe(status: Mapping[str, Any]) -> str:
    """What a device's status comes to, for people: one line each."""
    who = f"{status['master'] or 'a master'} ({status['mode']})"
    if status["state"] == "waiting":
        grant = " ".join(["rdv-onsite grant", *filter(None, [status["session"]])])
        lines = [f"{who} waits for consent, {duration(status['answer_within_s'])} more: {grant}, or refuse"]
    elif status["state"] == "session":
        left = status["consent_left_s"]
        until = "" if left is None else f"; consent holds {duration(left)} more"
        lines = [f"There is a session with {who}; consent: {status['basis']}{until}"]
    else:
        lines = ["There is no session"]
    if not status["required"]:
        lines.append("Sessions need no consent here")
    elif status["window_left_s"] is not None:
        lines.append(f"Sessions may begin and last for {duration(status['window_left_s'])}")
    elif status["file_left_s"] is not None:
        lines.append(f"By the consent file sessions may begin and last for {duration(status['file_left_s'])}")
    else:
        lines.append("Each session needs consent before it begins")
    return "\n".join(lines)


def main(
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """
    Do one command.

    @param argv: its arguments; C{None} for those of this process, and so the others.
    @return: the exit status: 0 done, 1 not done, 2 the command line makes no sense.
    """
    out, errors = stdout or sys.stdout, stderr or sys.stderr
    environment = os.environ if environment is None else environment
    # Of what it prints itself argparse does not tell whether it could.
    help = io.StringIO()
    try:
        with redirect_stdout(help), redirect_stderr(errors):
            arguments = _parser().parse_args(argv)
    except SystemExit as end:
        return MISUSED if end.code else _printed(out, errors, help.getvalue())
    try:
        details: dict[str, object] = {}
        if arguments.verb == "grant" and arguments.span is not None:
            details["seconds"] = span(arguments.span)
        if arguments.verb == "grant" and arguments.session is not None:
            details["session"] = arguments.session
    except RDVError as error:
        errors.write(f"rdv-onsite: error: {error}\n")
        return MISUSED
    state = Path(arguments.state_dir or default_state_directory(Role.ONSITE.value, environment)).absolute()
    socket = str(state / SOCKET)
    try:
        answer = ControlClient(socket).ask(arguments.verb, **details)
    except ServerNotRunning:
        errors.write(
            f"rdv-onsite: error: no onsite device is running (nobody answers at {socket});"
            " if it has another state directory, name it with --state-dir\n"
        )
        return NOT_DONE
    except RDVError as error:
        errors.write(f"rdv-onsite: error: {error}\n")
        return NOT_DONE
    if arguments.verb == "status":
        answer = json.dumps(answer, indent=2) if arguments.json else describe(answer)
    return _printed(out, errors, f"{answer}\n")


def _printed(out: TextIO, errors: TextIO, *lines: str) -> int:
    """Say it; the exit status."""
    problem = printed(out, lines)
    if problem:
        errors.write(f"rdv-onsite: error: {problem}\n")
    return NOT_DONE if problem else 0
