"""The command of C{rdvctl} that tells which tunnel backends there are, and what keeps the server from using them."""

from __future__ import annotations

from argparse import Namespace

from attrs import frozen

from rdvtwisted.adapters.backends import discover, joins
from rdvtwisted.config import ServerSettings
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import ITunnelBackend
from rdvtwisted.services.administrator import Administrator, Answer
from rdvtwisted.services.tables import table

#: What the running server says when nothing keeps it from ending tunnels.
AVAILABLE = "available"


def words(backend: ITunnelBackend) -> tuple[str, str]:
    """The modes and the joins of a backend, for people."""
    return ", ".join(sorted(mode.value for mode in backend.modes)), ", ".join(joins(backend))


@frozen
class Obstacles:
    """
    What keeps this server from joining tunnels.

    @ivar door: it has a TLS door.
    @ivar glue: why it cannot end tunnels, in a sentence; empty if it can.
    @ivar running: it runs, and was asked.
    """

    door: bool
    glue: str
    running: bool

    def ways(self, backend: ITunnelBackend) -> list[str]:
        """How the server can join two tunnels of a backend."""
        return [join for join in joins(backend, door=self.door) if join == "relay" or not self.glue]


def list_(admin: Administrator, _: Namespace) -> Answer:
    """The tunnel backends that are installed, how this server joins them, and what is missing."""
    found = discover()
    obstacles = _obstacles(admin)
    documents = [_document(backend, obstacles) for backend in found.backends]
    rows = [
        (
            backend.name,
            *words(backend),
            ", ".join(obstacles.ways(backend)) or "no",
            ", ".join(backend.needs),
            backend.summary,
        )
        for backend in found.backends
    ]
    header = ("BACKEND", "MODES", "JOIN", "USABLE HERE", "A DEVICE NEEDS", "WHAT IT IS")
    lines = [table(header, rows) if rows else "There is no tunnel backend."]
    if not obstacles.door:
        lines.append("This server has no TLS door, by which streams would come (setting tls.enabled).")
    if obstacles.glue:
        lines.append(f"This server cannot end tunnels (glue): {obstacles.glue}.")
    lines += [
        f"As a device this machine could not use {backend.name}, for want of {missing.what}: {missing.cure}."
        for backend in found.backends
        for missing in backend.missing()
    ]
    admin.notes += found.problems
    good = documents and not found.problems and all(document["usable"] for document in documents)
    document = {
        "server_running": obstacles.running,
        "door": obstacles.door,
        "glue": obstacles.glue or AVAILABLE,
        "backends": documents,
        "problems": list(found.problems),
    }
    return Answer(document, "\n".join(lines), exit_status=0 if good else 1)


def _document(backend: ITunnelBackend, obstacles: Obstacles) -> dict[str, object]:
    return {
        "name": backend.name,
        "summary": backend.summary,
        "modes": sorted(mode.value for mode in backend.modes),
        "joins": list(joins(backend)),
        "usable": obstacles.ways(backend),
        "mtu": backend.mtu,
        "needs": list(backend.needs),
        "missing_on_device": [{"what": missing.what, "cure": missing.cure} for missing in backend.missing()],
    }


def _obstacles(admin: Administrator) -> Obstacles:
    status = admin.ask_if_running("status")
    if status is None:
        return Obstacles(admin.settings.tls.enabled, _why_no_glue(admin.settings), False)
    return Obstacles("tls_port" in status, "" if status["glue"] == AVAILABLE else str(status["glue"]), True)


def _why_no_glue(settings: ServerSettings) -> str:
    """What a server would find that was started by whoever gives this command; by trying."""
    if not settings.session.glue:
        return "it is switched off (setting session.glue)"
    from rdvtwisted.adapters.network import gluer_client

    try:
        gluer = gluer_client.start(1)
    except RDVError as error:
        return str(error)
    # It ends with its socket.
    gluer.connection.close()
    gluer.process.wait()
    return ""
