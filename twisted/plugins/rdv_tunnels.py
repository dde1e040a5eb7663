"""The tunnel backends that come with rdvtwisted: a table, and nothing else."""

from tunnels.stunnel import StunnelBackend
from tunnels.tls import TLSBackend

tls = TLSBackend()
stunnel = StunnelBackend()
