"""
The program that clears away what a device has left behind: C{python -m rdvtwisted.services.sweeping DIRECTORY OWNER}.

The device starts it beforehand, see L{rdvtwisted.adapters.network.keeper}. If
the device has been started again meanwhile, that sweeps by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rdvtwisted.adapters.network import transaction
from rdvtwisted.adapters.network.journal import Journal, OwnerBusy
from rdvtwisted.adapters.network.kernel import Kernel
from rdvtwisted.adapters.network.linux import linux
from rdvtwisted.adapters.programs import Programs
from rdvtwisted.errors import RDVError

#: The directory, in that of the journals, that has those of programs.
PROGRAMS_NAME = "programs"


def main(arguments: Sequence[str], kernel: Callable[[], AbstractContextManager[Kernel]] = linux) -> int:
    """
    Sweep, and say on standard error what there was in the network.

    @param arguments: the directory of the journals, in which the directories of programs are, and an owner.
    @return: the exit status; 0 also if somebody else is at work for the owner.
    """
    directory, owner = arguments
    # Its programs have ended with it, but not the files that they were given.
    Programs(None, Path(directory) / PROGRAMS_NAME).sweep()
    journal = Journal(Path(directory))
    try:
        with kernel() as opened:
            found = transaction.sweep(opened, journal, owner)
    except OwnerBusy:
        return 0
    except RDVError as error:
        sys.stderr.write(f"{owner} was ended, and what it has left behind cannot be undone: {error}\n")
        return 1
    finally:
        journal.close()
    if found:
        sys.stderr.write(f"{owner} was ended; removed what it has left behind: {'; '.join(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
