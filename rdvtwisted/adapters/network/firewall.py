"""Firewall tables, through the program C{nft}: one transaction a call."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

from zope.interface import implementer

from rdvtwisted.adapters.network.kernel import IFirewall
from rdvtwisted.errors import MissingProgram
from rdvtwisted.plan import FirewallTable

#: Where nft is looked for: PATH of a service often lacks the last three.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))

#: Seconds that a transaction may take; it normally takes some ten milliseconds.
_PATIENCE = 15.0


def _errno(complaint: str) -> int:
    """nft ends a refusal of the kernel with strerror's words; what it refuses itself is syntax."""
    for number in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.EOPNOTSUPP, errno.EBUSY):
        if os.strerror(number) in complaint:
            return number
    return errno.EINVAL


@implementer(IFirewall)
class Firewall:
    """The tables of the network namespace that this process is in."""

    def __init__(self, program: str | None = None) -> None:
        """
        @param program: absolute path of C{nft}; L{None}: look for it.
        """
        self._program = program

    def replace(self, table: FirewallTable) -> None:
        # Named twice: the first makes sure that there is one to delete, whatever was there.
        name = f"table {table.family} {table.name}"
        self._run(f"{name}\ndelete {name}\n{name} {{\n{table.rules}}}\n")

    def listing(self, table: FirewallTable) -> str | None:
        try:
            return self._run("", "-s", "-t", "list", "table", table.family, table.name)
        except FileNotFoundError:
            return None

    def remove(self, table: FirewallTable) -> bool:
        try:
            self._run(f"delete table {table.family} {table.name}\n")
        except FileNotFoundError:
            return False
        return True

    def _run(self, script: str, *arguments: str) -> str:
        """Have nft carry out a script, or a command in its arguments; what it prints."""
        program = self._program or shutil.which("nft", path=_PLACES)
        if program is None:
            raise MissingProgram("nft is not installed: install the package nftables")
        try:
            ended = subprocess.run(
                [program, *(arguments or ("-f", "-"))],
                input=script.encode("ascii"),
                capture_output=True,
                cwd="/",
                env={"LC_ALL": "C"},
                timeout=_PATIENCE,
                check=False,
            )
        except FileNotFoundError:
            raise MissingProgram(f"{program} is not there: install the package nftables") from None
        except subprocess.TimeoutExpired:
            raise OSError(errno.ETIMEDOUT, f"nft did not answer within {_PATIENCE:.0f} s") from None
        if ended.returncode != 0:
            lines = ended.stderr.decode("utf-8", "replace").splitlines() or [f"exit status {ended.returncode}"]
            raise OSError(_errno(ended.stderr.decode("utf-8", "replace")), f"nft: {lines[0]}")
        return ended.stdout.decode("utf-8", "replace")
