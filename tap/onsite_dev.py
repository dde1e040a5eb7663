"""C{twistd onsite-dev}: options and service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService

from rdvtwisted.services.assembly import inform, make_onsite
from rdvtwisted.values import Role
from tap.device import DeviceOptions
from tap.logbook import Logged, observer
from tap.refusal import refusing


def names(text: str) -> tuple[str, ...]:
    """The words of a list with commas between."""
    return tuple(word for word in (each.strip() for each in text.split(",")) if word)


class Options(DeviceOptions):
    """Options of an onsite device."""

    command = "onsite-dev"
    role = Role.ONSITE
    account_variable = "ONSITEDEV_USERNAME"
    synopsis = "[options]"
    longdesc = (
        "Runs an onsite device: it connects to the RDV server, waits until a master opens a session, makes the LAN of"
        " its interface accessible for as long as that lasts, and waits again; for ever. The first start makes the"
        " device's key and prints its public half, which the server's administrator registers with"
        " 'rdvctl device add ID --role onsite --key ...'. Needs CAP_NET_ADMIN."
    )
    optParameters: list[list[Any]] = [
        ["interface", "i", None, "Interface whose LAN is made accessible. [default: that of the default route]"],
        ["backends", "b", None, "Tunnel backends to use, with commas between. [default: all that can be]", names],
    ]


def makeService(options: Options) -> IService:
    """The device; what can be refused is refused before the process goes into the background."""
    with refusing(options.command):
        settings = options.settings() if not options["help-backends"] else None
        if options.only_informs:
            raise SystemExit(inform(settings))
        assert settings is not None
        service = make_onsite(
            settings,
            interface=options["interface"],
            session_seconds=options["session-time"],
            report=options["report"] and Path(options["report"]).absolute(),
            backends=options["backends"],
        )
        return Logged(service, observer(options.log_level, options.parent or {}))
