"""The command line of C{rdvctl}: its commands, their arguments, and the help on each."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter, _SubParsersAction

import rdvtwisted
from rdvtwisted.services import rdvctl_access as access
from rdvtwisted.services import rdvctl_audit as audit
from rdvtwisted.services import rdvctl_backends as backends
from rdvtwisted.services import rdvctl_devices as devices
from rdvtwisted.services import rdvctl_server as server
from rdvtwisted.services.rdvctl_parser import Parser, add_command, add_group, common_options, examples, whole_number
from rdvtwisted.values import Mode, Role

_ROLES = tuple(role.value for role in Role)
_MODES = tuple(mode.value for mode in Mode)


def parser() -> ArgumentParser:
    """
    Understands C{rdvctl}'s arguments. What it makes of them has the L{Command
    <rdvtwisted.services.rdvctl_parser.Command>} as C{command}.

    The options that all commands have may stand before or behind the command's name.
    """
    top: ArgumentParser = Parser(
        prog="rdvctl",
        description="Administer an RDV server: devices, their keys, access, who is online, sessions, certificates.\n"
        "Works on the server's files, whether it runs or not; a running server takes note at once.",
        epilog=examples(
            "rdvctl device add rpi1100 --role onsite --key-file rpi1100.pub",
            "rdvctl online",
            "rdvctl end rpi1100",
            "rdvctl --json device list",
            "rdvctl device add --help",
        )
        + "\nExit status: 0 done, 1 not done, 2 the command line makes no sense.",
        formatter_class=RawDescriptionHelpFormatter,
        parents=[common_options(None, False)],
    )
    top.add_argument("--version", action="version", version=f"rdvctl {rdvtwisted.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _device_commands(add_group(commands, "device", "Devices: the accounts that may log in."))
    _key_commands(add_group(commands, "key", "Keys of devices."))
    _access_commands(
        add_group(commands, "access", "Access rules: which master may use which onsite, and what of its LAN.")
    )
    _audit_commands(add_group(commands, "audit", "The audit trail: who did what, when, from where, to which device."))
    online = add_command(
        commands, "online", server.online, "List the devices that are online.", "rdvctl online", "rdvctl online --all"
    )
    online.add_argument(
        "--all", action="store_true", help="also those that are not: when and how they were seen last, why they left"
    )
    add_command(commands, "sessions", server.sessions, "List the sessions, and what is waited for.", "rdvctl sessions")
    end = add_command(commands, "end", server.end, "End a session.", "rdvctl end rpi1100")
    end.add_argument("id", metavar="ID", help="id of the session, or of one of its devices")
    add_command(
        commands,
        "status",
        server.status,
        "Show whether the server runs, and how it is. Exit status 1 if it does not run.",
        "rdvctl status",
    )
    add_command(
        commands,
        "backends",
        backends.list_,
        "List the tunnel backends: what each can do, and what is missing on this server. Exit status 1 if one of them"
        " cannot be used here.",
        "rdvctl backends",
    )
    _certificate_commands(add_group(commands, "certificate", "Certificates of the TLS door."))
    add_command(
        commands,
        "host-keys",
        server.host_keys,
        "Show the fingerprints of the server's keys, to compare with what a device shows when it first connects.",
        "rdvctl host-keys",
    )
    add_command(
        commands,
        "sample-config",
        server.sample_config,
        "Print a settings file that has every setting with its default.",
        "rdvctl sample-config > /etc/rdvtwisted/server.toml",
    )
    return top


def _device_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    add = add_command(
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
    _keys(add)
    add.add_argument("--label", default="", metavar="TEXT", help="what people call it")
    add.add_argument("--legacy", action="store_true", help="accept the signatures that old devices make (ssh-rsa)")
    add_command(commands, "list", devices.list_, "List all devices.", "rdvctl device list")
    _id(add_command(commands, "show", devices.show, "Show a device.", "rdvctl device show rpi1100"))
    _id(
        add_command(
            commands,
            "disable",
            devices.disable,
            "Refuse a device, but keep it. If it is online, it is disconnected at once.",
            "rdvctl device disable rpi1100",
        )
    )
    _id(
        add_command(
            commands, "enable", devices.enable, "Let a disabled device in again.", "rdvctl device enable rpi1100"
        )
    )
    _id(
        add_command(
            commands,
            "remove",
            devices.remove,
            "Forget a device and its keys. If it is online, it is disconnected at once.",
            "rdvctl device remove rpi1100",
        )
    )
    change = add_command(
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
    add = add_command(
        commands,
        "add",
        devices.add_key,
        "Give a device one more key. It can use any of its keys.",
        "rdvctl key add rpi1100 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5... rpi1100'",
        "rdvctl key add rpi1100 --key-file new.pub",
    )
    _id(add)
    add.add_argument("words", nargs="*", default=[], metavar="KEY", help="public key, as in its .pub file")
    _keys(add)
    remove = add_command(
        commands,
        "remove",
        devices.remove_key,
        "Take a key from a device. If it is online with that key, it is disconnected at once.",
        "rdvctl key remove rpi1100 SHA256:uNiVztksCsDhcc0u9e8BrJXVGDCz...",
    )
    _id(remove)
    remove.add_argument("fingerprint", metavar="FINGERPRINT", help="the key's fingerprint; see rdvctl key list")
    keys = add_command(
        commands, "list", devices.list_keys, "List the keys of a device, or of all.", "rdvctl key list rpi1100"
    )
    keys.add_argument("id", nargs="?", metavar="ID", help="id of the device; all if left out")


def _access_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    _rule(
        add_command(
            commands,
            "allow",
            access.allow,
            "Allow a master to use an onsite. What no rule allows is denied, and a deny beats every allow.",
            "rdvctl access allow '*' '*'",
            "rdvctl access allow ann rpi1100 192.168.1.10:tcp/80,443 192.168.1.20:icmp --until +8h",
            "rdvctl access allow @support @lyon --mode L3 --comment 'contract 4711'",
        )
    )
    _rule(
        add_command(
            commands,
            "deny",
            access.deny,
            "Deny a master an onsite, or only some destinations there. Running sessions follow at once.",
            "rdvctl access deny ann '*'",
            "rdvctl access deny '*' rpi1100 192.168.1.1",
        )
    )
    rules = add_command(commands, "list", access.list_, "List the rules.", "rdvctl access list --master ann")
    rules.add_argument("--master", metavar="ID", help="only those that are about this master")
    rules.add_argument("--onsite", metavar="ID", help="only those that are about this onsite")
    remove = add_command(commands, "remove", access.remove, "Remove rules.", "rdvctl access remove 3 4")
    remove.add_argument("number", nargs="+", type=int, metavar="RULE", help="its number; see rdvctl access list")
    check = add_command(
        commands,
        "check",
        access.check,
        "Tell whether a master may use an onsite, and which rules say so. Exit status 1 if it may not.",
        "rdvctl access check ann rpi1100",
        "rdvctl access check ann rpi1100 192.168.1.10:tcp/22 --mode L3",
    )
    check.add_argument("master", metavar="MASTER", help="id of the master")
    check.add_argument("onsite", metavar="ONSITE", help="id of the onsite")
    check.add_argument("destination", nargs="?", metavar="DESTINATION", help="whether it may get there")
    check.add_argument("--mode", choices=_MODES, help="only this mode")
    export = add_command(
        commands, "export", access.export, "Write all rules and groups as a file.", "rdvctl access export > access.toml"
    )
    export.add_argument("file", nargs="?", metavar="FILE", help="where to; standard output if left out")
    import_ = add_command(
        commands,
        "import",
        access.import_,
        "Put the rules and groups of a file in place of all that there are; all of them or, if one is wrong, none.",
        "rdvctl access import access.toml",
    )
    import_.add_argument("file", metavar="FILE", help="as rdvctl access export writes it; - for standard input")
    import_.add_argument("--remove-all", action="store_true", help="also if there is no rule in it: none is left")
    _group_commands(add_group(commands, "group", "Groups of devices, which rules name as @NAME."))


def _rule(leaf: ArgumentParser) -> None:
    leaf.add_argument("master", metavar="MASTER", help="id of a master, @GROUP, or '*' for all")
    leaf.add_argument("onsite", metavar="ONSITE", help="id of an onsite, @GROUP, or '*' for all")
    leaf.add_argument(
        "destination",
        nargs="*",
        default=[],
        metavar="DESTINATION",
        help="part of the LAN, such as 192.168.1.0/24, 192.168.1.10:tcp/80,443, 192.168.1.20-192.168.1.29:udp,"
        " '*:icmp'; all of it if left out",
    )
    leaf.add_argument("--mode", choices=_MODES, help="only this mode")
    leaf.add_argument(
        "--until", metavar="WHEN", help="end of the rule: +30m, +8h, +3d, +2w, 2030-07-01, 2030-07-01T18:00"
    )
    leaf.add_argument("--comment", default="", metavar="TEXT", help="why there is this rule")


def _group_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    add_command(commands, "list", access.list_groups, "List the groups.", "rdvctl access group list")
    for name, command, help, least in (
        ("set", access.set_group, "Give a group these devices and no others. It is made if need be.", "*"),
        ("add", access.add_to_group, "Add devices to a group. It is made if need be.", "+"),
        ("remove", access.remove_from_group, "Take devices out of a group; without any, remove the group.", "*"),
    ):
        leaf = add_command(commands, name, command, help, f"rdvctl access group {name} lyon rpi1100 rpi1102")
        leaf.add_argument("name", metavar="NAME", help="name of the group, without @")
        leaf.add_argument("id", nargs=least, default=[], metavar="ID", help="id of a device")


def _audit_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    entries = add_command(
        commands,
        "list",
        audit.list_,
        "List the newest entries.",
        "rdvctl audit list",
        "rdvctl audit list --device rpi1100 --since 2d",
        "rdvctl audit list --action session-ended --since 2030-07-01 --until 2030-08-01 --last 0",
    )
    _selection(entries)
    entries.add_argument("--last", type=whole_number, default=100, metavar="N", help="at most so many [100]; 0 for all")
    show = add_command(commands, "show", audit.show, "Show an entry, all of it.", "rdvctl audit show 17")
    show.add_argument("number", type=int, metavar="ENTRY", help="its number; see rdvctl audit list")
    verify = add_command(
        commands,
        "verify",
        audit.verify_,
        "Check that nothing in the trail was altered, taken out, put in or moved. Exit status: 1 if so, 3 if none.",
        "rdvctl audit verify",
        "rdvctl audit verify --head 17:8c7dd922ad47494fc02c388e12c00eac3f1d5a8f4b0a6b3e1f9d1c5e2b7a6d40",
        "rdvctl audit verify --file exported.jsonl",
    )
    verify.add_argument(
        "--head", metavar="MARK", help="an entry that must be there, as rdvctl audit head has printed it once"
    )
    verify.add_argument("--after", metavar="MARK", help="the last entry of an earlier part that is kept elsewhere")
    verify.add_argument("--file", metavar="FILE", help="a file that was exported; - for standard input")
    export = add_command(
        commands,
        "export",
        audit.export,
        "Write entries as they are, one JSON object a line. All of them can be verified; a selection cannot.",
        "rdvctl audit export > trail.jsonl",
        "rdvctl audit export --since 24h --action session-ended sessions.jsonl",
    )
    _selection(export)
    export.add_argument("file", nargs="?", metavar="FILE", help="where to; standard output if left out")
    add_command(
        commands,
        "head",
        audit.head,
        "Print the mark of the last entry, to be kept where the server cannot change it; see rdvctl audit verify.",
        "rdvctl audit head",
    )


def _selection(leaf: ArgumentParser) -> None:
    when = "30m, 8h, 3d or 2w ago, 2030-07-01, 2030-07-01T18:00, or ...T18:00Z"
    leaf.add_argument("--since", metavar="WHEN", help=f"only what happened then or later: {when}")
    leaf.add_argument("--until", metavar="WHEN", help="only what happened before")
    leaf.add_argument("--device", metavar="ID", help="only what this device did, or was done to it")
    leaf.add_argument("--session", metavar="ID", help="only this session")
    leaf.add_argument("--action", metavar="ACTION", help="only this, such as session-ended")


def _certificate_commands(commands: _SubParsersAction[ArgumentParser]) -> None:
    add_command(
        commands,
        "show",
        server.show_certificate,
        "Show the server's certificate and its authority.",
        "rdvctl certificate show",
    )
    add_command(
        commands,
        "authority",
        server.authority,
        "Print the certificate authority, to be given to a device before it first connects.",
        "rdvctl certificate authority > server-ca.pem",
    )
    add_command(
        commands,
        "renew",
        server.renew_certificate,
        "Have the running server use a new certificate. Devices notice nothing: the authority stays.",
        "rdvctl certificate renew",
    )


def _id(leaf: ArgumentParser) -> None:
    leaf.add_argument("id", metavar="ID", help="id of the device, which is also its account name")


def _keys(leaf: ArgumentParser) -> None:
    leaf.add_argument(
        "--key", action="append", default=[], metavar="KEY", help="public key, as in its .pub file; may be repeated"
    )
    leaf.add_argument("--key-file", metavar="FILE", help="file with public keys, one a line; - for standard input")
