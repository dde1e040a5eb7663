"""The command line of C{rdvctl}: its commands, their arguments, and the help on each."""

from __future__ import annotations

from argparse import (
    SUPPRESS,
    ArgumentParser,
    BooleanOptionalAction,
    Namespace,
    RawDescriptionHelpFormatter,
    _SubParsersAction,
)
from collections.abc import Callable

import rdvtwisted
from rdvtwisted.services import rdvctl_devices as devices
from rdvtwisted.services import rdvctl_server as server
from rdvtwisted.services.administrator import Administrator, Answer
from rdvtwisted.values import Role

Command = Callable[[Administrator, Namespace], Answer]

_ROLES = tuple(role.value for role in Role)


def parser() -> ArgumentParser:
    """
    Understands C{rdvctl}'s arguments. The L{Namespace} has the L{Command} as C{command}.

    The options that all commands have may stand before or behind the command's name.
    """
    top = ArgumentParser(
        prog="rdvctl",
        description="Administer an RDV server: its devices, their keys, who is online, sessions, certificates.\n"
        "Works on the server's files, whether it runs or not; a running server takes note at once.",
        epilog=_examples(
            "rdvctl device add rpi1100 --role onsite --key-file rpi1100.pub",
            "rdvctl online",
            "rdvctl end rpi1100",
            "rdvctl --json device list",
            "rdvctl device add --help",
        )
        + "\nExit status: 0 done, 1 not done, 2 the command line makes no sense.",
        formatter_class=RawDescriptionHelpFormatter,
        parents=[_common(None, False)],
    )
    top.add_argument("--version", action="version", version=f"rdvctl {rdvtwisted.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _device_commands(_group(commands, "device", "Devices: the accounts that may log in."))
    _key_commands(_group(commands, "key", "Keys of devices."))
    _leaf(commands, "online", server.online, "List the devices that are online.", "rdvctl online")
    _leaf(commands, "sessions", server.sessions, "List the sessions.", "rdvctl sessions")
    end = _leaf(commands, "end", server.end, "End a session.", "rdvctl end rpi1100")
    end.add_argument("id", metavar="ID", help="id of the session, or of one of its devices")
    _leaf(
        commands,
        "status",
        server.status,
        "Show whether the server runs, and how it is. Exit status 1 if it does not run.",
        "rdvctl status",
    )
    _certificate_commands(_group(commands, "certificate", "Certificates of the TLS door."))
    _leaf(
        commands,
        "host-keys",
        server.host_keys,
        "Show the fingerprints of the server's keys, to compare with what a device shows when it first connects.",
        "rdvctl host-keys",
    )
    _leaf(
        commands,
        "sample-config",
        server.sample_config,
        "Print a settings file that has every setting with its default.",
        "rdvctl sample-config > /etc/rdvtwisted/server.toml",
    )
    return top


def _device_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    add = _leaf(
        commands,
        "add",
        devices.add,
        "Add a device. It can log in from now on with any of its keys.",
        "rdvctl device add rpi1100 --role onsite --key-file rpi1100.pub --label 'Press 3, Lyon'",
        "rdvctl device add ann --role master --key 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5... ann@laptop'",
        "ssh pi@10.0.0.7 cat .ssh/id_rsa.pub | rdvctl device add rpi1101 --role onsite --legacy --key-file -",
    )
    _id(add)
    add.add_argument("--role", choices=_ROLES, required=True, help="whether it gives access, or is an engineer's")
    add.add_argument(
        "--key", action="append", default=[], metavar="KEY", help="public key, as in its .pub file; may be repeated"
    )
    _key_file(add)
    add.add_argument("--label", default="", metavar="TEXT", help="what people call it")
    add.add_argument("--legacy", action="store_true", help="accept the signatures that old devices make (ssh-rsa)")
    _leaf(commands, "list", devices.list_, "List all devices.", "rdvctl device list")
    _id(_leaf(commands, "show", devices.show, "Show a device.", "rdvctl device show rpi1100"))
    _id(
        _leaf(
            commands,
            "disable",
            devices.disable,
            "Refuse a device, but keep it. If it is online, it is disconnected at once.",
            "rdvctl device disable rpi1100",
        )
    )
    _id(_leaf(commands, "enable", devices.enable, "Let a disabled device in again.", "rdvctl device enable rpi1100"))
    _id(
        _leaf(
            commands,
            "remove",
            devices.remove,
            "Forget a device and its keys. If it is online, it is disconnected at once.",
            "rdvctl device remove rpi1100",
        )
    )
    change = _leaf(
        commands,
        "set",
        devices.set_,
        "Change what is known of a device.",
        "rdvctl device set rpi1100 --label 'Press 4, Lyon'",
        "rdvctl device set rpi1100 --no-legacy",
    )
    _id(change)
    change.add_argument("--label", metavar="TEXT", help="what people call it")
    change.add_argument("--role", choices=_ROLES, help="whether it gives access, or is an engineer's")
    change.add_argument(
        "--legacy", action=BooleanOptionalAction, help="whether to accept the signatures that old devices make"
    )


def _key_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    add = _leaf(
        commands,
        "add",
        devices.add_key,
        "Give a device one more key. It can use any of its keys.",
        "rdvctl key add rpi1100 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5... rpi1100'",
        "rdvctl key add rpi1100 --key-file new.pub",
    )
    _id(add)
    add.add_argument("key", nargs="*", metavar="KEY", help="public key, as in its .pub file")
    _key_file(add)
    remove = _leaf(
        commands,
        "remove",
        devices.remove_key,
        "Take a key from a device. If it is online with that key, it is disconnected at once.",
        "rdvctl key remove rpi1100 SHA256:uNiVztksCsDhcc0u9e8BrJXVGDCz...",
    )
    _id(remove)
    remove.add_argument("fingerprint", metavar="FINGERPRINT", help="the key's fingerprint; see rdvctl key list")
    keys = _leaf(
        commands, "list", devices.list_keys, "List the keys of a device, or of all.", "rdvctl key list rpi1100"
    )
    keys.add_argument("id", nargs="?", metavar="ID", help="id of the device; all if left out")


def _certificate_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    _leaf(
        commands,
        "show",
        server.show_certificate,
        "Show the server's certificate and its authority.",
        "rdvctl certificate show",
    )
    _leaf(
        commands,
        "authority",
        server.authority,
        "Print the certificate authority, to be given to a device before it first connects.",
        "rdvctl certificate authority > server-ca.pem",
    )
    _leaf(
        commands,
        "renew",
        server.renew_certificate,
        "Have the running server use a new certificate. Devices notice nothing: the authority stays.",
        "rdvctl certificate renew",
    )


def _common(default: object, flag: object) -> ArgumentParser:
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


def _group(commands: _SubParsersAction[ArgumentParser], name: str, help: str) -> _SubParsersAction[ArgumentParser]:
    group = commands.add_parser(name, help=help, description=help, formatter_class=RawDescriptionHelpFormatter)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _leaf(
    commands: _SubParsersAction[ArgumentParser], name: str, command: Command, help: str, *examples: str
) -> ArgumentParser:
    leaf = commands.add_parser(
        name,
        help=help,
        description=help,
        epilog=_examples(*examples),
        formatter_class=RawDescriptionHelpFormatter,
        # Without a default of their own they leave alone what stood before the command's name.
        parents=[_common(SUPPRESS, SUPPRESS)],
    )
    leaf.set_defaults(command=command)
    return leaf


def _examples(*lines: str) -> str:
    return "\n".join(("examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines), ""))


def _id(leaf: ArgumentParser) -> None:
    leaf.add_argument("id", metavar="ID", help="id of the device, which is also its account name")


def _key_file(leaf: ArgumentParser) -> None:
    leaf.add_argument("--key-file", metavar="FILE", help="file with public keys, one a line; - for standard input")
