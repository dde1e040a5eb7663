"""The tunnel backends that come with rdvtwisted: a table, and nothing else."""

from tunnels.tls import TLSBackend
from tunnels.vtun import VtunBackend

tls = TLSBackend()
vtun = VtunBackend()
