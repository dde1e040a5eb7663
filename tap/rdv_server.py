"""C{twistd rdv-server}: options and service."""

from __future__ import annotations

import os

from twisted.application.service import IService
from twisted.python import usage

from rdvtwisted.errors import ConfigError
from rdvtwisted.services.server import make_server
from tap.logbook import Logged, observer
from tap.options import CommandOptions
from tap.refusal import BAD_USAGE, refuse, refusing

#: Options that are short names of settings.
_SHORTHANDS = {
    "state-dir": "state_directory",
    "ssh-address": "ssh.address",
    "ssh-port": "ssh.port",
    "tls-address": "tls.address",
    "tls-port": "tls.port",
}


class Options(CommandOptions):
    """Options of the server; every other setting can be given with C{--set}."""

    command = "rdv-server"
    synopsis = "[options]"
    longdesc = (
        "Runs the public rendezvous server. Everything has a default: the first start makes host keys, a certificate"
        " authority and an empty inventory in the state directory. Register devices with 'rdvctl device add'."
        " An option wins over the environment (RDV_SERVER_SSH_PORT=2222), that over the file (see 'rdvctl"
        " sample-config')."
    )
    optParameters = [
        ["config", "c", None, "Settings file, TOML. [default: /etc/rdvtwisted/server.toml, if there]"],
        ["state-dir", "s", None, "Directory for keys and the inventory. [default: /var/lib/rdvtwisted/server]"],
        ["ssh-address", None, None, "Address of the SSH door. [default: all]"],
        ["ssh-port", "p", None, "TCP port of the SSH door. [default: 22]"],
        ["tls-address", None, None, "Address of the TLS door. [default: all]"],
        ["tls-port", None, None, "TCP port of the TLS door. [default: 443]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.overrides: dict[str, str] = {}

    def opt_set(self, setting: str) -> None:
        """Any setting, as SECTION.KEY=VALUE; may be given several times."""
        name, separator, value = setting.partition("=")
        if not separator:
            raise usage.UsageError(f"--set {setting}: write SECTION.KEY=VALUE")
        self.overrides[name] = value

    def postOptions(self) -> None:
        """Take the shorthands for the settings that they are."""
        for option, setting in _SHORTHANDS.items():
            if self[option] is not None:
                self.overrides[setting] = self[option]


def makeService(options: Options) -> IService:
    """
    The server, with its doors bound already: what can be refused is refused
    before the process goes into the background.
    """
    with refusing(options.command):
        try:
            service = make_server(options["config"], os.environ, options.overrides, confined=True)
        except ConfigError as error:
            if error.key in options.overrides:
                refuse(options.command, str(error), BAD_USAGE)
            raise
        return Logged(service, observer(service.log_level, options.parent or {}))
