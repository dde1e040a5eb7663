"""C{twistd master-dev}, and the plain command C{rdv-master} with the same options and its real exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from rdvtwisted.errors import InvalidValue
from rdvtwisted.services.assembly import inform, make_master
from rdvtwisted.services.master import MasterService, MasterSettings
from rdvtwisted.services.process import exit_with_status_of, run_in_foreground
from rdvtwisted.services.resumption import RESUME_SECONDS
from rdvtwisted.values import Mode, Role, device_id
from tap.device import DeviceOptions, seconds
from tap.logbook import Logged, observer
from tap.refusal import BAD_USAGE, refuse, refusing


class Options(DeviceOptions):
    """Options of a master device."""

    command = "master-dev"
    role = Role.MASTER
    account_variable = "MASTERDEV_USERNAME"
    synopsis = "[options]"
    longdesc = (
        "Opens a session to an onsite device: whatever enters this machine by the extremity interface, where the"
        " engineer's PC is, reaches the customer's LAN until Ctrl-C. 'twistd' puts it into the background unless it"
        " is called as 'twistd -n master-dev ...'; 'rdv-master ...' is the plain command for a terminal. Exit status:"
        " 0 ended by the operator, the administrator or the time limit, 1 the server or this machine refuses, 2 bad"
        " usage, 3 no trusted connection to the server, or lost, 4 the tunnel failed, or the site did not agree."
    )
    optFlags = [
        ["list-onsite", "l", "Print the online onsite devices."],
        ["no-resume", None, "End when the session is lost, instead of trying to have it again for two minutes."],
        ["no-dhcp", None, "In mode L2, let the LAN give the PC no addresses (DHCP, IPv6 autoconfiguration)."],
    ]
    optParameters: list[list[Any]] = [
        ["onsite", "o", None, "The onsite device to open a session to."],
        ["tunnel-mode", "m", "L3", "L3 (routed), or L2 (bridged: the PC is on the customer's LAN)."],
        ["extremity", "e", None, "Interface towards the engineer's PC. [default: that of the default route]"],
        ["backend", "b", None, "Tunnel backend to use. [default: the first that both devices have]"],
        ["wait", "w", None, "Seconds to wait for an absent onsite. [default: for ever]", seconds("--wait")],
    ]

    def postOptions(self) -> None:
        """Refuse what makes no sense."""
        super().postOptions()
        if self.only_informs:
            return
        if self["tunnel-mode"] not in list(Mode):
            raise usage.UsageError(f"--tunnel-mode {self['tunnel-mode']}: use L3 or L2")
        if self["no-dhcp"] and self["tunnel-mode"] != Mode.L2:
            raise usage.UsageError("--no-dhcp: only mode L2 carries DHCP; use it with --tunnel-mode L2")
        if self["onsite"] is None and not self["list-onsite"]:
            raise usage.UsageError("Error: --onsite argument is mandatory if --list-onsite is not used")
        if self["onsite"] is not None:
            try:
                device_id(self["onsite"])
            except InvalidValue as error:
                raise usage.UsageError(str(error)) from None


def _master(options: Options, *, terminal: bool) -> MasterService:
    settings = None if options["help-backends"] else options.settings()
    if options.only_informs:
        raise SystemExit(inform(settings))
    assert settings is not None
    return make_master(
        settings,
        MasterSettings(
            onsite=options["onsite"],
            list_onsite=bool(options["list-onsite"]),
            mode=Mode(options["tunnel-mode"]),
            extremity=options["extremity"],
            dhcp=not options["no-dhcp"],
            session_seconds=options["session-time"],
            wait_seconds=options["wait"],
            resume_seconds=0.0 if options["no-resume"] else RESUME_SECONDS,
            backends=None if options["backend"] is None else (options["backend"],),
        ),
        report=options["report"] and Path(options["report"]).absolute(),
        hooks=options.hooks(),
        terminal=terminal,
    )


def makeService(options: Options) -> IService:
    """The device; when the session is over C{twistd} ends with the session's exit status."""
    with refusing(options.command):
        master = _master(options, terminal=False)
        exit_with_status_of(master)
        return Logged(master, observer(options.log_level, options.parent or {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command C{rdv-master}.

    @return: the exit status.
    @raise SystemExit: it refuses to begin.
    """
    options = Options()
    options.synopsis = "Usage: rdv-master [options]"
    try:
        options.parseOptions(list(sys.argv[1:] if arguments is None else arguments))
    except usage.UsageError as error:
        refuse("rdv-master", str(error), BAD_USAGE)
    with refusing("rdv-master"):
        return run_in_foreground(_master(options, terminal=True), bool(options["debug"]))
