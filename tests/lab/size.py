"""What a process holds of the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from tests.lab.processes import LabProcess


@frozen
class Size:
    """
    What a process holds at one moment.

    @ivar memory: bytes.
    @ivar descriptors: how many it has open, but the ends of pipes.
    @ivar pipes: how many ends of pipes it has open; a relay keeps some spare ones.
    """

    memory: int
    descriptors: int
    pipes: int
    threads: int

    @classmethod
    def of(cls, process: LabProcess | None) -> Size:
        """That of one that runs."""
        assert process is not None
        home = Path(f"/proc/{process.pid}")
        facts = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
        links = []
        for path in (home / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(path))
        pipes = sum(link.startswith("pipe:") for link in links)
        return cls(int(facts["VmRSS"].split()[0]) * 1024, len(links) - pipes, pipes, int(facts["Threads"]))
