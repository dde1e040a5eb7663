"""A plan as a whole: all of its steps or none, and back again. Blocks."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import NoReturn

from attrs import evolve

from rdvtwisted.adapters.network.journal import Entry, Journal
from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.steps import Before, holds, observe, take, take_back
from rdvtwisted.errors import MissingPrivilege, NetworkError, RDVError
from rdvtwisted.plan import FirewallTable, Plan, Step

_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})


def refusal(what: object, error: OSError) -> RDVError:
    """The line that a user reads when the kernel refuses something."""
    if error.errno in _FORBIDDEN:
        return MissingPrivilege(
            f"may not change the network configuration ({what}): run as root or with the capability CAP_NET_ADMIN"
        )
    return NetworkError(f"the kernel refuses {what}: {error.strerror}")


def apply(kernel: Kernel, journal: Journal, plan: Plan) -> None:
    """
    Take all steps, or leave everything as it was. What is journalled under the
    same owner, by this or an earlier process, is undone first.

    @raise NetworkError: the kernel refuses a step, which is named; or another
        process is at work for the owner.
    @raise MissingPrivilege: this process may not do it.
    @raise MissingProgram: C{nft} is not there.
    @raise rdvtwisted.errors.StateDirectoryError: the journal cannot be written.
    """
    undo(kernel, journal, plan.owner)
    entry = Entry(plan, tuple(_observe(kernel, step) for step in plan.steps))
    journal.write(entry)
    for number, (step, before) in enumerate(zip(plan.steps, entry.before, strict=True), 1):
        try:
            take(kernel, step, before)
        except OSError as error:
            _go_back(kernel, journal, entry, number, refusal(step, error))
        except RDVError as error:
            _go_back(kernel, journal, entry, number, error)


def amend(kernel: Kernel, journal: Journal, plan: Plan) -> None:
    """
    Give firewall tables that are applied under the plan's owner the rules that C{plan} has for them, each in one
    transaction. If the kernel refuses one, that table is as before.

    @raise NetworkError: what is applied is another plan, apart from such rules; or the kernel refuses a table.
    @raise MissingPrivilege: this process may not do it.
    """
    journal.lock(plan.owner)
    entry = journal.read(plan.owner)
    if entry is None or _outline(entry.plan) != _outline(plan):
        raise NetworkError(f"what is configured for {plan.owner} is not what is to be amended")
    journal.write(Entry(plan, entry.before))
    for former, step in zip(entry.plan.steps, plan.steps, strict=True):
        if step != former:
            try:
                take(kernel, step, None)
            except OSError as error:
                raise refusal(step, error) from None


def restore(kernel: Kernel, journal: Journal, owner: str, listings: dict[str, str]) -> list[str]:
    """
    Take again those steps of the plan applied under an owner that somebody else has undone or changed.

    @param listings: what is known to be in the plan's firewall tables, by the steps' text; it is kept up here.
    @return: the steps that were taken again, as text.
    @raise NetworkError: the kernel refuses one: perhaps the interface has gone that they are about.
    @raise MissingPrivilege: this process may not do it.
    """
    entry = journal.read(owner)
    found = []
    for step in () if entry is None else entry.plan.steps:
        try:
            if not _unchanged(kernel, step, listings):
                take(kernel, step, None)
                found.append(str(step))
                if isinstance(step, FirewallTable):  # what is in it now is what is to be in it
                    listings.pop(str(step), None)
                    _unchanged(kernel, step, listings)
        except OSError as error:
            raise refusal(f"to put back {step}", error) from None
    return found


def _unchanged(kernel: Kernel, step: Step, listings: dict[str, str]) -> bool:
    """Whether a step holds, and of a table whether it is as it was known; what is not known is learned."""
    if not isinstance(step, FirewallTable):
        return holds(kernel, step)
    listing = kernel.firewall.listing(step)
    return listing is not None and listings.setdefault(str(step), listing) == listing


def _outline(plan: Plan) -> list[Step]:
    return [evolve(step, rules="") if isinstance(step, FirewallTable) else step for step in plan.steps]


def _observe(kernel: Kernel, step: Step) -> Before:
    try:
        return observe(kernel, step)
    except OSError as error:
        raise refusal(step, error) from None


def _go_back(kernel: Kernel, journal: Journal, entry: Entry, number: int, failure: RDVError) -> NoReturn:
    """
    Take back the first so many steps, then raise C{failure}. The last of them
    is the one that failed: normally nothing of it is there, and what kept it
    from being taken keeps it from being taken back.
    """
    with suppress(OSError, RDVError):
        take_back(kernel, entry.plan.steps[number - 1], entry.before[number - 1])
    try:
        _take_back(kernel, journal, entry, number - 1)
    except RDVError as another:
        raise type(failure)(f"{failure}; and it cannot be undone: {another}") from None
    raise failure from None


def undo(kernel: Kernel, journal: Journal, owner: str) -> list[str]:
    """
    Take back what is journalled under an owner, in reverse. One step that the
    kernel refuses to take back does not keep the others from it; the journal is
    kept then, for another attempt.

    @return: the steps that were still there, as text.
    @raise NetworkError: some step cannot be taken back; or another process is at work for the owner.
    @raise MissingPrivilege: this process may not do it.
    """
    journal.lock(owner)
    entry = journal.read(owner)
    if entry is None:
        journal.remove(owner)  # of another boot, if there is one
        return []
    return _take_back(kernel, journal, entry, len(entry.plan.steps))


def sweep(kernel: Kernel, journal: Journal, owner: str) -> list[str]:
    """
    L{undo} what is journalled under an owner, and under every name that begins with it and a dot.

    @return: the steps that were still there, as text.
    @raise NetworkError: as L{undo}; the others have been undone then.
    @raise MissingPrivilege: as L{undo}.
    """
    found: list[str] = []
    refused: list[RDVError] = []
    for name in (owner, *journal.owners(owner)):
        try:
            found += undo(kernel, journal, name)
        except RDVError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return found


def _take_back(kernel: Kernel, journal: Journal, entry: Entry, number: int) -> list[str]:
    found: list[str] = []
    refused: list[RDVError] = []
    pairs = list(zip(entry.plan.steps, entry.before, strict=True))[:number]
    for step, before in reversed(pairs):
        try:
            if take_back(kernel, step, before):
                found.append(str(step))
        except OSError as error:
            refused.append(refusal(f"to undo {step}", error))
        except RDVError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    journal.remove(entry.plan.owner)
    return found
