"""Commands of C{rdvctl} on the server itself: what is going on, its keys, its certificate."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from rdvtwisted.adapters.control_client import ServerNotRunning
from rdvtwisted.config import sample
from rdvtwisted.errors import InvalidValue, RDVError, StateDirectoryError
from rdvtwisted.services.administrator import Administrator, Answer
from rdvtwisted.services.console import amount, duration
from rdvtwisted.services.tables import listing, table
from rdvtwisted.values import PublicKey


def status(admin: Administrator, _: Namespace) -> Answer:
    """Whether the server runs, and how it is."""
    try:
        facts: dict[str, object] = admin.ask("status")
    except ServerNotRunning as error:
        text = str(error)
        return Answer({"running": False}, f"{text[0].upper()}{text[1:]}.", exit_status=1)
    words = {name.replace("_", " "): value for name, value in facts.items()}
    return Answer({"running": True, **facts}, listing({"running": "yes", **words}))


def online(admin: Administrator, arguments: Namespace) -> Answer:
    """The devices that are here now; or all that ever were."""
    if arguments.all:
        return _seen(admin)
    present = admin.ask("online")
    rows = [
        (
            each["id"],
            each["role"],
            each["address"],
            each["door"],
            each["uplink"],
            _age(admin, each["since"]),
            _age(admin, each["last_heard"]),
            _milliseconds(each["round_trip"]),
            each["lan"],
            each["session"],
        )
        for each in present
    ]
    header = ("DEVICE", "ROLE", "FROM", "DOOR", "UPLINK", "HERE FOR", "SILENT FOR", "RTT", "LAN", "SESSION")
    return Answer(present, table(header, rows) if rows else "No device is online.")


def _seen(admin: Administrator) -> Answer:
    """When and how each device was here last."""
    seen = admin.sightings()
    rows = [
        (
            each["device"],
            each["role"],
            "here" if each["lost"] is None else "gone",
            _age(admin, each["since"] if each["lost"] is None else each["lost"]),
            _age(admin, each["seen"]),
            each["address"],
            each["door"],
            each["uplink"],
            _milliseconds(each["round_trip"]),
            each["reason"],
        )
        for each in seen
    ]
    header = ("DEVICE", "ROLE", "STATE", "SINCE", "LAST SEEN", "FROM", "DOOR", "UPLINK", "RTT", "REASON")
    return Answer(seen, table(header, rows) if rows else "No device is known to have been here.")


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def sessions(admin: Administrator, _: Namespace) -> Answer:
    """The sessions that there are now."""
    views = admin.ask("sessions")
    rows = [
        (
            each["id"],
            # A server that was started before its program was replaced does not tell.
            f"waiting: {each['waiting']}" if each.get("waiting") else each["state"],
            each["onsite"],
            each["master"],
            each["mode"],
            each["backend"],
            each["join"],
            _age(admin, each["selected_at"]),
            amount(each["to_onsite"]),
            amount(each["to_master"]),
        )
        for each in views
    ]
    header = ("SESSION", "STATE", "ONSITE", "MASTER", "MODE", "TUNNEL", "JOIN", "AGE", "TO ONSITE", "TO MASTER")
    return Answer(views, table(header, rows) if rows else "There is no session.")


def end(admin: Administrator, arguments: Namespace) -> Answer:
    """End a session."""
    if not admin.ask("end", id=arguments.id):
        raise InvalidValue("session or device", arguments.id, "it is in no session; see rdvctl sessions")
    return Answer({"ended": arguments.id}, f"The session of {arguments.id} is being ended.")


def host_keys(admin: Administrator, _: Namespace) -> Answer:
    """What devices should see when they first connect."""
    home = Path(admin.settings.state_directory)
    keys = [(str(path), _public_half(path)) for path in sorted(home.glob("ssh_host_*_key"))]
    if not keys:
        raise StateDirectoryError(f"there are no host keys in {home}: the server makes them when it first starts")
    rows = [(key.algorithm, key.fingerprint, path) for path, key in keys]
    authority = next((each for each in _certificates(home) if each["is_authority"]), None)
    if authority is not None:
        # Not its file, which may hold the private key as well and is not for copying.
        rows.append(("certificate authority", authority["fingerprint"], "rdvctl certificate authority"))
    document = {
        "host_keys": [
            {"algorithm": key.algorithm, "fingerprint": key.fingerprint, "line": key.line, "path": path}
            for path, key in keys
        ],
        "authority": authority,
    }
    return Answer(document, table(("KEY", "FINGERPRINT", "WHERE"), rows))


def show_certificate(admin: Administrator, _: Namespace) -> Answer:
    """The certificates in the state directory."""
    found = _found_certificates(admin)
    texts = [
        listing({name: value for name, value in each.items() if name not in ("pem", "is_authority")}) for each in found
    ]
    return Answer(found, "\n\n".join(texts))


def authority(admin: Administrator, _: Namespace) -> Answer:
    """The certificate authority, for a file on a device."""
    for each in _found_certificates(admin):
        if each["is_authority"]:
            return Answer(each, str(each["pem"]).rstrip("\n"))
    raise StateDirectoryError(f"there is no certificate authority in {admin.settings.state_directory}")


def renew_certificate(admin: Administrator, _: Namespace) -> Answer:
    """Have the TLS door use a new certificate."""
    try:
        sentence = admin.ask("renew-certificate")
    except ServerNotRunning as error:
        raise RDVError(f"{error}; only the running server renews its certificate: start it first") from None
    return Answer({"renewed": sentence}, f"Renewed: {sentence}")


def sample_config(_: Administrator, __: Namespace) -> Answer:
    """A settings file with all defaults."""
    text = sample()
    return Answer({"toml": text}, text.rstrip("\n"))


def _age(admin: Administrator, since: float | None) -> str | None:
    return None if since is None else duration(max(0.0, admin.now - since))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StateDirectoryError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _public_half(path: Path) -> PublicKey:
    """The public half of a host key; from the file beside it, where there is one."""
    public = path.with_name(path.name + ".pub")
    try:
        if public.exists():
            return PublicKey.from_line(_read(public).decode("ascii", "replace"))
        private = load_ssh_private_key(_read(path), password=None)
    except (InvalidValue, ValueError, TypeError):
        raise StateDirectoryError(f"{path} holds no usable key") from None
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return PublicKey.from_line(line.decode("ascii"))


def _found_certificates(admin: Administrator) -> list[dict[str, Any]]:
    home = Path(admin.settings.state_directory)
    found = _certificates(home)
    if not found:
        raise StateDirectoryError(f"there is no certificate in {home}: the server makes them when it first starts")
    return found


def _certificates(home: Path) -> list[dict[str, Any]]:
    """The facts of the first certificate in each PEM file. What else is in it, such as a private key, is left out."""
    # A device shows and pins the authority by the same fingerprint.
    from rdvtwisted.adapters.uplink import fingerprint

    found: dict[bytes, dict[str, Any]] = {}
    for path in sorted(home.glob("*.pem")):
        data = _read(path)
        if b"-----BEGIN CERTIFICATE-----" not in data:
            continue
        try:
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError:
            raise StateDirectoryError(f"{path} holds a damaged certificate") from None
        der = certificate.public_bytes(Encoding.DER)
        found.setdefault(
            der,
            {
                "path": str(path),
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "names": _names(certificate),
                "valid_from": certificate.not_valid_before_utc.isoformat(),
                "valid_until": certificate.not_valid_after_utc.isoformat(),
                "fingerprint": fingerprint(der),
                "is_authority": certificate.issuer == certificate.subject,
                "pem": certificate.public_bytes(Encoding.PEM).decode("ascii"),
            },
        )
    return list(found.values())


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]
