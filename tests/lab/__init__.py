"""
A small Internet inside this machine: an RDV server, a customer's LAN behind a NAT
router, a support side behind another, and the engineer's PC.

Needs root and a few Debian packages, no virtualenv: C{script/lab}, the demo, the
tests and the benchmarks all build it with L{Lab}.
"""

from tests.lab.lab import Lab
from tests.lab.private import built_for, private_lab
from tests.lab.processes import LabError, LabProcess
from tests.lab.programs import obstacles
from tests.lab.snapshot import Snapshot

__all__ = ["Lab", "LabError", "LabProcess", "Snapshot", "built_for", "obstacles", "private_lab"]
