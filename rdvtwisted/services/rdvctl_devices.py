"""Commands of C{rdvctl} on devices and their keys: they work on the inventory, whether or not the server runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from rdvtwisted.access import Policy
from rdvtwisted.errors import InvalidValue, RDVError
from rdvtwisted.ports import SSH_PORT
from rdvtwisted.services.administrator import Administrator, Answer, UsageError, reading_arguments
from rdvtwisted.services.console import duration
from rdvtwisted.services.public_keys import keys_of_file, public_key
from rdvtwisted.services.tables import listing, table
from rdvtwisted.values import Device, PublicKey, Role, device_id


def document(device: Device) -> dict[str, object]:
    """A device as JSON shows it."""
    return {
        "id": device.id,
        "role": device.role.value,
        "enabled": device.enabled,
        "legacy": device.legacy,
        "label": device.label,
        "keys": [{"algorithm": key.algorithm, "fingerprint": key.fingerprint, "line": key.line} for key in device.keys],
    }


def add(admin: Administrator, arguments: Namespace) -> Answer:
    """Take a new device in, and say what comes next."""
    with reading_arguments():
        device_id(arguments.id)
    keys = _given_keys(admin, arguments.key, arguments.key_file)
    if not keys:
        raise UsageError(
            "give the device's public key with --key or --key-file; on the device,"
            f" '{_program(Role(arguments.role))} -u {arguments.id} --make-key' makes one"
        )
    with reading_arguments():
        device = Device(arguments.id, Role(arguments.role), keys, legacy=arguments.legacy, label=arguments.label)
    with admin.inventory(create=True) as inventory:
        inventory.add(device)
    server = admin.announce("device-added", device.id, detail=_facts(device))
    lines = [
        f"Added {device.id} ({device.role}) with {_count(len(keys), 'key')}:",
        *(f"  {key}" for key in keys),
        "",
        *_next_steps(admin, device),
    ]
    return Answer({"device": document(device), "server": server}, "\n".join(lines))


def list_(admin: Administrator, _: Namespace) -> Answer:
    """All devices."""
    with admin.inventory() as inventory:
        devices = inventory.devices()
    rows = [
        (each.id, each.role, _state(each), len(each.keys), "yes" if each.legacy else "no", each.label)
        for each in devices
    ]
    text = table(("DEVICE", "ROLE", "STATE", "KEYS", "LEGACY", "LABEL"), rows)
    if not devices:
        text = f"There are no devices in {admin.settings.state_directory} yet. See: rdvctl device add --help"
    return Answer([document(each) for each in devices], text)


def show(admin: Administrator, arguments: Namespace) -> Answer:
    """One device, and whether it is here."""
    with admin.inventory() as inventory:
        device = _device(inventory.device(arguments.id), arguments.id)
    try:
        online = admin.ask_if_running("online")
    except RDVError as error:
        admin.notes.append(str(error))
        online = None
    presence = next((each for each in online or () if each["id"] == device.id), None)
    if presence is not None:
        here = f"yes, for {duration(admin.now - presence['since'])}, from {presence['address']}"
    else:
        here = "unknown, the server is not running" if online is None else "no"
    last = next((each for each in admin.sightings() if each["device"] == device.id), None)
    facts: dict[str, object] = {
        "device": device.id,
        "role": device.role,
        "state": _state(device),
        "legacy": "yes" if device.legacy else "no",
        "label": device.label,
        "online": here,
        "session": presence and presence["session"],
        **_last_seen(admin, last),
        "keys": None if device.keys else "none: it cannot log in",
    }
    if device.keys:
        facts["keys"] = {f"{number}": key for number, key in enumerate(device.keys, 1)}
    whole = {**document(device), "server_running": online is not None, "online": presence, "seen": last}
    return Answer(whole, listing(facts))


def _last_seen(admin: Administrator, last: Mapping[str, Any] | None) -> dict[str, object]:
    """When and how a device was here last, for people."""
    if last is None:
        return {"last seen": "never"}
    trip = last["round_trip"]
    facts: dict[str, object] = {
        "last seen": f"{duration(max(0.0, admin.now - last['seen']))} ago",
        "came by": f"{last['door']}, uplink {last['uplink'] or 'not told'}",
        "round trip": None if trip is None else f"{trip * 1000:.1f} ms",
    }
    if last["lost"] is not None:
        facts["left"] = f"{duration(max(0.0, admin.now - last['lost']))} ago: {last['reason']}"
    return facts


def disable(admin: Administrator, arguments: Namespace) -> Answer:
    """Refuse a device from now on, but keep it."""
    return _change(
        admin, arguments.id, lambda device: evolve(device, enabled=False), "{} is disabled.", "device-disabled"
    )


def enable(admin: Administrator, arguments: Namespace) -> Answer:
    """Let a disabled device in again."""
    return _change(admin, arguments.id, lambda device: evolve(device, enabled=True), "{} is enabled.", "device-enabled")


def set_(admin: Administrator, arguments: Namespace) -> Answer:
    """Change what is known of a device."""
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("label", arguments.label),
            ("legacy", arguments.legacy),
            ("role", arguments.role and Role(arguments.role)),
        )
        if value is not None
    }
    if not changes:
        raise UsageError("say what to change: --label, --role, --legacy or --no-legacy")
    return _change(admin, arguments.id, lambda device: evolve(device, **changes), "{} is changed.", "device-changed")


def remove(admin: Administrator, arguments: Namespace) -> Answer:
    """Forget a device and its keys."""
    with admin.inventory() as inventory:
        before = inventory.policy()
        inventory.remove(arguments.id)
        left = inventory.policy()
    gone = [rule.number for rule in before.rules if rule not in left.rules]
    lost = f"access rules that went with it: {', '.join(map(str, gone))}" if gone else ""
    server = admin.announce("device-removed", arguments.id, detail=lost)
    rules = f" With it went {_count(len(gone), 'access rule')}: {', '.join(map(str, gone))}." if gone else ""
    return Answer(
        {"removed": arguments.id, "rules": gone, "server": server},
        f"{arguments.id} is removed.{_dropped(server)}{rules}",
    )


def add_key(admin: Administrator, arguments: Namespace) -> Answer:
    """Give a device one more key."""
    lines = [" ".join(arguments.words)] if arguments.words else []
    keys = _given_keys(admin, [*lines, *arguments.key], arguments.key_file)
    if not keys:
        raise UsageError("give the key, or the file that has it with --key-file")
    return _change(
        admin,
        arguments.id,
        lambda device: evolve(device, keys=device.keys + keys),
        f"{{}} has {_count(len(keys), 'more key')}: {', '.join(map(str, keys))}.",
        "key-added",
        " ".join(key.fingerprint for key in keys),
    )


def remove_key(admin: Administrator, arguments: Namespace) -> Answer:
    """Take a key from a device."""
    id, wanted = arguments.id, "SHA256:" + arguments.fingerprint.removeprefix("SHA256:")

    def change(device: Device) -> Device:
        left = tuple(key for key in device.keys if key.fingerprint != wanted)
        if left == device.keys:
            raise InvalidValue("fingerprint", wanted, f"{id} has no such key; see rdvctl key list")
        if not left:
            admin.notes.append(f"{id} has no key any more: it cannot log in")
        return evolve(device, keys=left)

    return _change(admin, id, change, f"{{}} has lost the key {wanted}.", "key-removed", wanted)


def list_keys(admin: Administrator, arguments: Namespace) -> Answer:
    """The keys of one device, or of all."""
    with admin.inventory() as inventory:
        if arguments.id is None:
            devices = inventory.devices()
        else:
            devices = [_device(inventory.device(arguments.id), arguments.id)]
    keys = [(device.id, key) for device in devices for key in device.keys]
    rows = [(id, key.algorithm, key.fingerprint) for id, key in keys]
    text = table(("DEVICE", "ALGORITHM", "FINGERPRINT"), rows) if rows else "There are no keys."
    return Answer(
        [
            {"device": id, "algorithm": key.algorithm, "fingerprint": key.fingerprint, "line": key.line}
            for id, key in keys
        ],
        text,
    )


def _change(
    admin: Administrator,
    id: str,
    change: Callable[[Device], Device],
    sentence: str,
    action: str,
    fingerprint: str = "",
) -> Answer:
    def checked(device: Device) -> Device:
        changed = change(device)
        if changed.role is not device.role:
            _refuse_named(inventory.policy(), device, changed.role)
        return changed

    with admin.inventory() as inventory:
        device = inventory.update(id, checked)
    server = admin.announce(action, id, fingerprint=fingerprint, detail=_facts(device))
    return Answer({"device": document(device), "server": server}, sentence.format(id) + _dropped(server))


def _refuse_named(policy: Policy, device: Device, role: Role) -> None:
    """A rule that names a device of the other role would not do what its author thinks."""
    for rule in policy.rules:
        if rule.names(device.id):
            raise InvalidValue("role", role.value, f"rule {rule.number} names {device.id}: remove that first")


def _facts(device: Device) -> str:
    """What a device is now, for the audit trail."""
    legacy = ", legacy" if device.legacy else ""
    label = f", label {device.label}" if device.label else ""
    keys = " ".join(key.fingerprint for key in device.keys) or "none"
    return f"{device.role}, {_state(device)}{legacy}, keys {keys}{label}"


def _given_keys(admin: Administrator, lines: list[str], file: str | None) -> tuple[PublicKey, ...]:
    with reading_arguments():
        keys = [public_key(line) for line in lines]
    if file is not None:
        keys += keys_of_file(file, admin.terminal.stdin)
    return tuple(keys)


def _device(device: Device | None, id: str) -> Device:
    if device is None:
        raise InvalidValue("device id", id, "there is no such device")
    return device


def _next_steps(admin: Administrator, device: Device) -> list[str]:
    names, port = admin.settings.tls.names, admin.settings.ssh.port
    server = (names[0] if names else "SERVER") + ("" if port in (0, SSH_PORT) else f":{port}")
    command = f"{_program(device.role)} -u {device.id} -R {server}"
    if device.role is Role.MASTER:
        command += " --list-onsite"
    where = "" if names else " (SERVER is the name or address of this server)"
    pair = f"{device.id} ONSITE" if device.role is Role.MASTER else f"MASTER {device.id}"
    old = ["  An old device runs its script as before, with the same -u and -R."] if device.legacy else []
    return [
        f"Next, on the device, as root{where}:",
        f"  {command}",
        *old,
        "It pins this server's keys when it first connects; 'rdvctl host-keys' shows what they should be.",
        "Then, here:",
        "  rdvctl online",
        f"  rdvctl access allow {pair}",
    ]


def _program(role: Role) -> str:
    return "rdv-master" if role is Role.MASTER else "twistd -n onsite-dev"


def _state(device: Device) -> str:
    return "enabled" if device.enabled else "disabled"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _dropped(server: dict[str, object]) -> str:
    dropped = server["dropped"]
    return f" {_count(dropped, 'connection')} closed." if isinstance(dropped, int) and dropped else ""
