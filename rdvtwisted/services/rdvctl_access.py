"""Commands of C{rdvctl} on access rules: they work on the inventory, whether or not the server runs."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Callable, Iterable

from rdvtwisted.access import EVERYBODY, GROUP_SIGN, Effect, Grant, Policy, Rule
from rdvtwisted.accessfile import LARGEST_FILE, RuleFileError, dump, load, moment, place
from rdvtwisted.adapters.store.inventory import SqlInventory
from rdvtwisted.errors import InvalidValue, RDVError
from rdvtwisted.scope import ALL, EVERYWHERE, Destination, Scope
from rdvtwisted.services import namedfile
from rdvtwisted.services.administrator import Administrator, Answer, UsageError, reading_arguments
from rdvtwisted.services.moments import moment_to_come
from rdvtwisted.services.tables import table
from rdvtwisted.values import Device, Mode, Role

_UNKEPT = "destinations cannot be kept in a bridged session (L2)"
_HEADER = ("RULE", "EFFECT", "MASTER", "ONSITE", "MODES", "DESTINATIONS", "UNTIL", "COMMENT")


def document(rule: Rule) -> dict[str, object]:
    """A rule as JSON shows it; no destinations means all."""
    return {
        "number": rule.number,
        "effect": rule.effect.value,
        "master": rule.master,
        "onsite": rule.onsite,
        "modes": [mode.value for mode in rule.modes],
        "destinations": [str(each) for each in rule.destinations],
        "until": None if rule.until is None else moment(rule.until),
        "comment": rule.comment,
    }


def allow(admin: Administrator, arguments: Namespace) -> Answer:
    """One more rule that allows."""
    return _new(admin, arguments, Effect.ALLOW)


def deny(admin: Administrator, arguments: Namespace) -> Answer:
    """One more rule that denies."""
    return _new(admin, arguments, Effect.DENY)


def list_(admin: Administrator, arguments: Namespace) -> Answer:
    """All rules, or those that are about some device."""
    with admin.inventory() as inventory:
        policy = inventory.policy()
    rules = [
        rule
        for rule in policy.rules
        if (arguments.master is None or rule in _about(policy, arguments.master, rule.onsite))
        and (arguments.onsite is None or rule in _about(policy, rule.master, arguments.onsite))
    ]
    text = _table(rules, admin.now) if rules else "There is no such rule."
    if not policy.rules:
        text = "There is no rule, so no master may use any onsite. See: rdvctl access allow --help"
    return Answer([document(rule) for rule in rules], text)


def remove(admin: Administrator, arguments: Namespace) -> Answer:
    """Rules are no more."""
    with admin.inventory() as inventory:
        before = inventory.policy()
        inventory.update_policy(lambda policy: policy.without_rules(arguments.number))
    gone = [rule for rule in before.rules if rule.number in arguments.number]
    server = admin.announce("access-removed", detail="; ".join(map(_told, gone)))
    return Answer(
        {"removed": [document(rule) for rule in gone], "server": server}, f"Removed:\n{_table(gone, admin.now)}"
    )


def check(admin: Administrator, arguments: Namespace) -> Answer:
    """What the rules come to for a master and an onsite, and which they are."""
    master, onsite = arguments.master, arguments.onsite
    with reading_arguments():
        wanted = None if arguments.destination is None else Destination.typed(arguments.destination)
    with admin.inventory() as inventory:
        policy = inventory.policy()
        for id, role in ((master, Role.MASTER), (onsite, Role.ONSITE)):
            device = _device(inventory, id, role)
            if not device.enabled:
                admin.notes.append(f"{id} is disabled, so nothing of this counts")
    modes = [Mode(arguments.mode)] if arguments.mode else list(Mode)
    grants = {mode: policy.decide(master, onsite, mode, admin.now) for mode in modes}
    rules = [rule for rule in policy.matching(master, onsite) if any(mode in rule.modes for mode in modes)]
    rules.sort(key=lambda rule: rule.number)
    lines = [f"{mode}: {_verdict(grant, wanted)}" for mode, grant in grants.items()]
    if rules:
        lines += ["", f"The rules about {master} and {onsite}, of which a deny beats every allow:", ""]
        lines.append(_table(rules, admin.now))
    else:
        lines += ["", f"No rule is about {master} and {onsite}, and what no rule allows is denied."]
    allowed = {mode: grant is not None and _covers(grant, wanted) is True for mode, grant in grants.items()}
    return Answer(
        {
            "master": master,
            "onsite": onsite,
            "destination": None if wanted is None else str(wanted),
            "modes": {
                mode.value: {"allowed": allowed[mode], **_grant_document(grant)} for mode, grant in grants.items()
            },
            "rules": [document(rule) for rule in rules],
        },
        "\n".join(lines),
        exit_status=0 if any(allowed.values()) else 1,
    )


def export(admin: Administrator, arguments: Namespace) -> Answer:
    """The rules as a file."""
    with admin.inventory() as inventory:
        policy = inventory.policy()
    text = dump(policy)
    if arguments.file not in (None, "-"):
        namedfile.export(arguments.file, [text.encode("utf-8")], 0o666)
        text = f"{_count(len(policy.rules), 'rule')} written to {arguments.file}."
    groups = {name: list(members) for name, members in policy.groups.items()}
    return Answer({"groups": groups, "rules": [document(rule) for rule in policy.rules]}, text.rstrip("\n"))


def import_(admin: Administrator, arguments: Namespace) -> Answer:
    """The rules of a file take the place of those that there are, all at once."""
    text = _read(admin, arguments.file)
    policy = load(text)
    with admin.inventory() as inventory:
        before = inventory.policy()
        for rule in policy.rules:
            for name, role in ((rule.master, Role.MASTER), (rule.onsite, Role.ONSITE)):
                _check_named(inventory, name, role, lambda name, problem: RuleFileError(problem, place(text, name)))
        for members in policy.groups.values():
            for id in members:
                if inventory.device(id) is None:
                    raise RuleFileError(f"there is no device {id!r}", place(text, id))
        if before.rules and not policy.rules and not arguments.remove_all:
            gone = f"there is no rule in it, and {len(before.rules)} would be gone; with --remove-all it is so"
            raise RuleFileError(gone)
        inventory.replace_policy(policy)
    number = _count(len(policy.rules), "rule")
    digest = hashlib.sha256(dump(policy).encode("utf-8")).hexdigest()
    server = admin.announce(
        "access-replaced", detail=f"{number} in place of {len(before.rules)}; export has SHA-256 {digest}"
    )
    return Answer(
        {"rules": len(policy.rules), "groups": len(policy.groups), "replaced": len(before.rules), "server": server},
        f"{number} in place of {len(before.rules)}.",
    )


def list_groups(admin: Administrator, _: Namespace) -> Answer:
    """All groups."""
    with admin.inventory() as inventory:
        groups = inventory.policy().groups
    rows = [(name, " ".join(members)) for name, members in sorted(groups.items())]
    text = table(("GROUP", "DEVICES"), rows) if rows else "There is no group."
    return Answer({name: list(members) for name, members in sorted(groups.items())}, text)


def set_group(admin: Administrator, arguments: Namespace) -> Answer:
    """A group has these devices and no others; it is made if need be."""
    return _group(admin, arguments.name, lambda _: set(arguments.id))


def add_to_group(admin: Administrator, arguments: Namespace) -> Answer:
    """A group has these devices, too; it is made if need be."""
    return _group(admin, arguments.name, lambda members: members | set(arguments.id))


def remove_from_group(admin: Administrator, arguments: Namespace) -> Answer:
    """A group has these devices no more; or is no more itself."""
    if not arguments.id:
        with admin.inventory() as inventory:
            inventory.update_policy(lambda policy: policy.without_group(arguments.name))
        server = admin.announce("group-removed", detail=f"@{arguments.name}")
        return Answer({"removed": arguments.name, "server": server}, f"The group {arguments.name} is removed.")

    def fewer(members: set[str]) -> set[str]:
        for id in arguments.id:
            if id not in members:
                raise InvalidValue("device id", id, f"it is not in the group {arguments.name}")
        return members - set(arguments.id)

    return _group(admin, arguments.name, fewer)


def _new(admin: Administrator, arguments: Namespace, effect: Effect) -> Answer:
    with reading_arguments():
        destinations = tuple(map(Destination.typed, arguments.destination))
        until = None if arguments.until is None else moment_to_come(arguments.until, admin.now)
    modes = (Mode(arguments.mode),) if arguments.mode else tuple(Mode)
    if destinations and Scope.of(destinations) != ALL and Mode.L2 in modes:
        if effect is Effect.DENY:
            admin.notes.append(f"{_UNKEPT}, so L2 is denied as a whole; --mode L3 leaves it alone")
        elif arguments.mode:
            raise UsageError(f"{_UNKEPT}: leave them out, or use --mode L3")
        else:
            modes = (Mode.L3,)
    rule = Rule(effect, arguments.master, arguments.onsite, modes, destinations, until, arguments.comment)
    with admin.inventory() as inventory:
        for name, role in ((rule.master, Role.MASTER), (rule.onsite, Role.ONSITE)):
            _check_named(inventory, name, role, lambda name, problem: InvalidValue("device", name, problem))
        rule = inventory.update_policy(lambda policy: policy.with_rule(rule)).rules[-1]
    server = admin.announce("access-added", detail=_told(rule))
    return Answer({"rule": document(rule), "server": server}, f"Added:\n{_table([rule], admin.now)}")


def _told(rule: Rule) -> str:
    """A rule for the audit trail."""
    modes = "/".join(mode.value for mode in rule.modes)
    destinations = " ".join(map(str, rule.destinations)) or EVERYWHERE
    until = "" if rule.until is None else f" until {moment(rule.until)}"
    comment = f" ({rule.comment})" if rule.comment else ""
    return f"rule {rule.number}: {rule.effect.value} {rule.master} {rule.onsite} {modes} {destinations}{until}{comment}"


def _group(admin: Administrator, name: str, change: Callable[[set[str]], set[str]]) -> Answer:
    with admin.inventory() as inventory:
        policy = inventory.update_policy(
            lambda policy: policy.with_group(name, change(set(policy.groups.get(name, ()))))
        )
    members = policy.groups[name]
    server = admin.announce("group-changed", detail=f"@{name}: {' '.join(members) or 'nobody'}")
    return Answer(
        {"group": name, "devices": list(members), "server": server},
        f"The group {name} has {_count(len(members), 'device')}: {' '.join(members) or '-'}",
    )


def _check_named(inventory: SqlInventory, name: str, role: Role, complaint: Callable[[str, str], InvalidValue]) -> None:
    """A rule that names no device, or one of the other role, would not do what its author thinks."""
    if name == EVERYBODY or name.startswith(GROUP_SIGN):
        return
    device = inventory.device(name)
    if device is None:
        raise complaint(name, f"there is no device {name!r}")
    if device.role is not role:
        raise complaint(name, f"{name} is {_article(device.role)}, where {_article(role)} is to be named")


def _device(inventory: SqlInventory, id: str, role: Role) -> Device:
    _check_named(inventory, id, role, lambda name, problem: InvalidValue("device", name, problem))
    device = inventory.device(id)
    if device is None:
        raise InvalidValue("device", id, "name one device, not all or a group")
    return device


def _article(role: Role) -> str:
    return "an onsite" if role is Role.ONSITE else "a master"


def _about(policy: Policy, master: str, onsite: str) -> Iterable[Rule]:
    return policy.matching(master, onsite)


def _covers(grant: Grant, wanted: Destination | None) -> bool | None:
    """Whether a grant has all of a destination; C{None}: a part of it."""
    if wanted is None:
        return True
    scope = Scope.of([wanted])
    found = scope & grant.scope
    return found == scope or (None if found else False)


def _verdict(grant: Grant | None, wanted: Destination | None) -> str:
    if grant is None:
        return "no"
    covers = _covers(grant, wanted)
    if covers is False:
        return f"no, not to {wanted}"
    end = "" if grant.ends_at is None else f", until {moment(grant.ends_at)}"
    if wanted is not None:
        return (
            f"yes, to {wanted}{end}" if covers else f"in part, of {wanted} to {Scope.of([wanted]) & grant.scope}{end}"
        )
    if grant.scope == ALL:
        return f"yes, to the whole LAN{end}"
    return f"yes{end}, to" + "".join(f"\n  {each}" for each in grant.scope.destinations())


def _grant_document(grant: Grant | None) -> dict[str, object]:
    if grant is None:
        return {"destinations": [], "until": None}
    return {
        "destinations": list(map(str, grant.scope.destinations())),
        "until": None if grant.ends_at is None else moment(grant.ends_at),
    }


def _table(rules: Iterable[Rule], now: float) -> str:
    return table(
        _HEADER,
        [
            (
                rule.number,
                rule.effect,
                rule.master,
                rule.onsite,
                " ".join(mode.value for mode in rule.modes),
                " ".join(map(str, rule.destinations)) or EVERYWHERE,
                "" if rule.until is None else moment(rule.until) + ("" if rule.lives(now) else " (over)"),
                rule.comment,
            )
            for rule in rules
        ],
    )


def _read(admin: Administrator, file: str) -> str:
    try:
        if file == "-":
            text = admin.terminal.stdin.read(LARGEST_FILE + 1)
        else:
            with namedfile.opened(file) as opened:
                text = opened.read(LARGEST_FILE + 1).decode("utf-8")
    except OSError as error:
        raise RDVError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise RuleFileError("it is not UTF-8 text") from None
    if len(text) > LARGEST_FILE:
        raise RuleFileError(f"it is larger than {LARGEST_FILE} bytes")
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
