"""The tunnel backends that come with rdvtwisted: a table, and nothing else."""

from tunnels.stunnel import StunnelBackend
from tunnels.tls import TLSBackend
from tunnels.vtun import VtunBackend

tls = TLSBackend()
stunnel = StunnelBackend()
vtun = VtunBackend()
