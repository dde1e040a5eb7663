"""What a server needs to end tunnels: the backends' ends, an identity, the process that makes namespaces."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from rdvtwisted.adapters.backends import discover, joins
from rdvtwisted.adapters.network import gluer_client, privileges
from rdvtwisted.adapters.network.successor import successor
from rdvtwisted.adapters.ssh.identity import Identity, fleeting_identity
from rdvtwisted.carriers import Carrier
from rdvtwisted.ends import Ends
from rdvtwisted.errors import RDVError
from rdvtwisted.interfaces import IServerSite, IServerTunnel, ITunnelBackend
from rdvtwisted.leases import LeasePool
from rdvtwisted.services.pace import Pace
from rdvtwisted.values import TunnelTerms

#: Seconds before another process that makes namespaces is started in the place of one that has ended, and at most.
FIRST_SECONDS, LONGEST_SECONDS = 0.5, 60.0
#: What the server calls itself in tunnels that end there.
NAME = "rdv-server"


@implementer(IServerSite)
@frozen
class ServerSite:
    """What the server's end of a tunnel gets."""

    reactor: Any
    identity: Identity


def make_ends(reactor: Any, leases: LeasePool, *, door: bool) -> Ends:
    """
    The ends of tunnels by every backend that is installed; nothing can be glued yet.

    @param door: there is a TLS door, by which streams come.
    """
    # Nobody has to know it again: each device is told it anew, over its own connection.
    site = ServerSite(reactor, fleeting_identity(NAME))
    return Ends(leases, dict(_carriers(site, door)), site.identity.public, secrets.token_bytes)


def _carriers(site: ServerSite, door: bool) -> Iterator[tuple[str, Carrier]]:
    for backend in discover().backends:
        possible = joins(backend, door=door)
        end = _server_end(backend, site) if "glue" in possible else None
        yield (
            backend.name,
            Carrier(backend.name, backend.modes, backend.mtu, "relay" in possible, end, backend.inside),
        )


def _server_end(backend: ITunnelBackend, site: ServerSite) -> Callable[[TunnelTerms], IServerTunnel]:
    def end(terms: TunnelTerms) -> IServerTunnel:
        tunnel: IServerTunnel = backend.server_end(terms, site)
        return tunnel

    return end


@define(eq=False)
class Joinery:
    """
    The process that makes the namespaces of sessions, as long as the server runs; should it end, another one.

    @ivar limit: how many sessions there may be at a time; 0 for none.
    """

    _log = Logger()

    _reactor: Any
    _ends: Ends
    _limit: int
    _pace: Pace = field(factory=lambda: Pace(random.random, FIRST_SECONDS, LONGEST_SECONDS), kw_only=True)
    _glue: gluer_client.Glue | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)
    _stopped: bool = field(default=False, init=False)
    _waiting: IDelayedCall | None = field(default=None, init=False)
    _starting: Deferred[None] | None = field(default=None, init=False)

    def start(self) -> None:
        """
        Start it; what keeps it from starting is logged, for the server is of use without it.

        To be called once the process has gone into the background, while it has its privileges.
        """
        if not self._limit:
            self._ends.lacking = "it is switched off (setting session.glue)"
            self._log.info("Tunnels are not ended here (session.glue): old devices cannot have a session")
            return
        try:
            gluer = gluer_client.start(self._limit)
        except RDVError as error:
            self._ends.lacking = str(error)
            self._log.warn(
                "Tunnels cannot be ended here, so that old devices and unlike pairs have no session: {error}",
                error=str(error),
            )
            return
        self._use(gluer)

    def stop(self) -> Deferred[None]:
        """
        End it, after the sessions.

        @return: a Deferred that fires when it has ended.
        """
        self._stopped = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        if self._starting is not None:
            self._starting.cancel()
        return succeed(None) if self._glue is None else self._glue.stop()

    def _use(self, gluer: gluer_client.GluerProcess) -> None:
        self._glue = gluer_client.Glue(gluer, self._reactor)
        self._since = self._reactor.seconds()
        self._ends.glue, self._ends.lacking = self._glue, ""
        self._glue.ended.addCallback(self._lost)

    def _lost(self, _: None) -> None:
        self._glue = self._ends.glue = None
        if self._reactor.seconds() - self._since > LONGEST_SECONDS:
            self._pace.reset()
        if not self._stopped:
            self._ends.lacking = "the process that makes network namespaces has ended, and another is not there yet"
            self._wait()

    def _wait(self) -> None:
        self._waiting = self._reactor.callLater(self._pace.next(), self._start_anew)

    def _start_anew(self) -> None:
        """What the first one needed privileges for, this one may not be able to do."""
        self._waiting = None
        self._starting = successor(self._reactor, self._limit).addCallbacks(self._use_successor, self._failed)

    def _use_successor(self, gluer: gluer_client.GluerProcess) -> None:
        self._starting = None
        self._log.info("There is another process that makes network namespaces")
        self._use(gluer)

    def _failed(self, failure: Failure) -> None:
        self._starting = None
        if self._stopped:
            return
        failure.trap(RDVError)
        self._ends.lacking = f"{failure.getErrorMessage()}; if that stays so, restart the server"
        self._log.error(
            "No other process that makes network namespaces can be started: {error}", error=failure.getErrorMessage()
        )
        self._wait()


def confine(state: Path) -> None:
    """
    Give up every capability of this process for good; started by root, it runs from now on as the owner of its
    state directory.

    @raise MissingPrivilege: it may not.
    """
    owner = state.stat()
    stranger = os.geteuid() == 0 and owner.st_uid != 0
    privileges.drop((owner.st_uid, owner.st_gid) if stranger else None)
