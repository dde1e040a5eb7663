"""Keeps what a session has configured: others reload firewalls, and tidy up what they do not know."""

from __future__ import annotations

from typing import NoReturn

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from rdvtwisted.errors import NetworkError, RDVError
from rdvtwisted.interfaces import INetwork
from rdvtwisted.services.footing import Changes
from rdvtwisted.services.waiting import first

#: Seconds between two looks if the kernel tells of no change: not every setting makes it speak.
LOOK_SECONDS = 30.0
#: Seconds between two looks in any case, unless something was found: on some machines routes change all the time.
REST_SECONDS = 1.0
#: How often within so many seconds something is put back, before that is given up: somebody means it.
TIMES, TIMES_SECONDS = 20, 60.0

_log = Logger()


async def keep(network: INetwork, clock: IReactorTime, owner: str) -> NoReturn:
    """
    Put back whatever others change of what is applied under an owner, as soon
    as they have, until this is cancelled.

    @raise NetworkError: it cannot be put back, or never for long.
    """
    times: list[float] = []
    changes: Changes | None = None
    failed = False
    try:
        changes = Changes(network, everything=True)
    except NetworkError as error:
        _log.warn("It is looked after every {seconds:.0f} s only: {error}", seconds=LOOK_SECONDS, error=str(error))
    try:
        while True:
            if changes is not None:
                changes.forget()
            try:
                lines = await network.restore(owner)
            except RDVError:
                if failed:
                    raise
                # A tunnel that is just being closed takes its interface along, and tells of its end in a moment.
                failed = True
                await deferLater(clock, REST_SECONDS)
                continue
            failed = False
            for line in lines:
                _log.warn("Somebody else has changed this, and it is put back: {line}", line=line)
            if lines:
                now = clock.seconds()
                times = [time for time in times if now - time < TIMES_SECONDS] + [now]
                if len(times) > TIMES:
                    raise NetworkError(f"somebody else changes this again and again: {lines[0]}")
            else:
                await deferLater(clock, REST_SECONDS)
            another = [changes.another()] if changes is not None else []
            await first([*another, deferLater(clock, LOOK_SECONDS)])
    finally:
        if changes is not None:
            changes.stop()
