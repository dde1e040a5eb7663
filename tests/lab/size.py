"""What a process holds of the machine."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from tests.lab.processes import LabProcess


@frozen
class Size:
    """Bytes of memory, open descriptors and threads of a process at one moment."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: LabProcess | None) -> Size:
        """That of one that runs."""
        assert process is not None
        home = Path(f"/proc/{process.pid}")
        facts = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
        return cls(int(facts["VmRSS"].split()[0]) * 1024, len(list((home / "fd").iterdir())), int(facts["Threads"]))
