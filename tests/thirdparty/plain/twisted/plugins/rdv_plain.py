"""Where rdvtwisted finds the backend."""

from rdvplain.backend import PlainBackend

plain = PlainBackend()
