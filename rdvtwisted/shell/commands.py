"""The one table of commands: what exists, for whom, what help says of it, and what runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import frozen

from rdvtwisted.shell import inquiries
from rdvtwisted.shell import settings as setters
from rdvtwisted.shell.grammar import BLANKS, CommandLine
from rdvtwisted.shell.printout import columns, printable
from rdvtwisted.shell.settings import Settings
from rdvtwisted.shell.steps import Leave, Say, Step
from rdvtwisted.values import Role

#: What a heartbeat may carry: enough for a counter or a random word.
_HEARTBEAT_WORD = re.compile(r"[!-~]{1,64}")

_HELP_HEADER = "Documented commands (type help <topic>):"


@frozen
class Command:
    """
    What a device can type.

    @ivar usage: its name, followed by its arguments.
    @ivar summary: what it does, for people.
    """

    usage: str
    summary: str
    run: Callable[[Settings, str], Step]
    roles: tuple[Role, ...] = (Role.ONSITE, Role.MASTER)

    @property
    def name(self) -> str:
        """The word that is typed."""
        return self.usage.split()[0]


def get_role(settings: Settings, argument: str) -> Step:
    """The role of the account."""
    return Say(f"{settings.role.value}\n")


def echo(settings: Settings, argument: str) -> Step:
    """The argument; an old device makes sure by it that the server listens."""
    return Say(f"{argument}\n")


def heartbeat(settings: Settings, argument: str) -> Step:
    """One word, given back."""
    if _HEARTBEAT_WORD.fullmatch(argument) is None:
        return Say(errors=f"Invalid heartbeat: {printable(argument)}\n")
    return Say(f"heartbeat: {argument}\n")


def leave(settings: Settings, argument: str) -> Step:
    """The end, in peace."""
    return Leave()


def tell_help(settings: Settings, argument: str) -> Step:
    """What this table says."""
    commands = COMMANDS[settings.role]
    if not argument:
        return Say(_OVERVIEWS[settings.role])
    if argument not in commands:
        return Say(f"*** No help on {printable(argument)}\n")
    command = commands[argument]
    return Say(f"{command.usage}\n  {command.summary}\n")


_ONSITE = (Role.ONSITE,)
_MASTER = (Role.MASTER,)

_TABLE = (
    # What old devices know.
    Command("EOF", "The same as exit.", leave),
    Command("connect_to_onsite_dev ID", "Open a session to an onsite device.", inquiries.connect, _MASTER),
    Command("debug_mode on|off", "Tell on standard error what is asked of the server.", setters.set_debug_mode),
    Command("drop_vtun", "Take this device's tunnel down.", inquiries.drop_tunnel),
    Command("echo TEXT", "Print TEXT.", echo),
    Command("exit", "End the session and leave the server.", leave),
    Command("get_role", "Print this account's role: onsite or master.", get_role),
    Command("get_tunnel_mode", "Print the session's mode, or else the mode set: L3 or L2.", inquiries.get_tunnel_mode),
    Command("get_vtun_parameters", "Print how to build this device's vtun tunnel.", inquiries.get_vtun_parameters),
    Command("help [COMMAND]", "List the commands, or explain one.", tell_help),
    Command("logout", "The same as exit.", leave),
    Command("set_tunnel_mode MODE", "Set the mode of the next session: L3 or L2.", setters.set_tunnel_mode, _MASTER),
    Command(
        "set_tunnelling_dev_dns_server_list [ADDRESS...]",
        "Tell the addresses of the name servers of this device's LAN.",
        setters.set_dns_servers,
    ),
    Command("set_tunnelling_dev_hostname 'NAME'", "Tell this device's hostname.", setters.set_hostname),
    Command(
        "set_tunnelling_dev_lan_ip_address ADDRESS[/PREFIX]",
        "Tell this device's address on its LAN.",
        setters.set_lan_address,
    ),
    Command(
        "set_tunnelling_dev_uplink_type lan|wlan|3g",
        "Tell how this device reaches the Internet.",
        setters.set_uplink_type,
        _ONSITE,
    ),
    Command(
        "show_online_onsite_devs",
        "List the ids of the onsite devices that are online.",
        inquiries.show_online_onsites,
        _MASTER,
    ),
    Command(
        "show_remote_onsite_ip_config",
        "Print the LAN address of the onsite device of the session.",
        inquiries.show_remote_lan,
        _MASTER,
    ),
    Command(
        "wait_master_connection",
        "Wait up to 60 seconds for a master; print ready, not_ready or reset.",
        inquiries.wait_for_master,
        _ONSITE,
    ),
    # What came later.
    Command("end_session [REASON [SESSION]]", "End the session, if it is the one with this id.", inquiries.end_session),
    Command(
        "get_certificate_authority",
        "Print the certificate of the TLS door's authority (DER in base64).",
        inquiries.get_certificate_authority,
    ),
    Command(
        "get_return_time",
        "Print over how many seconds devices are to spread that come back after a restart of the server.",
        inquiries.get_return_time,
    ),
    Command("get_session", "Print the state of the session.", inquiries.get_session),
    Command(
        "get_session_grant",
        "Print what may be done in the session: where its packets may go, and for how many seconds.",
        inquiries.get_session_grant,
    ),
    Command("get_tunnel_parameters", "Print how to build this device's tunnel.", inquiries.get_tunnel_parameters),
    Command("heartbeat WORD", "Print WORD: both ends are alive.", heartbeat),
    Command(
        "limit_session SECONDS SESSION",
        "Let the session with this id be over in so many seconds.",
        inquiries.limit_session,
    ),
    Command(
        "set_consent_time SECONDS",
        "Tell that the site is asked for its consent before a session, for so many seconds; 0: it is not.",
        setters.set_consent_time,
        _ONSITE,
    ),
    Command(
        "set_tunnel_backends NAME...",
        "Tell which tunnel backends this device can use, the preferred one first.",
        setters.set_tunnel_backends,
    ),
    Command(
        "show_onsite_devs",
        "List the onsite devices that are online: id, hostname, LAN, uplink, idle or busy, address; separated by tabs.",
        inquiries.show_onsites,
        _MASTER,
    ),
    Command(
        "show_remote_onsite",
        "Print what is known of the onsite device of the session.",
        inquiries.show_remote_onsite,
        _MASTER,
    ),
    Command(
        "wait_session_change STATE SECONDS [GRANT]",
        "Wait up to 1 to 60 seconds until the session's state is not STATE, or its grant not GRANT, then print it as"
        " get_session does.",
        inquiries.wait_session_change,
    ),
)

#: The commands of each role, by name.
COMMANDS: Mapping[Role, Mapping[str, Command]] = {
    role: {command.name: command for command in _TABLE if role in command.roles} for role in Role
}

_OVERVIEWS = {
    role: f"\n{_HELP_HEADER}\n{'=' * len(_HELP_HEADER)}\n{columns(sorted(commands))}\n"
    for role, commands in COMMANDS.items()
}


def run(settings: Settings, line: CommandLine) -> Step:
    """What the command of C{line} comes to; old devices know an unknown one by this very text."""
    command = COMMANDS[settings.role].get(line.name)
    if command is None:
        return Say(f"*** Unknown syntax: {printable(line.text)}\n")
    return command.run(settings, line.argument)


def candidates(role: Role, line: str) -> list[str]:
    """The commands whose names could complete C{line}, which is a first word or the beginning of a call for help."""
    stem = line.lstrip(BLANKS)
    for call in ("?", "help "):
        if stem.startswith(call):
            stem = stem[len(call) :].lstrip(BLANKS)
            break
    return sorted(name for name in COMMANDS[role] if name.startswith(stem))
