"""C{twistd onsite-dev}: options and service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from rdvtwisted.consent import ASK_SECONDS, MOST_WINDOW_SECONDS, WINDOW_SECONDS
from rdvtwisted.errors import InvalidValue
from rdvtwisted.scope import ALL, Destination, Scope
from rdvtwisted.services.assembly import inform, make_onsite
from rdvtwisted.services.boundary import USUAL_FILE, LocalAccess
from rdvtwisted.services.device import ConsentSettings
from rdvtwisted.shell.settings import MOST_CONSENT_SECONDS
from rdvtwisted.values import Role
from tap.device import DeviceOptions, span
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
        [
            "access",
            None,
            None,
            f"File, root's, with access rules that hold whatever the server says. [default: {USUAL_FILE}, if there]",
        ],
        [
            "consent",
            None,
            None,
            "none, or ask: somebody at the site must agree to sessions. [default: ask with either below, else none]",
        ],
        ["consent-file", None, None, "A file that stands for consent as long as it is there; see --consent-window."],
        ["consent-program", None, None, "A program of root's that is asked: its exit status 0 means consent."],
        [
            "consent-time",
            None,
            ASK_SECONDS,
            "Seconds in which somebody must agree.",
            span("--consent-time", MOST_CONSENT_SECONDS),
        ],
        [
            "consent-window",
            None,
            WINDOW_SECONDS,
            "Seconds for which consent holds that does not say for how long.",
            span("--consent-window", MOST_WINDOW_SECONDS),
        ],
        ["backends", "b", None, "Tunnel backends to use, with commas between. [default: all that can be]", names],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.allowed: list[Destination] = []

    def postOptions(self) -> None:
        """Refuse what makes no sense."""
        super().postOptions()
        asks = self["consent-file"] is not None or self["consent-program"] is not None
        if self["consent"] is None:
            self["consent"] = "ask" if asks else "none"
        if self["consent"] not in ("none", "ask"):
            raise usage.UsageError(f"--consent {self['consent']}: use none or ask")
        if asks and self["consent"] == "none":
            raise usage.UsageError("--consent none: --consent-file and --consent-program are for --consent ask")

    def consent(self) -> ConsentSettings:
        """How the site is asked."""
        file, program = self["consent-file"], self["consent-program"]
        return ConsentSettings(
            required=self["consent"] == "ask",
            seconds=self["consent-time"],
            window=self["consent-window"],
            file=file and Path(file).absolute(),
            program=program and Path(program).absolute(),
        )

    def opt_allow(self, text: str) -> None:
        """
        Let a session reach this part of the LAN, and nothing that no such option names: 192.168.1.0/24,
        192.168.1.10:tcp/80,443, '*:icmp'. May be repeated. This device keeps to it whatever the server says.
        """
        try:
            self.allowed.append(Destination.typed(text))
        except InvalidValue as error:
            raise usage.UsageError(f"--allow: {error}") from None

    def access(self) -> LocalAccess:
        """What a session may be and reach, at most."""
        named = self["access"]
        return LocalAccess(
            file=Path(named).absolute() if named else USUAL_FILE,
            required=bool(named),
            scope=Scope.of(self.allowed) if self.allowed else ALL,
        )


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
            access=options.access(),
            consent=options.consent(),
            hooks=options.hooks(),
        )
        return Logged(service, observer(options.log_level, options.parent or {}))
